"""Networks of the field's own papers, each a file here that is found by being here; its name is the network's."""

import importlib
import pkgutil
from functools import cache

from splitleak.victims.networks.base import Architecture

__all__ = ["Architecture", "architectures", "module_of"]


@cache
def architectures() -> dict[str, Architecture]:
    """Every one by name."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")
    return {name: importlib.import_module(module_of(name)).ARCHITECTURE for name in found}


def module_of(name: str) -> str:
    """The module that a network's code is in."""
    return f"{__name__}.{name}"
