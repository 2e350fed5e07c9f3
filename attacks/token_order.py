"""Tokens put back in their order, what is missing filled in, then a decoder."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, MultipleOf
from torch import Tensor, nn

from splitleak.attacks.base import Reconstructor, behind
from splitleak.attacks.decoder import ByDecoder
from splitleak.attacks.knowledge import AttackerPart, BlackBox, Pairs
from splitleak.attacks.learning import learned
from splitleak.attacks.needs import Requirement
from splitleak.attacks.networks.tokens import HEADS, Filler, Positions, Standard
from splitleak.attacks.places import Matcher, places_of
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import doc
from splitleak.victims.tensors import BATCH
from splitleak.victims.training import Batch, adamw

SHUFFLED = -1
"""In place of a fixed place: the token at this position belongs elsewhere in each photo."""
LEARNING_RATE = 1e-3
HIDDEN = 0.5
"""Share of the tokens that are hidden while the filler learns (photos, whose patches say less, hide more)."""


@dataclass(frozen=True)
class TokenOrder(ByDecoder[BlackBox]):
    """Undo a shuffle of a transformer's tokens, and fill in those that did not arrive.

    A transformer without position embeddings of its own reads from the tokens where each belongs, by cross-entropy
    over places; the Hungarian method puts each at a place of its own. Where fewer tokens arrive than the network
    makes, a masked autoencoder in feature space fills the rest. What stands there is decoded as it would have been.

    The authors train on tokens whose order they know. A black box may never see one: here the photos tell which
    token shows which patch, see ``Matcher``. That is often wrong for a patch like many others, but not in one
    direction, and the transformer learns what is right on average. An order that is the same in each photo, the true
    one included, is found over all photos at once, and no transformer is needed.

    Tokens beyond a square number, a class token for one, are put nowhere.
    """

    paper: ClassVar[str] = "SARA, arXiv 2609.01232, 2026; without known orders: ours"
    requires: ClassVar[frozenset[Requirement]] = frozenset({"tokens"})

    order_epochs: Annotated[int, Gt(0), doc("of the transformer that tells places, and of the one that fills")] = 20
    order_width: Annotated[int, Ge(HEADS), MultipleOf(HEADS), doc("of their tokens")] = 128

    def fit(self, knows: BlackBox) -> Reconstructor:
        """Learn the order, or recall it, then train a decoder on tokens that were put back."""
        what = f"order of tokens, {self.order_epochs} epochs at width {self.order_width}"
        state = knows.remember(what, lambda: self._ordered(knows).state_dict())
        order = self._order(knows)
        order.load_state_dict(state)
        order.eval().requires_grad_(False)
        with torch.no_grad():
            device = knows.behind(order, what, __name__)
        return behind(order, self.decoder.fit(device))

    def _order(self, knows: BlackBox) -> "_Order":
        return _Order(knows, self.order_width).to(knows.device)

    def _ordered(self, knows: BlackBox) -> "_Order":
        """An order, learned."""
        order, recipe = self._order(knows), adamw(LEARNING_RATE, self.order_epochs)
        order.standard.measure(release for release, _ in knows.pairs(shuffle=False))
        matcher = Matcher.learned(knows, order.side)
        if _same_in_each_photo(knows):
            order.fixed.copy_(_best_on_average(matcher, knows))
        else:
            sends = _Matched(knows, "auxiliary", matcher)
            held_out = _Matched(knows, "validation", matcher)
            learned(order.positions, recipe, sends, held_out, _cross_entropy, knows)
        if knows.release_shape[0] < order.side**2:
            at_places = _Placed(knows, "auxiliary", order), _Placed(knows, "validation", order)
            learned(order.filler, recipe, *at_places, _error_of_hidden, knows)
        return order


class _Order(nn.Module):
    """Release (n, t, d) -> tokens (n, side^2, d) at their places, row by row.

    ``fixed``: (t,), the place of each token where it is the same in each photo, ``SHUFFLED`` where it is not.
    """

    fixed: Tensor

    def __init__(self, knows: BlackBox, width: int) -> None:
        super().__init__()
        tokens, features = knows.release_shape
        self.side = math.isqrt(max(tokens, _made_on_the_device(knows)))
        if self.side < 2:
            raise InvalidInputError(f"token_order: {tokens} tokens of a photo have no order; four are the fewest")
        self.register_buffer("fixed", torch.full((tokens,), SHUFFLED))
        nowhere = int(tokens > self.side**2)
        self.positions = Positions(features, self.side**2 + nowhere, width)
        self.filler = Filler(features, self.side**2, width)

    @property
    def standard(self) -> Standard:
        """Of the tokens that arrive."""
        return self.positions.standard

    def places(self, release: Tensor) -> Tensor:
        """The place of each token, (n, t); ``side^2`` for nowhere."""
        if int(self.fixed[0]) != SHUFFLED:
            return self.fixed.expand(len(release), -1)
        return places_of(self.positions(release).float().log_softmax(2)[:, :, : self.side**2])

    def forward(self, release: Tensor) -> Tensor:
        """Put back and fill in."""
        tokens, there = placed(release, self.places(release), self.side**2)
        if there.all():
            return tokens
        return self.standard.back(self.filler(self.standard(tokens), there))


def placed(tokens: Tensor, places: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Tokens (n, t, d) at their ``places`` (n, t), zeros between: (n, count, d); and where there are any."""
    room = tokens.new_zeros(len(tokens), count + 1, tokens.shape[2])
    at = room.scatter(1, places[..., None].expand_as(tokens), tokens)
    there = torch.zeros(len(tokens), count + 1, dtype=torch.bool, device=tokens.device).scatter(1, places, True)
    return at[:, :count], there[:, :count]


