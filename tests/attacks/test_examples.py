"""Who may query learns from moved copies of its photos, who may not from the photos alone."""

from collections import Counter

import torch

from splitleak.attacks.knowledge import AttackerPart, BlackBox

PHOTOS, COPIES = 6, 3


def adversary(copies: int, budget: int | None = None) -> BlackBox:
    """Photo i is of brightness i, its copy k of i + 10 k, and a release tells it."""
    photos = torch.arange(PHOTOS, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    images: dict[AttackerPart, torch.Tensor] = {"auxiliary": photos, "validation": photos[:2]}
    if copies:
        images["moved"] = torch.cat([photos + 10 * k for k in range(copies + 1)])
    return BlackBox(
        images=images,
        intercepted=torch.zeros(1, 1),
        tail=torch.nn.Identity(),
        new_encoder=torch.nn.Identity,
        device=torch.device("cpu"),
        send=lambda images: images.mean((1, 2, 3))[:, None],
        resend=lambda part, rows: images[part][rows].float().mean((1, 2, 3))[:, None],
        budget=budget,
    )


def test_a_pass_shows_each_photo_once_in_one_of_its_copies() -> None:
    knows, seen = adversary(COPIES), Counter[int]()
    for _ in range(100):
        shown = torch.cat([release.flatten() for release, _ in knows.pairs(batch_size=2)]).int()
        assert sorted((shown % 10).tolist()) == list(range(PHOTOS))
        seen.update((shown // 10).tolist())
    assert seen.keys() == set(range(COPIES + 1))
    assert all(100 < count < 200 for count in seen.values())
    assert knows.queries == 100 * PHOTOS


def test_a_release_is_of_the_copy_that_is_shown_beside_it() -> None:
    for release, images in adversary(COPIES).pairs(batch_size=3):
        torch.testing.assert_close(release.flatten(), 255 * images.mean((1, 2, 3)))


def test_what_is_in_order_is_of_the_photos_themselves() -> None:
    knows = adversary(COPIES)
    parts: tuple[AttackerPart, ...] = ("auxiliary", "validation")
    for part in parts:
        shown = torch.cat([release.flatten() for release, _ in knows.pairs(part, 2, shuffle=False)])
        assert shown.tolist() == list(range(len(knows.images[part])))


def test_without_copies_the_photos_alone_are_shown() -> None:
    shown = torch.cat([release.flatten() for release, _ in adversary(0).pairs(batch_size=2)])
    assert sorted(shown.tolist()) == list(range(PHOTOS))
