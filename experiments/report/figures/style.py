"""What all figures look like, on a screen and in a paper, and how they are written."""

import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999933", "#8C6BB1")
"""Told apart with any colour vision: Okabe & Ito, Color Universal Design, 2008, without its black and its
yellow (illegible on white); olive and violet make up the eight."""

GREY = "#8A8F98"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")

INK = "#1B1F24"
PAPER = "#FDFDFE"
"""Unlike any other colour here, so that a page can exchange these two for its own."""

DPI = 150
PRINT_DPI = 300
"""Of PNG files for a paper."""
LETTERS_PER_INCH = 130.0
"""Of type of one point."""

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure everywhere
    "font.size": 9,
    "text.parse_math": False,  # a label may hold dollar signs
    "svg.hashsalt": "splitleak",  # the same file for the same data
    "pdf.fonttype": 42,  # TrueType: journals refuse Type 3
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": "auto",
}


@dataclass(frozen=True)
class Style:
    """Where a figure is to be read. Widths in inches, type in points.

    ``height``: with one panel. ``wide``: with panels beside one another. ``titled``: whether a figure says itself
    what it shows, or leaves that to a caption.
    """

    name: str
    width: float
    height: float
    wide: float
    type_size: float
    small_size: float
    titled: bool = False
    background: str = "white"

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Figures that are made here have this style."""
        background = {"figure.facecolor": self.background, "axes.facecolor": self.background}
        with mpl.rc_context(STYLE | {"font.size": self.type_size} | background):
            yield

    def figure(self, width: float, height: float, **options: Any) -> Figure:
        """An empty one with a canvas, so that it can be measured while it is drawn."""
        figure = Figure(figsize=(width, height), dpi=DPI, **options)
        FigureCanvasAgg(figure)
        return figure

    def wrapped(self, text: str, width: float) -> str:
        """The text in lines of at most ``width`` inches, in small type."""
        return textwrap.fill(text, self.letters(width, self.small_size))

    def letters(self, width: float, size: float) -> int:
        """About how many stand on a line."""
        return int(LETTERS_PER_INCH / size * width)

    @property
    def stacked(self) -> bool:
        """Whether it is too narrow for two panels beside one another."""
        return self.wide < 5


SCREEN = Style("screen", width=10.0, height=5.2, wide=10.0, type_size=9, small_size=8, titled=True, background=PAPER)
SINGLE = Style("single", width=3.3, height=3.9, wide=3.3, type_size=8, small_size=7)
DOUBLE = Style("double", width=6.9, height=4.6, wide=6.9, type_size=8, small_size=7)
PRINTED = (SINGLE, DOUBLE)
"""One and two columns of a paper."""


def save(figure: Figure, stem: Path, *formats: str, dpi: int = DPI) -> list[Path]:
    """Write the figure as ``stem`` in each format, such as ``png`` and ``svg``; returns the files."""
    files = [stem.with_name(f"{stem.name}.{suffix}") for suffix in formats]
    before = figure.dpi
    with mpl.rc_context(STYLE):
        for file, suffix in zip(files, formats, strict=True):
            figure.set_dpi(dpi)
            canvas, options = CANVASES[suffix]
            getattr(canvas(figure), f"print_{suffix}")(file, **options)  # ``savefig`` would draw everything twice
    figure.set_dpi(before)
    FigureCanvasAgg(figure)
    return files


CANVASES: Mapping[str, tuple[type[Any], dict[str, Any]]] = {
    "png": (FigureCanvasAgg, {}),
    "svg": (FigureCanvasSVG, {"metadata": {"Date": None}}),  # a date would make each file differ
    "pdf": (FigureCanvasPdf, {"metadata": {"CreationDate": None}}),
}
