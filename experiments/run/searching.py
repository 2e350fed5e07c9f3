"""Find the strengths that a plan asks to search, before its cells."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from splitleak.experiments.run.run import Run, behind
from splitleak.experiments.run.schedule import Executor, Graph, Outcome, Task, execute
from splitleak.experiments.stages.match import MatchStage
from splitleak.experiments.store.store import Store


@dataclass(frozen=True)
class Searched:
    """``run``: with what was found. ``computed``: stages of each kind.

    ``failures``: tracebacks, by the label of the defence. ``whole``: time was not up before all had ended.
    """

    run: Run
    computed: Counter[str]
    failures: dict[str, str]
    whole: bool


def searched(
    run: Run,
    store: Store,
    executor: Executor,
    retry_failed: bool,
    tell: Callable[[list[str]], None],
    time_is_up: Callable[[], bool],
) -> Searched:
    """Work off the searches of a run, each a task; those that failed before only where that is asked for.

    Every training is a stage of its own: what an interrupted search has trained is there when it begins again.
    """
    wanted = {label: stage for label, stage in run.searches.items() if retry_failed or _unanswered(run, label)}
    labels = {stage.key: label for label, stage in wanted.items()}
    computed: Counter[str] = Counter()
    failures: dict[str, str] = {}
    ended: set[str] = set()

    def on_end(task: Task, outcome: Outcome) -> None:
        computed.update(outcome.computed)
        label = labels.get(task.name)
        if label is None:
            return
        ended.add(label)
        if outcome.failure is not None:
            failures[label] = outcome.failure
        elif found := wanted[label].known(store.root):
            tell([f"{label}: {found.text}"])

    execute(_graph(wanted, store), executor, on_end, time_is_up)
    return Searched(run.again(), computed, failures, ended == {*wanted})


def _unanswered(run: Run, label: str) -> bool:
    return any(cell.result(run.folder) is None for cell in run.cells if cell.defense.label == label)


def _graph(wanted: dict[str, MatchStage], store: Store) -> Graph:
    """Each search after what it builds on."""
    needs: dict[Task, set[Task]] = {}
    groups: dict[Task, str] = {}
    tasks: dict[str, Task] = {}
    for label, search in wanted.items():
        for key, stage in behind([search], lambda stage: not store.has(stage)).items():
            if key not in tasks:
                title = f"searching {label}" if stage is search else f"{stage.label} for {label}"
                tasks[key] = Task("stage", key, title, f"{stage.label} {search.defense.name}")
                needs[tasks[key]] = {tasks[one.key] for one in stage.upstream if one.key in tasks}
                groups[tasks[key]] = label
    return Graph(needs, groups)
