"""The tables of a plan that hold settings: one class each, whose fields are its keys."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MinLen

from splitleak.experiments.planning.cards import Effort
from splitleak.experiments.planning.names import MAY_LOSE
from splitleak.experiments.planning.threat import Photos
from splitleak.victims.data.parts import PHOTOS_PER_PERSON
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import SCRATCH
from splitleak.victims.moving import Augmentation
from splitleak.victims.settings import Settings, doc
from splitleak.victims.training import WEIGHT_DECAY, OptimizerName

PATIENCE = 3
"""Epochs: the validation loss of one of a few hundred photos rises now and then by luck, of three in a row seldom."""
PATIENT = (
    "epochs without a better validation loss after which the rate is lowered, and after as many again training ends; "
    "0: all epochs are trained, with a one-cycle rate"
)
WEIGHTS_SUFFIXES = (".pth", ".pt", ".safetensors")

Model = Annotated[str, doc("a torchvision network, timm:NAME, or file.py:function")]
CutName = Annotated[str, doc("where the network is split")]
Size = Annotated[int, Ge(16), doc("side of the square images in pixels")]
Weights = Annotated[str, doc("scratch, a torchvision weights name, or a file")]


@dataclass(frozen=True)
class VictimTable(Settings):
    """``[victim]``: the network, its cut, its data and its task."""

    name: ClassVar[str] = "victim"

    data: Annotated[str | dict[str, Any], doc("a data set's name, or a table with its name and settings")] = "faces"
    task: Annotated[str | None, doc("the label that the victim predicts; none: only the encoder matters")] = None
    model: Model = "mobilenet_v3_large"
    cut: CutName = "C4"
    size: Size = 64
    weights: Weights = SCRATCH
    freeze_encoder: Annotated[bool, doc("train the tail only")] = False
    epochs: Annotated[int, Ge(0), doc("passes over the train part, at most; 0: the weights stay as they are")] = 30
    patience: Annotated[int, Ge(0), doc(PATIENT)] = PATIENCE
    batch_size: Annotated[int, Gt(0), doc("photos per step")] = 32
    learning_rate: Annotated[float, Gt(0), doc("until validation stalls; or the peak of one cycle")] = 2e-3
    optimizer: Annotated[
        OptimizerName, doc("of all that trains the network, defended or not; so are the next three")
    ] = "adamw"
    weight_decay: Annotated[float, Ge(0), doc("as the optimizer takes it")] = WEIGHT_DECAY
    augment: Annotated[
        Augmentation, doc("what is done to a photo each time that the network, not its tail alone, learns from it")
    ] = "none"
    precision: Annotated[
        Literal["float32", "bfloat16"],
        doc("of steps on a CPU; bfloat16 is faster where the CPU has instructions for it"),
    ] = "float32"


@dataclass(frozen=True)
class PartsTable(Settings):
    """``[parts]``: how many photos each side gets (the attacker's are in ``[attacker]``)."""

    name: ClassVar[str] = "parts"

    train: Annotated[int, Ge(0), doc("photos that train the victim and fit the defences")] = 2000
    validation: Annotated[int, Ge(1), doc("photos for model selection, on both sides")] = 200
    target: Annotated[int, Ge(1), doc("photos that are attacked and scored")] = 200
    test: Annotated[
        int | None,
        Ge(0),
        doc("further photos, on which utility is measured; default: all others; 0: on the target photos"),
    ] = None
    photos_per_person: Annotated[
        int, Ge(0), doc("of one person in a part, at most, where the data says who is on a photo; 0: no limit")
    ] = PHOTOS_PER_PERSON
    seed: Annotated[int, Ge(0), doc("of the division; the same in all seeds of the plan")] = 0


@dataclass(frozen=True)
class DefenderTable(Settings):
    """``[defender]``: the budget with which every defence, none included, trains what stands behind it."""

    name: ClassVar[str] = "defender"

    epochs: Annotated[
        int, Ge(0), doc("passes over the train part, at most; 0: nothing trains, the cloud's half stays the victim's")
    ] = 30
    patience: Annotated[int, Ge(0), doc(PATIENT)] = PATIENCE
    anew_epochs: Annotated[
        int, Gt(0), doc("of private training, no more and no fewer: how many steps there are is accounted for")
    ] = 50
    batch_size: Annotated[int, Gt(0), doc("photos per step")] = 32
    learning_rate: Annotated[
        float | None,
        Gt(0),
        doc("as the victim's; default: 0.001, or the victim's where that is lower"),
    ] = None
    match_trainings: Annotated[
        int, Ge(2), doc("at most, to find the strength of one defence that 'match' asks for")
    ] = 7


@dataclass(frozen=True)
class AttackerTable(Settings):
    """``[attacker]``: what every adversary gets."""

    name: ClassVar[str] = "attacker"

    auxiliary: Annotated[int, Ge(1), doc("the attacker's own photos")] = 1000
    photos: Annotated[
        list[Photos],
        MinLen(1),
        doc("own: these; train: as many of those that the victim learned from, in their place"),
    ] = field(default_factory=lambda: ["own"])
    mirror: Annotated[bool, doc("the attacker also has each of these photos mirrored")] = False
    copies: Annotated[
        int, Ge(0), doc("moved copies of each of them that it has the device encode too, to learn from; 0: none")
    ] = 8
    adaptive: Annotated[
        list[bool],
        MinLen(1),
        doc("true: the attack is fitted to the defended edge; false: to the undefended one"),
    ] = field(default_factory=lambda: [True])
    sends: Annotated[
        list[Annotated[int, Gt(0)]], MinLen(1), doc("how many releases of each target photo are intercepted")
    ] = field(default_factory=lambda: [1])
    queries: Annotated[int | None, Gt(0), doc("how many releases an attack may ask for; none: no limit")] = None
    effort: Annotated[
        Effort | None, doc("quick, standard or published: of attacks that name no effort of their own")
    ] = None
    slow_targets: Annotated[int, Gt(0), doc("target photos for attacks that work on each photo anew")] = 64


@dataclass(frozen=True)
class JudgeTable(Settings):
    """``[judge]``: what is scored."""

    name: ClassVar[str] = "judge"

    seed_convention: Annotated[bool, doc("add the seed study's own PSNR (peak 255 on normalised floats)")] = False
    identity: Annotated[
        str, doc("recogniser of people on reconstructions: none, trained (on the plan's photos), or an .onnx file")
    ] = "none"
    identity_crop: Annotated[
        float, Gt(0), Le(1), doc("side of the central square that it is shown, as a share of the photo's")
    ] = 1.0
    lpips: Annotated[
        str | None,
        doc("weights file of LPIPS's backbone (AlexNet, VGG-16 or SqueezeNet 1.1 of torchvision); none: no LPIPS"),
    ] = None
    may_lose: Annotated[
        list[Annotated[float, Ge(0), Le(1)]],
        MinLen(1),
        doc("shares of utility that a defence may cost; defences are compared at each, and ranked at the last"),
    ] = field(default_factory=lambda: list(MAY_LOSE))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.identity not in ("none", "trained") and not self.identity.endswith(".onnx"):
            raise InvalidInputError(
                f"judge.identity = '{self.identity}': should be 'none', 'trained' or the path of an .onnx file"
            )
        if self.lpips is not None and Path(self.lpips).suffix not in WEIGHTS_SUFFIXES:
            raise InvalidInputError(
                f"judge.lpips = '{self.lpips}': should be the path of a .pth or .safetensors file"
            )
        if self.may_lose != sorted(set(self.may_lose)):
            raise InvalidInputError(f"judge.may_lose = {self.may_lose}: should rise, such as [0.01, 0.03]")
