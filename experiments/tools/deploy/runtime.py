"""Runs a deployed split network: the half on the device, the half in the cloud, and the bytes between them.

This file needs Python, numpy and torch, and nothing else. Beside it lie the programs and what describes them.

    python runtime.py                                  checks the folder against its test vectors
    Edge(folder).send(photo)                           a photo, uint8 (3, h, w) -> the bytes that travel
    Cloud(folder).answer(packed)                       these bytes -> one number for each class, float32

Nothing that arrives is unpickled: bytes that are no release raise ``WireError``, which says why.
"""

import hashlib
import json
import math
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DESCRIPTION, VECTORS = "deployment.json", "vectors.npz"
FORMAT, UNFINISHED = 1, 0
"""Of the description; of one whose folder is still being written."""
KEYS = {"defence", "photo", "release", "task", "classes", "edge", "cloud", "files", "left_out"}
"""That a description has beside its format."""
CLOSE = 1e-4
"""By how much of the largest value (or of 1) another machine's arithmetic may move a release or an answer."""
ROUNDED = 1e-3
"""Share of the values of a release that may fall on the other side of a rounding there."""

# From the widest to the narrowest, which is the order of tensors in a file.
TYPES = {"F32": "<f4", "I32": "<i4", "I16": "<i2", "U8": "|u1"}
LONGEST_HEADER = 4096


class WireError(ValueError):
    """What arrived is no release of this deployment; the message is one line that says why."""


