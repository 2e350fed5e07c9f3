"""The judge's own network reads labels on reconstructions: as well as on the photos, by chance on grey ones."""

import pytest
import torch
from tiny import HEAD, link_stages
from torch import Tensor

from splitleak.experiments.cells.build import cells_of
from splitleak.experiments.judge.metrics.information import mean_image_errors
from splitleak.experiments.judge.scores import Reader, Truth, score_eavesdropping, score_images
from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.stages import reader
from splitleak.experiments.stages.data import Data, DataStage
from splitleak.experiments.stages.reader import ReaderStage, reader_stage
from splitleak.experiments.store.store import Store

PHOTOS = HEAD.replace("photos = 400", "photos = 1000").replace("auxiliary = 64", "auxiliary = 500")
PLAN = PHOTOS + '[[defenses]]\nname = "none"\n[[attacks]]\nname = "mean_image"\n'


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataStage, Store]:
    folder = tmp_path_factory.mktemp("reader")
    (folder / "plan.toml").write_text(PLAN)
    link_stages(folder / "runs" / CACHE)
    store = Store(folder / "runs" / CACHE, torch.device("cpu"))
    data = next(iter(cells_of(read_plan(folder / "plan.toml")))).protect.victim.data
    return data, store


def read_by(stage: ReaderStage, store: Store) -> Reader:
    return Reader(stage.targets(store), lambda images: stage.read(images, store))


def test_labels_are_read_on_what_shows_them(shared: tuple[DataStage, Store]) -> None:
    stage_of_data, store = shared
    stage = reader_stage(stage_of_data, "cpu")
    assert stage is not None
    data = stage_of_data.load(store)
    images, attributes = data.images["target"], data.attributes["target"]
    truth = Truth(images, attributes, data.task, reader=read_by(stage, store))
    assert truth.reader is not None
    assert set(truth.reader.photos) == set(reader.told(data))
    exact, grey = (score_images(shown, truth) for shown in (images, torch.full_like(images, 128)))
    metric = "eavesdropping_accuracy"
    labels = attributes["mask"]
    chance = float(labels.bincount().max() / len(labels))
    for scores in (exact, grey):
        assert scores.references[metric]["chance"] == pytest.approx(chance)
        assert scores.references[metric]["ceiling"] == exact.values[metric].mean() > chance + 0.1
    assert grey.values[metric].mean() <= chance
    others = {name for name in exact.values if name.startswith(f"{metric}_")}
    assert others <= {f"{metric}_{name}" for name in attributes if name != "mask"}


def test_unknown_labels_do_not_count() -> None:
    photos = {"age": torch.tensor([0, 1, 0, 1]), "hat": torch.tensor([0, 0, 0, 0])}
    labels = {"age": torch.tensor([0, 1, 1, -1]), "hat": torch.zeros(4, dtype=torch.int64)}
    shown = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    read = {"age": torch.tensor([0, 0, 1, 0]), "hat": torch.zeros(4, dtype=torch.int64)}
    scores = score_eavesdropping(read, Reader(photos, lambda _: read), Truth(shown, labels, "smile"))
    assert set(scores.values) == {"eavesdropping_accuracy_age"}  # nobody can be wrong about the hat
    assert scores.values["eavesdropping_accuracy_age"][:3].tolist() == [1, 0, 1]
    assert scores.values["eavesdropping_accuracy_age"][3].isnan()
    assert scores.references["eavesdropping_accuracy_age"] == pytest.approx({"chance": 2 / 3, "ceiling": 2 / 3})


def test_the_loss_is_that_of_the_labels_that_are_known() -> None:
    outputs = torch.tensor([[0.0, 1.0, 2.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0, 5.0]])
    labels = torch.tensor([[1, -1], [0, 2]])
    expected = -(log_share(outputs[0, :2], 1) + log_share(outputs[1, :2], 0) + log_share(outputs[1, 2:], 2)) / 3
    assert reader._wrong(outputs, labels, {"one": 2, "other": 3}) == pytest.approx(expected)
    assert reader._wrong(outputs, torch.full((2, 2), -1), {"one": 2, "other": 3}) == 0


def log_share(outputs: Tensor, label: int) -> float:
    return float(outputs[label] - outputs.exp().sum().log())


def test_photos_without_two_classes_have_no_reader(shared: tuple[DataStage, Store]) -> None:
    data = shared[0].load(shared[1])
    one = {**data.attributes, "auxiliary": {name: 0 * of for name, of in data.attributes["auxiliary"].items()}}
    assert reader.told(data)
    assert reader.told(Data(data.images, one, data.names, data.identities, data.task, data.manifest, {})) == {}


def test_the_floor_of_errors_is_the_mean_image(shared: tuple[DataStage, Store]) -> None:
    data = shared[0].load(shared[1])
    floor = mean_image_errors(data.images["auxiliary"], data.images["target"])
    mean = data.images["auxiliary"].double().mean(0).round().to(torch.uint8).expand_as(data.images["target"])
    scores = score_images(mean, Truth(data.images["target"], floor=floor))
    assert scores.values["mse"].tolist() == pytest.approx(floor.tolist(), rel=0.01)
    assert float(scores.values["usable_bits"].mean()) < 0.01 * 3 * 32**2 / 2
