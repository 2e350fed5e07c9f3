"""A plan that parses says what will run; one that does not says what to change."""

import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from splitleak.attacks.decoder import Decoder
from splitleak.attacks.ridge import Ridge
from splitleak.defenses.channel_subset import ChannelSubset
from splitleak.defenses.gaussian_noise import GaussianNoise
from splitleak.defenses.none import NoDefense
from splitleak.experiments.cells.build import cells_of
from splitleak.experiments.planning.names import FLOOR, PLANS, UNDEFENDED
from splitleak.experiments.planning.plan import Entry, Plan, parse_plan, read_plan
from splitleak.experiments.planning.study import read_study
from splitleak.victims.data.sources.faces import Faces
from splitleak.victims.data.sources.files import Folder
from splitleak.victims.errors import InvalidInputError

BUILT_IN = sorted(PLANS.glob("*.toml"))

MINIMAL = """
[[defenses]]
name = "none"
[[attacks]]
name = "mean_image"
"""


def parse(text: str, folder: Path = Path(), name: str = "file") -> Plan:
    return parse_plan(tomllib.loads(text), text, folder, name)


def named(entries: tuple[Entry[Any], ...]) -> list[Entry[Any]]:
    """Without the controls, which every plan has."""
    return [entry for entry in entries if entry.label not in (UNDEFENDED, FLOOR)]


