"""Commands that take a defence from a run to a device, and show what passes between it and the cloud."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from splitleak.experiments.cli.display import Display
from splitleak.experiments.cli.options import RunFolder, console, device_of, say
from splitleak.experiments.store.store import Store
from splitleak.experiments.tools.deploy import Deployment
from splitleak.experiments.tools.finished import Setting

Defense = Annotated[str, Parameter(help="its label in the run, or its name where there is one setting of it")]


def deploy(
    run_folder: RunFolder, /, *, defense: Defense, out: Annotated[Path, Parameter(help="the folder to write")]
) -> int:
    """Write a protected network as two programs, one for the device and one for the cloud, with all they need.

    By torch.export and, where the extra `deploy` is installed, as ONNX; the bytes between them as a document with
    test vectors; a card of what the run measured; and one Python file that runs both without this package.
    """
    setting = Setting.of(run_folder, defense)
    with Display(console, 1) as display:
        store = Store(setting.cache, device_of("cpu"), display.stage)
        deployment = Deployment.of(setting, store)
    deployment.write(out, say)
    say(f"deployed: {out.resolve()}; python {out / 'runtime.py'} checks it")
    return 0
