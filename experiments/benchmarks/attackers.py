"""Learned attackers of the undefended release at equal time: what each reaches with how many seconds of training."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from splitleak.attacks.base import Attack
from splitleak.attacks.decoder import Decoder
from splitleak.attacks.inverse_network import InverseNetwork
from splitleak.defenses.none import NoDefense
from splitleak.experiments.judge.rules import RANK_1
from splitleak.experiments.library import Experiment
from splitleak.experiments.results.record import Record
from splitleak.victims.errors import InvalidInputError

FACES: Mapping[str, Any] = {
    "victim": {"data": "faces", "size": 64, "cut": "features.4.block.0", "task": "smile", "epochs": 4},
    "parts": {"train": 800, "validation": 200, "target": 200},
    "attacker": {"auxiliary": 1000},
}
LFW: Mapping[str, Any] = {
    "victim": {
        "data": {"name": "index", "path": "lfw.zip"},
        "weights": "mobilenet_v3_large_features.safetensors",
        "freeze_encoder": True,
        "size": 96,
        "cut": "C4",
        "task": "gender",
        "epochs": 1,
    },
    "parts": {"train": 400, "validation": 200, "target": 400, "test": 0},
    "attacker": {"auxiliary": 1000},
    "judge": {"identity": "face_dlib_resnet128.onnx", "identity_crop": 0.6875},
}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "built-in faces, 64 px, a shallow cut": FACES,
    "LFW, 96 px, C4": LFW,
    "LFW, 160 px, C4": {
        **LFW,
        "victim": {**LFW["victim"], "size": 160},
        "attacker": {"auxiliary": 1800},
    },
}
"""Tables of an experiment. Those of LFW need the photos, the weights and an embedder, see the plan real_faces."""


@dataclass(frozen=True)
class Contender:
    """``passes``: over the attacker's photos, each a training of its own; ``copies``: of each photo, moved."""

    name: str
    attack: Attack[Any]
    passes: tuple[int, ...]
    copies: int = 0

    def trained_for(self, passes: int) -> Attack[Any]:
        """The attack with so many passes."""
        return replace(self.attack, epochs=passes)  # type: ignore[call-arg]  # those that are listed have it


CONTENDERS = (
    Contender("decoder", Decoder(), (13, 39), copies=8),
    Contender("decoder without moved copies", Decoder(), (13, 39)),
    Contender("inverse network, 2019", InverseNetwork(), (10, 30)),
    Contender("inverse network, a later benchmark's", InverseNetwork(variant="batch_norm"), (10, 30)),
)

COLUMNS = {"PSNR, dB": ("psnr", 1, 1), "SSIM": ("ssim", 1, 3), "rank-1 over people, %": (RANK_1, 100, 1)}
"""Of the table: the metric, what it is multiplied by, and its decimals."""


def compare(setting: str, contenders: tuple[Contender, ...] = CONTENDERS) -> Table:
    """Train each in turn, the shortest trainings first, so that a machine that slows down slows all of them."""
    table = Table("attacker", "passes", "seconds", *COLUMNS, box=None)
    table.title = f"learned attackers, undefended: {setting}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            for contender, passes, record in _records(SETTINGS[setting], contenders, Path(folder)):
                assert record.seconds
                assert record.groups
                cells = [_cell(record, *column) for column in COLUMNS.values()]
                table.add_row(contender.name, str(passes), f"{record.seconds.fit:.0f}", *cells)
                table.caption = f"{record.n} photos of {len(set(record.groups))} people, one training"
    except InvalidInputError as missing:
        table.caption = f"left out: {missing}"
    return table


def _records(
    tables: Mapping[str, Any], contenders: tuple[Contender, ...], folder: Path
) -> Iterator[tuple[Contender, int, Record]]:
    """Of every training, in turns."""
    for turn in range(max(len(contender.passes) for contender in contenders)):
        for contender in contenders:
            attacker = {**tables["attacker"], "copies": contender.copies}
            protected = Experiment(folder, **{**tables, "attacker": attacker}).protect(NoDefense())
            passes = contender.passes[min(turn, len(contender.passes) - 1)]
            yield contender, passes, protected.attack(contender.trained_for(passes)).judge()


def _cell(record: Record, metric: str, factor: int, digits: int) -> str:
    """The mean with its interval; nothing where it was not measured."""
    if metric not in record.metrics:
        return ""
    score = record.metrics[metric]
    mean, low, high = (f"{factor * value:.{digits}f}" for value in (score.mean, score.low, score.high))
    return f"{mean} [{low}, {high}]"
