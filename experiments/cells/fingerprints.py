"""Networks and weights by their content, wherever their files lie."""

from functools import cache
from pathlib import Path

from splitleak.experiments.store.integrity import digest
from splitleak.experiments.store.key import library_version, source_digest
from splitleak.victims.cuts import content_digest
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.files import content_of, load_module
from splitleak.victims.models import CLASSES_WITHOUT_TASK, TIMM, in_file, make_network
from splitleak.victims.networks import architectures, module_of
from splitleak.victims.seeding import seeded
from splitleak.victims.weights import PART, find_weights, in_weights_file


@cache
def model_fingerprint(model: str, size: int) -> str:
    """Of a network: its name, of a paper's the code too, of one in a file also what its function returns.

    Raises:
        InvalidInputError: the function returns another network each time, so no result could be found again.
    """
    if model.startswith(TIMM):
        return f"{model} of timm {library_version('timm')}"
    if model in architectures():
        return digest([model, source_digest(module_of(model))])
    if not in_file(model):
        return model
    digests = []
    for _ in range(2):
        with seeded("fingerprint"):
            digests.append(content_digest(make_network(model, CLASSES_WITHOUT_TASK, size), size))
    if digests[0] != digests[1]:
        raise InvalidInputError(
            f"{model} returns other weights each time: draw them from torch's generator, or load them from a file"
        )
    path, _, function = model.partition(":")
    return digest([function, source_digest(load_module(Path(path), "network file").__name__), digests[0]])


def weights_fingerprint(weights: str) -> str:
    """A digest of a weights file; the name itself for weights that torchvision numbers.

    Raises:
        InvalidInputError: there is no such file.
    """
    if not in_weights_file(weights):
        return weights
    path, part = find_weights(weights)
    return content_of(path) + (PART + part if part else "")
