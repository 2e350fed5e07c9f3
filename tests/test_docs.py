"""README and docs: every link leads somewhere, every command and example runs or is listed with why it does not."""

import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from terminal import Terminal
from tiny import DECODER, HEAD, NOISE, NONE, RIDGE, run_plan

from splitleak.experiments.cli.app import app
from splitleak.experiments.planning.names import CACHE, PLANS
from splitleak.experiments.planning.plan import parse_plan

PROJECT = Path(__file__).parents[1]
README, NOTEBOOK = PROJECT / "README.md", PROJECT / "docs" / "example.ipynb"
PAGES = [README, *sorted((PROJECT / "docs").rglob("*.md"))]
LINES = 150
"""Of the README, at most."""

INSTALLS = "installs packages"
MINUTES = "trains networks for minutes or hours; tests run it on tiny plans"
NEEDS = "needs weights, a network or photos that the reader brings; tests run it on small ones"
CLUSTER = "starts a cluster; tests/experiments/run/test_ray.py does"
WHOLE = {"victim": {"task": "mask"}, "defenses": [{"name": "none"}], "attacks": [{"name": "mean_image"}]}
"""What a piece of a plan leaves out."""
DEPLOYS = "writes programs for a minute; tests/experiments/tools/deploy does"
LIVE = "starts processes that talk by TCP; tests/experiments/tools/live does"
ELSEWHERE = "is of other programs, or for another computer"
OWN_NETWORK = "--model my_net.py:make_model --weights mine.safetensors --cut middle --data photos.zip --budget 30"
BENCHMARK = "reads a run of hours; tests/experiments/report/test_published.py and test_board.py read small ones"
BETWEEN = "--listen 0.0.0.0:7002 --cloud 192.0.2.10:7001 --page 0.0.0.0:8765"
SELF_SIGNED = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=cloud -days 30"
NOT_RUN = {
    "make": MINUTES,
    "make test": "is what runs this",
    ". .venv/bin/activate": INSTALLS,
    "pip install '.[timm,identity,detection,cluster,tensorboard,mlflow]'": INSTALLS,
    "splitleak --install-completion": "asks which shell it is typed in; test_describe.py names one",
    "splitleak run mine.toml": MINUTES,
    "splitleak run mine.toml --retry failed": MINUTES,
    "splitleak run mine.toml --stop-after 30": MINUTES,
    "splitleak run mine.toml --fail-fast": MINUTES,
    "splitleak run mine.toml --executor processes --workers 4": MINUTES,
    "splitleak run mine.toml --executor ray": CLUSTER,
    "splitleak run mine.toml --cache-limit 50GB": MINUTES,
    "splitleak run quick --tensorboard": MINUTES,
    "splitleak report runs/mine --style paper": "draws every figure twice; tests/experiments/report/test_figures.py",
    "splitleak export runs/quick --tracking-uri mlruns": "takes a database; tests/experiments/tools/test_export.py",
    "splitleak profile mobilenet_v3_large --size 160": MINUTES,
    "splitleak profile resnet50 --weights IMAGENET1K_V2 --data photos.zip --cuts layer1 layer2 layer3": NEEDS,
    "splitleak audit --model resnet18 --weights mine.pth --cut layer2 --data photos --size 96 --budget 6": NEEDS,
    f"splitleak audit {OWN_NETWORK}": NEEDS,
    "pip install 'splitleak[deploy]'": INSTALLS,
    "splitleak run quick": MINUTES,
    "splitleak deploy runs/quick --defense 'gaussian_noise sigma=2.0' --out phone": DEPLOYS,
    "python phone/runtime.py": DEPLOYS,
    "pip install 'splitleak[live]'": INSTALLS,
    "splitleak live runs/quick --defense none": LIVE,
    "splitleak deploy runs/quick --defense none --out halves": DEPLOYS,
    "scp -r halves 192.0.2.10:": ELSEWHERE,
    "scp -r halves 192.0.2.20:": ELSEWHERE,
    "splitleak live cloud halves --listen 0.0.0.0:7001": LIVE,
    "splitleak live edge halves --cloud 192.0.2.10:7001 --photos pictures --count 300": LIVE,
    f"splitleak live interceptor runs/quick --defense none {BETWEEN}": LIVE,
    "splitleak live edge halves --cloud INTERCEPTOR:7002 --show http://INTERCEPTOR:8765": LIVE,
    f"openssl req -x509 {SELF_SIGNED} -out certificate.pem -keyout key.pem": ELSEWHERE,
    "splitleak live cloud halves --listen 0.0.0.0:7001 --certificate certificate.pem --key key.pem": LIVE,
    "splitleak live edge halves --cloud 192.0.2.10:7001 --trust certificate.pem": LIVE,
    "splitleak live realtime runs/quick": LIVE,
    "splitleak live realtime runs/quick --megabits 5 --delay 20 --count 100": LIVE,
    "export SPLITLEAK_DATA=~/data SPLITLEAK_WEIGHTS=~/weights OMP_NUM_THREADS=1": ELSEWHERE,
    "splitleak run cifar_he --executor processes --workers 2": MINUTES,
    "splitleak run cifar_cem --executor processes --workers 2": MINUTES,
    "splitleak run cifar_seed --executor processes --workers 2": MINUTES,
    "splitleak published cifar_he runs/cifar_he": BENCHMARK,
    "splitleak published cifar_cem runs/cifar_cem": BENCHMARK,
    "splitleak archive runs/cifar_he": BENCHMARK,
    "splitleak check cifar_he.json.xz": BENCHMARK,
    "splitleak board cifar_he.json.xz cifar_cem.json.xz --out board.html": BENCHMARK,
}
"""Commands that no test types as they stand, each with the reason."""


