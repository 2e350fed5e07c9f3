"""Commands that take a defence from a run to a device, and show what passes between it and the cloud."""

import math
import signal
import tempfile
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import App, Parameter

from splitleak.experiments.cli.display import Display
from splitleak.experiments.cli.examples import EXAMPLES, epilogue
from splitleak.experiments.cli.options import FAILED_CELLS, Device, RunFolder, console, device_of, say
from splitleak.experiments.store.store import Store
from splitleak.experiments.tools.deploy import Deployment, check_folder
from splitleak.experiments.tools.finished import Setting, labels, run_at
from splitleak.experiments.tools.live import realtime as times
from splitleak.experiments.tools.live.adversary import Adversary, chosen
from splitleak.experiments.tools.live.eavesdropper import Eavesdropper
from splitleak.experiments.tools.live.interceptor import Alter
from splitleak.experiments.tools.live.link import Link, Place
from splitleak.experiments.tools.live.page import check_installed
from splitleak.experiments.tools.live.photos import photos_of
from splitleak.experiments.tools.live.programs import Secrets, cloud_program, edge_program, run_until_stopped
from splitleak.experiments.tools.live.tls import make_certificate
from splitleak.experiments.tools.live.together import ANYWHERE, free_places, running
from splitleak.victims.errors import InvalidInputError

