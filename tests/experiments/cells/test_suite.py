"""What attacks share in a plan: trained decoders, threats, and the suite's choice among them."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import DECODER, HEAD, MEAN, NONE, RIDGE, SUBSET, run_plan

from splitleak.attacks.base import Attack
from splitleak.attacks.decoder import Decoder
from splitleak.attacks.inverse_network import InverseNetwork
from splitleak.attacks.mixture import FEW
from splitleak.attacks.refine import Refine
from splitleak.attacks.ridge import Ridge
from splitleak.experiments.cells.attack import AttackCell
from splitleak.experiments.cells.build import cells_of
from splitleak.experiments.cells.suite import StrongestCell, chosen_of
from splitleak.experiments.judge.metrics import pictures
from splitleak.experiments.judge.scores import Seen
from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.report.tables.matched import yardstick
from splitleak.experiments.results.load import load_results
from splitleak.experiments.stages.arrays import load_array
from splitleak.experiments.stages.data import Data, DataStage
from splitleak.experiments.stages.strongest import Prediction, _line, choose, members
from splitleak.experiments.store.integrity import seal, sealed
from splitleak.experiments.store.store import Store

REFINE = '[[attacks]]\nname = "refine"\nwidth = 16\nepochs = 1\nsteps = 3\n'
RMLE = '[[attacks]]\nname = "rmle"\nsteps = 20\nweight = 0.1\n'
USELESS = '''
from dataclasses import dataclass
import torch
from splitleak.attacks.knowledge import BlackBox
from splitleak.attacks.base import Reconstruction

@dataclass(frozen=True)
class Useless(Reconstruction[BlackBox]):
    """Noise for every release."""
    paper = "a test's"
    def fit(self, knows):
        return lambda release: torch.rand(len(release), *knows.image_shape)
'''


def _by_name(results: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {result["attack"]["name"]: result for result in results}


def test_a_decoder_is_trained_once_for_all_attacks_that_start_from_it(tmp_path: Path) -> None:
    results, _, store = run_plan(HEAD + NONE + DECODER + REFINE, tmp_path)
    found = _by_name(results)
    assert [result["traceback"] for result in results] == [None] * 3
    assert store.computed.count("memory") == 2  # the look for patterns, and the decoder
    epochs = [[row for row in found[name]["history"] if "epoch" in row] for name in ("decoder", "refine")]
    assert epochs[0] == epochs[1] != []
    # the recalled training is counted, and the search on top of it
    assert found["refine"]["queries"] > found["decoder"]["queries"] > 0


def test_the_time_of_a_recalled_training_is_counted(tmp_path: Path) -> None:
    run_plan(HEAD + NONE + DECODER, tmp_path)
    for facts in (tmp_path / "runs" / CACHE / "memory").glob("*/facts.json"):
        facts.write_text(json.dumps(json.loads(facts.read_text()) | {"seconds": 1e6}))
        seal(facts.parent, sealed(facts.parent))
    results, _, _ = run_plan(HEAD + NONE + REFINE, tmp_path)
    assert results[0]["seconds"]["fit"] > 1e6


def test_another_defence_has_a_decoder_of_its_own(tmp_path: Path) -> None:
    noise = '[[defenses]]\nname = "gaussian_noise"\nsigma = 1.0\n'
    _, _, store = run_plan(HEAD + NONE + noise + DECODER, tmp_path)
    assert store.computed.count("memory") == 4  # of each the look for patterns, and the decoder


def test_several_sends_of_one_photo_tell_more_and_are_labelled(tmp_path: Path) -> None:
    head = HEAD.replace("auxiliary = 64", "auxiliary = 64\nsends = [1, 16]")
    results, _, _ = run_plan(
        head + '[[defenses]]\nname = "gaussian_noise"\nsigma = 4.0\n' + RIDGE, tmp_path, report=True, shared=True
    )
    one, many = results
    assert (one["sends"], many["sends"]) == (1, 16)
    assert many["metrics"]["psnr"]["mean"] > one["metrics"]["psnr"]["mean"] + 0.5
    assert "(16 sends)" in (tmp_path / "runs" / "tiny" / "matrix.md").read_text()


def test_several_sends_undo_dropout(tmp_path: Path) -> None:
    head = HEAD.replace("auxiliary = 64", "auxiliary = 64\nsends = [1, 32]")
    text = head + NONE + '[[defenses]]\nname = "dropout"\nrate = 0.7\n' + RIDGE
    results, _, _ = run_plan(text, tmp_path, shared=True)
    psnr = {(r["defence"]["name"], r["sends"]): r["metrics"]["psnr"]["mean"] for r in results}
    assert psnr["dropout", 1] < psnr["none", 1] - 0.3
    assert psnr["dropout", 32] == pytest.approx(psnr["none", 1], abs=0.1)
    assert psnr["none", 32] == pytest.approx(psnr["none", 1], abs=1e-3)


def test_attacks_that_work_on_each_photo_anew_get_fewer_of_them(tmp_path: Path) -> None:
    head = HEAD.replace("auxiliary = 64", "auxiliary = 64\nslow_targets = 10")
    results, _, _ = run_plan(head + NONE + MEAN + RIDGE + RMLE, tmp_path, shared=True)
    found = _by_name(results)
    counts = {name: result["n"] for name, result in found.items()}
    # so short a search is worth no photo to the suite, and the floor does not compete
    assert counts == {"mean_image": 24, "ridge": 24, "rmle": 10, "strongest": 24}
    assert found["strongest"]["chosen"] == {"ridge": 24}
    assert found["strongest"]["oracle"]["psnr"]["values"] == found["ridge"]["metrics"]["psnr"]["values"]


SEARCH = '''
from dataclasses import dataclass
from splitleak.attacks.knowledge import BlackBox
from splitleak.attacks.base import Reconstruction
from splitleak.attacks.ridge import Ridge

@dataclass(frozen=True)
class Search(Reconstruction[BlackBox]):
    """As good as ridge, and slow."""
    paper = "a test's"
    per_image = True
    def fit(self, knows):
        return Ridge().fit(knows)
'''


def test_a_suite_is_stated_on_the_photos_that_all_its_members_tried(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SEARCH)
    head = HEAD.replace("auxiliary = 64", "auxiliary = 64\nslow_targets = 10")
    noise = '[[defenses]]\nname = "gaussian_noise"\nsigma = 0.5\n'
    attacks = DECODER + '[[attacks]]\nname = "slow.py:Search"\n'
    results, _, _ = run_plan(head + NONE + noise + attacks, tmp_path, shared=True)
    for defence in ("none", "gaussian_noise"):
        found = _by_name([result for result in results if result["defence"]["name"] == defence])
        suite = found["strongest"]
        assert suite["n"] == found["search"]["n"] == len(suite["metrics"]["psnr"]["values"]) == 10
        assert sum(suite["chosen"].values()) == 10
        assert suite["chosen"]["search"] >= 5
        best = np.max([found[name]["metrics"]["psnr"]["values"][:10] for name in ("decoder", "search")], axis=0)
        assert suite["oracle"]["psnr"]["mean"] == pytest.approx(best.mean(), abs=0.05)
        # every random channel is scored on three draws, by searches and the suite too
        draws = {result["draws"] for result in found.values()}
        assert draws == {3 if defence == "gaussian_noise" else 1}


def test_who_is_a_member_is_told_by_the_choices() -> None:
    ridge, search = np.zeros(20, int), np.array([1, *[0] * 19])
    assert members([ridge, ridge], [20, 10]) == (0,)
    assert members([search, ridge], [20, 10]) == (0, 1)  # one of ten that it tried
    assert members([ridge, search], [20, 10]) == (0, 1)  # whatever the choice is for
    assert members([search], [20, 11]) == (0,)
    assert members([ridge], [20, 20]) == (0, 1)


def test_the_attacks_table_shows_every_score_and_compares_on_the_same_photos(tmp_path: Path) -> None:
    head = HEAD.replace("auxiliary = 64", "auxiliary = 64\nslow_targets = 10")
    results, _, _ = run_plan(head + NONE + RIDGE + RMLE, tmp_path, report=True, shared=True)
    found = _by_name(results)
    text = (tmp_path / "runs" / "tiny" / "matrix.md").read_text()
    table = text.split("\n\n")[2].splitlines()
    names, _, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    rows = {line[0]: dict(zip(names, line, strict=True)) for line in lines}
    assert list(rows) == [
        "mean_image",
        "ridge",
        "rmle steps=20 weight=0.1",
        "strongest",
        "the best as the truth tells",
    ]
    same = np.mean(found["ridge"]["metrics"]["psnr"]["values"][:10])
    assert rows["ridge"]["PSNR (dB) of the first 10"].startswith(f"{same:.1f} [")
    rmle, suite = rows["rmle steps=20 weight=0.1"], rows["the best as the truth tells"]
    assert rmle["n"] == "10"
    assert rmle["PSNR (dB)"] == rmle["PSNR (dB) of the first 10"]
    assert any(name.startswith("MS-SSIM") for name in names)
    assert suite["PSNR (dB)"].startswith(f"{found['strongest']['oracle']['psnr']['mean']:.1f} [")


def test_what_was_rebuilt_is_compared_with_the_photos_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared, judged = [], pictures.ssim

    def counted(images: torch.Tensor, rebuilt: torch.Tensor) -> torch.Tensor:
        compared.append(len(images))
        return judged(images, rebuilt)

    monkeypatch.setattr(pictures, "ssim", counted)
    noise = '[[defenses]]\nname = "gaussian_noise"\nsigma = 0.5\n'
    results, _, _ = run_plan(HEAD + noise + RIDGE + RIDGE + "window = 3\n", tmp_path)
    # the 24 targets of two attacks and the floor, on three draws behind the noise and on one without any defence
    assert sum(compared) == (3 + 1) * 3 * 24
    suite = results[-1]
    for metric in ("psnr", "ssim"):
        reached = np.array([result["metrics"][metric]["values"] for result in results[:-1]])
        assert (suite["metrics"][metric]["values"] >= reached.min(0) - 1e-6).all()
        assert (suite["oracle"][metric]["values"] >= reached.max(0) - 1e-6).all()


def test_a_suite_of_slow_attacks_alone_has_their_photos(tmp_path: Path) -> None:
    head = HEAD.replace("auxiliary = 64", "auxiliary = 64\nslow_targets = 10")
    results, _, _ = run_plan(head + NONE + RMLE + RMLE.replace("0.1", "1.0"), tmp_path, report=True, shared=True)
    assert [(result["attack"]["name"], result["n"]) for result in results] == [
        ("rmle", 10),
        ("rmle", 10),
        ("strongest", 10),
    ]


def test_the_suite_chooses_well_without_the_truth(tmp_path: Path) -> None:
    (tmp_path / "useless.py").write_text(USELESS)
    useless = '[[attacks]]\nname = "useless.py:Useless"\n'
    results, _, _ = run_plan(HEAD + NONE + useless + RIDGE + RIDGE + "window = 3\n", tmp_path, shared=True)
    suite = results[-1]
    assert suite["attack"]["name"] == "strongest"
    best = max(result["metrics"]["psnr"]["mean"] for result in results[:-1])
    assert suite["chosen"].get("useless", 0) == 0
    assert suite["metrics"]["psnr"]["mean"] > best - 0.3
    assert suite["oracle"]["psnr"]["mean"] >= max(best, suite["metrics"]["psnr"]["mean"]) - 1e-6


# grain on what ridge rebuilds costs more structure than PSNR, brightness more PSNR than structure
TWO_TASTES = """
from dataclasses import dataclass
import torch
from splitleak.attacks.knowledge import BlackBox
from splitleak.attacks.base import Reconstructor
from splitleak.attacks.ridge import Ridge

