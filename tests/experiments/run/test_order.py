"""Attacks share what they learn of the adversary's photos: which comes first must not matter."""

from pathlib import Path

from tiny import HEAD, SUBSET, run_plan

ATTACKS = (
    '[[attacks]]\nname = "ridge"\n',
    '[[attacks]]\nname = "decoder"\nwidth = 16\nepochs = 1\n',
    '[[attacks]]\nname = "refine"\nwidth = 16\nepochs = 1\nsteps = 2\ndraws = 1\n',
    '[[attacks]]\nname = "reidentify"\n',
)


def test_the_order_of_attacks_changes_no_score(tmp_path: Path) -> None:
    forth, back = (_metrics(order, tmp_path / name) for name, order in (("forth", ATTACKS), ("back", ATTACKS[::-1])))
    assert forth == back


def _metrics(attacks: tuple[str, ...], folder: Path) -> dict[str, object]:
    folder.mkdir()
    results, _, _ = run_plan(HEAD + SUBSET + "".join(attacks), folder)
    assert all(result["status"] == "ok" for result in results)
    return {result["id"]: (result["metrics"], result["queries"]) for result in results}
