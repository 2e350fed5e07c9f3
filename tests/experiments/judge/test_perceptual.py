"""LPIPS without a download, what the victim reads from reconstructions, and how alike a recogniser finds them."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchmetrics.functional.image.lpips as published
import torchvision
from safetensors.torch import save_file
from tiny import DECODER, HEAD, MEAN, NONE, RIDGE, run_plan
from torch import Tensor

from splitleak.experiments.judge.metrics.perceptual import check_lpips, lpips
from splitleak.experiments.judge.scores import (
    SIMILARITY,
    TASK_ACCURACY,
    Reading,
    Recogniser,
    Truth,
    score_images,
    score_similarity,
)
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.run.check import check_plan
from splitleak.experiments.run.run import Run
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.seeding import seeded
from splitleak.victims.tasks.classification import CLASSIFICATION

TAPS = (1, 4, 7, 9, 11)
"""After which layers of AlexNet's features LPIPS compares."""


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    with seeded("alexnet"):
        torch.save(torchvision.models.alexnet(weights=None).state_dict(), path)
    return path


def _pictures(count: int = 3, size: int = 64) -> tuple[Tensor, Tensor]:
    with seeded("pictures"):
        return torch.rand(count, 3, size, size), torch.rand(count, 3, size, size)


def slow_lpips(backbone: Path, one: Tensor, other: Tensor) -> Tensor:
    """By hand: Zhang et al., equation 1, with the heads that the package holds."""
    network = torchvision.models.alexnet(weights=None)
    network.load_state_dict(torch.load(backbone, weights_only=True))
    heads = torch.load(
        Path(inspect.getfile(published)).parent / "lpips_models" / "alex.pth", "cpu", weights_only=True
    )
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    taken: list[list[Tensor]] = []
    for images in (one, other):
        values, kept = (2 * images - 1 - shift) / scale, []
        for index, layer in enumerate(network.features[: TAPS[-1] + 1]):
            values = layer(values)
            if index in TAPS:
                kept.append(values / values.square().sum(1, keepdim=True).sqrt())
        taken.append(kept)
    total = torch.zeros(len(one))
    for index, (a, b) in enumerate(zip(*taken, strict=True)):
        total += F.conv2d((a - b).square(), heads[f"lin{index}.model.1.weight"]).mean((1, 2, 3))
    return total


@torch.no_grad()
def test_lpips_is_the_slow_one(backbone: Path) -> None:
    images, rebuilt = _pictures()
    torch.testing.assert_close(lpips(str(backbone))(images, rebuilt), slow_lpips(backbone, images, rebuilt))
    assert lpips(str(backbone))(images, images).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["vgg16", "squeezenet1_1"])
