"""What the built-in faces say beside classes: parts of pixels, the pose, boxes of heads in scenes."""

import pytest
import torch

from splitleak.victims.data.sources.faces import Faces, FaceScenes
from splitleak.victims.errors import InvalidInputError

PARTS = ("background", "skin", "hair", "eyes", "mouth", "glasses", "mask")


def test_parts_are_where_the_labels_say() -> None:
    faces = Faces(photos=60)
    chosen, catalog = list(range(60)), faces.catalog()
    assert catalog.annotations["parts"].classes == PARTS
    parts = faces.annotate("parts", chosen, 64)
    assert parts.shape == (60, 64, 64)
    shown = {name: (parts == number).flatten(1).any(1) for number, name in enumerate(PARTS)}
    assert torch.equal(shown["mask"], catalog.labels["mask"].values.bool())
    assert torch.equal(shown["glasses"], catalog.labels["glasses"].values.bool())
    assert (shown["mouth"] & shown["mask"]).float().mean() < 0.1  # a mask covers it
    assert (shown["skin"] & shown["background"]).all()


def test_coarser_labels_are_merged_parts() -> None:
    faces = Faces()
    parts, regions = (faces.annotate(name, range(8), 48) for name in ("parts", "regions"))
    assert torch.equal(regions > 0, parts > 0)
    assert torch.equal(regions == 2, parts == PARTS.index("hair"))
    assert torch.equal(regions == 1, (parts > 0) & (parts != 2) & (parts != 6))


def test_labels_do_not_depend_on_company_and_change_no_pixel() -> None:
    faces, scenes = Faces(), FaceScenes()
    alone, together = faces.annotate("parts", [7], 40), faces.annotate("parts", [3, 7, 9], 40)
    assert torch.equal(alone[0], together[1])
    before = faces.read([7], 40).images
    assert torch.equal(before, faces.read([7], 40).images)
    assert torch.equal(scenes.read([5], 64).images[0], scenes.read([2, 5], 64).images[1])
    assert torch.equal(scenes.annotate("heads", [5], 64)[0], scenes.annotate("heads", [2, 5], 96)[1])


def test_a_pose_is_two_numbers_that_turn_the_head() -> None:
    pose = Faces().annotate("pose", range(200), 32)
    assert pose.shape == (200, 2)
    assert pose.abs().max() <= 1
    assert (pose.std(0) > 0.3).all()


def test_boxes_hold_the_heads_of_a_scene_and_no_two_overlap() -> None:
    scenes = FaceScenes(photos=200)
    boxes = scenes.annotate("heads", range(200), 64)
    there = boxes[..., 4] >= 0
    assert torch.equal(there.sum(1) - 1, scenes.catalog().labels["people"].values)
    assert set(there.sum(1).tolist()) == {1, 2, 3, 4}
    edges = boxes[there]
    assert (edges[:, :2] < edges[:, 2:4]).all()
    assert edges[:, :4].min() >= 0
    assert edges[:, :4].max() <= 1
    width = edges[:, 2] - edges[:, 0]
    assert 0.15 < width.min() < width.max() < 0.48
    assert 0.2 < edges[:, 4].mean() < 0.5  # masks


def test_a_box_is_where_the_head_is_painted() -> None:
    scenes = FaceScenes()
    image = scenes.read([0], 96).images[0].float()
    boxes = scenes.annotate("heads", [0], 96)[0]
    for left, top, right, bottom, label in boxes.tolist():
        if label < 0:
            continue
        rows, columns = slice(round(top * 96), round(bottom * 96)), slice(round(left * 96), round(right * 96))
        inside = image[:, rows, columns]
        # a head has edges, the wall behind it is smooth
        assert inside.diff(dim=2).abs().mean() > 2 * image[:, :4, :4].diff(dim=2).abs().mean()


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="unknown annotation of faces: 'part'; did you mean parts"):
        Faces().annotate("part", [0], 32)
    with pytest.raises(InvalidInputError, match="face_scenes has the photos 0 to 3, not 4"):
        FaceScenes(photos=4).annotate("heads", [4], 32)
