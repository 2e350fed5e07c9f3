"""The bytes of every coding, as the channels write them, by a program that has none of their code."""

import pytest
import torch

from splitleak.defenses.base import Channel
from splitleak.defenses.disco import Disco
from splitleak.defenses.none import NoDefense
from splitleak.defenses.quantisation import Quantisation
from splitleak.defenses.top_k import TopK
from splitleak.experiments.tools.deploy import runtime

SHAPE = (6, 5, 7)


def zeroed(release: torch.Tensor, share: float) -> torch.Tensor:
    return release * (torch.rand_like(release) < share)


def cases() -> list[tuple[Channel, torch.Tensor]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dense = torch.randn(SHAPE)
        pruned = dense * torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 1.0]).view(-1, 1, 1)
        levels = [(Quantisation(bits=bits), torch.randint(2**bits, SHAPE).float()) for bits in (1, 3, 8, 16)]
        sparse = [(TopK(), zeroed(dense, share)) for share in (0.0, 0.01, 0.5, 1.0)]
        tokens = (Disco().channel((9, 4)), torch.randn(9, 4) * torch.tensor([0.0, 1.0, 0.0, 1.0]))
    settings = [(NoDefense(), dense), (Disco(), pruned), *levels, *sparse]
    return [*((defense.channel(SHAPE), release) for defense, release in settings), tokens]


@pytest.mark.parametrize(("channel", "release"), cases())
def test_the_bytes_are_the_channels(channel: Channel, release: torch.Tensor) -> None:
    wire = runtime.Wire({"shape": list(release.shape), "coding": channel.coding()})
    packed = channel.pack(release)
    assert wire.pack(release.numpy()) == packed
    assert torch.equal(torch.from_numpy(wire.unpack(packed).copy()), channel.unpack(packed))


def test_places_of_many_values_take_four_bytes() -> None:
    release = torch.zeros(1, 200, 200)
    release[0, 199, 199] = 1.0
    channel = TopK().channel((1, 200, 200))
    wire = runtime.Wire({"shape": [1, 200, 200], "coding": channel.coding()})
    assert wire.pack(release.numpy()) == channel.pack(release)


def test_a_channel_with_a_pack_of_its_own_has_no_coding_unless_it_says_so() -> None:
    class Own(Channel):
        def pack(self, release: torch.Tensor) -> bytes:
            return b"mine"

    assert Own().coding() is None
    assert Channel().coding() == {"kind": "dense"}


HEADER = '{"release":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'


def written(header: str, content: bytes = bytes(8)) -> bytes:
    return len(header).to_bytes(8, "little") + header.encode() + content


@pytest.mark.parametrize(
    ("packed", "complaint"),
    [
        (b"", "cannot hold the header"),
        (b"\x80\x04\x95pickled", "cannot hold the header"),
        ((2**63).to_bytes(8, "little") + bytes(64), "cannot hold the header"),
        (written("[" * 4000), "no JSON"),
        (written("{"), "no JSON"),
        (written("[]"), "should name release"),
        (written(HEADER.replace("release", "model")), "should name release"),
        (written(HEADER.replace("F32", "OBJECT")), "unknown type"),
        (written(HEADER.replace("[2]", "[-2]")), "outside"),
        (written(HEADER.replace("[0,8]", "[0,16]")), "outside"),
        (written(HEADER.replace("[0,8]", "[8,0]")), "outside"),
        (written(HEADER.replace("[2]", '["two"]')), "unknown type"),
        (written(HEADER.replace("[2]", "[1,2]")), "not F32 (2,)"),
        (written(HEADER, bytes(9)), "not of one length"),
        (written(HEADER, bytes(4)), "outside"),
        (written(HEADER.replace("[2]", "[Infinity]")), "unknown type"),
        (written(HEADER.replace("[0,8]", "[0,1e999]")), "unknown type"),
        (written(HEADER.replace("[2]", f"[0,1{'0' * 30}]").replace("[0,8]", "[0,0]"), b""), "shape"),
        (written(HEADER.replace("[2]", f"[2{',1' * 99}]")), "shape"),
    ],
)
def test_what_is_no_release_is_refused_in_one_line(packed: bytes, complaint: str) -> None:
    wire = runtime.Wire({"shape": [2], "coding": {"kind": "dense"}})
    assert wire.unpack(written(HEADER)).tolist() == [0.0, 0.0]
    with pytest.raises(runtime.WireError) as refused:
        wire.unpack(packed)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_places_outside_of_a_release_are_refused() -> None:
    wire = runtime.Wire({"shape": [4], "coding": {"kind": "sparse"}})
    inside = runtime.save({"values": torch.ones(1).numpy(), "places": torch.tensor([3], dtype=torch.int16).numpy()})
    assert wire.unpack(inside).tolist() == [0, 0, 0, 1]
    alone = inside.replace(b'"shape":[1],"data_offsets":[4,6]', b'"shape":[ ],"data_offsets":[4,6]')
    assert alone != inside
    for place in (4, -1):
        packed = runtime.save(
            {"values": torch.ones(1).numpy(), "places": torch.tensor([place], dtype=torch.int16).numpy()}
        )
        for refused in (packed, alone):
            with pytest.raises(runtime.WireError, match="beyond the 4"):
                wire.unpack(refused)


def test_what_is_no_number_is_far_from_what_is_wanted() -> None:
    found, wanted = torch.tensor([float("nan"), 1.0]).numpy(), torch.ones(2).numpy()
    assert runtime.apart(found, wanted) == (float("inf"), 0.5)


class Linear(runtime.Cloud):
    """A program of its own, in the place of a deployed one: ten times the release, which must be of two values."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.wire = runtime.Wire({"shape": shape, "coding": {"kind": "dense"}})
        self.draws, self.generator = [], None
        self.module = lambda release: 10 * release.view(1, 2)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ([float("nan"), 0.0], "no numbers"),
        ([float("inf"), 0.0], "no numbers"),
        ([3e38, 0.0], "too large"),
        ([0.0, 0.0, 0.0], "cannot take"),
    ],
)
def test_values_without_an_answer_are_refused_in_one_line(values: list[float], complaint: str) -> None:
    packed = runtime.save({"release": torch.tensor(values).numpy()})
    with pytest.raises(runtime.WireError, match=complaint):
        Linear((len(values),)).answer(packed)
    good = runtime.save({"release": torch.tensor([1.0, 2.0]).numpy()})
    assert Linear((2,)).answer(good).tolist() == [10, 20]
