"""The wire format of a deployment as a document: what a program in any language must write and read."""

from collections.abc import Mapping
from typing import Any

from splitleak.experiments.tools.deploy.halves import Draw, Half
from splitleak.experiments.tools.deploy.vectors import Vector

KINDS: Mapping[str, str] = {
    "dense": "One tensor, `release`, F32, of the shape above: every value.",
    "levels": (
        "One tensor, `levels`, U8: for each value, row by row, the number of its level in {bits} bits, the most "
        "significant first, one after another without gaps; zeros fill up the last byte. A number is the release's "
        "value, rounded; the cloud's program turns it into a feature."
    ),
    "sparse": (
        "Two tensors. `values`, F32: the values that are not zero, row by row. `places`: where they are, counted "
        "from 0 row by row, I16 where the release has at most 32,768 values and I32 where it has more; or U8, one "
        "bit for each value, the first in the lowest bit of the first byte, zeros at the end. The shorter is sent."
    ),
    "channels": (
        "Two tensors. `channels`, I16: the numbers of the channels (axis {axis}) that are not zero throughout, "
        "ascending. `values`, F32: these channels, the channel axis first."
    ),
}
DISTRIBUTIONS: Mapping[str, str] = {
    "normal": "standard normal",
    "uniform": "uniform from 0 to below 1",
    "exponential": "exponential with rate 1",
    "integers": "whole numbers from 0 to below {high}, int64",
}
SHOWN = 96
"""Bytes of the first vector that the document prints."""


def wire_document(title: str, release: Mapping[str, Any], edge: Half, cloud: Half, vectors: list[Vector]) -> str:
    """Markdown. ``release``: its shape and coding, as the description of a deployment holds them."""
    coding = release["coding"]
    sizes = sorted({len(vector.packed) for vector in vectors})
    first = vectors[0].packed
    return f"""# Wire format: {title}

One release travels for each photo. It is float32 of shape {release["shape"]} (no batch), and travels as one file in
the safetensors format:

1. 8 bytes: the length n of the header, unsigned, little-endian.
2. n bytes: the header, JSON without spaces, filled up with spaces to a multiple of 8. It names each tensor with
   `dtype`, `shape` and `data_offsets` (first byte and the one behind the last, counted from the header's end).
3. The values, little-endian, row by row; tensors of wider types first, of one type by name.

Kind `{coding["kind"]}`: {KINDS[coding["kind"]].format(**coding)}

A receiver refuses what is anything else: other names, types or shapes, bytes beyond the last tensor, a header of more
than 4,096 bytes. Nothing in it is ever executed or unpickled. The format has no checksum, no number and no secret:
these belong to what carries it.

## Random numbers

Both programs are deterministic: what a defence draws is an input of the program, drawn outside of it. `runtime.py`
draws afresh for each photo; whoever calls the programs from elsewhere (ONNX) must do so too, because numbers that are
used again, or that somebody else can guess, protect nothing.

{_draws("edge", edge.draws)}
{_draws("cloud", cloud.draws)}

## Test vectors

`vectors.npz` holds {len(vectors)} drawn pictures, no photo: `photo` (uint8), `draw_I_J` (the random numbers J of
picture I), `release`, `packed_I` (the bytes) and `answer`. Bytes must be the same. Releases and answers are those of
the machine that deployed; elsewhere arithmetic may move them by 1e-4 of the largest value, and one value in a
thousand to the other side of a rounding. `python runtime.py` checks all of it.

Sizes: {", ".join(f"{size:,}" for size in sizes)} bytes. The first {min(SHOWN, len(first))} bytes of picture 0:

```
{_hexadecimal(first[:SHOWN])}
```
"""


def _draws(half: str, draws: tuple[Draw, ...]) -> str:
    if not draws:
        return f"- `{half}`: none."
    listed = (f"{list(draw.shape)} {DISTRIBUTIONS[draw.kind].format(high=draw.high)}" for draw in draws)
    return f"- `{half}`, behind its first input: {'; '.join(listed)}."


def _hexadecimal(content: bytes) -> str:
    lines = (content[start : start + 16] for start in range(0, len(content), 16))
    return "\n".join(f"{line.hex(' '):<48} {_printable(line)}".rstrip() for line in lines)


def _printable(line: bytes) -> str:
    return "".join(chr(code) if 32 <= code < 127 else "." for code in line)
