"""What is shown while a plan runs, and how long it says that it will take."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny import HEAD, MEAN, NOISE, RIDGE

from splitleak.experiments.cli.display import Display, _roughly
from splitleak.experiments.cli.remaining import Remaining
from splitleak.experiments.planning.names import CACHE
from splitleak.experiments.planning.plan import read_plan
from splitleak.experiments.results.record import AttackSetting, DefenceSetting, Record, Score, Victim
from splitleak.experiments.run.execute import run_cells, work_of
from splitleak.experiments.run.run import Run
from splitleak.experiments.run.schedule import Serial, Task
from splitleak.experiments.store.store import Store

RIDGES = [
    Task("stage", f"r{number}", f"attack for none x ridge, seed {number}", "attack ridge") for number in range(3)
]
DECODER = Task(
    "stage", "d", "attack for gaussian_noise sigma=0.5 x decoder width=32 epochs=8, seed 0", "attack decoder"
)


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def terminal(width: int, height: int = 24) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)


def lines(display: Display) -> list[str]:
    console = terminal(display.console.width)
    with console.capture() as captured:
        console.print(display.table())
    return [line.rstrip() for line in captured.get().splitlines()]


def result(defence: str, attack: str, psnr: float | None, floor: bool = False) -> Record:
    """Of a cell with this PSNR; None: it was scored by nothing."""
    scores = {} if psnr is None else {"psnr": Score(mean=psnr, low=psnr - 1, high=psnr + 1, values=(psnr,))}
    return Record(
        id="",
        key="",
        status="ok",
        plan="tiny",
        seed=0,
        adaptive=True,
        victim=Victim(model="resnet18", cut="layer1", data="faces", size=32),
        defence=DefenceSetting(name=defence, label=defence),
        attack=AttackSetting(name=attack, label=attack, floor=floor),
        metrics=scores,
    )


class NoCell:
    title, stages = "a cell", ()


def tell(display: Display, *results: Record) -> None:
    for one in results:
        display.cell(NoCell(), one, True)  # type: ignore[arg-type]


def test_the_estimate_is_what_tasks_of_a_sort_took() -> None:
    clock = Clock()
    remaining = Remaining(clock)
    remaining.planned([*RIDGES, DECODER])
    assert remaining.estimate() == (0, 4)  # nothing is known of any
    remaining.began(RIDGES[0])
    clock.now += 10
    remaining.ended(RIDGES[0])
    assert remaining.estimate() == (20, 1)
    remaining.began(RIDGES[1])
    clock.now += 4
    assert remaining.estimate() == (6 + 10, 1)
    remaining.began(DECODER)  # beside it, so that two are done at a time
    assert remaining.estimate() == ((6 + 10) / 2, 1)
    clock.now += 100  # it takes longer than usual: nothing is said of how much
    assert remaining.estimate() == (10 / 2, 1)


def test_a_task_that_never_ran_takes_no_time_and_a_second_try_begins_anew() -> None:
    clock = Clock()
    remaining = Remaining(clock)
    remaining.planned(RIDGES)
    remaining.ended(RIDGES[0])
    assert remaining.estimate() == (0, 2)
    remaining.began(RIDGES[1])
    clock.now += 50
    remaining.began(RIDGES[1])
    clock.now += 7
    remaining.ended(RIDGES[1])
    assert remaining.estimate() == (7, 0)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59, "59 s"), (90, "2 min"), (3000, "50 min"), (9000, "2.5 h")]
)
def test_a_time_is_as_exact_as_an_estimate(seconds: float, said: str) -> None:
    assert _roughly(seconds) == said


@pytest.mark.parametrize("width", [80, 120])
def test_one_worker_has_the_stage_the_cell_and_what_it_is_at(width: int) -> None:
    display, clock = Display(terminal(width), 44), Clock()
    display.remaining = Remaining(clock)
    display.planned([*RIDGES, DECODER])
    display.began(RIDGES[0])
    clock.now += 300
    display.ended(RIDGES[0])
    tell(display, result("none", "mean_image", 11.0, floor=True), result("none", "ridge", 21.25))
    display.began(DECODER)
    display.stage("fitting decoder epoch 3/8: train loss 0.0123, validation loss 0.0456")
    shown = lines(display)
    assert all(len(line) <= width for line in shown)
    assert "2/44 cells, 0:00:00, " in shown[0]
    assert shown[0].endswith(" a minute, at least 10 min left")
    assert shown[1].startswith("at work           attack for gaussian_noise sigma=0.5 x decoder width=32")
    assert " ".join(" ".join(shown[1:-2]).split()).endswith("epoch 3/8: train loss 0.0123, validation loss 0.0456")
    assert shown[-2:] == [
        "strongest so far  21.2 dB  none, by ridge",
        "                  11.0 dB  the floor, by mean_image",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_several_workers_have_a_line_each(width: int) -> None:
    display = Display(terminal(width), 44)
    display.stage("decoding photos")
    assert lines(display)[1:] == ["at work  preparing: decoding photos"]
    for task in (*RIDGES[:2], DECODER):
        display.began(task)
    display.said(RIDGES[1], "validation loss 0.02")
    shown = lines(display)[1:]
    assert all(len(line) <= width for line in shown)
    assert shown[:2] == [
        "at work  attack for none x ridge, seed 0",
        "         attack for none x ridge, seed 1: validation loss 0.02",
    ]
    display.said(DECODER, "fitting decoder epoch 3: train loss 0.0123, validation loss 0.0456")
    whole = " ".join(" ".join(lines(display)[3:]).split())
    assert whole.endswith("fitting decoder epoch 3: train loss 0.0123, validation loss 0.0456")
    for task in (*RIDGES[:2], DECODER):
        display.ended(task)
    assert lines(display)[1:] == []


def test_of_each_defence_the_strongest_attack_is_shown_the_latest_last() -> None:
    display = Display(terminal(80), 9)
    tell(display, result("none", "ridge", 20), result("noise", "ridge", 15), result("none", "decoder", 24))
    tell(display, result("none", "weak", 12), result("none", "equal", 24), result("none", "x", None))
    assert [line.split("  ")[-2:] for line in lines(display)[1:]] == [
        ["15.0 dB", "noise, by ridge"],
        ["24.0 dB", "none, by decoder"],
    ]


def test_the_table_is_no_taller_than_the_terminal() -> None:
    display = Display(terminal(80, height=12), 99)
    tell(display, *(result(f"defence {number}", "ridge", 20) for number in range(40)))
    display.began(DECODER)
    display.said(DECODER, "fitting")
    tell(display, result("none", "mean_image", 11.0, floor=True))
    assert len(lines(display)) <= 12
    assert "defence 39" in lines(display)[-2]
    assert any("more" in line for line in lines(display)), "what has no room is counted"


def test_workers_that_have_no_room_are_counted() -> None:
    display = Display(terminal(80, height=12), 99)
    for number in range(30):
        display.began(Task("stage", f"w{number}", f"attack number {number}", "attack ridge"))
    shown = lines(display)
    assert len(shown) <= 12
    told = sum("attack number" in line for line in shown)
    assert shown[-1].split() == ["and", str(30 - told), "more"]


def run(tmp_path: Path, console: Console) -> Display:
    path = tmp_path / "plan.toml"
    path.write_text(HEAD + NOISE + MEAN + RIDGE)
    plan = Run.of(read_plan(path), tmp_path / "runs")
    with Display(console, len(plan.cells)) as display:
        store = Store(tmp_path / "runs" / CACHE, torch.device("cpu"), display.stage)
        executor = Serial(work_of(plan, store))
        executor.watcher = display
        run_cells(plan, store, executor, False, display.cell)
    return display


def test_a_run_is_followed_to_its_end(tmp_path: Path) -> None:
    console = terminal(120)
    display = run(tmp_path, console)
    assert (display.done, display.at_work, display.remaining.estimate()) == (6, {}, (0, 0))
    assert {*display.leakage} == {"none", "gaussian_noise sigma=0.5", "gaussian_noise sigma=100.0"}
    sorts = {*display.remaining.took}
    assert sorts >= {"victim classification", "protect gaussian_noise", "attack ridge", "judging ridge"}
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert "strongest so far" in written
    assert written.count("x ridge, seed 0: PSNR") == 3


def test_a_log_file_gets_plain_lines_and_no_table(tmp_path: Path) -> None:
    file = io.StringIO()
    run(tmp_path, Console(file=file, width=120))
    written = file.getvalue().splitlines()
    assert [line[:6] for line in written if line.startswith("[")] == [f"[{number}/6] " for number in range(1, 7)]
    assert "\x1b" not in file.getvalue()
    assert not any("strongest so far" in line for line in written)
