"""The command line as a whole: its commands, and what becomes of bad input, a full disk and Ctrl-C."""

import sys
from io import TextIOWrapper

from cyclopts import App, CycloptsError
from rich.console import Console
from rich.markup import escape

from splitleak.experiments.cli.examples import EXAMPLES, FIRST, epilogue
from splitleak.experiments.run.interrupt import interruptible
from splitleak.experiments.store.integrity import DiskFullError
from splitleak.victims.allocator import tune_memory
from splitleak.victims.errors import InvalidInputError

INVALID_INPUT, DISK_FULL, INTERRUPTED = 2, 3, 130
"""Exit codes, beside that of failed cells."""

app = App(
    name="splitleak",
    help="Measures what intercepted feature maps of split inference leak, and what each defence costs.",
    help_epilogue=epilogue(FIRST),
    suppress_keyboard_interrupt=False,  # ``main`` says what is kept
)
app.register_install_completion_command(help="Install completion of commands and options for bash, zsh or fish.")
for module, names in {
    "run": ("run",),
    "report": ("report",),
    "archives": ("export", "archive", "restore", "compare", "board", "published"),
    "look": ("list_", "show", "explain", "cuts"),
    "tools": ("profile", "audit", "reconstruct", "check", "new"),
    "device": ("deploy",),
}.items():
    for name in names:  # imported when it is called: a report needs no network
        command = name.strip("_")
        place = f"splitleak.experiments.cli.{module}:{name}"
        app.command(place, name=command, help_epilogue=epilogue(EXAMPLES[command]))
app.command("splitleak.experiments.cli.device:live", name="live")  # commands of its own, with a help of its own
app["--install-completion"].help_epilogue = epilogue(EXAMPLES["--install-completion"])

OVERVIEW: tuple[list[str], ...] = ([], ["--help"], ["-h"])
"""What asks for the list of all commands."""


def main() -> None:
    """Entry point: bad input is one line and exit code 2, a bug keeps its traceback."""
    tune_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows a sign for what it lacks
    if sys.argv[1:] in OVERVIEW:
        for command in list(app):
            app[command]  # imports it: the list tells what each is for
    try:
        with interruptible():
            code = app(exit_on_error=False, print_error=False)
    except (InvalidInputError, CycloptsError, DiskFullError) as error:
        Console(stderr=True).print(
            f"[red]error:[/red] {escape(' '.join(str(error).split()))}", soft_wrap=True, highlight=False
        )
        code = DISK_FULL if isinstance(error, DiskFullError) else INVALID_INPUT
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; finished cells are stored, the same command goes on from there")
        code = INTERRUPTED
    sys.exit(code)