def refusal(text: str) -> str:
    with pytest.raises(InvalidInputError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("path", BUILT_IN, ids=lambda path: path.stem)
def test_built_in_plans_parse(path: Path) -> None:
    study = read_study(path)
    assert study.name == path.stem
    assert study.text == path.read_text()
    assert study.text.startswith("# "), "`splitleak list plans` shows the first line"
    for plan in study.plans.values():
        assert any(entry.plugin == NoDefense() for entry in plan.defenses), "without it nothing can be compared"


def test_there_is_a_quick_plan() -> None:
    assert "quick" in [path.stem for path in BUILT_IN]


def test_defaults_fill_a_minimal_plan() -> None:
    plan = parse(MINIMAL)
    assert plan.name == "file"
    assert plan.seeds == (0,)
    assert (plan.victim.model, plan.victim.cut, plan.victim.size) == ("mobilenet_v3_large", "C4", 64)
    assert plan.source == Faces()
    assert plan.attacker.adaptive == [True]
    assert plan.attacker.queries is None
    assert (plan.part_sizes.test, plan.part_sizes.photos_per_person) == (None, 4)


def test_every_table_arrives() -> None:
    plan = parse(
        """
name = "my-plan_1.2"
seeds = [4, 2]
[victim]
model = "resnet18"
cut = "layer2"
size = 96
task = "mask"
data = { name = "folder", path = "/photos" }
[parts]
train = 10
validation = 11
target = 12
test = 14
photos_per_person = 3
[defender]
epochs = 5
[attacker]
auxiliary = 13
adaptive = [true, false]
queries = 99
[judge]
seed_convention = true
"""
        + MINIMAL
    )
    assert (plan.name, plan.seeds) == ("my-plan_1.2", (4, 2))
    assert (plan.victim.model, plan.victim.cut, plan.victim.size, plan.victim.task) == (
        "resnet18",
        "layer2",
        96,
        "mask",
    )
    assert plan.source == Folder("/photos")
    sizes = {"train": 10, "auxiliary": 13, "validation": 11, "target": 12, "test": 14, "photos_per_person": 3}
    assert plan.part_sizes.to_mapping() == sizes
    assert plan.defender.epochs == 5
    assert (plan.attacker.adaptive, plan.attacker.queries) == ([True, False], 99)
    assert plan.judge.seed_convention


def test_listed_values_multiply_in_the_order_written() -> None:
    plan = parse(
        """
[[defenses]]
name = "gaussian_noise"
sigma = [2.0, 0.5]
[[defenses]]
name = "channel_subset"
keep = [0.5, 0.1]
selection = ["variance", "first"]
[[defenses]]
name = "none"
[[attacks]]
name = "ridge"
window = [1, 3]
"""
    )
    assert [entry.plugin for entry in plan.defenses] == [
        GaussianNoise(2.0),
        GaussianNoise(0.5),
        ChannelSubset(0.5, "variance"),
        ChannelSubset(0.5, "first"),
        ChannelSubset(0.1, "variance"),
        ChannelSubset(0.1, "first"),
        NoDefense(),
    ]
    assert [entry.label for entry in plan.defenses] == [
        "gaussian_noise sigma=2.0",
        "gaussian_noise sigma=0.5",
        "channel_subset keep=0.5 selection=variance",
        "channel_subset keep=0.5 selection=first",
        "channel_subset keep=0.1 selection=variance",
        "channel_subset keep=0.1 selection=first",
        "none",
    ]
    assert [entry.plugin for entry in named(plan.attacks)] == [Ridge(1), Ridge(3)]
    assert [entry.label for entry in named(plan.attacks)] == ["ridge window=1", "ridge window=3"]


def test_duplicates_are_merged_and_the_first_label_stays() -> None:
    plan = parse(
        """
seeds = [1, 0, 1]
[[defenses]]
name = "none"
[[defenses]]
name = "gaussian_noise"
sigma = [0.5, 1.0, 0.5]
[[defenses]]
name = "gaussian_noise"
[[attacks]]
name = "ridge"
[[attacks]]
name = "decoder"
[[attacks]]
name = "ridge"
window = 1
"""
    )
    assert plan.seeds == (1, 0)
    assert sorted(entry.label for entry in plan.defenses) == [
        "gaussian_noise sigma=0.5",
        "gaussian_noise sigma=1.0",
        "none",
    ]
    assert sorted(entry.label for entry in named(plan.attacks)) == ["decoder", "ridge"], (
        "as the first of two was written"
    )
    assert {entry.plugin for entry in named(plan.attacks)} == {Ridge(), Decoder()}


def test_lists_that_are_paired_run_in_step_and_others_multiply() -> None:
    plan = parse(
        """
[[defenses]]
name = "channel_subset"
paired = { keep = [0.5, 0.1], selection = ["variance", "first"] }
[[attacks]]
name = "decoder"
width = [16, 32]
paired = { epochs = [1, 2], batch_size = [8, 4] }
"""
    )
    assert [entry.plugin for entry in named(plan.defenses)] == [
        ChannelSubset(0.5, "variance"),
        ChannelSubset(0.1, "first"),
    ]
    assert [entry.label for entry in named(plan.defenses)] == [
        "channel_subset keep=0.5 selection=variance",
        "channel_subset keep=0.1 selection=first",
    ]
    assert [entry.label for entry in named(plan.attacks)] == [
        "decoder width=16 epochs=1 batch_size=8",
        "decoder width=32 epochs=1 batch_size=8",
        "decoder width=16 epochs=2 batch_size=4",
        "decoder width=32 epochs=2 batch_size=4",
    ]


def test_a_part_of_a_chain_has_paired_lists_too() -> None:
    subset = '{ name = "channel_subset", paired = { keep = [0.5, 0.1], selection = ["variance", "first"] } }'
    noise = '{ name = "gaussian_noise", sigma = [1.0, 2.0] }'
    plan = parse(with_defense(f'name = "chain"\nparts = [{subset}, {noise}]'))
    assert [entry.label for entry in named(plan.defenses)] == [
        "chain channel_subset keep=0.5 selection=variance + gaussian_noise sigma=1.0",
        "chain channel_subset keep=0.5 selection=variance + gaussian_noise sigma=2.0",
        "chain channel_subset keep=0.1 selection=first + gaussian_noise sigma=1.0",
        "chain channel_subset keep=0.1 selection=first + gaussian_noise sigma=2.0",
    ]


def with_victim(line: str) -> str:
    return f"[victim]\n{line}\n{MINIMAL}"


def with_defense(lines: str) -> str:
    return f'[[defenses]]\n{lines}\n[[attacks]]\nname = "mean_image"\n'


def with_paired(value: str) -> str:
    return with_defense(f'name = "channel_subset"\npaired = {value}')


def with_attack(lines: str) -> str:
    return f'[[attacks]]\n{lines}\n[[defenses]]\nname = "none"\n'


@pytest.mark.parametrize(
    ("text", "hints"),
    [
        ("[victm]\nsize = 64\n" + MINIMAL, ["unknown key of the plan: 'victm'", "did you mean victim"]),
        ('[[defences]]\nname = "none"\n' + MINIMAL, ["'defences'", "did you mean defenses"]),
        ("seed = [0]" + MINIMAL, ["'seed'", "did you mean seeds"]),
        (with_victim("siez = 64"), ["unknown setting of victim: 'siez'", "did you mean size"]),
        (with_defense('name = "channel_subset"\nkep = 0.5'), ["channel_subset: 'kep'", "mean keep"]),
        ("[attacker]\nauxilary = 5\n" + MINIMAL, ["attacker", "'auxilary'", "auxiliary"]),
        ("[parts]\nauxiliary = 5\n" + MINIMAL, ["unknown setting of parts: 'auxiliary'"]),
        (with_victim('size = "64"'), ["victim.size = '64'", "valid integer"]),
        (with_victim("size = 64.0"), ["victim.size = 64.0", "valid integer"]),
        (with_victim("freeze_encoder = 1"), ["victim.freeze_encoder = 1", "valid boolean"]),
        (with_victim("model = 3"), ["victim.model = 3", "valid string"]),
        (with_defense('name = "channel_subset"\nkeep = "half"'), ["channel_subset.keep = 'half'", "valid number"]),
        ("seeds = 3" + MINIMAL, ["plan.seeds = 3", "valid list"]),
        ("seeds = [0, true]" + MINIMAL, ["plan.seeds.1 = True", "valid integer"]),
        ("seeds = [-1]" + MINIMAL, ["plan.seeds.0 = -1", "greater than or equal to 0"]),
        ("seeds = []" + MINIMAL, ["plan.seeds = []", "at least 1"]),
        ("name = 3" + MINIMAL, ["plan.name = 3", "names a folder"]),
        ("victim = 3" + MINIMAL, ["victim = 3", "[victim]"]),
        ("[attacker]\nadaptive = true\n" + MINIMAL, ["attacker.adaptive = True", "valid list"]),
        ("[attacker]\nadaptive = []\n" + MINIMAL, ["attacker.adaptive = []", "at least 1"]),
        (with_defense('name = "channel_subset"\nkeep = 0'), ["channel_subset.keep = 0", "greater than 0"]),
        (with_defense('name = "channel_subset"\nkeep = [0.5, 1.5]'), ["keep = 1.5", "less than or equal to 1"]),
        (with_defense('name = "gaussian_noise"\nsigma = -0.5'), ["gaussian_noise.sigma = -0.5", "greater than"]),
        (with_defense('name = "gaussian_noise"\nsigma = nan'), ["gaussian_noise.sigma = nan"]),
        (with_attack('name = "ridge"\nwindow = 2'), ["ridge.window = 2", "1, 3 or"]),
        (with_attack('name = "decoder"\narchitecture = "unet"'), ["decoder.architecture = 'unet'", "residual"]),
        (with_attack('name = "decoder"\nepochs = 0'), ["decoder.epochs = 0", "greater than 0"]),
        (with_attack('name = "decoder"\nnoise = true'), ["decoder.noise", "only the seed study's decoders"]),
        (with_victim("size = 8"), ["victim.size = 8", "16"]),
        (with_victim("learning_rate = 0.0"), ["victim.learning_rate = 0.0", "greater than 0"]),
        ("[parts]\ntarget = 0\n" + MINIMAL, ["parts.target = 0", "greater than or equal to 1"]),
        ("[attacker]\nqueries = 0\n" + MINIMAL, ["attacker.queries = 0", "greater than 0"]),
        ('[[attacks]]\nname = "mean_image"', ["at least one [[defenses]]"]),
        ('[[defenses]]\nname = "none"', ["at least one [[attacks]]"]),
        ('defenses = []\n[[attacks]]\nname = "mean_image"', ["at least one [[defenses]]"]),
        ('defenses = ["none"]\n[[attacks]]\nname = "mean_image"', ["at least one [[defenses]]"]),
        (with_defense("keep = 0.5"), ['a defence needs name = "..."', "channel_subset"]),
        (with_attack("name = 3"), ['a attack needs name = "..."', "ridge"]),
        (with_defense('name = "channel_subset"\nkeep = []'), ["channel_subset.keep = []", "at least one value"]),
        (with_paired("3"), ["channel_subset.paired = 3: should be a table of lists"]),
        (with_paired("[0.5, 0.1]"), ["channel_subset.paired = [0.5, 0.1]: should be a table of lists"]),
        (with_paired("{}"), ["channel_subset.paired = {}: should be a table of lists"]),
        (with_paired('{ keep = [0.5, 0.1], selection = "first" }'), ["paired.selection = 'first': should be a list"]),
        (with_paired("{ keep = [0.5, 0.1], seed = [1] }"), ["equally many", "keep has 2, seed has 1"]),
        (with_paired("{ keep = [] }"), ["channel_subset.paired.keep = []", "at least one value"]),
        (with_paired("{ keep = [0.5] }\nkeep = 0.1"), ["paired.keep: 'keep' stands beside 'paired' too"]),
        (with_paired("{ kep = [0.5] }"), ["channel_subset: 'kep'", "mean keep"]),
        (with_paired("{ keep = [0.5, 1.5] }"), ["keep = 1.5", "less than or equal to 1"]),
        (with_victim('data = { name = "folder", paired = { path = ["a", "b"] } }'), ["one data set"]),
        (with_defense('name = "chanel_subset"'), ["unknown defence 'chanel_subset'", "mean channel_subset"]),
        (with_attack('name = "rigde"'), ["unknown attack 'rigde'", "did you mean ridge"]),
        (with_defense('name = "ridge"'), ["unknown defence 'ridge'", "known:"]),
        (with_victim('data = "face"'), ["unknown data set 'face'", "did you mean faces"]),
        (with_victim('data = { name = "folder" }'), ["folder needs the setting 'path'"]),
        (with_victim('data = { name = "faces", pth = "x" }'), ["unknown setting of faces: 'pth'"]),
        (with_victim('data = { path = "x" }'), ['a data set needs name = "..."', "faces"]),
        (with_victim('data = { name = "folder", path = ["a", "b"] }'), ["one data set", "one plan for each"]),
        (with_victim("data = 3"), ["victim.data"]),
        ('name = "../up"' + MINIMAL, ["plan.name = '../up'", "names a folder"]),
        ('name = "a b"' + MINIMAL, ["plan.name = 'a b'", "use letters"]),
        ('name = ".hidden"' + MINIMAL, ["plan.name = '.hidden'", "names a folder"]),
        ('name = ""' + MINIMAL, ["plan.name = ''", "names a folder"]),
        (with_defense('name = "nowhere.py:Thing"'), ["no plugin file at", "nowhere.py"]),
    ],
)  # fmt: skip
def test_a_bad_plan_is_refused_with_a_hint(text: str, hints: list[str]) -> None:
    message = refusal(text)
    for hint in hints:
        assert hint in message


def test_a_missing_file_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match="no plan at") as caught:
        read_plan(Path("absent.toml"))
    assert str(tmp_path / "absent.toml") in str(caught.value)
    with pytest.raises(InvalidInputError, match="no plan at"):
        read_plan(tmp_path)


