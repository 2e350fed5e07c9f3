"""One network for each image: they do not meet, and they paint pictures sooner than noise."""

import pytest
import torch
from torch import Tensor, nn

from splitleak.attacks.deep_image_prior import ANNEALING, DeepImagePrior, _Painters
from splitleak.attacks.edge import PlainEdge
from splitleak.attacks.knowledge import AttackerPart, WhiteBox
from splitleak.attacks.networks.skip import SkipNetwork
from splitleak.attacks.optimise import Matcher, Schedule, search
from splitleak.victims.seeding import seeded
from splitleak.victims.tensors import to_float
from splitleak.victims.toy import toy_images


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 32), (64, 64), (50, 77)])
def test_the_network_paints_images_of_any_size(height: int, width: int) -> None:
    images = SkipNetwork(height, width, 4)(torch.rand(2, 4, height, width))
    assert images.shape == (2, 3, height, width)
    assert 0 < float(images.detach().min()) < float(images.detach().max()) < 1


def _painters(input_noise: float = 0.0, steps: int = 100) -> _Painters:
    network = SkipNetwork(16, 16, 4)
    return _Painters(network, torch.rand(1, 4, 16, 16), input_noise, steps)


def test_networks_of_a_batch_are_each_their_own() -> None:
    with seeded("painters"):
        painters = _painters()
        space = painters.space()
        point = [part + 0.1 * torch.randn_like(part) for part in space.start(torch.empty(3, 5))]
        together = space.images(point)
    for row in range(3):
        state = {
            name: part[row] for (name, _), part in zip(painters.network.named_parameters(), point[:-1], strict=True)
        }
        painters.network.load_state_dict(state)
        torch.testing.assert_close(painters.network(painters.noise)[0], together[row])


def test_the_input_noise_falls_with_the_steps() -> None:
    with seeded("annealing"):
        painters = _painters(input_noise=0.5, steps=8)
        space = painters.space()
        point = space.start(torch.empty(1, 5))
        differences: list[float] = []
        for _ in range(8):
            differences.append(float((space.images(point) - space.images(point)).abs().mean()))
            space.project(point)
    quarters = differences[::2]
    assert quarters == sorted(quarters, reverse=True)
    assert quarters[0] > 2 * quarters[1] > 0
    assert quarters[-1] == ANNEALING[-1] == 0


def _device(truth: Tensor) -> WhiteBox:
    images: dict[AttackerPart, Tensor] = {"auxiliary": toy_images(64, seed=1), "validation": toy_images(16, seed=2)}
    edge = nn.Identity()
    return WhiteBox(
        images,
        truth,
        nn.Flatten(),
        nn.Identity,
        torch.device("cpu"),
        send=edge,
        resend=lambda part, rows: to_float(images[part][rows]),
        edge=PlainEdge(edge),
    )


def test_pictures_are_painted_sooner_than_noise() -> None:
    with seeded("prior"):
        smooth = to_float(toy_images(2, seed=5))
        noise = smooth.flatten(2)[:, :, torch.randperm(32 * 32)].view_as(smooth)  # the same pixels, elsewhere
        truth = torch.cat([smooth, noise])
        matcher = Matcher.measure(_device(truth))
        painters = _Painters(SkipNetwork(32, 32, 8), torch.rand(1, 8, 32, 32), 0.0, 60)
        found = search(painters.space(), matcher(truth), 0.0, Schedule(60, 0.01, patience=60))
    errors = (found - truth).square().mean((1, 2, 3)) / truth.var((1, 2, 3))
    assert float(errors[:2].max()) < 0.3 * float(errors[2:].min())


def test_its_only_use_of_photos_is_to_choose_the_weight() -> None:
    truth = to_float(toy_images(2, seed=5))

    def rebuilt(seed: int) -> Tensor:
        knows = _device(truth)
        knows.images["validation"].copy_(toy_images(16, seed=seed))
        with seeded("photos"):
            return DeepImagePrior(steps=8, width=4, weight=0.1).fit(knows)(truth)

    assert torch.equal(rebuilt(2), rebuilt(7))
