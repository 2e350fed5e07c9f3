"""Real time as a number: photos over a loopback socket at several speeds, for each defence of a run."""

import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from splitleak.experiments.report.figures import save
from splitleak.experiments.report.realtime import Timed, realtime_figure, realtime_table
from splitleak.experiments.store.store import Store
from splitleak.experiments.tools.deploy import Deployment
from splitleak.experiments.tools.deploy.runtime import Cloud, Edge
from splitleak.experiments.tools.finished import Setting
from splitleak.experiments.tools.live.cloud import CloudServer
from splitleak.experiments.tools.live.edge import Answered, EdgeClient
from splitleak.experiments.tools.live.link import Link, Place, place_of
from splitleak.experiments.tools.live.photos import photos_of
from splitleak.experiments.tools.live.together import LOOPBACK
from splitleak.victims.errors import InvalidInputError

FOLDER = "realtime"
"""In a run's folder."""
WARM_UPS = 3
"""Photos that are sent first and not counted."""


@dataclass(frozen=True)
class Conditions:
    """``megabits``: the speeds, each in both directions; ``delay``: milliseconds each way; ``count``: photos."""

    megabits: Sequence[float]
    delay: float
    count: int


def measured(
    settings: Sequence[Setting], store: Store, conditions: Conditions, told: Callable[[str], None]
) -> list[Timed]:
    """Each setting at each speed; ``told`` gets a line on each, and on why one is left out.

    Raises:
        InvalidInputError: none of them can be deployed, or a connection was lost.
    """
    found: list[Timed] = []
    for setting in settings:
        with tempfile.TemporaryDirectory(prefix="splitleak") as folder:
            try:
                Deployment.of(setting, store).write(Path(folder), lambda line: None)
            except InvalidInputError as error:
                told(f"left out: {error}")
                continue
            edge, cloud = Edge(folder), Cloud(folder)
        for speed in conditions.megabits:
            one = asyncio.run(_timed(setting.label, edge, cloud, speed, conditions))
            told(f"{one.defence} at {speed:g} Mbit/s: {one.rate:.1f} photos/s")
            found.append(one)
    if not found:
        raise InvalidInputError("none of these defences can be deployed, so there is nothing to measure")
    return found


async def _timed(label: str, edge: Edge, cloud: Cloud, speed: float, conditions: Conditions) -> Timed:
    link = partial(Link, speed, conditions.delay)
    said: list[str] = []
    listening = Place(LOOPBACK, 0).listening()
    async with CloudServer(cloud.answer, said.append, link()).at(listening):
        client = EdgeClient(edge.send, place_of(listening), said.append, link())
        photos = list(photos_of(None, edge.described["photo"][-1], WARM_UPS + conditions.count))
        answered, began = [], 0.0
        async for one in client.answers(photos):
            answered.append(one)
            if one.number == WARM_UPS:
                began = time.perf_counter()
        seconds = time.perf_counter() - began
    if said:  # a time that was measured twice, or in part, is none
        raise InvalidInputError(f"{label} at {speed:g} Mbit/s: {said[0]}")
    return _summed(label, speed, answered[WARM_UPS:], seconds)


def _summed(label: str, speed: float, answered: list[Answered], seconds: float) -> Timed:
    parts = {name: tuple(getattr(one, name) for one in answered) for name in ("edge", "wire", "cloud")}
    return Timed(label, speed, sum(one.size for one in answered) / len(answered), **parts, seconds=seconds)


def write(timed: list[Timed], setting: Setting, delay: float) -> Path:
    """The table, the figure and every number, in the run's folder; returns where."""
    folder = setting.folder / FOLDER
    folder.mkdir(exist_ok=True)
    rows = {row.defence.label: row for row in setting.results().rows}
    realtime_table(timed, rows, delay).write(folder)
    save(realtime_figure(timed), folder / "realtime", "png", "svg")
    (folder / "realtime.json").write_text(json.dumps([asdict(one) for one in timed], indent=1))
    return folder
