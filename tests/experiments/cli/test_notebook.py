"""The command line from a notebook's shell, whose environment names a backend that is not there."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "TkAgg"])
def test_a_notebooks_backend_does_not_matter(backend: str) -> None:
    command = [sys.executable, "-m", "splitleak.experiments", "list", "defenses"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MPLBACKEND": backend})
    assert (done.returncode, done.stderr) == (0, "")
    assert "gaussian_noise" in done.stdout
