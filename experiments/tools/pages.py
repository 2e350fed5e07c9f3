"""Pages of the documentation that follow from the plugins: one for each, and the tables that list them.

``make results`` writes them anew. In a page a table stands between two marks, the second of which is
``<!-- end -->``:

    <!-- plugins: attacks -->           also ``defenses``, ``data``: each with what it does
    <!-- plugins: attack cards -->      also ``defense cards``: what is claimed of each beside what we measured
    <!-- plugins: [victim] -->          also a plan's other tables: the settings of each
    <!-- plugins: flags -->             what makes a number doubtful
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
from splitleak.experiments.judge.flags import FLAGS
from splitleak.experiments.planning import plugins
from splitleak.experiments.planning.tables import AttackerTable, DefenderTable, JudgeTable, PartsTable, VictimTable
from splitleak.experiments.report.tables.cards import SOURCE, card_facts, card_table
from splitleak.experiments.report.tables.plugin import HEADINGS, REQUIRED, paragraphs, plugin_facts, setting_rows
from splitleak.experiments.report.tables.table import ABSENT
from splitleak.experiments.tools.document import rewrite
from splitleak.victims.errors import unknown
from splitleak.victims.settings import Settings

MARK = re.compile(r"(<!-- plugins: (?P<asked>[^\n]+?) -->)(?P<old>.*?)(?P<end><!-- end -->)", re.DOTALL)
KINDS: Mapping[str, Callable[[], Mapping[str, type[Settings]]]] = {
    "attacks": plugins.attack_classes,
    "defenses": plugins.defense_classes,
}
"""Of each folder of pages the plugins that it shows."""
KNOWS: Mapping[type[QueryFree], str] = {QueryFree: "no queries", BlackBox: "black box", WhiteBox: "white box"}
ONE = {"attacks": "attack", "defenses": "defense"}


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
    known = dict(_tables("" if page.parent != docs else "{kind}/"))

    def table(match: re.Match[str]) -> str:
        if match["asked"] not in known:
            raise unknown("table of a page:", match["asked"], known)
        return f"{match[1]}\n\n{known[match['asked']]().strip()}\n\n{match['end']}"

    return MARK.sub(table, page.read_text(encoding="utf-8"))


def _tables(folder: str) -> Iterator[tuple[str, Callable[[], str]]]:
    """Every table that a page may show. ``folder``: of the plugins' pages of a ``kind``, as seen from that page."""
    for kind, classes in KINDS.items():
        yield kind, partial(_listing, kind, folder.format(kind=kind))
        yield f"{ONE[kind]} cards", partial(_cards, kind, classes, folder.format(kind=kind))
    yield "data", _data
    yield "flags", _flags
    for table in (VictimTable, PartsTable, DefenderTable, AttackerTable, JudgeTable):
        yield f"[{table.name}]", partial(_settings, table)


def _cards(kind: str, classes: Callable[[], Mapping[str, type[Settings]]], folder: str) -> str:
    table = card_table("attack" if kind == "attacks" else "defence", classes())
    lines = tuple((_link(line[0], folder), *line[1:]) for line in table.lines)
    return replace(table, lines=lines).markdown()


def _link(name: str, folder: str) -> str:
    return f"[{name}]({folder}{name}.md)"


def _listing(kind: str, folder: str) -> str:
    """What each plugin does in its own first words, and what its adversary knows or which setting is its strength."""
    head = {"attacks": ("attack", "it knows"), "defenses": ("defence", "strength")}[kind]
    lines = [
        (_link(name, folder), _fact(plugin), _prose(paragraphs(plugin)[0]))
        for name, plugin in sorted(KINDS[kind]().items())
    ]
    return _table((*head, "what it does"), lines)


def _fact(plugin: type[Settings]) -> str:
    if issubclass(plugin, Attack):
        return "nothing" if plugin.floor else KNOWS[knowledge_of(plugin)]
    assert issubclass(plugin, Defense)
    return f"`{plugin.strength}`" if plugin.strength else ABSENT


def _data() -> str:
    sources = sorted(plugins.source_classes().items())
    return _table(("data", "what it is"), [(f"`{name}`", _prose(paragraphs(source)[0])) for name, source in sources])


def _flags() -> str:
    flags = [(f"`{flag.name}`", _prose(flag.means), _prose(flag.remedy)) for flag in FLAGS.values()]
    return _table(("flag", "what it means", "what would lift it"), flags)


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


def _table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [headings, ["---"] * len(headings), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in ([cell.replace("|", "\\|") for cell in row] for row in rows))


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
    return _table(HEADINGS, [(f"`{name}`", *map(_prose, said)) for name, *said in rows])


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
