"""The command line in shells that are unlike most: a notebook's, one without Unicode."""

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


def test_a_terminal_without_unicode_is_told_what_it_can_show() -> None:
    command = [sys.executable, "-m", "splitleak.experiments", "cuts", "résumé"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: unknown network 'r?sum?'")
