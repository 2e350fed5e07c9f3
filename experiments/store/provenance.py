"""With what a stage was computed: versions, device, threads, host, and the state of the code."""

import os
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import torch

LIBRARIES = ("splitleak", "torch", "torchvision", "torchmetrics", "opacus", "timm", "numpy", "scipy", "pillow")
"""Whose versions are noted where they are installed."""
GIT_SECONDS = 10.0
WHERE = ("device", "host", "threads", "code")
"""Of the facts, those that are no versions."""


class Made(BaseModel):
    """Where and with what some stages were computed.

    ``stages``: their labels. ``versions``: of the libraries and of Python. ``device``: its type, and a GPU's name.
    ``threads``: of one process. ``commit``: of the project's checkout, None for an installed package; ``clean``:
    whether the checkout was as committed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: tuple[str, ...]
    versions: dict[str, str]
    device: str | None = None
    threads: int | None = None
    host: str | None = None
    commit: str | None = None
    clean: bool | None = None

    def of(self, stages: Iterable[str]) -> "Made":
        """The same of other stages."""
        return self.model_copy(update={"stages": tuple(stages)})

    @property
    def facts(self) -> dict[str, str]:
        """Each thing by which two of them may differ, in words."""
        known = dict(zip(WHERE, (self.device, self.host, self.threads, self.code), strict=True))
        return {**self.versions, **{name: str(value) for name, value in known.items() if value is not None}}

    @property
    def code(self) -> str | None:
        """The commit, and whether there was more than that."""
        return self.commit and self.commit[:10] + ("" if self.clean else " with changes")


def here(label: str, device: "torch.device") -> Made:
    """With what this process computes now."""
    import torch  # who reads what was written does without

    commit, clean = checkout(Path(__file__).resolve().parents[2])
    name = f"{device.type} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type
    return Made(
        stages=(label,),
        versions=_versions(),
        device=name,
        threads=torch.get_num_threads(),
        host=platform.node(),
        commit=commit,
        clean=clean,
    )


def together(made: Iterable[Made]) -> tuple[Made, ...]:
    """Each state once, with the stages that were computed in it: the first seen comes first."""
    stages: dict[str, set[str]] = {}
    found: dict[str, Made] = {}
    for one in made:
        state = one.of(()).model_dump_json()
        found.setdefault(state, one)
        stages.setdefault(state, set()).update(one.stages)
    return tuple(one.of(sorted(stages[state])) for state, one in found.items())


def facts_of(made: Iterable[Made]) -> dict[str, tuple[str, ...]]:
    """Every fact with all its values, in the order in which they occur: one where it is the same everywhere."""
    values: dict[str, dict[str, None]] = {}
    for one in made:
        for name, value in one.facts.items():
            values.setdefault(name, {})[value] = None
    return {name: tuple(found) for name, found in values.items()}


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


@cache
def checkout(project: Path) -> tuple[str | None, bool | None]:
    """The commit of a checkout when this process first asked, and whether it was clean; None where there is none."""
    if not (project / ".git").exists():
        return None, None
    try:
        commit = _git(project, "rev-parse", "HEAD")
        return commit, not _git(project, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(project: Path, *words: str) -> str:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    return subprocess.run(
        ["git", "-C", str(project), *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=GIT_SECONDS,
        env=environment,
    ).stdout.strip()
