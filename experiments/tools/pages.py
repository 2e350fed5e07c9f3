"""Pages of the documentation that follow from the plugins: one for each, and the tables that list them.

``make results`` writes them anew. A table stands in a page between two marks:

    <!-- plugins: TABLE KIND -->       TABLE is ``list`` or ``cards``, KIND is ``attacks`` or ``defenses``
    <!-- end -->
"""

import html
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from splitleak.attacks.base import Attack, knowledge_of
from splitleak.attacks.knowledge import BlackBox, QueryFree, WhiteBox
from splitleak.defenses.base import Defense
from splitleak.experiments.planning import plugins
from splitleak.experiments.report.tables.cards import SOURCE, card_facts, card_table
from splitleak.experiments.report.tables.plugin import HEADINGS, REQUIRED, paragraphs, plugin_facts, setting_rows
from splitleak.experiments.report.tables.table import ABSENT
from splitleak.experiments.tools.document import rewrite
from splitleak.victims.errors import unknown
from splitleak.victims.settings import Settings

MARK = re.compile(r"(<!-- plugins: (?P<table>\w+) (?P<kind>\w+) -->)(?P<old>.*?)(?P<end><!-- end -->)", re.DOTALL)
KINDS: Mapping[str, Callable[[], Mapping[str, type[Settings]]]] = {
    "attacks": plugins.attack_classes,
    "defenses": plugins.defense_classes,
}
"""Of each folder of pages the plugins that it shows."""
KNOWS: Mapping[type[QueryFree], str] = {QueryFree: "no queries", BlackBox: "black box", WhiteBox: "white box"}
ONE = {"attacks": "attack", "defenses": "defence"}


def pages(docs: Path) -> dict[Path, Callable[[], str]]:
    """Every page below ``docs`` that follows from the plugins, with what writes it: those with marks, one a plugin.

    What writes a page raises InvalidInputError where a mark asks for a table that there is not, or a card is none.
    """
    marked = [path for path in sorted(docs.rglob("*.md")) if MARK.search(path.read_text(encoding="utf-8"))]
    return {
        **{path: partial(_filled, path, docs) for path in marked},
        **{
            docs / kind / f"{name}.md": partial(plugin_page, plugin)
            for kind, known in KINDS.items()
            for name, plugin in sorted(known().items())
        },
    }


def _filled(page: Path, docs: Path) -> str:
    def table(match: re.Match[str]) -> str:
        for what, asked, known in (("table", match["table"], TABLES), ("kind", match["kind"], KINDS)):
            if asked not in known:
                raise unknown(f"{what} of plugins:", asked, known)
        folder = f"{match['kind']}/" if page.parent == docs else ""
        return f"{match[1]}\n\n{TABLES[match['table']](match['kind'], folder)}\n{match['end']}"

    return MARK.sub(table, page.read_text(encoding="utf-8"))


def _cards(kind: str, folder: str) -> str:
    table = card_table(ONE[kind], KINDS[kind]())
    lines = tuple((_link(line[0], folder), *line[1:]) for line in table.lines)
    return replace(table, lines=lines).markdown()


def _link(name: str, folder: str) -> str:
    return f"[{name}]({folder}{name}.md)"


def _listing(kind: str, folder: str) -> str:
    """What each plugin does in its own first words, and what its adversary knows or which setting is its strength."""
    heading = {"attacks": "it knows", "defenses": "strength"}[kind]
    rows = [
        _row(_link(name, folder), _fact(plugin), _prose(paragraphs(plugin)[0]))
        for name, plugin in sorted(KINDS[kind]().items())
    ]
    return "\n".join([_row(ONE[kind], heading, "what it does"), _row("---", "---", "---"), *rows, ""])


def _fact(plugin: type[Settings]) -> str:
    if issubclass(plugin, Attack):
        return "nothing" if plugin.floor else KNOWS[knowledge_of(plugin)]
    assert issubclass(plugin, Defense)
    return f"`{plugin.strength}`" if plugin.strength else ABSENT


TABLES: Mapping[str, Callable[[str, str], str]] = {"list": _listing, "cards": _cards}
"""Each takes a kind, and the folder of its pages as seen from the page that shows the table."""


def plugin_page(plugin: type[Settings]) -> str:
    """What it is, what it knows or sends, how a plan names it, its settings, and its card."""
    first, *more = paragraphs(plugin)
    facts = [fact for fact in plugin_facts(plugin) if fact[0] != SOURCE]  # the card has it in full
    parts = [
        f"# {plugin.name}",
        _prose(first),
        *map(_prose, more),
        "\n".join(_bullets(facts)),
        "## In a plan",
        *_example(plugin),
        _settings(plugin),
        "## Card",
        "\n".join(_bullets(card_facts(plugin))),
        f"`splitleak show {plugin.name}` prints this page in a terminal.",
    ]
    return "\n\n".join(parts) + "\n"


def _prose(text: str) -> str:
    """A docstring's text: what it quotes is a name, and nothing else in it is read as HTML."""
    parts = re.split(r"``(.+?)``", text)
    return "".join(f"`{part}`" if i % 2 else html.escape(part, quote=False) for i, part in enumerate(parts))


def _row(*cells: str) -> str:
    """Of a table, where a bar would end a cell."""
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _bullets(facts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Facts of one name stand in a list below it; one without a name belongs to the fact before it."""
    for what, group in groupby(facts, itemgetter(0)):
        said = [_linked(text.removeprefix("- ")) for _, text in group]
        if what:
            more = len(said) > 1
            yield f"- **{what}**:{'' if more else f' {said[0]}'}"
            said = said if more else []
        yield from (f"    - {one}" for one in said)


def _linked(text: str) -> str:
    return f"<{text}>" if text.startswith("https://") else _prose(text)


def _example(plugin: type[Settings]) -> Iterator[str]:
    """The table that names it, with the strengths that a curve sweeps; none where a setting must be chosen first."""
    if any(default == REQUIRED for _, _, default, _ in setting_rows(plugin)):
        return
    lines = [f"[[{'attacks' if issubclass(plugin, Attack) else 'defenses'}]]", f'name = "{plugin.name}"']
    if issubclass(plugin, Defense) and plugin.strength:
        lines.append(f"{plugin.strength} = [{', '.join(map(str, plugin.strengths))}]")
    yield "\n".join(["```toml", *lines, "```"])


def _settings(plugin: type[Settings]) -> str:
    rows = setting_rows(plugin)
    if not rows:
        return "It has no settings."
    lines = [_row(f"`{name}`", *map(_prose, said)) for name, *said in rows]
    return "\n".join([_row(*HEADINGS), _row(*["---"] * len(HEADINGS)), *lines])


def main(arguments: Sequence[str]) -> int:
    """Write the pages below a folder anew, and remove those of plugins that are gone."""
    (docs,) = map(Path, arguments)
    for kind in KINDS:
        (docs / kind).mkdir(parents=True, exist_ok=True)
    written = pages(docs)
    for path in [path for kind in KINDS for path in (docs / kind).glob("*.md")]:
        if path not in written and path.stem != "README":
            path.unlink()
    return rewrite(written, lambda path: written[path]())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
