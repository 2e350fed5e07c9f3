"""A decoder trained on (release, image) pairs: the seed study's attack, and our strong default."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar, Literal, TypeVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from splitleak.attacks.base import Reconstruction, Scene, Staged
from splitleak.attacks.blanks import better_at_mean
from splitleak.attacks.grid import of_tokens
from splitleak.attacks.knowledge import BlackBox, Pairs
from splitleak.attacks.learning import learned
from splitleak.attacks.losses import STRUCTURE_AIM, STRUCTURE_WEIGHT, squared_and_structural_error
from splitleak.attacks.needs import Requirement
from splitleak.attacks.networks import seed
from splitleak.attacks.networks.normalised import normalise, unnormalise
from splitleak.attacks.networks.residual import ResidualDecoder
from splitleak.attacks.networks.staged import StagedDecoder
from splitleak.attacks.repaint import Repainting
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import IMAGENET_MEAN
from splitleak.victims.settings import doc
from splitleak.victims.training import Batch, Recipe, adamw

SEED_NOISE_MEAN, SEED_NOISE_VARIANCE = 0.02, 0.02
Objective = Literal["pixels", "structure", "perceptual", "identity"]
Architecture = Literal["residual", "upsample", "transpose_light", "transpose_medium", "transpose_deep"]
B = TypeVar("B", bound=BlackBox)


@dataclass(frozen=True)
class Decoder(Reconstruction[BlackBox]):
    """Train a network to invert the protected edge part.

    ``residual`` is ours. It sees each feature in units of its own spread and lowers the squared error of the pixels
    and a share of 1 - SSIM, by AdamW with a one-cycle learning rate. The other architectures are the seed study's and
    keep its recipe: normalised targets, a ReLU at the end, Adam, StepLR. Every pass sees fresh draws of the channel.
    The weights with the least validation error are kept.

    Squared error rewards the blurred mean of all photos that a release allows. ``objective`` says what the adversary
    wants instead. "structure" gives 1 - SSIM more weight. "perceptual" and "identity" paint a photo over the answer
    of "pixels" and lose squared error by it (see ``Repainting``). An embedder, which the adversary trains on its own
    photos, tells them what they should keep of the true photo.
    """

    paper: ClassVar[str] = (
        "P. Nagasubramaniam, Image Reconstruction Attacks in Distributed DL Systems using Autoencoders, 2023 "
        "(upsample, transpose_*); residual: ours; perceptual, identity: after Ren et al., FIA-Flow, CVPR 2026"
    )

    architecture: Annotated[Architecture, doc("residual, or one of the seed study's decoders")] = "residual"
    epochs: Annotated[int | None, Gt(0), doc("passes over the auxiliary images; default 39, seed decoders 25")] = None
    learning_rate: Annotated[
        float | None, Gt(0), doc("default 3e-3; seed decoders 2.5e-4, transpose_medium 1e-3 as published")
    ] = None
    batch_size: Annotated[int | None, Gt(0), doc("default 32; seed decoders 128, transpose_medium 512")] = None
    width: Annotated[int, Ge(16), doc("channels of the residual decoder at its first grid")] = 128
    objective: Annotated[Objective, doc("what the residual decoder's answer should share with the photo")] = "pixels"
    structure: Annotated[
        float | None, Ge(0), doc("weight of 1 - SSIM in its loss; default 0.02, after structure 0.1")
    ] = None
    repaint_epochs: Annotated[int, Gt(0), doc("passes of the second stage of perceptual and identity")] = 12
    noise: Annotated[bool, doc("the seed's augmentation, in its published form (seed decoders only)")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise and self.architecture == "residual":
            raise InvalidInputError("decoder.noise = True: only the seed study's decoders were trained with it")
        if self.objective != "pixels" and self.architecture != "residual":
            raise InvalidInputError(f"decoder.objective = '{self.objective}': only architecture = 'residual' aims")

    @property
    def learns_from_copies(self) -> bool:
        """The residual decoder; the seed study's keep its recipe."""
        return self.architecture == "residual"

    @property
    def asks(self) -> frozenset[Requirement]:
        """Who is on its photos, where it is after identity."""
        return frozenset({"identities"}) if self.objective == "identity" else frozenset()

    @property
    def darkest(self) -> tuple[float, float, float]:
        """The seed study's decoders end in a ReLU in normalised space, so nothing falls below the mean there."""
        return (0.0, 0.0, 0.0) if self.architecture == "residual" else IMAGENET_MEAN

    def lacks(self, scene: Scene) -> Iterator[tuple[str, str]]:
        """The seed study's decoders enlarge feature maps 16 times and nothing else."""
        enlarged = tuple(seed.STRIDE * side for side in scene.release_shape[1:])
        if self.architecture != "residual" and (len(scene.release_shape) != 3 or enlarged != scene.image_shape[1:]):
            yield (
                f"feature maps to enlarge {seed.STRIDE} times with architecture = '{self.architecture}'",
                f"releases are {scene.release_shape} of images {scene.image_shape}; 'residual' takes any",
            )
        yield from super().lacks(scene)

    def fit(self, knows: BlackBox) -> Staged:
        """Train on the auxiliary pairs, or recall the decoder that another attack trained with these settings."""
        if self.objective in ("perceptual", "identity"):
            first = replace(self, objective="pixels")
            return Repainting(knows, first.fit(knows), first._what, self.objective, self.repaint_epochs).fit()
        state = knows.remember(self._what, lambda: self._trained(knows))
        form = self.form(knows)
        form.network.load_state_dict(state)
        form.network.eval().requires_grad_(False)
        return StagedDecoder(form.network, form.layers, form.image)

    @property
    def _what(self) -> str:
        """Names the trained decoder by all that shapes it; a second stage does not."""
        shaping = {name: value for name, value in self.to_mapping().items() if name != "repaint_epochs"}
        return f"decoder {shaping}"

    def form(self, knows: BlackBox) -> "Form":
        """What is trained, untrained, on the adversary's device."""
        form = self._residual(knows) if self.architecture == "residual" else self._seed(knows)
        form.network.to(knows.device).to(memory_format=torch.channels_last)
        return form

    def _trained(self, knows: BlackBox) -> dict[str, Tensor]:
        form = self.form(knows)  # made here, under the memo's own seed: whoever asks first, it begins alike
        pairs = knows.pairs(batch_size=self.batch_size or form.batch_size)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            release, images = batch
            return form.loss(model(release).float(), form.target(images))

        examples = _SeedNoise(pairs) if self.noise else pairs
        held_out = knows.pairs("validation", shuffle=False)
        form.begin(knows)
        return learned(form.network, form.recipe, examples, held_out, loss, knows)

    def _residual(self, knows: BlackBox) -> "Form":
        height, width = knows.image_shape[1:]
        shape, arrived = knows.release_shape, better_at_mean(knows)
        network = ResidualDecoder(shape, height, width, self.width, arrived, straight=of_tokens(shape))
        recipe = adamw(self.learning_rate or 3e-3, self.epochs or 39)
        usual = STRUCTURE_AIM if self.objective == "structure" else STRUCTURE_WEIGHT
        structure = usual if self.structure is None else self.structure
        loss = partial(squared_and_structural_error, structure=structure)

        def begin(knows: BlackBox) -> None:
            network.begin_at(knows.image_batches())
            network.standard.begin_from(release for release, _ in knows.pairs(shuffle=False))

        return Form(network, network.layers, recipe, batch_size=32, loss=loss, begin=begin)

    def _seed(self, knows: BlackBox) -> "Form":
        channels, medium = knows.release_shape[0], self.architecture == "transpose_medium"
        if self.architecture == "upsample":
            network = seed.upsample_decoder(channels)
        else:
            network = seed.transpose_decoder(channels, self.architecture.removeprefix("transpose_"))
        learning_rate = self.learning_rate or (1e-3 if medium else 2.5e-4)
        recipe = Recipe(
            self.epochs or 25,
            lambda parameters: torch.optim.Adam(parameters, lr=learning_rate, weight_decay=1e-5),
            lambda optimizer, steps: torch.optim.lr_scheduler.StepLR(
                optimizer, step_size=3 * max(1, steps // (self.epochs or 25)), gamma=0.93
            ),
        )
        batch_size = 512 if medium else 128
        return Form(network, network, recipe, batch_size, target=normalise, image=unnormalise)


def _as_it_is(knows: BlackBox) -> None:
    """The seed's decoders take releases on whatever scale they have, and begin at no picture."""


def _same(images: Tensor) -> Tensor:
    return images


@dataclass(frozen=True)
class ByDecoder(Reconstruction[B]):
    """An attack that needs ``decoder``: with the same settings as in a plan's other attacks it is trained once."""

    width: Annotated[int, Ge(16), doc("of the residual decoder")] = 128
    epochs: Annotated[int | None, Gt(0), doc("of the residual decoder; default as there")] = None
    batch_size: Annotated[int | None, Gt(0), doc("of the residual decoder; default as there")] = None

    @property
    def learns_from_copies(self) -> bool:
        """Always: the decoder does."""
        return True

    @property
    def decoder(self) -> Decoder:
        """With these settings."""
        return Decoder(width=self.width, epochs=self.epochs, batch_size=self.batch_size)


@dataclass(frozen=True)
class Form:
    """A network, its layers and its recipe, the space of its targets, the way back, and what it looks at first."""

    network: nn.Module
    layers: nn.Sequential
    recipe: Recipe
    batch_size: int
    loss: Callable[[Tensor, Tensor], Tensor] = F.mse_loss
    target: Callable[[Tensor], Tensor] = _same
    image: Callable[[Tensor], Tensor] = _same
    begin: Callable[[BlackBox], None] = _as_it_is


@dataclass(frozen=True)
class _SeedNoise:
    """The seed's augmentation as its code computes it.

    Gaussian noise is added in place to the normalised image, which is then clamped to [0, 1]: what the victim
    encodes and what the decoder should rebuild are both cut. Kept to reproduce, not to recommend.
    """

    pairs: Pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _, images in self.pairs:
            normalised = normalise(images)
            noise = SEED_NOISE_MEAN + SEED_NOISE_VARIANCE**0.5 * torch.randn_like(normalised)
            cut = unnormalise((normalised + noise).clamp(0, 1))
            yield self.pairs.knows.query(cut), cut
