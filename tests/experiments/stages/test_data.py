"""What the data stage tells of the photos that it read."""

from pathlib import Path

import pytest
import torch
from pictures import encoded, picture, write_folder
from PIL import Image

from splitleak.experiments.run.check import check_task
from splitleak.experiments.stages.data import DataStage
from splitleak.experiments.store.store import Store
from splitleak.victims.data.base import Catalog, Labels
from splitleak.victims.data.parts import PartSizes
from splitleak.victims.data.sources.files import Folder
from splitleak.victims.errors import InvalidInputError


def test_notes_of_the_catalogue_and_of_decoding_travel_to_the_data(tmp_path: Path) -> None:
    files = {f"{number % 12}/{number}.png": encoded(picture(number, 8, 8)) for number in range(40)}
    files |= {"3/film.mp4": b"", "3/broken.png": b"no photo"}
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    for number in range(3):
        clear.putpixel((number, number), (255, 0, 0, 255))
        files[f"4/clear{number}.png"] = encoded(clear)
    (tmp_path / "photos/empty").mkdir(parents=True)
    source = Folder(str(write_folder(tmp_path / "photos", files)), on_corrupt="skip")
    stage = DataStage(source, PartSizes(13, 10, 10, 10), 8, "class", 0)
    store = Store(tmp_path / "store", torch.device("cpu"))
    assert stage.load(store).notes == (
        "left out 1 file whose extension is not read: 1 .mp4",
        "class 'empty' has no photo",
        "3 photos with transparency, shown on white",
        "left out 1 unreadable photo: 3/broken.png",
    )
    assert Store(store.root, store.device).computed == []
    assert stage.load(Store(store.root, store.device)).notes[0] == source.catalog().notes[0]


@pytest.mark.parametrize("values", [[0, 0, -1], [1, 1, 1]])
def test_a_task_of_one_class_is_refused(values: list[int]) -> None:
    labels = Labels(torch.tensor(values), ("a", "b"))
    with pytest.raises(InvalidInputError, match="it has a single class, so there is nothing to predict"):
        check_task(Catalog(("1", "2", "3"), {"kind": labels}), "kind")


def test_the_classes_of_a_task_are_all_of_it() -> None:
    labels = Labels(torch.tensor([0, 2, -1]), ("a", "b", "c"))
    assert check_task(Catalog(("1", "2", "3"), {"kind": labels}), "kind") == ("a", "b", "c")
