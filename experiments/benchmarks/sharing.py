"""What cells share: a whole matrix against its cells run one by one, each from nothing."""

from dataclasses import replace

from rich.table import Table

from splitleak.experiments.benchmarks.small import ANOTHER_ATTACK, PLAN, run_of, scratch, seconds


def compare() -> Table:
    """Seconds of a matrix of 6 defences x 5 attacks x 2 seeds, in each way."""
    table = Table("computed", "seconds", "share of the cells run apart", box=None)
    with scratch() as folder:
        run = run_of(PLAN, folder / "whole")
        apart = 0.0
        for cell in run.cells:
            with scratch() as alone:
                apart += seconds(replace(run, folder=alone / "runs" / "small", cells=(cell,)))
        table.title = f"sharing: {len(run.cells)} cells on one thread"
        table.add_row("each cell apart", f"{apart:.0f}", "1")
        more = run_of(PLAN + ANOTHER_ATTACK, folder / "whole")
        for title, one in (("the matrix", run), ("the same again", run), ("one more attack", more)):
            taken = seconds(one)
            table.add_row(title, f"{taken:.1f}", f"{taken / apart:.3f}")
    return table
