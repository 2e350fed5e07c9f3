from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from splitleak.victims.data.sources.faces import Faces
from splitleak.victims.data.sources.faces.painting import render
from splitleak.victims.data.sources.faces.parameters import CHIN, EXPRESSIONS
from splitleak.victims.errors import InvalidInputError


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * ((a.float() - b.float()) / 255).square().mean().log10())


@pytest.fixture(scope="module")
def images() -> Tensor:
    return Faces().read(range(300), 64).images


def test_images_are_uint8_squares_of_any_size() -> None:
    for size in (1, 33, 320):
        images = Faces().read([3, 1], size).images
        assert images.dtype == torch.uint8
        assert images.shape == (2, 3, size, size)
    assert Faces().read([], 64).images.shape == (0, 3, 64, 64)
    assert Faces().read([7], 64).corrupt == ()


def test_images_use_the_whole_range(images: Tensor) -> None:
    assert images.min() < 5
    assert images.max() > 250
    assert 80 < images.float().mean() < 150


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_photo_does_not_depend_on_the_number_of_threads(images: Tensor, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(Faces().read(range(130), 64).images, images[:130])
        # operations that torch itself divides among threads
        assert torch.equal(render(Faces().portraits(range(40)), 64), images[:40])
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [37, 64])
def test_a_photo_does_not_depend_on_its_company(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Faces()
    together = source.read(range(24), size).images
    assert torch.equal(source.read(range(23, -1, -1), size).images, together.flip(0))
    assert torch.equal(source.read([5], size).images[0], together[5])
    monkeypatch.setattr("splitleak.victims.data.sources.faces.source.CHUNK_PIXELS", 5 * size * size)
    assert torch.equal(source.read(range(24), size).images, together)


def test_fewer_photos_are_a_prefix() -> None:
    few, many = Faces(photos=12), Faces(photos=40)
    assert few.catalog().names == many.catalog().names[:12]
    for task, labels in few.catalog().labels.items():
        assert torch.equal(labels.values, many.catalog().labels[task].values[:12])
    assert torch.equal(few.read(range(12), 32).images, many.read(range(12), 32).images)


def test_another_seed_shows_other_people() -> None:
    assert psnr(Faces(seed=0).read(range(8), 32).images, Faces(seed=1).read(range(8), 32).images) < 18
    fingerprints = {Faces(), Faces(seed=1), Faces(photos=9), Faces(photos_per_identity=2)}
    assert len({source.fingerprint() for source in fingerprints}) == 4
    assert Faces().fingerprint() == Faces().fingerprint()


def test_labels_are_as_frequent_as_promised() -> None:
    catalog = Faces().catalog()
    assert len(catalog) == len(set(catalog.names)) == 10_000
    assert catalog.names[123] == "face_000123"
    shares = {task: labels.values.bincount() / 10_000 for task, labels in catalog.labels.items()}
    torch.testing.assert_close(shares["expression"], torch.full((4,), 0.25), atol=0.02, rtol=0)
    torch.testing.assert_close(shares["glasses"], torch.tensor([0.7, 0.3]), atol=0.02, rtol=0)
    torch.testing.assert_close(shares["mask"], torch.tensor([0.65, 0.35]), atol=0.02, rtol=0)
    # the labels tell nothing about each other
    together = torch.stack([labels.values.float() for labels in catalog.labels.values()])
    assert (torch.corrcoef(together) - torch.eye(3)).abs().max() < 0.04


def test_consecutive_photos_show_one_person() -> None:
    catalog = Faces(photos=10, photos_per_identity=4).catalog()
    assert catalog.identity is not None
    assert catalog.identity.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert catalog.split is None


def test_pixels_show_the_labels_of_the_catalogue() -> None:
    source = Faces(photos=50)
    shot = source.portraits(range(50)).shot
    for task, labels in source.catalog().labels.items():
        assert torch.equal(getattr(shot, task), labels.values)


@pytest.mark.parametrize("masked", [False, True])
def test_an_expression_shows_in_eyes_and_mouth_only(masked: bool) -> None:
    portrait = Faces().portraits(range(20))
    still = {"glasses": torch.zeros(20, dtype=torch.int64), "mask": torch.full((20,), int(masked))}
    # an upright head in the middle, so that rows of the picture are rows of the face
    still |= {"roll": portrait.shot.roll * 0, "down": torch.full_like(portrait.shot.down, CHIN)}
    shots = [replace(portrait.shot, **still, expression=torch.full((20,), i)) for i in range(len(EXPRESSIONS))]
    pictures = [render(replace(portrait, shot=shot), 64).float() for shot in shots]
    for a, b in pairwise(pictures):
        change = (a - b).abs().mean((0, 1))
        eyes, mouth = change[25:36, 20:44].mean(), change[38:46, 26:38].mean()
        assert eyes > 3
        assert change[:10].max() == 0
        # under a mask, only the jaw that drops remains
        assert mouth < 3 if masked else mouth > 5


def test_glasses_and_mask_change_the_picture() -> None:
    portrait = Faces().portraits(range(20))
    bare = {"glasses": torch.zeros(20, dtype=torch.int64), "mask": torch.zeros(20, dtype=torch.int64)}
    plain = render(replace(portrait, shot=replace(portrait.shot, **bare)), 64).float()
    for accessory in bare:
        worn = replace(portrait.shot, **(bare | {accessory: torch.ones(20, dtype=torch.int64)}))
        change = (render(replace(portrait, shot=worn), 64).float() - plain).abs().amax(1).flatten(1)
        assert (change > 15).float().mean(1).min() > 0.004


def test_people_are_recognisable(images: Tensor) -> None:
    # mean colour of the middle of the head and of the hair above; a mask covers the first
    bare = Faces().catalog().labels["mask"].values[:300] == 0
    images, identity = images[bare], (torch.arange(300) // 5)[bare]
    middle = images[:, :, 22:44, 24:40].float().mean((2, 3))
    above = images[:, :, 10:16, 26:38].float().mean((2, 3))
    look = torch.cat((middle, above), dim=1)
    distance = torch.cdist(look, look)
    same = identity[:, None] == identity
    assert distance[same & ~torch.eye(len(same), dtype=torch.bool)].mean() < 0.6 * distance[~same].mean()


def test_a_small_picture_is_a_large_one_scaled_down(images: Tensor) -> None:
    large = avg_pool2d(Faces().read(range(40), 128).images.float(), 2)
    each = [psnr(a, b) for a, b in zip(large, images[:40], strict=True)]
    assert min(each) > 25


def test_the_mean_picture_is_a_poor_guess(images: Tensor) -> None:
    mean = images.float().mean(0)
    each = [psnr(image, mean) for image in images]
    assert 11 < sum(each) / len(each) < 15


def test_no_detail_is_cut_off_by_the_windows(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "splitleak.victims.data.sources.faces.canvas._window", lambda *box: (slice(None), slice(None))
    )
    assert torch.equal(render(Faces().portraits(range(100)), 64), images[:100])


def test_requests_that_cannot_be_met_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="0 to 9, not 10"):
        Faces(photos=10).read([10], 64)
    with pytest.raises(InvalidInputError, match="size of at least 1"):
        Faces(photos=10).read([0], 0)
    with pytest.raises(InvalidInputError, match="photos"):
        Faces(photos=0)