@dataclass(frozen=True)
class Grainy(Ridge):
    def fit(self, knows: BlackBox) -> Reconstructor:
        rebuild = super().fit(knows)
        return lambda release: (rebuild(release) + 0.1 * torch.randn(len(release), *knows.image_shape)).clamp(0, 1)

@dataclass(frozen=True)
class Shifted(Ridge):
    def fit(self, knows: BlackBox) -> Reconstructor:
        rebuild = super().fit(knows)
        return lambda release: (rebuild(release) + 0.15).clamp(0, 1)
"""


def test_who_is_after_structure_chooses_for_it(tmp_path: Path) -> None:
    (tmp_path / "tastes.py").write_text(TWO_TASTES)
    tastes = "".join(f'[[attacks]]\nname = "tastes.py:{name}"\n' for name in ("Grainy", "Shifted"))
    results, _, _ = run_plan(HEAD + NONE + tastes, tmp_path, report=True, shared=True)
    grainy, _, suite = results
    psnr, ssim = ({r["attack"]["name"]: r["metrics"][m]["mean"] for r in results} for m in ("psnr", "ssim"))
    assert psnr["grainy"] > psnr["shifted"] + 1
    assert ssim["shifted"] > ssim["grainy"] + 0.05
    assert max(suite["chosen"], key=suite["chosen"].__getitem__) == "grainy"
    assert max(suite["chosen_for"]["ssim"], key=suite["chosen_for"]["ssim"].__getitem__) == "shifted"
    assert psnr["strongest"] > psnr["grainy"] - 0.3
    assert ssim["strongest"] > ssim["shifted"] - 0.02
    scales = next(name for name in suite["metrics"] if name.startswith("ms_ssim"))
    assert suite["metrics"][scales]["mean"] == pytest.approx(grainy["metrics"][scales]["mean"], abs=0.02)
    for metric in ("psnr", "ssim"):
        assert (
            np.array(suite["oracle"][metric]["values"]) >= np.array(suite["metrics"][metric]["values"]) - 1e-6
        ).all()
    run = tmp_path / "runs" / "tiny"
    assert "for SSIM" in (run / "index.html").read_text()
    assert "SSIM of what it chose for SSIM" in yardstick(load_results(run, [result["id"] for result in results]))


def test_each_score_is_of_what_was_chosen_for_it() -> None:
    metrics = ("psnr", "ssim", "lpips", "ms_ssim")
    members = [
        Seen(
            {metric: torch.rand(4) for metric in metrics}, torch.arange(4) + 10 * k, {"hat": torch.arange(4) - 10 * k}
        )
        for k in range(3)
    ]
    chosen = {name: torch.tensor(of) for name, of in (("psnr", [0, 1, 2, 0]), ("ssim", [1] * 4), ("lpips", [2] * 4))}
    found = chosen_of(members, chosen)
    assert torch.equal(found.likeness["ssim"], members[1].likeness["ssim"])
    assert torch.equal(found.likeness["lpips"], members[2].likeness["lpips"])
    for metric in ("psnr", "ms_ssim"):
        expected = [members[attack].likeness[metric][photo] for photo, attack in enumerate((0, 1, 2, 0))]
        assert found.likeness[metric].tolist() == torch.stack(expected).tolist()
    assert found.task is not None
    assert found.task.tolist() == [0, 11, 22, 3]
    assert found.labels["hat"].tolist() == [0, -9, -18, 3]


def test_the_choice_is_the_same_whatever_the_photos_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that it rests on is what was intercepted and what the adversary rebuilt."""
    (tmp_path / "tastes.py").write_text(TWO_TASTES)
    tastes = "".join(f'[[attacks]]\nname = "tastes.py:{name}"\n' for name in ("Grainy", "Shifted"))
    _, _, store = run_plan(HEAD + NONE + tastes, tmp_path, shared=True)
    (suite,) = [cell for cell in cells_of(read_plan(tmp_path / "plan.toml")) if isinstance(cell, StrongestCell)]
    known = {metric: of.tolist() for metric, of in suite.stage.choice(store).items()}
    assert set(known) == {"psnr", "ssim"}
    loaded = DataStage.load

    def other_photos(stage: DataStage, of: Store) -> Data:
        data = loaded(stage, of)
        return replace(data, images={**data.images, "target": 255 - data.images["target"].flip(0)})

    monkeypatch.setattr(DataStage, "load", other_photos)
    (tmp_path / "again").mkdir()
    suite.stage.compute(tmp_path / "again", store)
    assert json.loads((tmp_path / "again" / "choice.json").read_text()) == known


