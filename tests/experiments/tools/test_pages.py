"""Pages of the documentation that follow from the plugins say what these say."""

import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from splitleak.attacks.ridge import Ridge
from splitleak.experiments.planning import plugins
from splitleak.experiments.planning.cards import card_of
from splitleak.experiments.tools.pages import MARK, main, pages, plugin_page

DOCS = Path(__file__).parents[3] / "docs"
PLUGINS = {**plugins.attack_classes(), **plugins.defense_classes()}


def test_the_pages_are_up_to_date() -> None:
    for path, text in pages(DOCS).items():
        assert path.read_text(encoding="utf-8") == text(), f"make results: {path.name}"


def test_every_mark_has_its_end() -> None:
    for path in DOCS.rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert text.count("<!-- plugins: ") == len(MARK.findall(text)), path.name


def test_every_plugin_has_a_page_and_every_page_a_plugin() -> None:
    there = {path.stem for kind in ("attacks", "defenses") for path in (DOCS / kind).glob("*.md")} - {"README"}
    assert there == PLUGINS.keys()
    for page, kind in (("README.md", "attacks"), ("README.md", "defenses")):
        listed = (DOCS / kind / page).read_text(encoding="utf-8")
        assert all(f"({path.name})" in listed for path in (DOCS / kind).glob("*.md") if path.stem != "README")
    cards = (DOCS / "cards.md").read_text(encoding="utf-8")
    assert all(f"/{name}.md)" in cards for name in PLUGINS)


@pytest.mark.parametrize("name", PLUGINS)
def test_a_page_holds_every_setting_and_every_number_of_the_card(name: str) -> None:
    plugin, written = PLUGINS[name], plugin_page(PLUGINS[name])
    card = card_of(plugin)
    assert card is not None
    for field in fields(plugin):
        assert f"| `{field.name}` |" in written
    for number in (*card.paper, *card.ours):
        assert f"{number.metric} {number.value:g}" in written
    assert ("not measured here" in written) == (not card.ours)
    assert (f"not known: {card.paper_unknown}" in written) == (not card.paper)


@pytest.mark.parametrize("name", PLUGINS)
def test_what_a_page_shows_of_a_plan_is_read_as_this_plugin(name: str) -> None:
    _, fence, rest = plugin_page(PLUGINS[name]).partition("```toml\n")
    if not fence:
        assert name == "chain", "what needs a setting has no example"
        return
    ((kind, (table,)),) = tomllib.loads(rest.partition("```")[0]).items()
    assert kind == ("attacks" if name in plugins.attack_classes() else "defenses")
    assert table.pop("name") == name
    for setting, values in table.items():
        assert [PLUGINS[name].from_mapping({setting: value}) for value in values]


def test_they_are_written_where_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "cards.md").write_text("Before.\n<!-- plugins: attack cards -->old<!-- end -->\nAfter.\n")
    (tmp_path / "defenses").mkdir()
    (tmp_path / "defenses" / "gone.md").write_text("a plugin that was")
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / "attacks" / "ridge.md").read_text() == plugin_page(Ridge)
    cards = (tmp_path / "cards.md").read_text()
    assert cards.startswith("Before.\n")
    assert cards.endswith("<!-- end -->\nAfter.\n")
    assert "old<" not in cards
    assert "| [ridge](attacks/ridge.md) |" in cards
    assert not (tmp_path / "defenses" / "gone.md").exists()


@pytest.mark.parametrize(("asked", "hint"), [("atacks", "'atacks'.*attacks"), ("[victims]", "[victim]")])
def test_a_mark_that_asks_for_nothing_known_is_one_line(
    asked: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.md").write_text(f"<!-- plugins: {asked} --><!-- end -->")
    assert main([str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: unknown ")
    assert all(word in line for word in hint.split(".*"))


def test_a_bad_card_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ridge.toml").write_text("threat = 3")
    ridge = tmp_path / "ridge.py"
    monkeypatch.setattr("splitleak.experiments.planning.cards.inspect.getfile", lambda plugin: str(ridge))
    monkeypatch.setattr("splitleak.experiments.tools.pages.KINDS", {"attacks": lambda: {"ridge": Ridge}})
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'ridge.toml'}: card.")
