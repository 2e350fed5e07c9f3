"""Arrays on disk, written in pieces and memory-mapped: what they hold need not fit the memory."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MIRRORED_AT_A_TIME = 1000


class ArrayFile:
    """An .npy file that grows, so that what it holds need not fit the memory."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)
        self.count = 0
        self.file = path.open("w+b")
        self._write_header()

    def _write_header(self) -> None:
        """numpy leaves room in it for a larger count."""
        facts = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
        self.file.seek(0)
        np.lib.format.write_array_header_1_0(self.file, {**facts, "shape": (self.count, *self.shape)})

    def add(self, rows: Tensor) -> None:
        """Append rows (n, *shape)."""
        assert tuple(rows.shape[1:]) == self.shape, f"{tuple(rows.shape[1:])} in a file of {self.shape}"
        self.file.write(np.ascontiguousarray(rows.cpu().numpy(), self.dtype).data)
        self.count += len(rows)

    def tensor(self) -> Tensor:
        """Finish the file and map it."""
        self._write_header()
        self.file.close()
        return load_array(self.path)


class MirroredFile(ArrayFile):
    """One that holds each photo a second time, left to right, behind all of them."""

    def tensor(self) -> Tensor:
        """Append the mirrored ones, finish the file and map it."""
        self.file.flush()
        pixels = np.memmap(self.path, self.dtype, "r", self.file.tell() - self._bytes(self.count))
        for rows in np.array_split(pixels.reshape(self.count, *self.shape), -(-self.count // MIRRORED_AT_A_TIME)):
            self.add(torch.from_numpy(rows[..., ::-1].copy()))
        return super().tensor()

    def _bytes(self, count: int) -> int:
        return int(count * np.prod(self.shape) * self.dtype.itemsize)


def save_array(path: Path, tensor: Tensor) -> None:
    """Write a tensor as an .npy file."""
    np.save(path, tensor.cpu().numpy(), allow_pickle=False)


def load_array(path: Path) -> Tensor:
    """Memory-map an .npy file; writes go to a private copy and never reach the disk."""
    array = np.load(path, mmap_mode="c", allow_pickle=False)
    return torch.from_numpy(array)


def write_array(path: Path, chunks: Iterable[Tensor]) -> None:
    """Write tensors (n, ...) one behind the other as an .npy file; there must be one."""
    file = None
    for chunk in chunks:
        file = file or ArrayFile(path, tuple(chunk.shape[1:]), _dtype(chunk))
        file.add(chunk)
    assert file is not None, "nothing to write"
    file.tensor()


def streamed(chunks: Iterable[Tensor], folder: Path) -> Tensor:
    """Tensors (n, ...) one behind the other, mapped from a file in ``folder`` that goes with its last user."""
    with tempfile.TemporaryFile(dir=folder) as file:
        count = 0
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk.cpu().numpy()).data)
            count, shape, dtype = count + len(chunk), tuple(chunk.shape[1:]), _dtype(chunk)
        file.flush()
        assert count, "nothing to keep"
        return torch.from_numpy(np.memmap(file, dtype, "c", shape=(count, *shape)))


def _dtype(chunk: Tensor) -> str:
    return str(chunk.dtype).removeprefix("torch.")
