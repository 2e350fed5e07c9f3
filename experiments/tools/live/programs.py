"""The processes of a demonstration: each runs until it is done, or told to stop."""

import asyncio
import contextlib
import http.client
import signal
import statistics
import urllib.request
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from splitleak.experiments.tools.deploy.runtime import Array, Cloud, Edge
from splitleak.experiments.tools.live.cloud import CloudServer
from splitleak.experiments.tools.live.edge import Answered, EdgeClient
from splitleak.experiments.tools.live.link import Link, Place, place_of
from splitleak.experiments.tools.live.page import TIMES, camera_report
from splitleak.experiments.tools.live.server import Say
from splitleak.experiments.tools.live.tls import serving, trusting
from splitleak.victims.errors import InvalidInputError

REPORT_SECONDS = 2.0


@dataclass(frozen=True)
class Secrets:
    """Files of TLS. ``certificate`` and ``key``: the cloud's; ``trust``: the certificate that the edge trusts."""

    certificate: Path | None = None
    key: Path | None = None
    trust: Path | None = None


async def cloud_program(folder: Path, listen: Place, link: Link, secrets: Secrets, say: Say) -> None:
    """Answer whoever asks, until the task is cancelled.

    Raises:
        InvalidInputError: no deployment there, no certificate, or somebody else listens there.
    """
    tls = serving(secrets.certificate, secrets.key)
    cloud, listening = loaded(Cloud, folder), listen.listening()
    server = CloudServer(cloud.answer, say, link)
    async with server.at(listening, tls):
        say(f"answering at {place_of(listening)}{' by TLS' if tls else ''}: {cloud.described['defence']}")
        await asyncio.Event().wait()


async def edge_program(
    folder: Path, cloud: Place, photos: Callable[[int], Iterable[Array]], pause: float, show: str | None,
    link: Link, secrets: Secrets, say: Say,
) -> list[Answered]:  # fmt: skip
    """Send photos, ``pause`` seconds apart, and tell the page at ``show`` of each answer.

    ``photos``: of a side in pixels.

    Raises:
        InvalidInputError: no deployment there, an unreadable photo, or a cloud that refuses.
    """
    edge, found = loaded(Edge, folder), []
    client = EdgeClient(edge.send, cloud, say, link, trusting(secrets.trust))
    shown = show
    async for one in client.answers(photos(edge.described["photo"][-1])):
        found.append(one)
        if shown and not await asyncio.to_thread(_report, shown, one, edge.described):
            say(f"the page at {shown} does not take what is told; it is told no more")
            shown = None
        await asyncio.sleep(pause)
    say(summary(found))
    return found


def loaded(half: type[Any], folder: Path) -> Any:
    """One half of a deployment.

    Raises:
        InvalidInputError: there is none, or it is not as it was deployed.
    """
    try:
        return half(folder)
    except ValueError as error:
        raise InvalidInputError(f"{error}; splitleak deploy writes one") from error


def summary(answered: list[Answered]) -> str:
    """One line: how many, and the medians of what they took."""
    if not answered:
        return "no photo was sent"
    medians = {name: statistics.median(getattr(one, name) for one in answered) for name in (*TIMES, "total")}
    times = ", ".join(f"{name} {value:.1f}" for name, value in medians.items())
    again = sum(one.sent > 1 for one in answered)
    return f"{len(answered)} photos answered, {again} of them sent again; medians in milliseconds: {times}"


def _report(page: str, one: Answered, described: Mapping[str, Any]) -> bool:
    """Whether the page took it."""
    times = {name: getattr(one, name) for name in TIMES}
    content = camera_report(one.number, torch.from_numpy(one.photo.copy()), times, _worded(one.answer, described))
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # photos are for no proxy of the system
    try:
        request = urllib.request.Request(f"{page.rstrip('/')}/camera", content, {"Content-Type": "application/json"})
        with direct.open(request, timeout=REPORT_SECONDS):
            return True
    except (OSError, ValueError, http.client.HTTPException):  # nobody there, no page, no address of one
        return False


def _worded(logits: Array, described: Mapping[str, Any]) -> str:
    """Such as ``mask: yes, 98%``."""
    classes = described["classes"]
    if len(classes) != len(logits):
        return f"class {int(logits.argmax())}"
    shares = np.exp(logits - logits.max())
    return f"{described['task']}: {classes[int(logits.argmax())]}, {shares.max() / shares.sum():.0%}"


def run_until_stopped(program: Coroutine[Any, Any, object]) -> None:
    """Run a program; Ctrl-C, or being told to end, stops it where it waits."""

    async def stoppable() -> None:
        task = asyncio.ensure_future(program)
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # by event loops of Windows
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(stoppable())
