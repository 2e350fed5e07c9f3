"""Tables for a terminal. Nothing in them is ever shortened: what does not fit wraps, or becomes a list.

Where the rows do not fit beside one another, the first cell of each stands above its others; where these still do not
fit, each has a line of its own with its heading.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

GAP, INDENT, NARROWEST = 2, 2, 30
"""Columns of a terminal: between two of a table, before what stands below a name, and of prose at least."""

Cell = str | Text
"""On one line. A string is shown as it is: brackets are no markup."""


@dataclass(frozen=True)
class Column:
    """``prose`` may be broken between words; anything else is a name, a number or a unit, and stays whole."""

    heading: str
    prose: bool = False
    right: bool = False

    def least(self, cells: Sequence[str]) -> int:
        """The width below which it would shorten something. Headings break between words."""
        words = [word for cell in cells for word in (cell.split() if self.prose else [cell])]
        least = max(map(cell_len, [*self.heading.split(), *words]), default=0)
        return max(least, min(NARROWEST, self.natural(cells))) if self.prose else least

    def natural(self, cells: Sequence[str]) -> int:
        """The width in which nothing breaks."""
        return max(map(cell_len, [self.heading, *cells]))


class Sheet:
    """Rows under headings: a table where that fits, else a list of what each row says.

    Into a file or a pipe it is written without colour, a line for each row, however long. ``title`` stands above,
    ``caption`` below; there is no heading where no column has one.

    Raises:
        ValueError: a row has more or fewer cells than there are columns.
    """

    def __init__(
        self, columns: Sequence[Column], rows: Iterable[Sequence[Cell]], title: str = "", caption: str = ""
    ) -> None:
        self.columns = tuple(columns)
        self.rows = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
        self.title, self.caption = title, caption
        if odd := [row for row in self.rows if len(row) != len(self.columns)]:
            raise ValueError(f"a row of {len(odd[0])} cells under {len(self.columns)} headings")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.title:
            yield Text(self.title, style="bold")
        if not options.is_terminal:
            yield from self.lines()
        elif widths := fitted(self.columns, self.rows, options.max_width):
            yield self._table(widths)
        elif widths := fitted(self.columns[1:], [row[1:] for row in self.rows], options.max_width - INDENT):
            yield self._stacked(widths)
        else:
            yield from self._list(options.max_width)
        if self.caption:
            yield Text(self.caption, style="dim")

    @property
    def _headed(self) -> bool:
        return any(column.heading for column in self.columns)

    def _table(self, widths: Sequence[int]) -> Table:
        table = _columns(self.columns, widths, header=self._headed)
        for row in self.rows:
            table.add_row(*row)
        return table

    def _stacked(self, widths: Sequence[int]) -> Table:
        """``widths``: of the columns but the first."""
        whole = Table(box=None, pad_edge=False, padding=0, show_header=self._headed)
        headings = _columns(self.columns[1:], widths, header=True)
        whole.add_column(Group(Text(self.columns[0].heading), Padding(headings, (0, 0, 0, INDENT))))
        for name, *others in self.rows:
            below = _columns(self.columns[1:], widths, header=False)
            below.add_row(*others)
            whole.add_row(Group(name, Padding(below, (0, 0, 0, INDENT))))
        return whole

    def _list(self, room: int) -> Iterator[Text | Padding]:
        """What is empty is not said."""
        beside = max((cell_len(column.heading) for column in self.columns[1:]), default=0) + GAP
        for name, *facts in self.rows:
            yield name
            for column, fact in zip(self.columns[1:], facts, strict=True):
                heading = Text(column.heading)
                if fact and INDENT + beside + cell_len(fact.plain) <= room:
                    heading.pad_right(beside - cell_len(column.heading))
                    yield Padding(heading + fact, (0, 0, 0, INDENT))
                elif fact:
                    yield Padding(heading, (0, 0, 0, INDENT))
                    yield Padding(fact, (0, 0, 0, 2 * INDENT))

    def lines(self) -> Iterator[Text]:
        """One for the headings and one for each row, however long."""
        headings = [[Text(column.heading) for column in self.columns]] * self._headed
        rows = [*headings, *self.rows]
        widths = [max(cell_len(row[index].plain) for row in rows) for index in range(len(self.columns))]
        for row in rows:
            padded = [
                " " * (width - cell_len(cell.plain)) + cell.plain
                if column.right
                else cell.plain + " " * (width - cell_len(cell.plain))
                for column, cell, width in zip(self.columns, row, widths, strict=True)
            ]
            yield Text((" " * GAP).join(padded).rstrip(), no_wrap=True, overflow="ignore")


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[Text]], room: int) -> list[int] | None:
    """The widths of a table's columns, at most ``room`` together; None where no such table holds everything."""
    measured = [(column, [row[index].plain for row in rows]) for index, column in enumerate(columns)]
    least = [column.least(texts) for column, texts in measured]
    wanted = [column.natural(texts) - width for (column, texts), width in zip(measured, least, strict=True)]
    spare = room - sum(least) - GAP * (len(least) - 1)
    if spare < 0:
        return None
    share = min(1.0, spare / max(1, sum(wanted)))
    return [width + int(share * more) for width, more in zip(least, wanted, strict=True)]


def _columns(columns: Sequence[Column], widths: Sequence[int], header: bool) -> Table:
    """A table without rows."""
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=header)
    for column, width in zip(columns, widths, strict=True):
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(Text(column.heading), justify=justify, width=width, overflow="fold")
    return table