class Block(NamedTuple):
    """A fenced block. ``file``: the name in its first line, where this is a comment that says no more."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        named = re.match(r"# ([\w.]+)\n", self.text)
        return named[1] if named else None

    @property
    def runs(self) -> bool:
        """Whether it is Python that a reader types, and no file."""
        return self.language == "python" and not self.file


def name_of(page: Path) -> str:
    return page.relative_to(PROJECT).as_posix()


def text_of(page: Path) -> str:
    """Markdown; of a notebook that of its cells."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    return "\n\n".join(
        "".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"
    )


def blocks_of(page: Path) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)]


def prose_of(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def commands_of(page: Path) -> Iterator[str]:
    """Of its shell blocks, without what is said beside them."""
    for language, text in blocks_of(page):
        if language == "sh":
            yield from filter(None, (re.sub(r"(^|\s+)# .*", "", line).strip() for line in text.splitlines()))


WITH_COMMANDS = [page for page in PAGES if any(commands_of(page))]
WITH_PLANS = [page for page in PAGES if any(block.language == "toml" for block in blocks_of(page))]
WITH_PYTHON = [page for page in PAGES if any(block.runs for block in blocks_of(page))]


# Links


def anchors_of(page: Path) -> set[str]:
    """As GitHub names them."""
    headings = re.findall(r"^#+ +(.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, PROJECT / "RESULTS.md", NOTEBOOK], ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose_of(page)))
    for link in links:
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{name_of(page)}: {link}"
        assert not anchor or anchor in anchors_of(target), f"{name_of(page)}: {link}"


def test_every_page_can_be_reached_from_the_first_ones() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in re.findall(r"\]\(([^)\s:]+)\)", prose_of(page))
    }
    assert [name_of(page) for page in PAGES if page.resolve() not in linked and page != README] == ["docs/README.md"]


# Commands


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= LINES


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_stand_in_blocks_where_they_are_found(page: Path) -> None:
    assert {block.language for block in blocks_of(page)} <= {"sh", "toml", "python", "text"}
    for block in blocks_of(page):
        assert block.language == "sh" or not re.search(r"^(splitleak|make|pip) ", block.text, re.MULTILINE)


def test_the_list_of_what_is_not_run_holds_nothing_else() -> None:
    written = {command for page in PAGES for command in commands_of(page)}
    assert set(NOT_RUN) - written == set()


def test_what_make_is_asked_for_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    asked = {name for page in PAGES for name in re.findall(r"`make ([a-z-]+)`", text_of(page))}
    assert {"test", "docs", "results", "bench"} <= asked <= targets


@pytest.mark.parametrize("page", [page for page in PAGES if "`splitleak " in text_of(page)], ids=name_of)
def test_a_command_in_a_sentence_is_understood(page: Path) -> None:
    for command in re.findall(r"`splitleak ([^`]+)`", prose_of(page)):
        name, *arguments = shlex.split(command)
        assert name in app
        if arguments:
            app.parse_args([name, *arguments], exit_on_error=False, print_error=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What earlier commands would have left: the runs that pages name."""
    folder = tmp_path_factory.mktemp("documented")
    run_plan(HEAD + NONE + NOISE + RIDGE + DECODER, folder, shared=True)
    for name in ("quick", "mine", "new"):
        shutil.copytree(folder / "runs" / "tiny", folder / "runs" / name)
    return folder / "runs"


@pytest.fixture
def desk(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a reader's: runs, and a photo."""
    (tmp_path / "runs").mkdir()
    for run in runs.iterdir():
        if run.name == CACHE:
            (tmp_path / "runs" / CACHE).symlink_to(run.resolve())
        elif run.is_dir():
            shutil.copytree(run, tmp_path / "runs" / run.name)
    shutil.copy(PROJECT / "docs" / "results" / "face.png", tmp_path / "me.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_its_commands_run(page: Path, desk: Path, terminal: Terminal) -> None:
    files = {block.file: block.text for block in blocks_of(README) + blocks_of(page) if block.file}
    for name, text in files.items():
        (desk / name).write_text(text)
    for command in commands_of(page):
        program, *arguments = shlex.split(command)
        if command in NOT_RUN:
            if program == "splitleak":
                app.parse_args(arguments, exit_on_error=False, print_error=False)
            continue
        assert program == "splitleak", f"{command}: run it here, or list it in NOT_RUN with the reason"
        code, out, error = terminal(*arguments)
        assert code == 0, f"{command}: {out}{error}"
        assert out, command


# Examples


@pytest.mark.parametrize("page", WITH_PLANS, ids=name_of)
def test_its_plans_are_plans(page: Path) -> None:
    """A piece of a plan is read with a task and what else it leaves out."""
    for block in blocks_of(page):
        if block.language == "toml":
            tables: dict[str, Any] = tomllib.loads(block.text)
            if "victims" not in tables:  # several plans, which a command reads
                whole = {**WHOLE, **tables}
                parse_plan(whole, block.text, PROJECT, "piece")


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_its_python_runs(page: Path, desk: Path) -> None:
    for block in blocks_of(page):
        if block.runs:
            made: dict[str, Any] = {}
            exec(block.text, made)
            assert "attacked" not in made or made["attacked"].answers.shape == (24, 3, 32, 32)
            assert "rows" not in made or made["rows"]


def test_the_list_of_built_in_plans_is_whole() -> None:
    _, _, listed = (PROJECT / "docs" / "plans.md").read_text().partition("## Plans that come with it")
    named = {
        name for row in re.findall(r"^\| (`.*?) \|", listed, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert named == {path.stem for path in PLANS.glob("*.toml")}


def test_what_is_cited_is_this_version() -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (PROJECT / "CITATION.cff").read_text()
    assert f"\n## {version}" in (PROJECT / "CHANGELOG.md").read_text()


# The notebook


def test_the_notebook_was_run_from_top_to_bottom_and_is_light() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert NOTEBOOK.stat().st_size < 500_000


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    promised = (
        "assert ridge.answers.shape == floor.answers.shape == ridge.photos.shape == (100, 3, 64, 64)\n"
        "assert {'none', 'channel_subset keep=0.1', 'gaussian_noise sigma=2.0', 'one_bit'} <= records.keys()\n"
        "assert all(record.ok and record.utility is not None for record in records.values())"
    )
    notebook.cells.append(nbformat.v4.new_code_cell(promised))
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
