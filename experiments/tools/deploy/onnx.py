"""The halves as ONNX, through an extra, compared with what the run's own modules compute."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splitleak.experiments.tools.deploy.halves import Half, NotExportableError, first_line, silence
from splitleak.experiments.tools.deploy.runtime import CLOSE, ROUNDED, apart

NEEDED = ("onnx", "onnxruntime", "onnxscript")
INSTALL = "pip install 'splitleak[deploy]'"


def write_onnx(half: Half, path: Path, checked: list[tuple[tuple[Tensor, ...], Tensor]]) -> str:
    """Write a half as one file; returns how near onnxruntime comes, in words.

    Args:
        checked: inputs (with the batch), each with what should come out.

    Raises:
        NotExportableError: the extra is not installed, the half holds what ONNX has not, or onnxruntime computes
            something else.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise NotExportableError(f"needs {', '.join(missing)}: {INSTALL}")
    with silence():
        try:
            program = torch.onnx.export(half.exported, dynamo=True, verbose=False)
            assert program is not None
            program.save(path)
        except Exception as error:  # whatever the converter makes of an operation that ONNX has not
            raise NotExportableError(f"ONNX has not all that it computes: {_reason(error)}") from error
    try:
        return _compared(path, checked)
    except NotExportableError:
        path.unlink()
        raise


def _compared(path: Path, checked: list[tuple[tuple[Tensor, ...], Tensor]]) -> str:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    farthest = beyond = 0.0
    for inputs, wanted in checked:
        given = {name: value.contiguous().numpy() for name, value in zip(names, inputs, strict=True)}
        (found,) = session.run(None, given)
        difference, share = apart(np.asarray(found), wanted.numpy())
        farthest, beyond = max(farthest, difference), max(beyond, share)
    if beyond > ROUNDED:
        raise NotExportableError(
            f"onnxruntime is off by {farthest:.2g} of the largest value, in {beyond:.1%} of them"
        )
    if beyond:
        return f"within {CLOSE:g} but for {beyond:.2%} of the values, which fall on the other side of a rounding"
    return f"within {farthest:.1g} of the largest value"


def _reason(error: Exception) -> str:
    """The innermost cause; the converter's own message is a report of several screens."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return first_line(error)
