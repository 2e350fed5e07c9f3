"""Embedders of photos in ONNX files: what public face recognition is passed around as."""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from splitleak.victims.errors import InvalidInputError
from splitleak.victims.files import WEIGHTS_VARIABLE, content_of, find_file

ONNX_FILE = "ONNX file of a face embedder"


def central(images: Tensor, crop: float) -> Tensor:
    """The central squares of square images (n, 3, s, s); ``crop``: their side as a share of the images'."""
    side = images.shape[-1]
    kept = max(1, round(side * crop))
    start = (side - kept) // 2
    return images[..., start : start + kept, start : start + kept]


class OnnxEmbedder:
    """Images (n, 3, h, w) in [0, 1], RGB -> embeddings (n, d) by Euclidean distance, on the CPU.

    The model's first input and first output are used; images are resized to the height and width that the input
    declares.

    Args:
        path: of the file; also looked for in $SPLITLEAK_WEIGHTS.
        asked: what named the file, for errors: ``judge.identity``.

    Raises:
        InvalidInputError: onnxruntime is not installed, there is no such file, or it takes no images.
    """

    def __init__(self, path: str, asked: str) -> None:
        self.session = _session(path, asked)
        self.declared, self.output = self.session.get_inputs()[0], self.session.get_outputs()[0].name

    def __call__(self, images: Tensor) -> Tensor:
        """Embed."""
        batch, _, *size = self.declared.shape
        if all(isinstance(side, int) for side in size) and list(images.shape[2:]) != size:
            images = F.interpolate(images, size, mode="bilinear", antialias=True).clamp(0, 1)
        chunks = images.cpu().split(batch if isinstance(batch, int) else len(images))
        said = [self.session.run([self.output], {self.declared.name: chunk.numpy()})[0] for chunk in chunks]
        return torch.cat([torch.from_numpy(one).flatten(1) for one in said])


def check_onnx(path: str, asked: str) -> None:
    """Find out what would fail later; the file is opened once for as long as it stays the same.

    Raises:
        InvalidInputError: see ``OnnxEmbedder``.
    """
    _opens(path, asked, content_of(find_file(path, ONNX_FILE, WEIGHTS_VARIABLE)))


@cache
def _opens(path: str, asked: str, content: str) -> None:
    _session(path, asked)


def _session(path: str, asked: str) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise InvalidInputError(f"{asked} = '{path}' needs onnxruntime: pip install 'splitleak[identity]'") from None
    place = find_file(path, ONNX_FILE, WEIGHTS_VARIABLE)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(place), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no other base class
        raise InvalidInputError(f"{asked} = '{path}' is no model that onnxruntime loads: {error}") from None
    inputs = [(given.type, list(given.shape)) for given in session.get_inputs()]
    if not (len(inputs) == 1 and inputs[0][0] == "tensor(float)" and _takes_images(inputs[0][1])):
        raise InvalidInputError(
            f"{asked} = '{path}' takes {inputs}; it should take one float tensor of images (n, 3, h, w)"
        )
    return session


def _takes_images(shape: list[Any]) -> bool:
    """Whether a declared shape is that of images, one by one or any number; what is not a number is free."""
    return len(shape) == 4 and shape[1] == 3 and (shape[0] == 1 or not isinstance(shape[0], int))
