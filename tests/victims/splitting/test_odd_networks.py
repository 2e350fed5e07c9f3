"""However a network is written, its halves compute what it computes, in either mode; or it is refused in one line."""

import copy
import math
from collections.abc import Callable

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitleak.victims.cuts import find_cuts, split, uncut
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import Network
from splitleak.victims.seeding import seeded
from splitleak.victims.toy import left_as_found

SIZE, CLASSES = 16, 5


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.bn, self.relu, self.head = nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Linear(8, CLASSES)

    def top(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))


class Statement(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x))
        x.clamp_(min=0)
        return self.top(self.c(x))


class ModuleAsStatement(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x))
        self.relu(x)
        return self.top(self.c(x))


class IntoTheShortcut(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.top(self.c(self.b(self.relu(x)) + x))


class TailWrites(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.b(self.a(x).relu_()))


class TailWritesAPart(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x[:, 0] = 0
        return self.top(self.b(x))


class ByType(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x))
        if isinstance(x, Tensor):
            x = x.relu()
        return self.top(self.c(x))


class OptionalArgument(Base):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.b(self.a(x))
        if mask is not None:
            x = x * mask
        return self.top(x)


class Flag(Base):
    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        x = self.b(self.a(x))
        return x if return_features else self.top(x)


class EvalOnly(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.top(self.b(self.a(x)))
        return x if self.training else x.softmax(1)


class FunctionalDropout(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.a(x), 0.5, self.training)
        return self.top(self.b(x))


class FunctionalNorm(Base):
    def forward(self, x: Tensor) -> Tensor:
        bn = self.bn
        x = F.batch_norm(self.a(x), bn.running_mean, bn.running_var, bn.weight, bn.bias, self.training)
        return self.top(self.b(x))


class NormOfOnesOwn(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.num_batches_tracked.add_(1)
        return F.relu(
            F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum)
        )


class SubclassedNorm(Base):
    def __init__(self) -> None:
        super().__init__()
        self.bn = NormOfOnesOwn(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.b(self.bn(self.a(x))))


class Averages(nn.Module):
    """A norm from scratch, whose buffer is replaced, not written into."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.average = 0.9 * self.average + 0.1 * x.detach().mean((0, 2, 3))[:, None, None]
        return x - self.average


class OwnNorm(Base):
    def __init__(self) -> None:
        super().__init__()
        self.average = Averages()

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.b(self.average(self.a(x))))


class FrozenNorm(Base):
    def train(self, mode: bool = True) -> "FrozenNorm":
        super().train(mode)
        self.bn.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.b(self.bn(self.a(x))))


class ByValue(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if self.head.bias.sum() > 1e3:
            x = -x
        return self.top(self.b(x))


class Numpy(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x))
        return self.top(x / float(numpy.sqrt(x.shape[1])))


class Lookup(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x))
        return self.top(x * {8: 0.5}[x.shape[1]] * [0.5, 0.25][x.ndim - 4])


class Listed(Base):
    """Layers in a plain list beside their registration."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in [self.a, *([self.b] if x.shape[-1] == SIZE else []), self.c]:
            x = layer(x).relu()
        return self.top(x)


class Views(Base):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8 * (SIZE // 2) ** 2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x))
        return self.head(x.view(x.size(0), -1))


class Tokens(Base):
    """A class token in front, as transformers have."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.mix = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        return self.head(self.mix(x)[:, 0])


class Hooked(Base):
    def __init__(self) -> None:
        super().__init__()
        self.b.register_forward_hook(lambda module, given, output: output.relu())

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.c(self.b(self.a(x))))


class HookedItself(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_forward_hook(lambda module, given, output: output * 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.b(self.a(x)))


class WeightNorm(Base):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.utils.parametrizations.weight_norm(self.a)

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.b(self.a(x).relu()))


class OldWeightNorm(Base):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.utils.weight_norm(self.a)

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.b(self.a(x).relu()))


class SpectralNorm(Base):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.utils.parametrizations.spectral_norm(self.a)

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.b(self.a(x).relu()))


class ScaleByNumber(Base):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.b(self.a(x)) * float(self.scale))


class Remembers(Base):
    """Keeps in eval mode what it derived from its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> "Remembers":
        self.kept = {}
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        if self.training or "doubled" not in self.kept:
            self.kept["doubled"] = self.c.weight * 2
        return self.top(F.conv2d(self.b(self.a(x)), self.kept["doubled"], padding=1))


class Recurrent(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        for _ in range(3):
            x = F.relu(self.b(x))
        return self.top(x)


class Inner(Base):
    """All of it within another module that decides by values."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = ByValue()

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x)


class Constants(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x))
        ramp = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype) / math.pi
        return self.top(self.c(x * ramp))


SPLIT = [
    Statement,
    ModuleAsStatement,
    IntoTheShortcut,
    TailWrites,
    TailWritesAPart,
    ByType,
    OptionalArgument,
    Flag,
    EvalOnly,
    FunctionalDropout,
    FunctionalNorm,
    SubclassedNorm,
    OwnNorm,
    FrozenNorm,
    ByValue,
    Numpy,
    Lookup,
    Listed,
    Views,
    Tokens,
    Hooked,
    HookedItself,
    WeightNorm,
    OldWeightNorm,
    SpectralNorm,
    ScaleByNumber,
    Remembers,
    Inner,
    Constants,
]


def made(kind: Callable[[], nn.Module]) -> Network:
    with seeded("odd network"):
        return Network(kind().eval(), (0.5,) * 3, (0.25,) * 3)


def images(count: int) -> Tensor:
    with seeded("odd images"):
        return torch.rand(count, 3, SIZE, SIZE)


def eager(network: Network, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """In eval mode and in training mode, and the buffers after that, of the network itself."""
    module = copy.deepcopy(network.module)
    x = (x - 0.5) / 0.25
    evaluated = module(x.clone())
    module.train()
    with seeded("draws"):
        trained = module(x.clone())
    return evaluated, trained, dict(module.named_buffers())


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("kind", SPLIT, ids=lambda kind: kind.__name__)
@torch.no_grad()
def test_the_halves_compute_what_the_network_computes(kind: type[nn.Module]) -> None:
    network = made(kind)
    cuts = find_cuts(network, SIZE)
    assert cuts
    for cut in {cut.node: cut for cut in (cuts[0], cuts[-1])}.values():
        halves = split(made(kind), "odd", cut.name, SIZE)
        assert halves.cut.shape == cut.shape
        for count in (2, 5):
            evaluated, trained, buffers = eager(made(kind), images(count))
            x = images(count)
            with left_as_found(tensors=(x,)):
                z = halves.encoder(x)
            assert tuple(z.shape) == (count, *cut.shape)
            with left_as_found(tensors=(z,)):
                assert torch.allclose(halves.tail(z), evaluated, atol=1e-5)
            assert torch.allclose(halves.encoder(x[:1]), z[:1], atol=1e-5), "a photo's features depend on its batch"
        halves.encoder.train()
        halves.tail.train()
        with seeded("draws"):
            assert torch.allclose(halves.tail(halves.encoder(x)), trained, atol=1e-5)
        bodies = (halves.tail, halves.encoder.body)
        own = {name.removeprefix("network."): value for half in bodies for name, value in half.named_buffers()}
        for name, value in buffers.items():
            assert name not in own or torch.allclose(own[name], value, atol=1e-5), f"{name} does not move"


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("kind", SPLIT, ids=lambda kind: kind.__name__)
def test_what_trains_uncut_is_the_network_itself(kind: type[nn.Module]) -> None:
    network = made(kind)
    whole = uncut(network, SIZE).train()
    whole.to(memory_format=torch.channels_last)  # as every training does
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.05)
    for _ in range(2):
        with seeded("draws"):
            whole(images(4)).square().sum().backward()
        optimizer.step()
    network.module.eval().to(memory_format=torch.contiguous_format)
    with torch.no_grad():
        assert torch.allclose(whole.eval()(images(2)), network.module((images(2) - 0.5) / 0.25), atol=1e-4)
        assert not torch.allclose(whole(images(2)), made(kind).module((images(2) - 0.5) / 0.25), atol=1e-4)


class OwnNoise(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.top(x + torch.randn_like(x))


class NoiseInTheTail(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.top(F.dropout(self.b(self.a(x)), 0.5))


class BatchStatistics(Base):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(8, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.b(self.bn(self.a(x)).relu()))


class Centred(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.top(self.b(x - x.mean(0)))


class Counts(Base):
    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.top(self.b(self.a(x))) * self.passes


class WritesIntoThePhotos(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.b(self.a(x.mul_(2))))


class TwoOutputs(Base):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.b(self.a(x))
        return self.top(x), x


class TwoOutputsInTraining(Base):
    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.b(self.a(x))
        return (self.top(x), x) if self.training else self.top(x)


class NeedsLabelsInTraining(Base):
    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.top(self.b(self.a(x)))
        if self.training:
            raise TypeError("labels are needed\nin training")
        return x


class OneRow(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.b(self.a(x))).mean(0)


class TooDeep(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.top(F.max_pool2d(self.a(x), 32))


REFUSED = {
    OwnNoise: "draws at random in eval mode.*first seen before 'head'",
    NoiseInTheTail: "draws at random in eval mode.*first seen before 'head'",
    BatchStatistics: "depends on the other photos of the batch.*first seen at 'bn'",
    Centred: "depends on the other photos of the batch.*before 'b'",
    Counts: "changes from one pass to the next",
    WritesIntoThePhotos: "writes into the photos",
    TwoOutputs: "returns more than one tensor",
    TwoOutputsInTraining: "fails in training mode.*one tensor",
    NeedsLabelsInTraining: "fails in training mode: labels are needed$",
    OneRow: "returns more than one tensor",
    TooDeep: "cannot take 16 px images",
}


@pytest.mark.parametrize(("kind", "reason"), REFUSED.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_what_cannot_be_split_rightly_is_refused_in_one_line(kind: type[nn.Module], reason: str) -> None:
    for refuse in (find_cuts, uncut):
        with pytest.raises(InvalidInputError, match=reason) as caught:
            refuse(made(kind), SIZE)
        assert "\n" not in str(caught.value)


def test_a_torchscript_network_is_refused() -> None:
    scripted = torch.jit.script(made(Base).module.a)
    with pytest.raises(InvalidInputError, match="TorchScript"):
        find_cuts(Network(nn.Sequential(scripted, nn.Flatten())), SIZE)


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        (SubclassedNorm, "traced"),
        (EvalOnly, "traced"),
        (Flag, "traced"),
        (ByType, "exported"),
        (Inner, "run"),
        (ByValue, "run"),
    ],
)
def test_the_way_is_said(kind: type[nn.Module], way: str) -> None:
    assert {cut.way for cut in find_cuts(made(kind), SIZE)} == {way}


def test_a_tracer_that_gives_up_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert find_cuts(made(ByValue), SIZE)[0].way == "run"
    assert capfd.readouterr() == ("", "")


def test_a_part_that_cannot_be_followed_is_one_node_among_others() -> None:
    class Decides(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 1e9 else x.relu()

    class Net(Base):
        def __init__(self) -> None:
            super().__init__()
            self.decides = Decides()

        def forward(self, x: Tensor) -> Tensor:
            return self.top(self.b(self.decides(self.a(x))))

    cuts = find_cuts(made(Net), SIZE)
    assert [cut.name for cut in cuts][:3] == ["a", "decides", "b"]
    assert {cut.way for cut in cuts} == {"traced"}


def test_weights_on_both_sides_of_the_cut_are_copied_and_it_is_said() -> None:
    halves = split(made(Recurrent), "odd", "relu", SIZE)
    assert any("both sides" in note for note in halves.notes)
    before = halves.encoder(images(2)).detach()
    optimizer = torch.optim.SGD(halves.tail.parameters(), lr=1.0)
    halves.tail(before).square().sum().backward()
    optimizer.step()
    assert torch.equal(halves.encoder(images(2)), before), "training the tail moved the device's weights"
    assert split(made(ByType), "odd", "b", SIZE).notes == ()


@torch.no_grad()
def test_a_run_networks_halves_hold_only_their_own_weights() -> None:
    class Decides(Base):
        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.top(self.b(-x if x.sum() > 1e9 else x))

    halves = split(made(Decides), "odd", "a", SIZE)
    assert halves.cut.way == "run"
    encoder, tail = ({name for name, _ in half.named_parameters()} for half in (halves.encoder, halves.tail))
    assert not any(".b." in name for name in encoder)
    assert not any(".a." in name for name in tail)


def test_a_networks_draws_behind_the_cut_are_its_own() -> None:
    """Dropout on both sides, in a network that must be run: the tail draws as it does uncut."""

    class Drops(ByValue):
        def forward(self, x: Tensor) -> Tensor:
            x = F.dropout(self.a(x), 0.5, self.training)
            if self.head.bias.sum() > 1e3:
                x = -x
            return self.top(F.dropout(self.b(x), 0.5, self.training))

    halves = split(made(Drops), "odd", "b", SIZE)
    _, trained, _ = eager(made(Drops), images(3))
    halves.encoder.train()
    halves.tail.train()
    with seeded("draws"):
        assert torch.allclose(halves.tail(halves.encoder(images(3))), trained, atol=1e-6)
