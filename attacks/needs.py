"""What an adversary may have to hold, in words. It imports no torch: reports read it, and need no networks."""

from collections.abc import Mapping
from typing import Literal

Requirement = Literal["queries", "weights", "tail", "labels", "identities", "several sends", "tokens"]
"""What an attack may need beside its own photos, the releases that it intercepted and the device's architecture."""

WORDS: Mapping[Requirement, tuple[str, str]] = {
    "queries": (
        "a device that encodes photos of its choice, afresh each time",
        "this one answers nobody",
    ),
    "weights": ("the device's half with its weights and the defence in it", "the device gives none of it away"),
    "tail": ("the cloud's half of the network", "it is out of the adversary's reach"),
    "labels": ("labels of its photos", "the photos carry none"),
    "identities": ("the identities of the people on its photos", "the data does not tell them"),
    "several sends": ("several sends of the same photo", "each photo is sent once"),
    "tokens": ("releases that are tokens", "these are not"),
}
"""Of each requirement what is needed, and what is said where that is not there."""

HELD: Mapping[str, str] = {
    "QueryFree": "its own photos, the releases that it intercepted, and the architecture of the device's half",
    "BlackBox": WORDS["queries"][0],
    "WhiteBox": WORDS["weights"][0],
}
"""What each kind of adversary holds beside what the kinds above it hold; what else an attack needs it declares."""

IMPLIED: frozenset[Requirement] = frozenset({"queries", "weights"})
"""What an attack needs by its kind of knowledge alone."""
