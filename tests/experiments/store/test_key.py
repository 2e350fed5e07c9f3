"""A key changes with everything that a result depends on, and with nothing else."""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitleak.experiments.cells.attack import AttackCell
from splitleak.experiments.cells.build import cells_of
from splitleak.experiments.cells.fingerprints import model_fingerprint
from splitleak.experiments.planning import plugins
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.store import key

PLAN = """
[victim]
model = "net.py:make"
cut = "first"
size = 32
data = { name = "{source}", path = "{folder}/photos" }
[parts]
train = 4
validation = 2
target = 2
[attacker]
auxiliary = 4
[[defenses]]
name = "mine.py:Mine"
[[attacks]]
name = "acme"
"""
NET = """
from layers import block
from torch import nn


def make():
    network = nn.Sequential()
    network.add_module("first", block())
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flat", nn.Flatten())
    return network
"""
LAYERS = "from torch import nn\n\n\ndef block():\n    return nn.Conv2d(3, 4, 3)\n"
MINE = '''
"""A defence."""

from dataclasses import dataclass
from typing import ClassVar

from helper import factor
from splitleak.defenses.base import Channel, Defense


@dataclass(frozen=True)
class Mine(Defense):
    """Scales."""

    paper: ClassVar[str] = "ours"

    def channel(self, shape):
        """The channel."""
        factor()
        return Channel()
'''
HELPER = "def factor():\n    return 2.0\n"
SOURCE = '''
from dataclasses import dataclass
from typing import ClassVar

from splitleak.victims.data.sources.files import Folder


@dataclass(frozen=True)
class Mirrored(Folder):
    """Photos of a folder."""

    name: ClassVar[str] = "mirrored"
    summary: ClassVar[str] = "mirrored photos"

    def read(self, chosen, size):
        """Left to right."""
        return super().read(chosen, size)
'''
ACME = '''
from dataclasses import dataclass
from typing import ClassVar

from splitleak.attacks.base import Reconstruction
from splitleak.attacks.knowledge import BlackBox

from .inner import blur
from acme_tools.more import sharpen


@dataclass(frozen=True)
class Acme(Reconstruction[BlackBox]):
    """Another author's."""

    paper: ClassVar[str] = "theirs"

    def fit(self, knows):
        """Blur."""
        return blur(knows), sharpen()
'''
STAGES = ("data", "victim", "protect", "attack")
Change = Callable[[Path, pytest.MonkeyPatch], Path | None]


def photo(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(path, "BMP")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a network, a defence, a kind of data set and photos, and another author's package."""
    folder, installed = tmp_path / "project", tmp_path / "installed"
    for name, text in {"net.py": NET, "layers.py": LAYERS, "mine.py": MINE, "helper.py": HELPER}.items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "source.py").write_text(SOURCE)
    for number in range(12):
        photo(folder / "photos" / f"{number:02d}.bmp", 10 * number)
    for name, text in {
        "acme_attack/__init__.py": ACME,
        "acme_attack/inner.py": "def blur(knows):\n    return 1\n",
        "acme_tools/__init__.py": "",
        "acme_tools/more.py": "def sharpen():\n    return 1\n",
    }.items():
        (installed / name).parent.mkdir(parents=True, exist_ok=True)
        (installed / name).write_text(text)
    monkeypatch.syspath_prepend(str(installed))
    entry = importlib.metadata.EntryPoint("acme", "acme_attack:Acme", "splitleak.attacks")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry] if group == "splitleak.attacks" else [])
    return folder


def keys(folder: Path) -> dict[str, str]:
    """Of the defended cell's stages, as a new process finds them."""
    forget()
    (folder / "plan.toml").write_text(
        PLAN.replace("{source}", f"{folder}/source.py:Mirrored").replace("{folder}", str(folder))
    )
    cells = [cell for cell in cells_of(read_plan(folder / "plan.toml")) if cell.defense.plugin.name == "mine"]
    cell = next(cell for cell in cells if cell.attack["name"] == "acme")
    assert isinstance(cell, AttackCell)
    found = {
        stage.label: stage.key for stage in (cell.protect.victim.data, cell.protect.victim, cell.protect, cell.stage)
    }
    forget()
    return found


