"""Commands that tell what there is and compute nothing."""

from typing import Annotated

from cyclopts import Parameter

from splitleak.experiments.cli import describe
from splitleak.experiments.cli.options import Model, put
from splitleak.experiments.cli.portrait import portrait
from splitleak.experiments.planning.names import PLANS
from splitleak.victims.cuts import find_cuts
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import make_network


def list_(kind: Annotated[describe.Kind, Parameter(help="what to list")], /) -> int:
    """List what a plan can name, or (cards) what is claimed of attacks and defences beside what we measured."""
    put(describe.listing(kind, PLANS))
    return 0


def show(
    name: Annotated[str, Parameter(help="an attack, a defence or a data set; splitleak list names them")], /
) -> int:
    """Show an attack's, a defence's or a data set's settings, threat model, costs, source and card."""
    put(portrait(name))
    return 0


def explain(flag: Annotated[str | None, Parameter(help="a flag's name; default: all of them")] = None, /) -> int:
    """Tell what a validity flag of a report means and what would lift it; without a name, all of them."""
    put(describe.explained(flag))
    return 0


def cuts(model: Model, /, *, size: Annotated[int, Parameter(help="side of the images in pixels")] = 224) -> int:
    """List every valid cut of a network: release shape, bytes, share of the multiply-adds on the edge."""
    if size < 16:
        raise InvalidInputError(f"size = {size}: should be at least 16")
    put(describe.cuts_table(model, find_cuts(make_network(model, 1000, size), size)))
    return 0
