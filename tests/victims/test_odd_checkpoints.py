"""Whatever a checkpoint looks like: the network has exactly its tensors, or one line says why not."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from splitleak.victims.errors import InvalidInputError
from splitleak.victims.weights import COUNTERS, classifier, load_weights, read_weights

T = TypeVar("T")
State = dict[str, Tensor]
Change = Callable[[State], State]
FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = Block(4), nn.ModuleDict({"module": Block(5), "conv": nn.Conv2d(3, 3, 1)})
        self.classifier = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


class Mine(nn.Module):
    """A network in a class of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Net()


def drawn(seed: int) -> State:
    """A state that no other seed has."""
    torch.manual_seed(seed)
    state = dict(Mine().state_dict())
    return {
        key: torch.rand_like(value) if value.is_floating_point() else value + seed for key, value in state.items()
    }


KEYS = list(drawn(0))
NAMES = st.sampled_from(["model", "module", "net", "state_dict", "ema", "backbone", "_orig_mod", "weights", "x", "0"])


def without(keys: list[str]) -> Change:
    return lambda state: {key: value for key, value in state.items() if key not in keys}


def renamed(old: str, new: str) -> Change:
    return lambda state: {key.replace(old, new): value for key, value in state.items()}


def changed(key: str, how: Callable[[Tensor], Tensor]) -> Change:
    return lambda state: {name: how(value) if name == key else value for name, value in state.items()}


def _with_one_not_a_number(value: Tensor) -> Tensor:
    return torch.full_like(value, float("nan")) if value.is_floating_point() else value


HOWS: list[Callable[[Tensor], Tensor]] = [
    lambda value: value.half(),
    lambda value: value.double(),
    lambda value: value.to(torch.int8),
    lambda value: value.to(torch.complex64),
    lambda value: value[None],
    lambda value: value.flatten()[:0],
    lambda value: value.T if value.dim() == 2 else value,
    lambda value: value.to_sparse() if value.dim() else value,
    _with_one_not_a_number,
]
CHANGES = st.one_of(
    st.just(without([])),
    st.builds(without, st.lists(st.sampled_from(KEYS), max_size=3)),
    st.just(without([key for key in KEYS if ".classifier." in key])),
    st.just(without([key for key in KEYS if ".classifier." not in key])),
    st.just(without([key for key in KEYS if key.endswith("num_batches_tracked")])),
    st.builds(renamed, st.just("backbone."), NAMES.map(lambda name: f"{name}.") | st.just("")),
    st.builds(renamed, st.sampled_from(["stem", "conv", "2.", "bn", "classifier"]), NAMES),
    st.builds(changed, st.sampled_from(KEYS), st.sampled_from(HOWS)),
    st.builds(lambda name: lambda state: {**state, name: torch.ones(2)}, NAMES),
    st.builds(lambda name: lambda state: {f"{name}.{key}": value for key, value in state.items()}, NAMES),
)
NESTS = st.one_of(
    st.just(lambda state, _: state),
    st.builds(lambda name: lambda state, _: {name: state, "epoch": 3, "lr": [0.1]}, NAMES),
    st.builds(lambda outer, inner: lambda state, _: {outer: {inner: state}}, NAMES, NAMES),
    st.builds(lambda one, two: lambda state, other: {one: state, two: other}, NAMES, NAMES),
    st.builds(
        lambda name: lambda state, _: {"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, name: state}, NAMES
    ),
    st.builds(
        lambda one, two: (
            lambda state, other: {f"{n}.{k}": v for n, s in ((one, state), (two, other)) for k, v in s.items()}
        ),
        NAMES,
        NAMES,
    ),
)


def said_or(action: Callable[[], T]) -> T | str:
    """What it returns, or the line that it refuses with."""
    try:
        return action()
    except InvalidInputError as error:
        return str(error)


@FUZZ
@given(st.lists(CHANGES, max_size=3), NESTS)
def test_the_network_has_the_files_tensors_or_it_is_refused(
    tmp_path: Path, changes: list[Change], nest: Callable[[State, State], object]
) -> None:
    right, other, start = drawn(1), drawn(2), drawn(3)
    state = right
    for change in changes:
        state = change(state)
    torch.save(nest(state, other), tmp_path / "net.pth")
    net = Mine()
    net.load_state_dict(start)
    head = classifier(net)
    loaded = said_or(lambda: load_weights(net, read_weights(str(tmp_path / "net.pth")), "net.pth"))
    if isinstance(loaded, str):
        assert "\n" not in loaded
        assert all(torch.equal(value, start[key]) for key, value in net.state_dict().items()), "partly loaded"
        return
    assert head == "backbone.classifier"
    assert all(key.startswith(head) or key.endswith(COUNTERS) for key in loaded.untrained)
    taken = {key: value for key, value in net.state_dict().items() if key not in loaded.untrained}
    assert taken

    def all_of(source: State) -> bool:
        return all(torch.allclose(value, source[key].to(value.dtype), atol=1e-3) for key, value in taken.items())

    assert all_of(right) or all_of(other), "tensors of several networks, or under another's name"
    assert all(torch.equal(net.state_dict()[key], start[key]) for key in loaded.untrained)


@FUZZ
@given(st.data())
def test_damaged_files_are_refused_or_read(tmp_path: Path, data: st.DataObject) -> None:
    torch.save({"model": drawn(1), "epoch": 3}, tmp_path / "net.pth")
    content = bytearray((tmp_path / "net.pth").read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    (tmp_path / "net.pth").write_bytes(bytes(content[:end]))
    tensors = said_or(lambda: read_weights(str(tmp_path / "net.pth")))
    if isinstance(tensors, str):
        assert "\n" not in tensors
        return
    assert all(isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items())


@pytest.mark.parametrize("suffix", ["pth", "ckpt", "pt", "bin", "tar", "safetensors"])
def test_a_text_is_no_checkpoint_under_any_suffix(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"net.{suffix}").write_text("not found\n" * 30)
    with pytest.raises(InvalidInputError, match="no readable weights file"):
        read_weights(str(tmp_path / f"net.{suffix}"))
