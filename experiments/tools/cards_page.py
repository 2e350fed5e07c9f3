"""The page of all cards: written anew by ``make results``."""

import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter

from splitleak.experiments.planning import plugins
from splitleak.experiments.report.tables.cards import card_facts, card_table
from splitleak.experiments.report.tables.table import markdown_text
from splitleak.experiments.tools.document import rewrite
from splitleak.victims.settings import Settings

INTRODUCTION = """\
# Cards

What the source of each attack and defence claims, what we measured of it, how ours differs, and what `effort` means
in a plan. A card lies beside the plugin, as `attacks/NAME.toml` and `defenses/NAME.toml`; `make results` writes this
page from them, `splitleak show NAME` prints one, `splitleak list cards` all. Numbers of ours are those of the
archives in `results/`; what is not there is not measured here. A number of a source was never run by us.

    [[attacks]]
    name = "rmle"
    effort = "published" # quick: what a laptop bears; standard: the defaults; published: what the source spent
    steps = 2000 # what is given wins over what the effort says

`effort` in `[attacker]` is for all attacks that name none; one whose card has no such budget keeps its defaults, and
the run says so.
"""


def page() -> str:
    """Two tables, then each card."""
    kinds: list[tuple[str, str, Mapping[str, type[Settings]]]] = [
        ("Attacks", "attack", plugins.attack_classes()),
        ("Defences", "defence", plugins.defense_classes()),
    ]
    parts = [INTRODUCTION]
    for title, kind, classes in kinds:
        parts += [f"## {title}\n", card_table(kind, classes).markdown()]
    for title, _, classes in kinds:
        parts += [f"## {title}, one by one\n", *(_section(name, cls) for name, cls in sorted(classes.items()))]
    return "\n".join(parts)


def _section(name: str, plugin: type[Settings]) -> str:
    lines = [f"### {name}", ""]
    for what, facts in groupby(card_facts(plugin), itemgetter(0)):
        said = [markdown_text(fact) for _, fact in facts]
        lines += (
            [f"- **{what}**: {said[0]}"] if len(said) == 1 else [f"- **{what}**:", *(f"  - {one}" for one in said)]
        )
    return "\n".join([*lines, ""])


def main(paths: Sequence[str]) -> int:
    """Write the page to each path."""
    return rewrite(paths, lambda path: page())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
