"""No defence: what every other one is compared with."""

from dataclasses import dataclass
from typing import ClassVar

from splitleak.defenses.base import Defense


@dataclass(frozen=True)
class NoDefense(Defense):
    """The features travel as they are; the tail gets the same fine-tuning as behind any other defence."""

    name: ClassVar[str] = "none"
    paper: ClassVar[str] = "no paper"
    uses_photos: ClassVar[bool] = False