def test_a_mirror_doubles_the_attackers_photos_and_nothing_else(tmp_path: Path) -> None:
    head = HEAD.replace("auxiliary = 64", "auxiliary = 64\nmirror = true")
    plan = tmp_path / "plan.toml"
    plan.write_text(head + NONE + RIDGE)
    *_, cell = cells_of(read_plan(plan))
    store = Store(tmp_path / CACHE, torch.device("cpu"))
    data = cell.protect.victim.data.load(store)
    assert {part: len(images) for part, images in data.images.items()} == {
        "train": 96,
        "auxiliary": 128,
        "validation": 32,
        "target": 24,
        "test": 104,
    }
    assert torch.equal(data.images["auxiliary"][64:], data.images["auxiliary"][:64].flip(3))
    assert data.identities is not None
    for values in (*data.attributes["auxiliary"].values(), data.identities["auxiliary"]):
        assert torch.equal(values[64:], values[:64])
    results, _, _ = run_plan(head + NONE + RIDGE, tmp_path, shared=True)
    assert results[0]["queries"] == FEW + 128 + len(data.images["validation"])


def test_who_learns_has_moved_copies_of_its_photos_encoded_once(tmp_path: Path) -> None:
    def computed(copies: int) -> tuple[Counter[str], Store]:
        head = HEAD.replace("auxiliary = 64", f"auxiliary = 64\ncopies = {copies}")
        results, _, store = run_plan(head + NONE + SUBSET + RIDGE + DECODER, tmp_path)
        assert {result["status"] for result in results} == {"ok"}
        return Counter(store.computed), store

    assert "moved" not in computed(0)[0]
    fresh, store = computed(2)
    assert {label: fresh[label] for label in ("moved", "features", "attack")} == {
        "moved": 1,
        "features": 1,
        "attack": 2,
    }
    (moved,) = (load_array(path / "images.npy") for path in (store.root / "moved").iterdir() if path.is_dir())
    plan = tmp_path / "plan.toml"
    cells = [cell for cell in cells_of(read_plan(plan)) if isinstance(cell, AttackCell)]
    assert {cell.attack["name"]: cell.stage.moved is not None for cell in cells} == {
        "mean_image": False,
        "ridge": False,
        "decoder": True,
    }
    images = cells[0].protect.victim.data.load(store).images["auxiliary"]
    assert torch.equal(moved[:64], images)
    assert moved.shape == (192, *images.shape[1:])
    for copy in moved[64:].split(64):
        assert not torch.equal(copy, images)
        # the same photos: nearer to their own, as it is or mirrored, than to that of another row
        own, others = (_apart(copy, other) for other in (images, images.roll(1, 0)))
        assert own.mean() < 0.7 * others.mean()