def test_a_byte_order_mark_in_front_of_a_plan_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert read_plan(path).text == MINIMAL


@pytest.mark.parametrize(
    "content", [b"name = ", b"[victim\nsize = 64", b"a = 1\na = 2", b"\x89PNG\r\n\x1a\n\xff\xfe"]
)
def test_a_file_that_is_no_toml_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="is no TOML") as caught:
        read_plan(path)
    assert str(path) in str(caught.value)


PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar
from splitleak.defenses.base import Defense

@dataclass(frozen=True)
class {name}(Defense):
    paper: ClassVar[str] = "none"
    level: int = 1
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(PLUGIN.format(name="OfMyOwn"))
    return tmp_path


def test_a_plugin_file_is_found_beside_the_plan(folder: Path) -> None:
    plan_file = folder / "plan.toml"
    plan_file.write_text(with_defense('name = "mine.py:OfMyOwn"\nlevel = [1, 2]'))
    labels = [entry.label for entry in named(read_plan(plan_file).defenses)]
    assert labels == ["of_my_own level=1", "of_my_own level=2"]


def test_a_plugin_file_is_found_from_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("plans")
    monkeypatch.chdir(folder)
    plan = parse(with_defense('name = "mine.py:OfMyOwn"'), folder=elsewhere)
    assert named(plan.defenses)[0].plugin.name == "of_my_own"


def test_one_class_of_a_file_named_twice_is_one_entry(folder: Path) -> None:
    shutil.copy(folder / "mine.py", folder / "copy.py")
    plan = parse(
        f"""
[[defenses]]
name = "{folder}/mine.py:OfMyOwn"
[[defenses]]
name = "{folder}/./mine.py"
[[attacks]]
name = "mean_image"
"""
    )
    assert len(named(plan.defenses)) == 1


@pytest.mark.parametrize(
    ("victim", "defender", "used"),
    [("", "", 1e-3), ("learning_rate = 1e-4", "", 1e-4), ("learning_rate = 1e-4", "learning_rate = 0.01", 0.01)],
)
def test_what_stands_behind_a_defence_learns_no_faster_than_its_victim_unless_asked_to(
    victim: str, defender: str, used: float
) -> None:
    plan = parse(f"[victim]\n{victim}\n[defender]\n{defender}\n{MINIMAL}")
    assert {cell.protect.budget.learning_rate for cell in cells_of(plan)} == {used}
