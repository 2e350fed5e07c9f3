"""docs/cards.md is what the cards say."""

from pathlib import Path

import pytest

from splitleak.attacks.ridge import Ridge
from splitleak.experiments.planning import plugins
from splitleak.experiments.planning.cards import card_of
from splitleak.experiments.tools.cards_page import main, page

PAGE = Path(__file__).parents[3] / "docs" / "cards.md"


def test_the_page_of_cards_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "make results"


def test_it_holds_every_number() -> None:
    written = page()
    for name, plugin in {**plugins.attack_classes(), **plugins.defense_classes()}.items():
        _, _, section = written.partition(f"\n### {name}\n")
        section, _, _ = section.partition("\n#")
        card = card_of(plugin)
        assert card is not None
        for number in (*card.paper, *card.ours):
            assert f"{number.metric} {number.value:g}" in section
        assert ("not measured here" in section) == (not card.ours)
        assert (f"not known: {card.paper_unknown}" in section) == (not card.paper)


def test_it_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    assert main([str(tmp_path / "cards.md")]) == 0
    assert (tmp_path / "cards.md").read_text(encoding="utf-8") == page()


def test_a_bad_card_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ridge.toml").write_text("threat = 3")
    ridge = tmp_path / "ridge.py"
    monkeypatch.setattr("splitleak.experiments.planning.cards.inspect.getfile", lambda plugin: str(ridge))
    monkeypatch.setattr(plugins, "defense_classes", dict)
    monkeypatch.setattr(plugins, "attack_classes", lambda: {"ridge": Ridge})
    assert main([str(tmp_path / "cards.md")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'ridge.toml'}: card.")