@pytest.mark.parametrize(
    ("attack", "learns"),
    [
        (Decoder(), True),
        (Refine(), True),
        (Decoder(architecture="upsample"), False),
        (InverseNetwork(), False),
        (InverseNetwork(queries="noise"), False),
        (Ridge(), False),
    ],
)
def test_a_recipe_that_others_published_has_no_copies(attack: Attack[Any], learns: bool) -> None:
    assert attack.learns_from_copies is learns


def _apart(copies: torch.Tensor, photos: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of each copy from its photo or the mirrored photo, whichever is less."""
    differences = [(copies.float() - seen.float()).abs().mean((1, 2, 3)) for seen in (photos, photos.flip(3))]
    return torch.minimum(*differences)


def test_one_attack_is_no_suite(tmp_path: Path) -> None:
    results, _, _ = run_plan(HEAD + NONE + MEAN + RIDGE, tmp_path, shared=True)
    assert "strongest" not in _by_name(results)


def test_the_usual_attack_stays_unless_another_promises_more_than_the_doubt() -> None:
    random = np.random.default_rng(3)
    photo = random.normal(0, 1, 32)  # some are hard for all
    made = -5 + photo
    usual = Prediction(np.full(6, -5.0), made, photo + random.normal(0, 0.1, 32))
    other = Prediction(np.array([-5.05, -6.0, -4.0, -5.6]), made + 0.3, photo + random.normal(0, 0.1, 32))
    # a gain within the doubt, two clear ones, a loss; and two photos that the other one never tried
    assert choose([usual, other]).tolist() == [0, 1, 0, 1, 0, 0]
    assert choose([other, usual]).tolist() == [1, 0, 1, 0, 1, 1]


def test_a_search_on_a_few_easy_photos_is_compared_on_those_alone() -> None:
    made = np.concatenate([np.full(32, -6.0), np.full(96, -4.0)])  # the first ones are easy
    usual = Prediction(np.full(4, -4.5), made, np.zeros(128))
    search = Prediction(np.full(2, -4.5), made[:32] + 0.2, np.zeros(32))
    assert choose([usual, search]).tolist() == [0, 0, 0, 0]
    better = search._replace(made=made[:32] - 0.2)
    assert choose([usual, better]).tolist() == [1, 1, 0, 0]


def test_the_line_that_ranks_attacks() -> None:
    x = np.random.default_rng(0).normal(size=200)
    slope, offset = _line(x, 0.7 * x + 2)
    assert (slope, offset) == (pytest.approx(0.7), pytest.approx(2.0))
    assert _line(x, -x)[0] == 0  # a better match is never taken for a sign of a worse picture
    assert _line(np.ones(5), np.arange(5.0)) == (0.0, 2.0)
