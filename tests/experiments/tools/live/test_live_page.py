"""The interceptor's page: what it is told, what it shows, and what it does not take."""

import asyncio
import base64
import io
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from splitleak.experiments.tools.deploy import runtime
from splitleak.experiments.tools.live.cloud import CloudServer
from splitleak.experiments.tools.live.eavesdropper import Eavesdropper
from splitleak.experiments.tools.live.edge import Answered, EdgeClient
from splitleak.experiments.tools.live.frames import HEADER, RELEASE, Frame
from splitleak.experiments.tools.live.link import Place, place_of
from splitleak.experiments.tools.live.page import KEPT, Page, camera_report
from splitleak.experiments.tools.live.programs import _report

SIDE = 8
WIRE = runtime.Wire({"shape": [3, SIDE, SIDE], "coding": {"kind": "dense"}})


class Inverter:
    """Knows that the edge halves what it sends. A name that a page must not take for markup."""

    name = "<script>alert(1)</script>`${attack}`"

    class cell:  # noqa: N801
        class defense:  # noqa: N801
            label = "half & half"

    def read(self, packed: bytes) -> Tensor:
        return torch.from_numpy(WIRE.unpack(packed).copy())[None]

    def maps(self, release: Tensor) -> Tensor:
        return torch.zeros(3, 4, 6, dtype=torch.uint8)

    def rebuilt(self, release: Tensor) -> Tensor:
        return (2 * release[0]).to(torch.uint8)


def photo(number: int) -> runtime.Array:
    return np.random.default_rng(number).integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8)


ANSWERED = Answered(1, photo(1), 10, np.ones(2, np.float32), 1.0, 1.0, 1.0, 1)
DESCRIBED = {"task": "pet", "classes": ["cat", "dog"]}


def send(one: runtime.Array) -> bytes:
    return WIRE.pack(one.astype(np.float32) / 2)


def watched(count: int, use: Callable[[str, list[dict[str, Any]]], None]) -> None:
    """Send photos past an eavesdropper; ``use`` is called with the page's address and the events of a browser."""

    async def program() -> None:
        said: list[str] = []
        eavesdropper = Eavesdropper(Inverter(), said.append)  # type: ignore[arg-type]
        listening = Place("127.0.0.1", 0).listening()
        wire, page = (Place("127.0.0.1", 0).listening() for _ in range(2))
        address = f"http://{place_of(page)}"
        async with CloudServer(lambda packed: np.ones(2, np.float32), said.append).at(listening):
            running = asyncio.create_task(eavesdropper.run(wire, page, place_of(listening)))
            await asyncio.sleep(0.5)
            client = EdgeClient(send, place_of(wire), said.append)
            async for one in client.answers(map(photo, range(count))):
                assert await asyncio.to_thread(_report, address, one, DESCRIBED)
                await asyncio.sleep(0.02)
            events = await asyncio.to_thread(read_events, address, count)
            await asyncio.to_thread(use, address, events)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(asyncio.wait_for(program(), 60))


def read_events(address: str, count: int) -> list[dict[str, Any]]:
    """What a browser that comes late is told at once."""
    found: list[dict[str, Any]] = []
    with urllib.request.urlopen(f"{address}/events", timeout=10) as stream:
        while sum("photo" in one for one in found) < min(count, KEPT):
            line = stream.readline().decode()
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
    return found


def test_a_photo_goes_its_three_ways_to_the_page() -> None:
    def use(address: str, events: list[dict[str, Any]]) -> None:
        photos = [event["photo"] for event in events if "photo" in event]
        assert [one["number"] for one in photos] == list(range(4, 4 + KEPT))
        for one in photos:
            assert {"camera", "wire", "rebuilt", "bytes", "milliseconds", "answer", "psnr"} <= set(one)
            assert one["psnr"] > 40  # the inverse is exact but for rounding
            assert set(one["milliseconds"]) == {"edge", "wire", "cloud"}
            assert one["answer"] == "pet: cat, 50%"
        totals = events[-1]["totals"]
        assert (totals["passed"], totals["rebuilt"] + totals["skipped"], totals["unread"]) == (15, 15, 0)
        with urllib.request.urlopen(address, timeout=10) as answered:
            text, policy = answered.read().decode(), answered.headers["Content-Security-Policy"]
        assert "half &amp; half" in text
        assert "<script>alert" not in text
        assert "`${attack}`" not in text.split("<script>")[1]
        assert "http://" not in text  # nothing is loaded from elsewhere
        assert policy.startswith("default-src 'none'")

    watched(15, use)


def one_colour(side: int) -> str:
    """Few bytes that say they are a large picture."""
    written = io.BytesIO()
    Image.new("1", (side, side)).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()


def report_to(answered: bytes) -> bool:
    """What becomes of a report where this is all that is said to it."""

    def answer(other: socket.socket) -> None:
        connection, _ = other.accept()
        connection.recv(65536)
        connection.sendall(answered)
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=answer, args=(other,), daemon=True).start()
        return _report(f"http://{place_of(other)}", ANSWERED, DESCRIBED)


@pytest.mark.parametrize("answered", [b"SPLK", b"HTTP/1.1 500 no\r\n\r\n", b""])
def test_what_is_no_page_does_not_stop_the_edge(answered: bytes) -> None:
    assert not report_to(answered)


