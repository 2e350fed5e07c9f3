"""What a cloud is sent by who means it no good: one line each, and it goes on."""

import asyncio
import errno
import gc
import json
import pickle
import socket
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wired import GOOD, Wired, run

from splitleak.experiments.tools.deploy import runtime
from splitleak.experiments.tools.live import cloud as cloud_module
from splitleak.experiments.tools.live.frames import ANSWER, LIMIT, REFUSAL, RELEASE, Frame, read_frame
from splitleak.experiments.tools.live.link import Place


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path("exploded").touch, ()


def spoilt(place: int, content: bytes) -> bytes:
    return GOOD[:place] + content + GOOD[place + len(content) :]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"GET / HTTP/1.1\r\nHost: cloud\r\n\r\n", "begins with b'GET '"),
        (pickle.dumps(Bomb()) + bytes(64), "no frame: it begins with"),
        (spoilt(4, b"\x02"), "a frame of version 2, this program speaks 1"),
        (spoilt(5, b"\x09"), "unknown kind 9"),
        (spoilt(12, struct.pack("!I", LIMIT + 1)), "a frame of 16,777,217 bytes, at most 16,777,216 are taken"),
        (spoilt(12, struct.pack("!I", 2**32 - 1)), "a frame of 4,294,967,295 bytes"),
        (spoilt(len(GOOD) - 1, b"\xff"), "frame 7 fails its checksum"),
        (spoilt(8, b"\xff"), "fails its checksum"),
        (GOOD[:-3], "ended"),
        (GOOD[:9], "ended"),
    ],
)
def test_bad_frames_get_one_line_and_the_cloud_goes_on(
    content: bytes, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def program() -> None:
        wired = await Wired().start()
        first, *others = await wired.talk(content)
        assert (first.kind, others) == (REFUSAL, [])
        assert complaint in first.payload.decode()
        (line,) = wired.said
        assert line.startswith("refused, from 127.0.0.1:")
        assert complaint in line
        assert "connection closed" in line
        assert "\n" not in line
        (reply,) = await wired.talk(GOOD)
        assert (reply.kind, reply.number) == (ANSWER, 7)
        assert json.loads(reply.payload)["answer"] == [9.0, 9.0, 9.0]

    run(program)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (pickle.dumps(Bomb()), "no release"),
        (b"", "no release"),
        (runtime.save({"release": np.zeros(4, np.float32)}), "not F32 (3,)"),
        (runtime.save({"model": np.zeros(3, np.float32)}), "should name release"),
    ],
)
def test_a_frame_with_no_release_in_it_is_refused_and_the_connection_lives(
    payload: bytes, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def program() -> None:
        wired = await Wired().start()
        refusal, reply = await wired.talk(Frame(RELEASE, 3, payload).encode() + GOOD)
        assert (refusal.kind, refusal.number) == (REFUSAL, 3)
        assert complaint in refusal.payload.decode()
        assert reply.kind == ANSWER
        (line,) = wired.said
        assert "frame 3" in line

    run(program)
    assert not Path("exploded").exists()


def test_a_frame_that_stops_in_its_middle_does_not_hold_the_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitleak.experiments.tools.live.frames.PATIENCE", 0.2)

    async def program() -> None:
        wired = await Wired().start()
        reader, writer = await asyncio.open_connection(wired.place.host, wired.place.port)
        writer.write(GOOD[:15])
        assert len(await wired.talk(GOOD)) == 1
        refusal = await read_frame(reader)
        assert refusal is not None
        assert "stopped" in refusal.payload.decode()
        writer.close()

    run(program)


def test_a_refusal_is_read_before_the_connection_closes() -> None:
    """With much still to be read, a connection that closes at once would lose it."""

    async def program() -> None:
        wired = await Wired().start()
        before = time.monotonic()
        (refusal,) = await wired.talk(b"NOPE" + bytes(4 * 2**20))
        assert "no frame" in refusal.payload.decode()
        assert time.monotonic() - before < 10 * cloud_module.LINGER

    run(program)


def reset(place: Place, content: bytes = b"") -> None:
    """A connection that ends as rudely as it can."""
    with socket.create_connection((place.host, place.port)) as one:
        one.sendall(content)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_connections_that_are_reset_at_once_are_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    gc.collect()  # of other tests
    caplog.clear()

    async def program() -> None:
        wired = await Wired().start()
        for _ in range(20):  # the cloud comes to them when they are gone
            reset(wired.place)
        reset(wired.place, GOOD * 50)
        assert len(await wired.talk(GOOD)) == 1
        assert all(" is gone: " in line for line in wired.said), wired.said
        await wired.stop()

    run(program)
    gc.collect()
    assert not caplog.records


def test_a_connection_that_the_network_loses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gc.collect()  # of other tests
    caplog.clear()

    async def lost(*arguments: object) -> None:
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    async def program() -> None:
        wired = await Wired().start()
        with monkeypatch.context() as patch:
            patch.setattr(cloud_module, "read_frame", lost)
            reader, writer = await asyncio.open_connection(wired.place.host, wired.place.port)
            assert await reader.read() == b""
            writer.close()
        (line,) = wired.said
        assert line.endswith("is gone: [Errno 113] No route to host")
        assert len(await wired.talk(GOOD)) == 1

    run(program)
    gc.collect()
    assert not caplog.records


def test_more_connections_than_are_taken_are_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitleak.experiments.tools.live.server.MOST", 3)

    async def program() -> None:
        wired = await Wired().start()
        held = [await asyncio.open_connection(wired.place.host, wired.place.port) for _ in range(3)]
        assert await wired.talk(b"") == []
        (line,) = wired.said
        assert line.startswith("refused, from 127.0.0.1:")
        assert line.endswith("there are 3 connections already")
        held[0][1].write(GOOD)
        assert await read_frame(held[0][0]) is not None
        held[1][1].close()
        await asyncio.sleep(0.1)
        assert len(await wired.talk(GOOD)) == 1

    run(program)


def test_a_frame_on_a_slow_line_may_take_longer_than_silence_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitleak.experiments.tools.live.frames.PATIENCE", 0.4)

    async def program() -> None:
        wired = await Wired().start()
        reader, writer = await asyncio.open_connection(wired.place.host, wired.place.port)
        for start in range(0, len(GOOD), 8):
            writer.write(GOOD[start : start + 8])
            await asyncio.sleep(0.1)
        reply = await read_frame(reader)
        assert reply is not None
        assert reply.kind == ANSWER
        writer.close()

    assert len(GOOD) / 8 * 0.1 > 2 * 0.4
    run(program)
