"""Which task a plan's label or file means, and what then applies."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import MEAN, NONE, RIDGE, run_plan

from splitleak.experiments.cells.scenes import Scenes
from splitleak.experiments.planning.plan import Plan, parse_plan
from splitleak.experiments.run.check import check_plan
from splitleak.experiments.tools.new import new_plugin
from splitleak.victims.errors import InvalidInputError

HEAD = """
[victim]
model = "{model}"
cut = "C4"
data = {{ name = "{data}", photos = 300 }}
size = 64
task = "{task}"
epochs = 1
patience = 0
batch_size = 16
[parts]
train = 32
validation = 16
target = 16
test = 16
[defender]
epochs = 1
patience = 0
[attacker]
auxiliary = 32
copies = 0
"""
SSD, DEEPLAB, CLASSIFIER = "ssdlite320_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "mobilenet_v3_large"
SALIENT = '[[defenses]]\nname = "channel_subset"\nkeep = 0.25\n'
OF_CLASSES = "".join(
    f'[[defenses]]\nname = "{name}"\n'
    for name in (
        *("dp_sgd", "multi_server", "label_smoothing", "siamese", "conditional_entropy", "frequency_removal"),
        "gaussian_noise",
    )
)
SHADOW = '[[attacks]]\nname = "shadow_model"\n'


def planned(folder: Path, rest: str, **head: str) -> Plan:
    text = HEAD.format(**head) + rest
    return parse_plan(tomllib.loads(text), text, folder, "plan")


@pytest.mark.parametrize(
    ("data", "label", "task"),
    [
        ("faces", "mask", "classification"),
        ("faces", "parts", "segmentation"),
        ("face_scenes", "heads", "detection"),
        ("face_scenes", "people", "classification"),
    ],
)
def test_the_form_of_the_label_decides(data: str, label: str, task: str, tmp_path: Path) -> None:
    plan = planned(tmp_path, NONE + MEAN, model=CLASSIFIER, data=data, task=label)
    assert plan.task is not None
    assert (plan.task.name, plan.label) == (task, label)


def test_numbers_need_a_task_in_a_file(tmp_path: Path) -> None:
    plan = planned(tmp_path, NONE + MEAN, model=CLASSIFIER, data="faces", task="pose")
    with pytest.raises(InvalidInputError, match="'pose': a label of the form 'values' needs a task of your own"):
        _ = plan.task


def test_photos_do_not_move_where_their_labels_would_stay(tmp_path: Path) -> None:
    head = {"model": SSD, "data": "face_scenes", "task": "heads"}
    plan = planned(tmp_path, NONE + MEAN, **head)
    check_plan(plan)
    moved = plan.text.replace("size = 64", 'size = 64\naugment = "flip"')
    with pytest.raises(
        InvalidInputError, match="augment = 'flip': photos would move and their labels, detection's, stay"
    ):
        check_plan(parse_plan(tomllib.loads(moved), moved, tmp_path, "plan"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('label: ClassVar[str] = "gaze"', "unknown task 'gaze'"),
        ('label: ClassVar[str] = "parts"', "my_pose takes labels of the form 'values', and 'parts' has 'mask'"),
        ("label: ClassVar[None] = None", "the task names no label of the data; set its 'label'"),
    ],
)
def test_a_file_that_predicts_what_is_not_there_is_refused(change: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "pose.py"
    new_plugin("task", "my_pose", file)
    file.write_text(file.read_text().replace('label: ClassVar[str] = "pose"', change))
    with pytest.raises(InvalidInputError, match=said):
        _ = planned(tmp_path, NONE + MEAN, model=CLASSIFIER, data="faces", task="pose.py:MyPose").task


def test_a_network_for_another_task_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"the shape \(2,\), but the task has 2 classes and takes"):
        check_plan(planned(tmp_path, NONE + MEAN, model=CLASSIFIER, data="face_scenes", task="heads"))
    with pytest.raises(InvalidInputError, match=r"outputs have the shape \(2, 64, 64\), but the task has 2 classes"):
        check_plan(planned(tmp_path, NONE + MEAN, model=DEEPLAB, data="faces", task="mask"))


def test_what_needs_one_class_of_a_photo_says_that_it_does_not_apply(tmp_path: Path) -> None:
    plan = planned(tmp_path, OF_CLASSES + RIDGE + SHADOW, model=SSD, data="face_scenes", task="heads")
    scenes, (threat,) = Scenes(plan), plan.threats
    *others, noise = [entry.plugin for entry in plan.defenses if entry.plugin.name != "none"]
    assert len(others) == 6
    for defense in others:
        reason = scenes.unused(defense)
        assert reason == f"{defense.name} does not apply: it needs one class for each photo, and detection has none"
    assert scenes.unused(noise) is None
    ridge, shadow = [entry.plugin for entry in plan.attacks if not entry.plugin.floor]
    assert scenes.inapplicable(noise, threat, ridge) is None
    assert "it needs a tail that tells one class of each photo" in str(scenes.inapplicable(noise, threat, shadow))


def checked(results: list[dict[str, Any]], metric: str) -> None:
    assert {result["status"] for result in results} == {"ok"}
    for result in results:
        utility = result["utility"]
        assert utility["metric"] == metric
        assert len(utility["values"]) == 16
        assert 0 <= min(utility["values"]) <= max(utility["values"]) <= 1
        assert "task_utility" in result["metrics"]
        assert "task_accuracy" not in result["metrics"]


@pytest.mark.slow
def test_a_detector_runs_from_end_to_end(tmp_path: Path) -> None:
    head = HEAD.format(model=SSD, data="face_scenes", task="heads")
    results, _, _ = run_plan(head + NONE + SALIENT + RIDGE, tmp_path, report=True)
    checked(results, "F1")
    page = next(tmp_path.rglob("index.html")).read_text()
    assert "F1" in page
    assert "accuracy" not in page.split("<body")[1].split("glossary")[0].replace("task accuracy", "")


@pytest.mark.slow
def test_all_maps_of_a_pyramid_are_one_release(tmp_path: Path) -> None:
    head = HEAD.format(model=SSD, data="face_scenes", task="heads").replace('cut = "C4"', 'cut = "pyramid"')
    results, _, _ = run_plan(head + NONE + '[[defenses]]\nname = "quantisation"\nbits = 2\n' + RIDGE, tmp_path)
    checked(results, "F1")
    plain, coarse = (result["bytes"] for result in results)
    assert 0 < plain - 4 * (672 * 16 + 480 * 4 + 512 + 256 + 256 + 128) < 200  # its shape is told too
    assert coarse < plain / 12


@pytest.mark.slow
def test_a_segmenter_runs_from_end_to_end(tmp_path: Path) -> None:
    head = HEAD.format(model=DEEPLAB, data="faces", task="regions")
    results, _, _ = run_plan(head + NONE + SALIENT + RIDGE, tmp_path)
    checked(results, "IoU")


@pytest.mark.slow
def test_a_task_in_a_file_runs_from_end_to_end(tmp_path: Path) -> None:
    new_plugin("task", "my_pose", tmp_path / "pose.py")
    head = HEAD.format(model="mobilenet_v3_small", data="faces", task="pose.py:MyPose")
    head = head.replace('cut = "C4"', 'cut = "features.2.block.1"').replace("size = 64", "size = 32")
    results, _, _ = run_plan(head + NONE + RIDGE, tmp_path)
    checked(results, "closeness")
    assert results[0]["victim"]["task"] == "pose"
    assert torch.tensor(results[0]["utility"]["values"]).std() > 0