def _made_on_the_device(knows: BlackBox) -> int:
    """Tokens that the network makes of a photo, before any defence."""
    with torch.no_grad():
        features = knows.new_encoder().to(knows.device).eval()(next(knows.image_batches(batch_size=1)))
    return features.shape[1] if features.ndim == 3 else 0


def _same_in_each_photo(knows: BlackBox) -> bool:
    """Whether a token stands where it stood when the same photo is sent again; over some photos on average, so that
    noise does not hide it."""
    rows = torch.arange(len(knows.images["auxiliary"]))[:BATCH]
    first, second = (knows.requery("auxiliary", rows).float() for _ in range(2))
    distances = torch.cdist(first, second).mean(0)
    return bool((distances.argmin(1) == torch.arange(len(distances), device=distances.device)).all())


def _best_on_average(matcher: Matcher, knows: BlackBox) -> Tensor:
    """The place of each token, (t,), that fits best over all photos."""
    fits = [matcher(tokens, images).sum(0) for tokens, images in knows.pairs(shuffle=False)]
    return places_of(torch.stack(fits).sum(0)[None])[0]


@dataclass(frozen=True)
class _Matched:
    """Batches of (tokens, the places that their photos tell)."""

    knows: BlackBox
    part: AttackerPart
    matcher: Matcher

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def _pairs(self) -> Pairs:
        return self.knows.pairs(self.part, batch_size=32, shuffle=self.part == "auxiliary")

    def __iter__(self) -> Iterator[Batch]:
        for tokens, images in self._pairs:
            yield tokens, places_of(self.matcher(tokens, images))


@dataclass(frozen=True)
class _Placed:
    """Batches of (tokens at their places in standard units, where there are any)."""

    knows: BlackBox
    part: AttackerPart
    order: _Order

    def __len__(self) -> int:
        return len(self.knows.pairs(self.part, batch_size=32))

    def __iter__(self) -> Iterator[Batch]:
        for release, _ in self.knows.pairs(self.part, batch_size=32, shuffle=self.part == "auxiliary"):
            with torch.no_grad():
                places, standard = self.order.places(release), self.order.standard(release)
            yield placed(standard, places, self.order.side**2)


def _cross_entropy(network: nn.Module, batch: Batch) -> Tensor:
    tokens, places = batch
    return F.cross_entropy(network(tokens).float().flatten(0, 1), places.flatten())


def _error_of_hidden(network: nn.Module, batch: Batch) -> Tensor:
    """Squared error of tokens that arrived and were hidden from it."""
    tokens, there = batch
    hidden = there & (torch.rand(there.shape, device=there.device) < HIDDEN)
    filled = network(tokens, there & ~hidden).float()
    total: Tensor = (filled - tokens)[hidden].square().sum()
    return total / (hidden.sum().clamp_min(1) * tokens.shape[2])