def save(tensors: Mapping[str, Array]) -> bytes:
    """Tensors as safetensors: the length of a header (8 bytes, little-endian), the header (JSON), the values."""
    named = {name: (_type_of(values), np.ascontiguousarray(values)) for name, values in tensors.items()}
    header: dict[str, Any] = {}
    content, order = b"", list(TYPES)
    for name in sorted(named, key=lambda one: (order.index(named[one][0]), one)):
        kind, values = named[name]
        start, content = len(content), content + values.astype(TYPES[kind]).tobytes()
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [start, len(content)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content


def load(packed: bytes, names: set[str]) -> dict[str, Array]:
    """What ``save`` wrote under exactly these names.

    Raises:
        WireError: anything else.
    """
    length = int.from_bytes(packed[:8], "little")
    if len(packed) < 8 or length > min(len(packed) - 8, LONGEST_HEADER):
        raise WireError(f"no release: {len(packed)} bytes cannot hold the header that they announce")
    try:
        header = json.loads(packed[8 : 8 + length])
    except (ValueError, RecursionError):
        raise WireError("no release: its header is no JSON") from None
    if not isinstance(header, dict) or set(header) != names:
        raise WireError(f"no release: its header should name {', '.join(sorted(names))}")
    content = packed[8 + length :]
    found = {name: _tensor(header[name], content) for name in names}
    if sum(values.nbytes for values in found.values()) != len(content):
        raise WireError("no release: its values and its header are not of one length")
    return found


def _type_of(values: Array) -> str:
    return next(kind for kind, dtype in TYPES.items() if np.dtype(dtype) == values.dtype)


def _tensor(described: Any, content: bytes) -> Array:
    try:
        dtype, shape = np.dtype(TYPES[described["dtype"]]), [int(size) for size in described["shape"]]
        start, end = (int(place) for place in described["data_offsets"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise WireError("no release: a tensor's description is incomplete, or of an unknown type") from None
    if min([0, start, *shape]) < 0 or end > len(content) or end - start != math.prod(shape) * dtype.itemsize:
        raise WireError("no release: a tensor lies outside of what arrived")
    try:
        return np.frombuffer(content[start:end], dtype).reshape(shape)
    except (ValueError, OverflowError):  # no values in too many or too large dimensions
        raise WireError("no release: a tensor's shape is none that numpy has") from None


class Dense:
    """Every value, float32."""

    def __init__(self, shape: Sequence[int], coding: Mapping[str, Any]) -> None:
        self.shape = tuple(shape)

    def pack(self, release: Array) -> bytes:
        """One release -> bytes."""
        return save({"release": release})

    def unpack(self, packed: bytes) -> Array:
        """Its inverse."""
        return _of_shape(load(packed, {"release"})["release"], self.shape, "F32")


class Levels(Dense):
    """The number of a level for each value, ``bits`` each, the most significant first."""

    def __init__(self, shape: Sequence[int], coding: Mapping[str, Any]) -> None:
        super().__init__(shape, coding)
        self.bits = int(coding["bits"])

    def pack(self, release: Array) -> bytes:
        """Rounded; zeros fill up the last byte."""
        numbers = np.round(release.ravel()).astype(">u2")
        bits = np.unpackbits(numbers.view(np.uint8)).reshape(-1, 16)[:, -self.bits :]
        return save({"levels": np.packbits(bits)})

    def unpack(self, packed: bytes) -> Array:
        """Numbers of levels, float32."""
        count = math.prod(self.shape)
        levels = _of_shape(load(packed, {"levels"})["levels"], ((count * self.bits + 7) // 8,), "U8")
        bits = np.unpackbits(levels)[: count * self.bits].reshape(count, self.bits)
        return (bits @ (1 << np.arange(self.bits)[::-1])).astype(np.float32).reshape(self.shape)


class Sparse(Dense):
    """What is not zero, and its places: as numbers, or as one bit for each value, whichever is shorter."""

    def pack(self, release: Array) -> bytes:
        """The first place is bit 0 of the first byte."""
        flat = release.ravel()
        places = flat.nonzero()[0].astype("<i2" if flat.size <= 2**15 else "<i4")
        bitmap = np.packbits(flat != 0, bitorder="little")
        return save({"values": flat[places], "places": bitmap if len(bitmap) < places.nbytes else places})

    def unpack(self, packed: bytes) -> Array:
        """All other values are zero."""
        count = math.prod(self.shape)
        parts = load(packed, {"values", "places"})
        places = parts["places"]
        if places.dtype == np.uint8:
            places = np.unpackbits(places, bitorder="little")[:count].nonzero()[0]
        places = _places(places, count)
        flat = np.zeros(count, np.float32)
        flat[places] = _of_shape(parts["values"], (len(places),), "F32")
        return flat.reshape(self.shape)


class Channels(Dense):
    """The channels that are not zero throughout, and their numbers."""

    def __init__(self, shape: Sequence[int], coding: Mapping[str, Any]) -> None:
        super().__init__(shape, coding)
        self.axis = int(coding["axis"])

    def pack(self, release: Array) -> bytes:
        """Channels first."""
        ahead = np.moveaxis(release, self.axis, 0)
        kept = (ahead.reshape(len(ahead), -1) != 0).any(1).nonzero()[0].astype("<i2")
        return save({"channels": kept, "values": ahead[kept]})

    def unpack(self, packed: bytes) -> Array:
        """All other channels are zero."""
        parts = load(packed, {"channels", "values"})
        whole = np.moveaxis(np.zeros(self.shape, np.float32), self.axis, 0)
        kept = _places(parts["channels"], len(whole))
        whole[kept] = _of_shape(parts["values"], (len(kept), *whole.shape[1:]), "F32")
        return np.ascontiguousarray(np.moveaxis(whole, 0, self.axis))


CODINGS: Mapping[str, type[Dense]] = {"dense": Dense, "levels": Levels, "sparse": Sparse, "channels": Channels}


def _of_shape(values: Array, shape: tuple[int, ...], kind: str) -> Array:
    if values.shape != shape or values.dtype != np.dtype(TYPES[kind]):
        raise WireError(f"no release of this deployment: {_type_of(values)} {values.shape}, not {kind} {shape}")
    return values


def _places(places: Array, count: int) -> Array:
    valid = places.ndim == 1 and places.dtype.kind == "i" and bool(np.all((places >= 0) & (places < count)))
    if not valid:
        raise WireError(f"no release: it names places beyond the {count} that there are")
    return places.astype(np.int64)


class Wire:
    """One release, float32 without the batch, to bytes and back; ``described``: as in the description."""

    def __init__(self, described: Mapping[str, Any]) -> None:
        self._coding = CODINGS[described["coding"]["kind"]](described["shape"], described["coding"])
        self.pack: Callable[[Array], bytes] = self._coding.pack

    def unpack(self, packed: bytes) -> Array:
        """The inverse of ``pack``.

        Raises:
            WireError: these bytes are no release of this shape and coding, or hold what is no number.
        """
        release = self._coding.unpack(packed)
        if not np.isfinite(release).all():
            raise WireError("no release: some of its values are no numbers")
        return release


def description(folder: str | Path) -> dict[str, Any]:
    """Of a deployed folder.

    Raises:
        ValueError: it is none, or of another format; the message is one line.
    """
    path = Path(folder) / DESCRIPTION
    try:
        described: dict[str, Any] = json.loads(path.read_text())
        found = described.get("format")
    except (OSError, ValueError, AttributeError, RecursionError):
        raise ValueError(f"no deployment at {Path(folder).absolute()}: no readable {DESCRIPTION} there") from None
    if found == UNFINISHED:
        raise ValueError(f"{path} is of a deployment that was not written to its end; deploy again")
    if found != FORMAT:
        raise ValueError(f"{path} is of format {found}, this program reads {FORMAT}")
    if missing := KEYS - set(described):
        raise ValueError(f"{path} was altered: it does not say {', '.join(sorted(missing))}")
    return described


def drawn(draws: Sequence[Mapping[str, Any]], generator: Any) -> list[Any]:
    """A tensor of random numbers for each of ``draws``; memory is filled in the order that a program expects."""
    import torch

    found = []
    for draw in draws:
        dtype = torch.int64 if draw["kind"] == "integers" else torch.float32
        tensor = torch.empty_strided(draw["shape"], draw["stride"], dtype=dtype)
        if draw["kind"] == "integers":
            tensor.random_(0, draw["high"], generator=generator)
        elif draw["kind"] == "normal":
            tensor.normal_(generator=generator)
        elif draw["kind"] == "uniform":
            tensor.uniform_(generator=generator)
        else:
            tensor.exponential_(generator=generator)
        found.append(tensor)
    return found


class Program:
    """One half. Its random numbers are drawn here, outside of it: fresh ones for each call, unless they are given.

    Args:
        folder: of the deployment.
        half: edge or cloud.
        seed: of the random numbers, to repeat them; by default one that the operating system draws.

    Raises:
        ValueError: no deployment, or a program that is not the one that was deployed.
    """

    def __init__(self, folder: str | Path, half: str, seed: int | None = None) -> None:
        import torch

        self.described = description(folder)
        name = f"{half}.pt2"
        if name not in self.described["files"]:
            raise ValueError(f"no {name} in {folder}: {self.described['left_out'].get(name, 'it was not deployed')}")
        path = Path(folder) / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != self.described["files"][name]:
            raise ValueError(f"{path} is not the file that was deployed; copy the folder again")
        try:
            self.module = torch.export.load(path).module()
        except Exception as error:  # whatever another version of torch makes of the file
            raise ValueError(f"torch {torch.__version__} cannot load {path}: {type(error).__name__}") from error
        self.draws = self.described[half]["draws"]
        self.generator = torch.Generator().manual_seed(secrets.randbits(63) if seed is None else seed)

    def __call__(self, values: Array, draws: Sequence[Array] | None = None) -> Array:
        """Of one photo or release, without the batch."""
        import torch

        given = drawn(self.draws, self.generator) if draws is None else [torch.from_numpy(one) for one in draws]
        with torch.no_grad():
            answer = self.module(torch.from_numpy(np.array(values, order="C"))[None], *given)
        result: Array = answer[0].contiguous().numpy()
        return result


class Edge(Program):
    """The device: a photo -> what leaves it."""

    def __init__(self, folder: str | Path, seed: int | None = None) -> None:
        super().__init__(folder, "edge", seed)
        self.wire = Wire(self.described["release"])

    def release(self, photo: Array, draws: Sequence[Array] | None = None) -> Array:
        """Of a photo, uint8 (3, h, w), RGB."""
        if photo.dtype != np.uint8 or list(photo.shape) != self.described["photo"]:
            raise ValueError(f"a photo is uint8 {self.described['photo']}, not {photo.dtype} {list(photo.shape)}")
        return self(photo.astype(np.float32) / np.float32(255), draws)

    def send(self, photo: Array) -> bytes:
        """The bytes that travel, with fresh random numbers."""
        return self.wire.pack(self.release(photo))


class Cloud(Program):
    """The other end: what arrives -> one number for each class."""

    def __init__(self, folder: str | Path, seed: int | None = None) -> None:
        super().__init__(folder, "cloud", seed)
        self.wire = Wire(self.described["release"])

    def answer(self, packed: bytes) -> Array:
        """Float32 (classes,).

        Raises:
            WireError: these bytes are no release of this deployment.
        """
        release = self.wire.unpack(packed)
        try:
            answer = self(release)
        except (RuntimeError, IndexError):  # of torch: numbers of the right shape, which no edge would send
            raise WireError("no release of this deployment: its program cannot take these values") from None
        if not np.isfinite(answer).all():
            raise WireError("no release of this deployment: its values are too large for an answer")
        return answer


def apart(found: Array, wanted: Array) -> tuple[float, float]:
    """The largest difference, in units of the largest value or of 1, and the share of values beyond ``CLOSE``."""
    difference = np.abs(found.astype(np.float64) - wanted) / max(1.0, float(np.abs(wanted).max()))
    difference = np.nan_to_num(difference, nan=np.inf)  # what is no number is near to none
    return float(difference.max()), float((difference > CLOSE).mean())


def check(folder: str | Path) -> list[str]:
    """Compare the programs and the bytes with the test vectors; a line on each.

    Raises:
        ValueError: they differ.
    """
    edge, cloud = Edge(folder), Cloud(folder)
    lines = []
    with np.load(Path(folder) / VECTORS, allow_pickle=False) as vectors:
        for number, photo in enumerate(vectors["photo"]):
            draws = [vectors[f"draw_{number}_{draw}"] for draw in range(len(edge.draws))]
            wanted, packed = vectors["release"][number], vectors[f"packed_{number}"].tobytes()
            farthest, share = apart(edge.release(photo, draws), wanted)
            if share > ROUNDED:
                raise ValueError(f"vector {number}: the edge is off by {farthest:.2g} of the largest value")
            if edge.wire.pack(wanted) != packed or not np.array_equal(edge.wire.unpack(packed), wanted):
                raise ValueError(f"vector {number}: the bytes are others")
            off, _ = apart(cloud.answer(packed), vectors["answer"][number])
            if off > CLOSE:
                raise ValueError(f"vector {number}: the answer is off by {off:.2g}")
            lines.append(
                f"vector {number}: edge within {farthest:.1g}, {len(packed)} bytes the same, answer {off:.1g}"
            )
    return lines


if __name__ == "__main__":
    try:
        print("\n".join(check(Path(__file__).parent)))
    except ValueError as error:
        sys.exit(f"error: {error}")