def test_other_backbones_are_told_by_their_weights(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.safetensors"
    save_file(torchvision.models.get_model(name, weights=None).features.state_dict(), path)
    with pytest.raises(InvalidInputError, match="holds none of"):
        lpips(str(path))  # its keys do not begin with "features."
    whole = {
        f"features.{key}": value for key, value in torchvision.models.get_model(name).features.state_dict().items()
    }
    save_file(whole, tmp_path / "whole.safetensors")
    images, rebuilt = _pictures(1)
    assert float(lpips(str(tmp_path / "whole.safetensors"))(images, rebuilt)) > 0


def test_what_lpips_cannot_use_is_refused_at_once(backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="backbone of LPIPS not found"):
        lpips("no_such.pth")
    with pytest.raises(InvalidInputError, match="16 px are too small"):
        check_lpips(str(backbone), 16)
    plan = tmp_path / "plan.toml"
    plan.write_text(HEAD + '[judge]\nlpips = "no_such.pth"\n' + NONE + RIDGE)
    with pytest.raises(InvalidInputError, match=r"no_such\.pth"):
        check_plan(read_plan(plan))
    plan.write_text(HEAD + '[judge]\nlpips = "alexnet"\n' + NONE + RIDGE)
    with pytest.raises(InvalidInputError, match=r"judge\.lpips = 'alexnet'"):
        read_plan(plan)


def _keys(folder: Path) -> list[str]:
    return [cell.key for cell in Run.of(read_plan(folder / "plan.toml"), folder).cells]


def test_the_suite_chooses_for_lpips_too(backbone: Path, tmp_path: Path) -> None:
    head = HEAD + f'[judge]\nlpips = "{backbone}"\n'
    results, _, _ = run_plan(head + NONE + RIDGE + DECODER, tmp_path, shared=True)
    suite = results[-1]
    assert set(suite["chosen_for"]) >= {"ssim", "lpips"}
    assert sum(suite["chosen_for"]["lpips"].values()) == 24
    each = np.array([result["metrics"]["lpips"]["values"] for result in results[:-1]])
    assert suite["oracle"]["lpips"]["values"] == pytest.approx(each.min(0).tolist(), abs=1e-5)  # less is more alike
    assert suite["metrics"]["lpips"]["mean"] <= each.mean(1).max() + 1e-6


def test_lpips_and_task_accuracy_through_a_plan(backbone: Path, tmp_path: Path) -> None:
    head = HEAD + f'[judge]\nlpips = "{backbone}"\n'
    results, _, _ = run_plan(head + NONE + MEAN + RIDGE, tmp_path, report=True, shared=True)
    mean, ridge = (result["metrics"] for result in results)
    assert ridge["lpips"]["mean"] > 0
    assert len(ridge["lpips"]["values"]) == 24
    assert ridge[TASK_ACCURACY]["mean"] <= 1
    # one picture for all: the same answer for all
    commonest = results[0]["references"][TASK_ACCURACY]["chance"]
    assert any(mean[TASK_ACCURACY]["mean"] == pytest.approx(share) for share in (commonest, 1 - commonest))
    assert "LPIPS" in (tmp_path / "runs" / "tiny" / "matrix.md").read_text()
    keys = _keys(tmp_path)
    backbone.touch()
    assert _keys(tmp_path) == keys
    weights = backbone.read_bytes()
    backbone.write_bytes(weights + b"more")
    assert not set(_keys(tmp_path)) & set(keys)
    backbone.write_bytes(weights)


def test_without_its_weights_lpips_is_absent() -> None:
    photos = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    scores = score_images(photos, Truth(photos))
    assert not {"lpips", TASK_ACCURACY, SIMILARITY} & set(scores.values)


def test_task_accuracy_is_the_victims_own_on_what_was_rebuilt() -> None:
    photos = torch.tensor([10, 20, 200, 210], dtype=torch.uint8)[:, None, None, None].expand(4, 3, 16, 16)
    labels = torch.tensor([0, 0, 1, 0])
    right = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    victim = Reading(CLASSIFICATION, labels, right, lambda images: (images[:, 0, 0, 0] > 128).long())
    scores = score_images(photos.flip(0).contiguous(), Truth(photos.contiguous(), victim=victim))
    assert scores.values[TASK_ACCURACY].tolist() == [0, 0, 0, 1]
    assert scores.references[TASK_ACCURACY] == {"chance": 0.75, "ceiling": 0.75}


def test_identity_similarity_is_the_cosine() -> None:
    random = np.random.default_rng(0)
    photos, rebuilt = random.normal(size=(6, 5)), random.normal(size=(4, 5))
    people = np.array([0, 0, 1, 1, 2, -1])
    scores = score_similarity(torch.from_numpy(rebuilt), torch.from_numpy(photos), torch.from_numpy(people))

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    expected = [cosine(a, b) for a, b in zip(rebuilt, photos, strict=False)]
    assert scores.values[SIMILARITY].tolist() == pytest.approx(expected)
    others = [
        cosine(photos[i], photos[j])
        for i in range(6)
        for j in range(6)
        if people[i] != people[j] and min(people[i], people[j]) >= 0
    ]
    assert scores.references[SIMILARITY]["chance"] == pytest.approx(np.mean(others))


def test_the_recogniser_finds_a_photo_like_itself() -> None:
    photos = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)

    def embed(images: Tensor) -> Tensor:
        return images.float().flatten(1)

    truth = Truth(photos, identities=torch.tensor([0, 1, 2, 3]), recogniser=Recogniser(embed(photos), embed))
    assert score_images(photos, truth).values[SIMILARITY].tolist() == pytest.approx([1.0] * 4)