def forget() -> None:
    """What a process keeps in mind of sources."""
    key.forget()
    model_fingerprint.cache_clear()
    for name in list(sys.modules):
        if name.startswith(("plugin_", "acme_")) or name in ("helper", "layers"):
            del sys.modules[name]


def edit(name: str, old: str, new: str) -> Change:
    def change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def another_version(library: str, of: str) -> Change:
    def change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = key.version
        monkeypatch.setattr(key, "version", lambda name: of if name == library else real(name))

    return change


def minor(library: str) -> str:
    """Of a later minor version."""
    major, this, *_ = importlib.metadata.version(library).split(".")
    return f"{major}.{int(this) + 1}.0"


def patch(library: str) -> str:
    """Of another patch of this version."""
    return ".".join([*importlib.metadata.version(library).split(".")[:2], "99+other"])


def replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A photo becomes another of the same size and time."""
    path = folder / "photos" / "03.bmp"
    before = path.stat()
    photo(path, 200)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def touched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (folder, folder / "photos", *folder.glob("*.py"), *folder.glob("photos/*")):
        os.utime(path, (1, 1))


def moved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return Path(shutil.move(folder, folder.with_name("elsewhere")))


CASES: dict[str, tuple[Change, tuple[str, ...]]] = {
    "a helper beside a plugin edited": (edit("helper.py", "2.0", "3.0"), STAGES[2:]),
    "a plugin edited": (edit("mine.py", "factor()\n        return", "factor() + 1\n        return"), STAGES[2:]),
    "a data source's code edited": (edit("source.py", "size)\n", "size + 0)\n"), STAGES),
    "a network's file edited": (edit("net.py", "AdaptiveAvgPool2d(1)", "AdaptiveAvgPool2d(2)"), STAGES[1:]),
    "a helper beside a network edited": (edit("layers.py", "3, 4, 3", "3, 5, 3"), STAGES[1:]),
    "another author's helper edited": (edit("../installed/acme_attack/inner.py", "1", "2"), STAGES[3:]),
    "another author's other package edited": (edit("../installed/acme_tools/more.py", "1", "2"), STAGES[3:]),
    "torchvision's minor version": (another_version("torchvision", minor("torchvision")), STAGES[1:]),
    "torch's minor version": (another_version("torch", minor("torch")), STAGES),
    "a photo replaced with the same size and time": (replaced, STAGES),
    "torchvision's patch version": (another_version("torchvision", patch("torchvision")), ()),
    "a library that checks input": (another_version("pydantic", "99.0"), ()),
    "a plugin's docstring edited": (edit("mine.py", "Scales.", "Scales features."), ()),
    "a helper's comment and layout edited": (edit("helper.py", "2.0", "(\n        2.0  # twice\n    )"), ()),
    "a data source's docstring edited": (edit("source.py", "Left to right.", "As in a mirror."), ()),
    "everything touched": (touched, ()),
    "the folder moved": (moved, ()),
}


@pytest.mark.parametrize(("change", "recomputed"), CASES.values(), ids=list(CASES))
def test_what_is_computed_again(
    change: Change, recomputed: tuple[str, ...], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(project)
    place = change(project, monkeypatch) or project
    after = keys(place)
    assert tuple(stage for stage in STAGES if before[stage] != after[stage]) == recomputed


def test_another_kind_of_device_computes_its_own(project: Path) -> None:
    keys(project)
    plan = read_plan(project / "plan.toml")
    cpu, cuda = (next(iter(cells_of(plan, device))).protect for device in ("cpu", "cuda"))
    assert cpu.victim.data.key == cuda.victim.data.key
    assert cpu.victim.key != cuda.victim.key
    assert cpu.key != cuda.key


def test_settings_and_upstream_count() -> None:
    from splitleak.attacks.ridge import Ridge
    from splitleak.victims.data.sources.faces import Faces

    facts = [key.fact(one) for one in (Ridge(), Ridge(), Ridge(window=3), Faces(), Faces(seed=1))]
    assert facts[0] == facts[1]
    assert len({str(one) for one in facts}) == 4
