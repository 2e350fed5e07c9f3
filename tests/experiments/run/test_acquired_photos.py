"""An adversary who has photos that the victim was trained on, and a defender who trains nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import HEAD, MEAN, NONE, RIDGE, run_plan

from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.run.check import check_plan
from splitleak.experiments.stages.attack import AttackStage
from splitleak.experiments.stages.data import Data
from splitleak.victims.errors import InvalidInputError

BOTH = HEAD + 'photos = ["own", "train"]\n'


def test_the_attack_learns_from_the_victims_photos_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[dict[str, Any]] = []
    photos_of = AttackStage._photos

    def noting(stage: AttackStage, data: Data) -> dict[str, Any]:
        shown.append(photos_of(stage, data))
        return shown[-1]

    monkeypatch.setattr(AttackStage, "_photos", noting)
    results, _, _ = run_plan(BOTH + NONE + MEAN + RIDGE, tmp_path)
    own, acquired = shown[0], shown[-1]
    data = next((tmp_path / "runs" / "cache" / "data").glob("*/train.npy")).parent
    assert len(own["images"]["auxiliary"]) == 64
    assert not torch.equal(own["images"]["auxiliary"], acquired["images"]["auxiliary"])
    assert torch.equal(acquired["images"]["auxiliary"], torch.from_numpy(np.load(data / "train.npy"))[:64])
    labels = load_file(data / "train.labels.safetensors")["mask"]
    assert torch.equal(acquired["labels"]["auxiliary"]["mask"], labels[:64])
    assert torch.equal(acquired["images"]["validation"], own["images"]["validation"])
    ridge = [cell for cell in results if cell["attack"]["name"] == "ridge"]
    assert [cell["photos"] for cell in ridge] == ["own", "train"]
    assert ridge[0]["metrics"]["psnr"]["values"] != ridge[1]["metrics"]["psnr"]["values"]
    assert ridge[0]["id"] != ridge[1]["id"]


def test_a_column_tells_whose_photos_they_are(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(BOTH + NONE + RIDGE)
    columns = [threat.column("ridge") for threat in read_plan(path).threats]
    assert columns == ["ridge", "ridge (training photos)"]


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(InvalidInputError) as error:
        check_plan(read_plan(path))
    return str(error.value)


def test_more_photos_than_the_victim_learned_from_are_refused(tmp_path: Path) -> None:
    text = BOTH.replace("auxiliary = 64", "auxiliary = 97") + NONE + RIDGE
    assert "attacker.auxiliary = 97, but the victim learns from 96 only" in refused(tmp_path, text)


UNTRAINED = HEAD.replace("[defender]\nepochs = 1", "[defender]\nepochs = 0")


@pytest.mark.parametrize("learning", ['"nopeek"', '"bottleneck"', '"information_bottleneck"'])
def test_what_learns_is_refused_where_nothing_trains(tmp_path: Path, learning: str) -> None:
    text = f"{UNTRAINED}{NONE}[[defenses]]\nname = {learning}\n{RIDGE}"
    assert refused(tmp_path, text).endswith("has something to learn; give it 1 or more")


def test_without_epochs_the_cloud_keeps_the_victims_half(tmp_path: Path) -> None:
    noise = '[[defenses]]\nname = "gaussian_noise"\nsigma = 0.5\n'
    results, _, _ = run_plan(UNTRAINED + NONE + noise + RIDGE, tmp_path)
    assert [cell["status"] for cell in results] == ["ok", "ok"]
    assert all(cell["training"]["defence"] == [] and cell["training"]["victim"] for cell in results)
    assert results[0]["metrics"]["psnr"]["mean"] > results[1]["metrics"]["psnr"]["mean"]
    features = [path.parent for path in (tmp_path / "runs" / "cache" / "features").glob("*/features.npy")]
    sizes = {len(np.load(folder / "features.npy")) for folder in features}
    assert 96 in sizes, "gaussian noise measures the spread of the train part"
