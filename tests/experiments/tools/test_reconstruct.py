"""One's own photos through the attacks of a finished run."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import DECODER, HEAD, MEAN, NONE, RIDGE, SUBSET, run_plan
from torch import Tensor

from splitleak.experiments.cells.attack import AttackCell
from splitleak.experiments.cli.app import main
from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.report.reconstructed import Rebuilt
from splitleak.experiments.run.run import Run
from splitleak.experiments.stages.attack import AttackStage
from splitleak.experiments.store.store import Store
from splitleak.experiments.tools.reconstruct import Question, reconstructed
from splitleak.victims.errors import InvalidInputError

NOISE = '[[defenses]]\nname = "gaussian_noise"\nsigma = 0.5\n'

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("run")
    run_plan(HEAD + NONE + NOISE + SUBSET + MEAN + RIDGE + DECODER, folder, shared=True)
    yield folder / "runs" / "tiny"
    shutil.rmtree(folder)


@pytest.fixture
def store(run: Path) -> Store:
    return Store(run.parent / CACHE, torch.device("cpu"))


def targets(run: Path, store: Store) -> Tensor:
    return Run.of(read_plan(run / "plan.toml"), run.parent).cells[0].protect.images("target", store)


def save(image: Tensor, path: Path) -> Path:
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return path


@pytest.fixture
def two(run: Path, store: Store, tmp_path: Path) -> list[Path]:
    """The first two target photos as files."""
    return [save(image, tmp_path / f"photo {n}.png") for n, image in enumerate(targets(run, store)[:2])]


def answers(question: Question, store: Store) -> dict[tuple[str, str], Rebuilt]:
    return question.answers(store, lambda text: None)


def test_a_target_photo_is_answered_as_it_was(run: Path, store: Store, two: list[Path]) -> None:
    question = Question.of(run, two, ["none", "channel_subset"], [])
    made = answers(question, store)
    assert {attack for _, attack in made} == {"mean_image", "ridge", "decoder width=16 epochs=1"}
    stored = {(cell.defense.label, cell.entry.label): cell.stage.load(store)[:2] for cell in question.cells}
    for key, rebuilt in made.items():
        # stored features are rounded to half precision, which moves a pixel by a level
        assert (rebuilt.images.int() - stored[key].int()).abs().max() <= 2, key
        assert (rebuilt.images.int() - stored[key].int()).abs().float().mean() < 0.1, key
    assert made["none", "ridge"].psnr[0] > made["none", "mean_image"].psnr[0]


def test_a_second_call_fits_nothing(
    run: Path, store: Store, two: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answers(Question.of(run, two[:1], [], []), store)
    monkeypatch.setattr(AttackStage, "again", lambda *arguments: pytest.fail("it was fitted again"))
    again = answers(Question.of(run, two[:1], [], []), store)
    assert all(torch.equal(first[key].images, again[key].images) for key in first)


def test_an_answer_does_not_depend_on_the_other_photos(run: Path, store: Store, two: list[Path]) -> None:
    cells = Question.of(run, two, ["gaussian_noise sigma=0.5"], ["ridge", "decoder"]).cells
    photos = targets(run, store)[3:6]
    for cell in cells:
        assert isinstance(cell, AttackCell)
        together = cell.stage.again(photos, store)
        assert torch.equal(together[1:2], cell.stage.again(photos[1:2], store))


def test_a_damaged_answer_is_made_anew(run: Path, store: Store) -> None:
    stage = Run.of(read_plan(run / "plan.toml"), run.parent).cells[1].stage
    assert isinstance(stage, AttackStage)
    photos = targets(run, store)[7:9]
    first = reconstructed(stage, photos, store)
    for image in (store.root / "reconstruct").glob("*/image.npy"):
        image.write_bytes(b"")
    fresh = Store(store.root, store.device)
    assert torch.equal(reconstructed(stage, photos, fresh), first)


def test_the_command_draws_what_was_asked_for(
    run: Path, two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["splitleak", "reconstruct", str(run), *map(str, two), "--attacks", "ridge", "--defenses", "none"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 0
    said = capsys.readouterr().out
    assert "[1/1] none x ridge, seed 0:" in said
    assert said.count(" dB") == 2
    small = Image.open(run / "reconstructed_photo_0_and_1_more.png")
    monkeypatch.setattr(sys, "argv", [*command[:-2], "--output", str(tmp_path / "all.png")])
    with pytest.raises(SystemExit):
        main()
    # two photos: with three settings in place of one the picture has six rows in place of two
    assert Image.open(tmp_path / "all.png").height > 2 * small.height


def test_the_inside_of_a_target_photo_is_what_the_run_saw(run: Path, store: Store, two: list[Path]) -> None:
    question = Question.of(run, two[:1], ["none"], [])
    opened = question.opened(store, lambda text: None)
    assert list(opened) == ["decoder width=16 epochs=1"]  # the others have no stages
    (cell,) = (cell for cell in question.cells if cell.entry.plugin.name == "decoder")
    inside, seen = opened["decoder width=16 epochs=1"], cell.stage.load_inside(store)
    assert inside.stages.shape == seen["stages"].shape
    # stored features are rounded to half precision; a map's values are stretched
    assert (inside.stages[-1].int() - seen["stages"][-1].int()).abs().max() <= 2
    assert (inside.maps.int() - seen["maps"].int()).abs().float().flatten(1).mean(1).max() < 1
    log = cell.stage.log(store)["inside"]
    assert [list(shape) for shape in inside.shapes] == log["stages"]
    assert list(inside.release) == log["release"]


def test_the_command_draws_the_inside(
    run: Path, two: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["splitleak", "reconstruct", str(run), str(two[0]), "--inside"]
    monkeypatch.setattr(sys, "argv", [*command, "--defenses", "none"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 0
    assert "ridge, seed 0: has no stages" in capsys.readouterr().out
    assert Image.open(run / "inside_photo_0.png").width > 600
    for more, complaint in (
        ([], "one photo behind one defence"),
        (["--defenses", "none", "--attacks", "ridge"], "no stages"),
    ):
        monkeypatch.setattr(sys, "argv", [*command, *more])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert exit_.value.code == 2
        assert complaint in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("defenses", "attacks", "photo", "complaint"),
    [
        (["nothing"], [], "photo 0.png", "did you mean none"),
        ([], ["rigde"], "photo 0.png", "did you mean ridge"),
        ([], [], "absent.png", "no photo at"),
        ([], [], "text.png", "is unreadable"),
    ],
)
def test_bad_input_says_what_would_be_right(
    run: Path, two: list[Path], tmp_path: Path, defenses: list[str], attacks: list[str], photo: str, complaint: str
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InvalidInputError, match=complaint):
        Question.of(run, [tmp_path / photo], defenses, attacks)
    with pytest.raises(InvalidInputError, match="no run at"):
        Question.of(run.parent, two, [], [])
