"""Pictures of a page: what each attack makes of the same few photos behind each defence."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from splitleak.experiments.report.tables import matrix
from splitleak.experiments.results.group import DefenceRow, Group
from splitleak.experiments.results.record import Record
from splitleak.experiments.results.results import Results

PICTURE_BYTES = 1_200_000
"""What the pictures of a gallery may take of a page; they are made smaller until they fit."""
HEIGHTS, QUALITY = (96, 64, 48, 32), 82
GLANCED, GLANCE_HEIGHT = 8, 128
"""Photos in a strip at the head of the page, and their height in pixels at most."""


@dataclass(frozen=True)
class Picture:
    """An image as a data URI; ``label``: what it shows, ``name``: a short form of it."""

    name: str
    label: str
    uri: str


@dataclass(frozen=True)
class Gallery:
    """The targets, and a row for each defence setting with a picture for each of ``columns``, None where none is."""

    targets: str
    columns: tuple[str, ...]
    rows: tuple[tuple[DefenceRow, tuple[str | None, ...]], ...]


def gallery(run: Path, results: Results) -> Gallery | None:
    """The first seed's reconstructions of the first targets; None where a run has no pictures."""
    columns = tuple(name for name in results.columns if any(_file(run, row.groups.get(name)) for row in results.rows))
    targets = run / "targets.png"
    if not columns or not targets.exists():
        return None
    files = [[_file(run, row.groups.get(name)) for name in columns] for row in results.rows]
    encoded = _fitting([targets, *(file for line in files for file in line if file)])
    first = next(encoded)
    shown = [tuple(next(encoded) if file else None for file in line) for line in files]
    return Gallery(first, columns, tuple(zip(results.rows, shown, strict=True)))


def _file(run: Path, group: Group | None) -> Path | None:
    cells: Sequence[Record] = group.finished if group else ()
    return next((path for cell in cells if (path := run / "cells" / f"{cell.id}.png").exists()), None)


def _fitting(files: Sequence[Path]) -> Iterator[str]:
    """Each as a data URI, as high as all of them may be."""
    found: list[str] = []
    for height in HEIGHTS:
        found = [uri(Image.open(file), height) for file in files]
        if sum(map(len, found)) <= PICTURE_BYTES:
            break
    return iter(found)


def uri(image: Image.Image, height: int) -> str:
    """A picture as a data URI, ``height`` pixels high at most."""
    shown = image.convert("RGB")
    if shown.height > height:
        shown = shown.resize((round(shown.width * height / shown.height), height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def glance(run: Path, results: Results) -> tuple[Picture, ...]:
    """The photos, and what the strongest attack makes of them: at worst, behind the best defence, knowing nothing."""
    reference, best = results.undefended, results.best.row if results.best else None
    if not (run / "targets.png").exists() or reference is None:
        return ()
    attacked = [(row, group) for row in results.rows if (group := row.strongest("psnr"))]
    worst = max(attacked, key=lambda pair: pair[1].scores["psnr"].mean, default=(reference, None))[0]
    shown = [(f"worst: {_called(row, reference)}", row, row.strongest("psnr")) for row in (worst,)]
    if best is not None and best is not worst:
        shown.append((f"best: {_called(best, reference)}", best, best.strongest("psnr")))
    shown.append(("knowing nothing", reference, reference.floor))
    found = [Picture("the photos", "as the device sees them", _first(run / "targets.png"))]
    for name, row, group in shown:
        file = _file(run, group)
        if group and file:
            found.append(Picture(name, _facts(results, row, group), _first(file)))
    return tuple(found) if len(found) > 1 else ()


def _called(row: DefenceRow, reference: DefenceRow) -> str:
    return "undefended" if row is reference else row.defence.label


def _facts(results: Results, row: DefenceRow, group: Group) -> str:
    """Such as ``24.4 dB, accuracy 96.0 %``."""
    utility = f", {results.utility_name} {100 * row.utility.mean:.1f} %" if row.utility and not group.floor else ""
    return f"{matrix.number('psnr', group.scores['psnr'].mean)}{utility}"


def _first(strip: Path) -> str:
    """The first photos of a strip of square ones."""
    image = Image.open(strip)
    return uri(image.crop((0, 0, min(image.width, GLANCED * image.height), image.height)), GLANCE_HEIGHT)