Defense = Annotated[str, Parameter(help="its label in the run, or its name where there is one setting of it")]
Attack = Annotated[str | None, Parameter(help="that rebuilds, by name or label; default: the strongest of the run")]
Photos = Annotated[Path | None, Parameter(help="a folder of photos; by default faces are drawn")]
Count = Annotated[int | None, Parameter(help="photos to send; none: without end")]
Pause = Annotated[float, Parameter(help="seconds between two photos")]
Megabits = Annotated[float | None, Parameter(help="a second, at which this side sends; none: as fast as it goes")]
Delay = Annotated[float, Parameter(help="milliseconds added to what this side sends")]
Where = Annotated[str, Parameter(help="host:port; another host than 127.0.0.1 is open to the network")]
ENDINGS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What ends a process beside Ctrl-C; Windows has no SIGHUP."""
Folder = Annotated[Path, Parameter(help="that splitleak deploy wrote")]

live = App(
    name="live",
    help="Show a defence on a live wire: edge, interceptor and cloud, over TCP.",
    help_epilogue=epilogue(EXAMPLES["live"]),
)


def deploy(
    run_folder: RunFolder, /, *, defense: Defense, out: Annotated[Path, Parameter(help="the folder to write")]
) -> int:
    """Write a protected network as two programs, one for the device and one for the cloud, with all they need.

    By torch.export and, where the extra deploy is installed, as ONNX; the bytes between them as a document with
    test vectors; a card of what the run measured; and one Python file that runs both without this package.
    """
    check_folder(out)
    setting = Setting.of(run_folder, defense)
    with Display(console, 1) as display:
        deployment = Deployment.of(setting, Store(setting.cache, torch.device("cpu"), display.stage))
    deployment.write(out, say)
    say(f"deployed: {out.resolve()}; python {out / 'runtime.py'} checks it")
    return 0


@live.default
def demonstrate(
    run_folder: RunFolder,
    /,
    *,
    defense: Defense,
    attack: Attack = None,
    photos: Photos = None,
    count: Count = 300,
    pause: Pause = 0.5,
    page: Where = "127.0.0.1:8765",
    megabits: Annotated[float | None, Parameter(help="a second, in both directions")] = None,
    delay: Annotated[float, Parameter(help="milliseconds added each way")] = 0.0,
    tls: Annotated[bool, Parameter(negative="", help="encrypt: the interceptor sees nothing but sizes")] = False,
    leave: Annotated[bool, Parameter(negative="", help="end after the last photo, rather than with Ctrl-C")] = False,
) -> int:
    """Deploy a defence and start all three on this computer: cloud, interceptor with its page, and edge."""
    check_installed()
    setting = Setting.of(run_folder, defense)
    chosen(setting, attack)
    Link(megabits, delay)
    photos_of(photos, setting.run.plan.victim.size, count)
    wire, cloud, page = free_places(ANYWHERE, ANYWHERE, page)
    for ending in ENDINGS:  # the three end with this process, also where a terminal is closed
        signal.signal(ending, signal.default_int_handler)
    speed = [*(["--megabits", str(megabits)] if megabits else []), "--delay", str(delay)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="splitleak")))
        deployed = folder / "deployed"
        deploy(run_folder, defense=defense, out=deployed)
        shown, trusted = list[str](), list[str]()
        if tls:
            certificate, key = make_certificate(folder)
            shown, trusted = ["--certificate", str(certificate), "--key", str(key)], ["--trust", str(certificate)]
        started = partial(running, say=say)
        stack.enter_context(started("cloud", [str(deployed), "--listen", cloud, *speed, *shown])).ready()
        named = ["--defense", setting.label, *(["--attack", attack] if attack else [])]
        places = ["--listen", wire, "--cloud", cloud, "--page", page]
        between = stack.enter_context(started("interceptor", [str(run_folder), *named, *places]))
        between.ready()
        what = [*(["--photos", str(photos)] if photos else []), "--count", str(count), "--pause", str(pause)]
        sending = [str(deployed), "--cloud", wire, "--show", f"http://{page}", *what, *speed, *trusted]
        code, edge = 0, stack.enter_context(started("edge", sending))
        with suppress(KeyboardInterrupt):  # which is how it ends
            code = edge.wait()
            if not leave and not code:
                say(f"the page stays at http://{page}/ until Ctrl-C")
                between.wait()
    return code and FAILED_CELLS


@live.command
def cloud(
    folder: Folder,
    /,
    *,
    listen: Where = "127.0.0.1:7001",
    certificate: Annotated[Path | None, Parameter(help="to show: TLS")] = None,
    key: Annotated[Path | None, Parameter(help="of the certificate")] = None,
    megabits: Megabits = None,
    delay: Delay = 0.0,
) -> int:
    """Answer the releases that arrive, with the half of a deployment that belongs in the cloud."""
    secrets = Secrets(certificate, key)
    run_until_stopped(cloud_program(folder, Place.of(listen), Link(megabits, delay), secrets, say))
    return 0


@live.command
def interceptor(
    run_folder: RunFolder,
    /,
    *,
    defense: Defense,
    attack: Attack = None,
    listen: Where = "127.0.0.1:7002",
    cloud: Annotated[str, Parameter(help="host:port to pass everything on to")] = "127.0.0.1:7001",
    page: Where = "127.0.0.1:8765",
    alter: Annotated[
        Alter | None, Parameter(help="of each release: flip a bit of it, or forge it with the checksum made anew")
    ] = None,
    device: Device = "auto",
) -> int:
    """Pass on what an edge and a cloud say to each other, rebuild the photos, and show them on a page."""
    check_installed()
    setting = Setting.of(run_folder, defense, device_of(device).type)
    onward = Place.of(cloud)
    if onward == Place.of(listen):
        raise InvalidInputError(f"--listen and --cloud are both {onward}: it would pass everything on to itself")
    wire, shown = (Place.of(one).listening() for one in (listen, page))  # before anything is fitted
    with Display(console, 1) as display:
        adversary = Adversary.of(setting, attack, Store(setting.cache, device_of(device), display.stage))
    run_until_stopped(Eavesdropper(adversary, say).run(wire, shown, onward, alter))
    return 0


@live.command
def edge(
    folder: Folder,
    /,
    *,
    cloud: Annotated[str, Parameter(help="host:port of the cloud, or of what stands before it")] = "127.0.0.1:7001",
    photos: Photos = None,
    count: Count = 300,
    pause: Pause = 0.0,
    trust: Annotated[Path | None, Parameter(help="the certificate that the cloud must show: TLS")] = None,
    show: Annotated[str | None, Parameter(help="http://host:port of a page that is told of each photo")] = None,
    megabits: Megabits = None,
    delay: Delay = 0.0,
) -> int:
    """Send photos, with the half of a deployment that belongs on the device; wait where the cloud is away."""
    if not 0 <= pause < math.inf:
        raise InvalidInputError(f"pause = {pause}: a number of seconds")
    sending = edge_program(
        folder,
        Place.of(cloud),
        lambda size: photos_of(photos, size, count),
        pause,
        show,
        Link(megabits, delay),
        Secrets(trust=trust),
        say,
    )
    run_until_stopped(sending)
    return 0


@live.command
def realtime(
    run_folder: RunFolder,
    /,
    *,
    defenses: Annotated[
        list[str] | None, Parameter(consume_multiple=True, negative="", help="only these, by label or name")
    ] = None,
    megabits: Annotated[
        tuple[float, ...], Parameter(consume_multiple=True, negative="", help="speeds of the line")
    ] = (1.0, 10.0, 100.0),
    delay: Annotated[float, Parameter(help="milliseconds added each way")] = 0.0,
    count: Annotated[int, Parameter(help="photos at each speed")] = 30,
) -> int:
    """Measure what each defence of a run makes of a line: photos a second and the way of one, as table and figure."""
    if count < 1 or not megabits:
        raise InvalidInputError(f"count = {count}, megabits = {list(megabits)}: at least one photo and one speed")
    for speed in megabits:
        Link(speed, delay)
    settings = [Setting.of(run_folder, name) for name in defenses or labels(run_at(run_folder))]
    with Display(console, len(settings) * len(megabits)) as display:
        store = Store(settings[0].cache, torch.device("cpu"), display.stage)
        found = times.measured(settings, store, times.Conditions(megabits, delay, count), display.told)
    say(f"table and figure: {times.write(found, settings[0], delay).resolve()}")
    return 0