@pytest.mark.parametrize("address", ["nothing", "file:///nowhere", "http://a b:1", "http://a:x", "http://a..b:1"])
def test_what_is_no_address_does_not_stop_the_edge(address: str) -> None:
    assert not _report(address, ANSWERED, DESCRIBED)


def test_photos_reach_the_page_by_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it looks for proxies once
    assert report_to(b"HTTP/1.1 204 No Content\r\n\r\n")


def test_a_browser_that_watches_to_the_end_leaves_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    watching: list[Any] = []
    watched(1, lambda address, events: watching.append(urllib.request.urlopen(f"{address}/events", timeout=10)))
    watching[0].close()
    assert "Traceback" not in capfd.readouterr().err


def test_what_is_no_report_is_refused() -> None:
    def use(address: str, events: list[dict[str, Any]]) -> None:
        times = {"edge": 1.0, "wire": 1.0, "cloud": 1.0}
        good = json.loads(camera_report(1, torch.from_numpy(photo(1)), times, "cat"))
        for content, code in (
            (b"", 400),
            (b"[1]", 400),
            (b"{", 400),
            (json.dumps(good | {"photo": "AAAA"}).encode(), 400),
            (json.dumps(good | {"photo": "not base64!"}).encode(), 400),
            (json.dumps(good | {"milliseconds": {}}).encode(), 400),
            (json.dumps(good | {"milliseconds": {**times, "wire": float("nan")}}).encode(), 400),
            (json.dumps(good | {"number": float("inf")}).encode(), 400),
            (json.dumps(good | {"photo": one_colour(4097)}).encode(), 400),
            (json.dumps(good | {"photo": one_colour(20_000)}).encode(), 400),
            (json.dumps(good | {"photo": good["photo"][:60]}).encode(), 400),
            (b" " * (5 * 2**20), 413),
        ):
            with pytest.raises((urllib.error.HTTPError, urllib.error.URLError, ConnectionError)) as refused:
                urllib.request.urlopen(urllib.request.Request(f"{address}/camera", content), timeout=10)
            if isinstance(refused.value, urllib.error.HTTPError):
                assert refused.value.code == code
        with urllib.request.urlopen(f"{address}/", timeout=10) as answered:
            assert answered.status == 200

    watched(1, use)


def test_a_frame_that_is_no_release_is_told_and_the_rest_is_rebuilt() -> None:
    async def program() -> None:
        said: list[str] = []
        eavesdropper = Eavesdropper(Inverter(), said.append)  # type: ignore[arg-type]
        task = asyncio.create_task(eavesdropper.rebuild())
        eavesdropper.saw(Frame(RELEASE, 1, b"no release"))
        eavesdropper.saw(Frame(RELEASE, 2, send(photo(2))))
        eavesdropper.saw(77)
        while eavesdropper.page.totals["rebuilt"] == 0:
            await asyncio.sleep(0.01)
        task.cancel()
        (line,) = said
        assert line.startswith("frame 1 passed and is no release")
        assert list(eavesdropper.page.lines) == said
        assert eavesdropper.page.totals == {
            "passed": 2,
            "bytes": 2 * HEADER + len(b"no release") + len(send(photo(2))),
            "rebuilt": 1,
            "skipped": 0,
            "unread": 77,
        }

    asyncio.run(asyncio.wait_for(program(), 30))


def test_an_attack_that_fails_on_a_release_is_told_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Inverter.rebuilt

    def rebuilt(self: Inverter, release: Tensor) -> Tensor:
        if release.max() > 1e30:
            raise ValueError("images must lie in [0, 1],\nnot there")
        return whole(self, release)

    monkeypatch.setattr(Inverter, "rebuilt", rebuilt)

    async def program() -> None:
        said: list[str] = []
        eavesdropper = Eavesdropper(Inverter(), said.append)  # type: ignore[arg-type]
        task = asyncio.create_task(eavesdropper.rebuild())
        eavesdropper.saw(Frame(RELEASE, 1, WIRE.pack(np.full((3, SIDE, SIDE), 3e38, np.float32))))
        eavesdropper.saw(Frame(RELEASE, 2, send(photo(2))))
        while eavesdropper.page.totals["rebuilt"] == 0:
            await asyncio.sleep(0.01)
        task.cancel()
        assert said == ["frame 1 passed and cannot be rebuilt: images must lie in [0, 1], not there"]

    asyncio.run(asyncio.wait_for(program(), 30))


def test_releases_pass_unrebuilt_while_the_attack_is_busy() -> None:
    async def program() -> None:
        eavesdropper = Eavesdropper(Inverter(), print)  # type: ignore[arg-type]
        for number in range(10):
            eavesdropper.saw(Frame(RELEASE, number, send(photo(number))))
        assert (eavesdropper.page.totals["passed"], eavesdropper.page.totals["skipped"]) == (10, 6)

    asyncio.run(program())


def test_an_edge_that_begins_anew_is_shown_last() -> None:
    page = Page("none", "ridge")
    for number in range(1, 31):
        page.passed(number, 10)
    page.passed(1, 20)
    assert list(page.photos)[-1] == 1
    assert page.photos[1]["bytes"] == 20
    assert len(page.photos) == KEPT
