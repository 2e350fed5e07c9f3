"""Edge, interceptor and cloud over real sockets: nothing is lost, nothing crashes, one line on what is wrong."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wired import LOOPBACK, WIRE, Wired, photo, run, send

from splitleak.experiments.tools.deploy import runtime
from splitleak.experiments.tools.live.cloud import CloudServer
from splitleak.experiments.tools.live.edge import Answered, EdgeClient, Told
from splitleak.experiments.tools.live.frames import (
    ANSWER,
    HEADER,
    LIMIT,
    RELEASE,
    Frame,
    FrameError,
    Passing,
)
from splitleak.experiments.tools.live.interceptor import Interceptor
from splitleak.experiments.tools.live.link import Link, Place, place_of
from splitleak.experiments.tools.live.tls import make_certificate, serving, trusting
from splitleak.victims.errors import InvalidInputError


async def collected(client: EdgeClient, count: int) -> list[Answered]:
    return [one async for one in client.answers(map(photo, range(1, count + 1)))]


def right(answered: list[Answered], count: int) -> bool:
    return [(one.number, one.answer.tolist()) for one in answered] == [
        (number, photo(number).astype(float).tolist()) for number in range(1, count + 1)
    ]


def test_three_hundred_photos_and_a_cloud_that_goes_away_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitleak.experiments.tools.live.edge.AT_MOST", 0.1)
    sent: list[bytes] = []
    drawn = np.random.default_rng(0)

    def noisy(one: runtime.Array) -> bytes:
        """Random, so that a second draw of a photo would show."""
        sent.append(WIRE.pack(one.astype(np.float32) / 2 + drawn.normal(0, 1, 3).astype(np.float32)))
        return sent[-1]

    async def program() -> None:
        wired, said = await Wired().start(), list[str]()
        passed: list[Frame] = []
        between = LOOPBACK.listening()
        interceptor = Interceptor(wired.place, lambda one: passed.append(one), said.append)  # type: ignore[arg-type]
        async with interceptor.at(between):
            client = EdgeClient(noisy, place_of(between), said.append)
            answered: list[Answered] = []
            async for one in client.answers(map(photo, range(1, 301))):
                answered.append(one)
                if one.number == 120:
                    await wired.stop()
                    asyncio.get_running_loop().call_later(0.5, lambda: asyncio.ensure_future(wired.start()))
        assert [one.number for one in answered] == list(range(1, 301))
        assert len(sent) == 300  # each was drawn once, however often it was sent
        releases = [frame for frame in passed if frame.kind == RELEASE]
        assert {frame.number: frame.payload for frame in releases} == dict(enumerate(sent, 1))
        expected = [2 * WIRE.unpack(packed) for packed in sent]
        assert all(np.allclose(one.answer, two) for one, two in zip(answered, expected, strict=True))
        edge_lines = [line for line in said if "photo" in line]
        assert [line.split(" (")[0] for line in edge_lines[:1]] == [f"no answer from {client.cloud}"]
        assert edge_lines[0].endswith("photo 121 waits")
        assert "is back after" in edge_lines[1]
        assert edge_lines[1].endswith("photo 121 is sent again")
        assert any("cannot be reached" in line for line in said)
        assert all(one.edge >= 0 and one.cloud > 0 and one.total > 0 for one in answered)

    run(program)


def test_fifty_connections_at_once() -> None:
    async def program() -> None:
        wired = await Wired().start()
        clients = [EdgeClient(send, wired.place, wired.said.append) for _ in range(50)]
        for answered in await asyncio.gather(*(collected(client, 6) for client in clients)):
            assert right(answered, 6)
        assert (wired.cloud.answered, wired.cloud.refused, wired.said) == (300, 0, [])

    run(program)


async def altered(alter: Any, count: int = 5, **tls: Any) -> tuple[list[str], list[Answered] | str]:
    """What an interceptor that alters bytes leads to: all lines, and the answers or why there are none."""
    wired, said = await Wired().start(**({"tls": tls["serving"]} if tls else {})), list[str]()
    between = LOOPBACK.listening()
    async with Interceptor(wired.place, lambda one: None, said.append, alter).at(between):
        client = EdgeClient(send, place_of(between), said.append, tls=tls.get("trusting"))
        try:
            found: list[Answered] | str = await asyncio.wait_for(collected(client, count), 5)
        except InvalidInputError as error:
            found = str(error)
        except TimeoutError:
            found = "still waiting"
    return [*said, *wired.said], found


def test_an_interceptor_that_alters_bytes_is_noticed_by_the_checksum() -> None:
    async def program() -> None:
        said, found = await altered("flip")
        assert isinstance(found, str)
        assert found.startswith("photo 1 was refused 3 times")
        assert "fails its checksum: it was altered or damaged on the way" in found
        assert sum("photo 1 was refused: frame 1 fails its checksum" in line for line in said) == 3

    run(program)


def test_a_forged_checksum_is_not_noticed_without_tls() -> None:
    """A checksum is no authentication: said in the documentation, and shown here."""

    async def program() -> None:
        said, found = await altered("forge")
        assert said == []
        assert len(found) == 5
        assert not right(found, 5)  # type: ignore[arg-type]

    run(program)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    certificate, key = make_certificate(tmp_path_factory.mktemp("tls"))
    return {"serving": serving(certificate, key), "trusting": trusting(certificate)}


def test_by_tls_the_interceptor_sees_sizes_alone(tls: dict[str, Any]) -> None:
    async def program() -> None:
        wired, said = await Wired().start(tls=tls["serving"]), list[str]()
        passed: list[Frame | int] = []
        between = LOOPBACK.listening()
        async with Interceptor(wired.place, passed.append, said.append).at(between):
            client = EdgeClient(send, place_of(between), said.append, tls=tls["trusting"])
            assert right(await collected(client, 20), 20)
        assert passed
        assert all(isinstance(one, int) for one in passed)
        assert len(said) == 2  # one for each direction
        assert all("its sizes are all there is to see" in line for line in said)

    run(program)


@pytest.mark.parametrize("alter", ["flip", "forge"])
def test_by_tls_no_altered_byte_is_taken(tls: dict[str, Any], alter: str) -> None:
    async def program() -> None:
        said, found = await altered(alter, **tls)
        assert found == "still waiting"
        assert any("no answer from" in line and "photo 1 waits" in line for line in said)

    run(program)


def test_another_certificate_is_refused(tls: dict[str, Any], tmp_path: Path) -> None:
    async def program() -> None:
        wired = await Wired().start(tls=tls["serving"])
        other, _ = make_certificate(tmp_path)
        client = EdgeClient(send, wired.place, wired.said.append, tls=trusting(other))
        with pytest.raises(InvalidInputError, match="shows another certificate than the trusted one"):
            await collected(client, 1)

    run(program)


def test_a_line_is_as_slow_as_it_is_told_to_be() -> None:
    """A megabit a second for 25,000 bytes: 200 ms, and 30 ms of delay each way."""

    async def program() -> None:
        big = runtime.Wire({"shape": [6250], "coding": {"kind": "dense"}})
        server = CloudServer(lambda packed: big.unpack(packed)[:1], print, Link(None, 30))
        listening = LOOPBACK.listening()
        async with server.at(listening):
            client = EdgeClient(
                lambda one: big.pack(np.zeros(6250, np.float32)), place_of(listening), print, Link(1.0, 30)
            )
            answered = await collected(client, 3)
        for one in answered:
            assert one.size == HEADER + len(big.pack(np.zeros(6250, np.float32)))
            assert one.wire >= 8 * one.size / 1e3 + 60
            assert one.wire < 2 * (8 * one.size / 1e3 + 60)

    run(program)


def test_frames_that_pass_come_out_as_they_went_in() -> None:
    stream = b"".join(Frame(RELEASE, number, bytes(number)).encode() for number in range(40))
    passing, found = Passing(), list[Frame | bytes]()
    for start in range(0, len(stream), 7):
        found += passing.feed(stream[start : start + 7])
    assert [one.number for one in found if isinstance(one, Frame)] == list(range(40))
    assert b"".join(one.encode() for one in found if isinstance(one, Frame)) + passing.rest() == stream
    passing = Passing()
    given = [*passing.feed(stream[:50]), *passing.feed(b"and now for something else, at length")]
    assert b"".join(one if isinstance(one, bytes) else one.encode() for one in given) + passing.rest() == (
        stream[:50] + b"and now for something else, at length"
    )
    assert passing.broken


def test_places_and_lines_that_cannot_be() -> None:
    assert str(Place.of("[::1]:80")) == "[::1]:80"
    for text in ("7001", "host:", "host:99999", "host:-1", ":1", "a..b:1", f"{'a' * 64}:1"):
        with pytest.raises(InvalidInputError, match="is no place on a network"):
            Place.of(text)
    for link in (
        (0.0, 0.0),
        (-1.0, 0.0),
        (None, -1.0),
        (float("nan"), 0.0),
        (None, float("nan")),
        (None, float("inf")),
    ):
        with pytest.raises(InvalidInputError, match="a speed is above 0"):
            Link(*link)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InvalidInputError, match="cannot listen at"):
        place_of(taken).listening()


def test_an_edge_that_would_send_too_much_is_told_before() -> None:
    async def program() -> None:
        client = EdgeClient(lambda one: bytes(LIMIT + 1), LOOPBACK, print)
        with pytest.raises(InvalidInputError, match="at most 16,777,216 travel"):
            await collected(client, 1)

    run(program)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"answer": ["much"], "milliseconds": 1}',
        b'{"answer": [1]}',
        b"[1]",
        b"{",
        b'{"answer": 1, "milliseconds": 1}',
        b'{"answer": [], "milliseconds": 1}',
        b'{"answer": [[1]], "milliseconds": 1}',
        b'{"answer": [NaN], "milliseconds": 1}',
        b'{"answer": [1], "milliseconds": Infinity}',
        b'{"answer": [1], "milliseconds": 1' + b"0" * 400 + b"}",
    ],
)
def test_an_answer_that_cannot_be_read_is_a_lost_one(payload: bytes) -> None:
    assert Told.of(Frame(ANSWER, 1, b'{"answer": [1, 2], "milliseconds": 1}')).answer.tolist() == [1, 2]
    with pytest.raises(FrameError, match=r"cannot be read|no list of numbers"):
        Told.of(Frame(ANSWER, 1, payload))
