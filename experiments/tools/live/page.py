"""The page: what the camera saw, what the wire carried, what the adversary rebuilt; it follows as it happens."""

import asyncio
import base64
import io
import json
import logging
import math
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from torch import Tensor

from splitleak.experiments.judge.metrics.pictures import psnr
from splitleak.victims.data.decode import UNREADABLE
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.tensors import to_float

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

KEPT = 12
"""Photos that a browser is told of when it comes later."""
WAITING = 256
"""Events for a browser that does not read them; further ones are left out."""
LARGEST = 4 * 2**20
"""Bytes of what an edge tells of one photo."""
SIDE = 4096
"""Pixels: a picture that says it is larger is not decoded."""
TIMES = ("edge", "wire", "cloud")
TEMPLATE = "page.html"


class Page:
    """What is known of each photo, by the number of its frame, and the browsers that watch.

    ``defense`` and ``attack``: their labels. What the edge tells does not come over the wire that is intercepted.
    """

    def __init__(self, defense: str, attack: str) -> None:
        self.defense, self.attack = defense, attack
        self.photos: dict[int, dict[str, Any]] = {}
        self.pictures: dict[int, dict[str, Tensor]] = {}
        self.lines: deque[str] = deque(maxlen=KEPT)
        self.totals = {"passed": 0, "bytes": 0, "rebuilt": 0, "skipped": 0, "unread": 0}
        self._watching: set[asyncio.Queue[str]] = set()

    def count(self, **more: int) -> None:
        """Add to the totals, which go out with the next event."""
        for name, number in more.items():
            self.totals[name] += number

    def show(self, number: int, pictures: dict[str, Tensor] | None = None, **facts: Any) -> None:
        """Tell more of a photo: ``pictures`` (camera, wire, rebuilt), uint8 (3, h, w); facts as JSON holds them."""
        known = self.photos.setdefault(number, {"number": number})
        held = self.pictures.setdefault(number, {})
        held |= pictures or {}
        known |= facts | {name: data_address(picture) for name, picture in (pictures or {}).items()}
        if {"camera", "rebuilt"} <= set(held) and held["camera"].shape == held["rebuilt"].shape:
            known["psnr"] = float(psnr(to_float(held["camera"][None]), to_float(held["rebuilt"][None])))
        for old in list(self.photos)[:-KEPT]:
            del self.photos[old], self.pictures[old]
        if number in self.photos:
            self._tell({"photo": known})

    def passed(self, number: int, size: int) -> None:
        """A release of so many bytes; an edge that begins anew uses numbers again."""
        self.photos.pop(number, None)
        self.pictures.pop(number, None)
        self.count(passed=1, bytes=size)
        self.show(number, bytes=size)

    def say(self, line: str) -> None:
        """A line for the log."""
        self.lines.append(line)
        self._tell({"line": line})

    def sized(self) -> None:
        """Something passed of which only the size is known."""
        self._tell({})

    def _tell(self, event: dict[str, Any]) -> None:
        text = json.dumps(event | {"totals": self.totals})
        for queue in self._watching:
            if not queue.full():
                queue.put_nowait(text)

    async def events(self) -> AsyncIterator[str]:
        """For one browser, as server-sent events: first what is known, then what happens."""
        queue: asyncio.Queue[str] = asyncio.Queue(WAITING)
        self._watching.add(queue)
        try:
            for photo in list(self.photos.values()):
                yield _event(json.dumps({"photo": photo, "totals": self.totals}))
            for line in list(self.lines):
                yield _event(json.dumps({"line": line, "totals": self.totals}))
            while True:
                yield _event(await queue.get())
        finally:
            self._watching.discard(queue)

    def camera(self, content: bytes) -> None:
        """What an edge tells of a photo that was answered.

        Raises:
            ValueError: it is not that.
        """
        try:
            told = json.loads(content)
            photo = _picture(base64.b64decode(told["photo"], validate=True))
            times = {name: float(told["milliseconds"][name]) for name in TIMES}
            number, answer = int(told["number"]), str(told["answer"])[:80]
        except (*UNREADABLE, RecursionError) as error:
            raise ValueError("no report of a photo") from error
        if not all(map(math.isfinite, times.values())):  # a browser's JSON has no other numbers
            raise ValueError("no report of a photo: its times are no numbers")
        self.show(number, {"camera": photo}, milliseconds=times, answer=answer)


def camera_report(number: int, photo: Tensor, milliseconds: dict[str, float], answer: str) -> bytes:
    """What ``Page.camera`` reads; ``photo``: uint8 (3, h, w)."""
    told = {"number": number, "photo": _png(photo), "milliseconds": milliseconds, "answer": answer}
    return json.dumps(told).encode()


def data_address(picture: Tensor) -> str:
    """A picture, uint8 (3, h, w), as the address of an image."""
    return f"data:image/png;base64,{_png(picture)}"


def _picture(content: bytes) -> Tensor:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
        if max(picture.size) > SIDE:
            raise ValueError(f"a picture of {picture.width} x {picture.height}")
        pixels = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
        return pixels.view(picture.height, picture.width, 3).permute(2, 0, 1)


def _png(picture: Tensor) -> str:
    written = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()


def _event(text: str) -> str:
    return f"data: {text}\n\n"


def application(page: Page) -> "Starlette":
    """Serves the page, its events, and takes what an edge tells."""
    from starlette.applications import Starlette
    from starlette.responses import HTMLResponse, PlainTextResponse, StreamingResponse
    from starlette.routing import Route

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )

    async def whole(request: "Request") -> "Response":
        text = templates.get_template(TEMPLATE).render(defense=page.defense, attack=page.attack)
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})

    async def events(request: "Request") -> "Response":
        return StreamingResponse(page.events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def camera(request: "Request") -> "Response":
        content = b""
        async for part in request.stream():
            content += part
            if len(content) > LARGEST:
                return PlainTextResponse("too large\n", 413)
        try:
            page.camera(content)
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", 400)
        return PlainTextResponse("", 204)

    routes = [Route("/", whole), Route("/events", events), Route("/camera", camera, methods=["POST"])]
    return Starlette(routes=routes)


POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
)


async def serve(page: Page, listening: socket.socket) -> None:
    """Until the task is cancelled."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Ctrl-C is the command's, which ends the server with everything else."""
            yield

    settings = uvicorn.Config(application(page), log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    reports = logging.getLogger("uvicorn.error")
    reports.disabled = False
    try:
        await Server(settings).serve(sockets=[listening])
    finally:
        reports.disabled = True  # of streams that browsers hold open, which end with everything else


def check_installed() -> None:
    """Find out before anything is fitted.

    Raises:
        InvalidInputError: the extra is not installed.
    """
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise InvalidInputError("the page needs starlette and uvicorn: pip install 'splitleak[live]'")
