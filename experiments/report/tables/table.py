"""A table as text, in the formats that are pasted elsewhere."""

import csv
import html
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FLAG = "⚑"
ABSENT = "–"  # noqa: RUF001 - the typographic dash of an empty table cell

_NUMBER = re.compile(rf"[-+{ABSENT}]?\d|{ABSENT}?$")
"""How the text of a cell begins that is a number, or stands for one."""

_LATEX = str.maketrans(
    {letter: rf"\{letter}" for letter in "&%$#_{}"}
    | {letter: rf"\text{name}{{}}" for letter, name in {"<": "less", ">": "greater", "|": "bar"}.items()}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", '"': "''"}
    | {"±": r"$\pm$", ABSENT: "--", FLAG: r"$\dagger$", "\n": " "}
)


@dataclass(frozen=True)
class TextTable:
    """``lines``: the text of each cell, in the order of ``headings``. ``caption``: what a reader must know.

    ``name`` is fit for a file. ``strong``: the places (line, column) of what stands out.

    Raises:
        ValueError: a line has more or fewer cells than there are headings.
    """

    name: str
    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    caption: str
    strong: frozenset[tuple[int, int]] = frozenset()

    def __post_init__(self) -> None:
        if odd := [line for line in self.lines if len(line) != len(self.headings)]:
            raise ValueError(f"{self.name}: a line of {len(odd[0])} cells under {len(self.headings)} headings")

    def csv(self) -> str:
        """The texts alone, headings first."""
        written = io.StringIO()
        csv.writer(written, lineterminator="\n").writerows([self.headings, *self.lines])
        return written.getvalue()

    def markdown(self) -> str:
        """With the caption below; what stands out is bold."""
        rule = ("---",) * len(self.headings)
        lines = [map(markdown_text, self.headings), rule, *self._styled(markdown_text, "**{}**")]
        return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", markdown_text(self.caption), ""])

    def latex(self) -> str:
        """A float of booktabs' rules, made smaller where it is wider than the page; what stands out is bold."""
        texts = [[latex_text(name) for name in self.headings], *self._styled(latex_text, r"\textbf{{{}}}")]
        head, *body = (f"{' & '.join(line)} \\\\" for line in texts)
        alignment = "".join("r" if self._numeric(column) else "l" for column in range(len(self.headings)))
        return "\n".join(
            [
                r"% needs \usepackage{booktabs} and \usepackage{graphicx}",
                r"\begin{table*}",
                r"\centering",
                rf"\caption{{{latex_text(self.caption)}}}",
                rf"\label{{tab:{self.name}}}",
                r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
                rf"\begin{{tabular}}{{{alignment}}}",
                r"\toprule",
                head,
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}}",
                r"\end{table*}",
                "",
            ]
        )

    def write(self, folder: Path) -> None:
        """``name``.csv, .md and .tex."""
        for suffix, text in (("csv", self.csv()), ("md", self.markdown()), ("tex", self.latex())):
            (folder / f"{self.name}.{suffix}").write_text(text, encoding="utf-8")

    def _styled(self, escape: Callable[[str], str], strong: str) -> list[list[str]]:
        return [
            [strong.format(escape(text)) if (i, j) in self.strong else escape(text) for j, text in enumerate(line)]
            for i, line in enumerate(self.lines)
        ]

    def _numeric(self, column: int) -> bool:
        return all(_NUMBER.match(line[column]) for line in self.lines)


def markdown_text(text: str) -> str:
    """On one line, with nothing in it that Markdown or HTML would read."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def latex_text(text: str) -> str:
    """On one line, with nothing in it that LaTeX would read."""
    return text.translate(_LATEX)
