"""How a network learns, beside how long: optimizer, what is done to photos, precision."""

import pytest
import torch
from torch import Tensor, nn

from splitleak.defenses import fitting
from splitleak.defenses.fitting import Budget, Examples, Manner, SplitModel, fit
from splitleak.victims.moving import AUGMENTATIONS
from splitleak.victims.seeding import seeded


class Seen(nn.Module):
    """An encoder that notes what it is shown, in which mode and precision its answer was computed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 16, 4)
        self.photos: dict[bool, list[Tensor]] = {True: [], False: []}
        self.types: dict[bool, set[torch.dtype]] = {True: set(), False: set()}

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layer(images.flatten(1))
        self.photos[self.training].append(images)
        self.types[self.training].add(features.dtype)
        return features


def fitted(manner: Manner) -> Seen:
    images = torch.zeros(8, 3, 4, 4, dtype=torch.uint8)
    images[:, :, :, 0] = 255
    part = Examples(images, torch.arange(8) % 2)
    with seeded("manner"):
        encoder = Seen()
        fit(SplitModel(encoder, nn.Linear(4, 2)), part, part, Budget(2, 8, 0.1, manner=manner))
    return encoder


def test_photos_are_changed_where_a_network_learns_from_them_and_nowhere_else() -> None:
    plain, changed = fitted(Manner()), fitted(Manner(augment="flip"))
    for encoder in (plain, changed):
        assert all((photos[:, :, :, 0] == 1).all() for photos in encoder.photos[False])
    assert all((photos[:, :, :, 0] == 1).all() for photos in plain.photos[True])
    mirrored = torch.cat([photos[:, 0, 0, 3] for photos in changed.photos[True]])
    assert 0 < mirrored.sum() < len(mirrored)


def test_an_objective_sees_the_photos_that_the_network_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AUGMENTATIONS, "flip", lambda images: images.flip(3))  # type: ignore[index]

    class Objective(nn.Module):
        def forward(self, images: Tensor, *others: Tensor) -> Tensor:
            shown.append(images[0, 0, 0])
            return others[0].sum() * 0

    shown: list[Tensor] = []
    part = Examples(torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2).expand(4, -1, -1, -1), torch.zeros(4).long())
    model = SplitModel(nn.Flatten(), nn.Linear(12, 2))
    fit(model, part, part, Budget(1, 4, 0.1, manner=Manner(augment="flip")), Objective())
    assert shown[0].tolist() == pytest.approx([1 / 255, 0])
    assert shown[-1].tolist() == pytest.approx([0, 1 / 255])


def test_features_that_are_stored_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(images: Tensor) -> Tensor:
        raise AssertionError("nobody may change stored features")

    monkeypatch.setitem(AUGMENTATIONS, "flip", refused)  # type: ignore[index]
    part = Examples(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.zeros(4).long(), torch.rand(4, 5))
    fit(SplitModel(nn.Identity(), nn.Linear(5, 2)), part, part, Budget(1, 4, 0.1, manner=Manner(augment="flip")))


def test_half_precision_is_for_steps_and_not_for_what_is_measured() -> None:
    half = fitted(Manner(half=True))
    assert half.types == {True: {torch.bfloat16}, False: {torch.float32}}
    assert fitted(Manner()).types == {True: {torch.float32}, False: {torch.float32}}


def test_the_optimizer_is_the_one_that_was_asked_for() -> None:
    for name, cls in (("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)):
        recipe = Budget(3, 8, 0.1, manner=Manner(optimizer=name, weight_decay=5e-4)).recipe  # type: ignore[arg-type]
        optimizer = recipe.optimizer([nn.Parameter(torch.zeros(1))])
        assert type(optimizer) is cls
        assert optimizer.defaults["weight_decay"] == 5e-4
        assert recipe.schedule
    assert Budget(3, 8, 0.1, patience=2, manner=Manner("sgd")).recipe.schedule is None
    assert fitting.Budget(3, 8, 0.1).manner == Manner()
