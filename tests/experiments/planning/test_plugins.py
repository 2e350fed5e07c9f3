"""Plugins are found by name, and whatever is wrong with one is loud."""

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from splitleak import defenses
from splitleak.attacks.base import Attack, Reconstruction, Reconstructor
from splitleak.attacks.knowledge import QueryFree
from splitleak.attacks.ridge import Ridge
from splitleak.defenses.base import Defense
from splitleak.defenses.none import NoDefense
from splitleak.experiments.planning import plugins
from splitleak.victims.data.base import Source
from splitleak.victims.errors import InvalidInputError

DEFENSE = """
from dataclasses import dataclass, fields
from typing import ClassVar
from splitleak.defenses.base import Defense

@dataclass(frozen=True)
class {name}(Defense):
    paper: ClassVar[str] = "none"
"""


def write(path: Path, *names: str) -> Path:
    path.write_text("\n".join(DEFENSE.format(name=name) for name in names))
    return path


def find(name: str) -> type[Defense]:
    return plugins.find("defence", name, plugins.defense_classes(), Defense)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An empty package like those that are scanned."""
    (tmp_path / "scanned").mkdir()
    (tmp_path / "scanned" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "scanned"]:
        monkeypatch.delitem(sys.modules, name)
    import scanned

    yield scanned
    for name in [name for name in sys.modules if name.partition(".")[0] == "scanned"]:
        del sys.modules[name]


def scan(package: ModuleType) -> dict[str, type[Defense]]:
    return plugins._discover(package, Defense, "splitleak.nothing")


def test_built_ins_are_found() -> None:
    assert {"mean_image", "ridge", "decoder"} <= plugins.attack_classes().keys()
    assert {"none", "channel_subset", "gaussian_noise", "dp_sgd"} <= plugins.defense_classes().keys()
    assert {"faces", "folder", "zip", "index"} <= plugins.source_classes().keys()
    assert plugins.attack_classes()["ridge"] is Ridge


def test_what_is_found_is_a_plugin_under_its_own_name() -> None:
    found: list[tuple[dict[str, type[Any]], type[Any]]] = [
        (plugins.attack_classes(), Attack),
        (plugins.defense_classes(), Defense),
        (plugins.source_classes(), Source),
    ]
    for classes, base in found:
        assert all(issubclass(cls, base) and cls is not base and cls.name == name for name, cls in classes.items())


def test_a_source_says_of_its_own_settings_which_are_places() -> None:
    for cls in plugins.source_classes().values():
        assert cls.places <= {field.name for field in fields(cls)}
        assert cls.places == ({"path"} if "path" in {field.name for field in fields(cls)} else set())


def test_a_file_in_the_folder_is_all_that_it_takes(package: ModuleType, tmp_path: Path) -> None:
    assert scan(package) == {}
    write(tmp_path / "scanned" / "fresh.py", "BrandNewHTTPDefense", "_Hidden")
    assert [*scan(package)] == ["brand_new_httpdefense"]


def test_contracts_and_checks_are_no_plugins(package: ModuleType, tmp_path: Path) -> None:
    write(tmp_path / "scanned" / "base.py", "One")
    write(tmp_path / "scanned" / "checks.py", "Two")
    assert scan(package) == {}


def test_a_package_has_the_plugins_that_it_exports(package: ModuleType, tmp_path: Path) -> None:
    large = tmp_path / "scanned" / "large"
    large.mkdir()
    write(large / "inner.py", "Shown", "Kept")
    (large / "__init__.py").write_text("from scanned.large.inner import Shown\n")
    helpers = tmp_path / "scanned" / "networks"
    helpers.mkdir()
    (helpers / "__init__.py").write_text("from scanned.large import Shown\n")
    assert [*scan(package)] == ["shown"]


def test_what_a_file_only_imports_is_not_its_own(package: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "scanned" / "borrower.py").write_text("from splitleak.defenses.none import NoDefense\n")
    assert scan(package) == {}


@pytest.mark.parametrize(
    ("source", "error"),
    [("import no_such_module", ModuleNotFoundError), ("def (", SyntaxError), ("1 / 0", ZeroDivisionError)],
)
def test_an_error_in_a_scanned_file_is_loud(
    source: str, error: type[Exception], package: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "scanned" / "broken.py").write_text(source)
    with pytest.raises(error):
        scan(package)


def test_an_error_in_a_built_in_is_loud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_built_in.py").write_text("import no_such_module")
    monkeypatch.setattr(defenses, "__path__", [*defenses.__path__, str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        plugins.defense_classes()


def test_two_files_with_plugins_of_one_name_are_refused(package: ModuleType, tmp_path: Path) -> None:
    for file in ("first.py", "second.py"):
        write(tmp_path / "scanned" / file, "Twin")
    with pytest.raises(InvalidInputError, match="two plugins are called 'twin'") as caught:
        scan(package)
    assert "first.py" in str(caught.value)
    assert "second.py" in str(caught.value)


def test_no_setting_may_be_called_as_lists_that_run_in_step(package: ModuleType, tmp_path: Path) -> None:
    path = write(tmp_path / "scanned" / "mine.py", "Mine")
    path.write_text(path.read_text() + "    paired: int = 1\n")
    for look in (lambda: scan(package), lambda: find(f"{path}:Mine")):
        with pytest.raises(InvalidInputError, match=r"mine.py: Mine has a setting 'paired'.*rename it"):
            look()


def test_a_file_may_not_take_a_built_ins_name(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "GaussianNoise")
    with pytest.raises(InvalidInputError, match="two plugins are called 'gaussian_noise'") as caught:
        find(f"{path}:GaussianNoise")
    assert str(path) in str(caught.value)
    assert str(Path("defenses") / "gaussian_noise.py") in str(caught.value)


def test_a_class_of_a_file_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "First", "Second")
    assert find(f"{path}:Second").name == "second"
    assert find(f"{path}:First").name == "first"


def test_a_files_only_class_needs_no_name(tmp_path: Path) -> None:
    assert find(str(write(tmp_path / "mine.py", "Lonely"))).name == "lonely"


@pytest.mark.parametrize("wanted", ["", ":", ":Third", ":first"])
def test_a_file_with_several_says_which_there_are(wanted: str, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "First", "Second")
    with pytest.raises(InvalidInputError, match="it holds First, Second"):
        find(f"{path}{wanted}")


def test_a_file_without_plugins_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.py"
    path.write_text("from splitleak.defenses.none import NoDefense\nnumber = 3\n")
    for name in (f"{path}", f"{path}:NoDefense"):
        with pytest.raises(InvalidInputError, match="it holds no defence at all"):
            find(name)


def test_an_attack_is_no_defence(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "First")
    with pytest.raises(InvalidInputError, match="no attack at all"):
        plugins.find("attack", f"{path}:First", plugins.attack_classes(), Attack)


def test_a_missing_file_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match="no plugin file at") as caught:
        find("absent.py:Thing")
    assert str(tmp_path / "absent.py") in str(caught.value)


def test_an_error_in_a_file_is_its_authors_and_stays_loud(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("1 / 0")
    for _ in range(2):  # a module that failed half way must not be taken for loaded
        with pytest.raises(ZeroDivisionError):
            find(f"{path}:Thing")


def test_a_file_is_loaded_once_under_whatever_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "mine.py", "Same")
    monkeypatch.chdir(tmp_path)
    assert find(f"{path}:Same") is find("mine.py:Same") is find("./mine.py")
    (tmp_path / "other").mkdir()
    other = write(tmp_path / "other" / "mine.py", "Same")
    assert find(f"{other}:Same") is not find(f"{path}:Same")


def test_an_unknown_name_offers_near_ones() -> None:
    with pytest.raises(InvalidInputError, match="unknown defence 'gausian_noise'; did you mean gaussian_noise"):
        find("gausian_noise")
    with pytest.raises(InvalidInputError, match=r"known: .*none"):
        find("zzzzzz")


@dataclass(frozen=True)
class FromElsewhere(Defense):
    """What a third party has installed."""

    paper: ClassVar[str] = "none"


@dataclass(frozen=True)
class AttackFromElsewhere(Reconstruction[QueryFree]):
    """What a third party has installed."""

    name: ClassVar[str] = "ridge"
    paper: ClassVar[str] = "none"

    def fit(self, knows: QueryFree) -> Reconstructor:
        raise NotImplementedError


class Point:
    """An entry point."""

    def __init__(self, cls: type) -> None:
        self.cls = cls

    def load(self) -> type:
        return self.cls


def install(monkeypatch: pytest.MonkeyPatch, **groups: type) -> None:
    installed = {f"splitleak.{kind}": [Point(cls)] for kind, cls in groups.items()}
    monkeypatch.setattr(plugins, "entry_points", lambda group: installed.get(group, []))


def test_installed_plugins_are_found_in_their_group(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, defenses=FromElsewhere)
    assert find("from_elsewhere") is FromElsewhere
    assert find("none") is NoDefense
    assert "from_elsewhere" not in plugins.attack_classes()


def test_an_installed_plugin_may_not_take_a_built_ins_name(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, attacks=AttackFromElsewhere)
    with pytest.raises(InvalidInputError, match="two plugins are called 'ridge'") as caught:
        plugins.attack_classes()
    assert "ridge.py" in str(caught.value)
    assert "test_plugins.py" in str(caught.value)
    assert "none" in plugins.defense_classes()


def test_an_installed_plugin_that_cannot_be_imported_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Point):
        def load(self) -> type:
            raise ImportError("half installed")

    monkeypatch.setattr(plugins, "entry_points", lambda group: [Broken(FromElsewhere)])
    with pytest.raises(ImportError, match="half installed"):
        plugins.defense_classes()
