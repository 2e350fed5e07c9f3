"""However a file names its tensors, the network has them all, or is refused in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import file_state, load_weights

State = dict[str, Tensor]


class Net(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, classes)


class Wrapped(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.backbone = Net(classes)


def saved(folder: Path, content: object) -> str:
    torch.save(content, folder / "net.pth")
    return str(folder / "net.pth")


def prefixed(prefix: str) -> Callable[[State], object]:
    return lambda state: {prefix + key: value for key, value in state.items()}


SPELLED: dict[str, Callable[[State], object]] = {
    "plain": prefixed(""),
    "parallel": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "both": prefixed("module._orig_mod."),
    "lightning": lambda state: {"state_dict": prefixed("model.")(state), "epoch": 3},
    "tutorial": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"lr": 0.1}},
    "checkpoint": lambda state: {"model": state, "epoch": 3},
    "older": lambda state: {key: value for key, value in state.items() if "num_batches" not in key},
    "auxiliary": lambda state: {**state, "aux1.fc.weight": torch.ones(2)},
    "half": lambda state: {key: value.half() for key, value in state.items()},
}


@pytest.mark.parametrize("spelled", SPELLED.values(), ids=SPELLED)
def test_every_tensor_is_loaded(spelled: Callable[[State], object], tmp_path: Path) -> None:
    right, net = Net(), Net()
    with torch.no_grad():
        right.bn.running_mean.add_(1)
    place = saved(tmp_path, spelled(dict(right.state_dict())))
    fresh = load_weights(net, file_state(place), place)
    assert fresh in ((), ("bn.num_batches_tracked",))
    for key, value in right.state_dict().items():
        assert torch.allclose(net.state_dict()[key], value, atol=1e-3), key


def test_a_wrapper_within_a_wrapper(tmp_path: Path) -> None:
    right, net = Wrapped(), Wrapped()
    state = {key.replace("backbone.", "backbone.module."): value for key, value in right.state_dict().items()}
    place = saved(tmp_path, state)
    assert load_weights(net, file_state(place), place) == ()
    assert torch.equal(net.backbone.conv.weight, right.backbone.conv.weight)


def test_a_wrapped_network_is_no_classifier_as_a_whole(tmp_path: Path) -> None:
    assert load_weights(Wrapped(5), Wrapped(3).state_dict(), "x") == ("backbone.head.bias", "backbone.head.weight")
    head = {key: value for key, value in Wrapped().state_dict().items() if ".head." in key}
    other = {key.replace("conv", "stem"): value for key, value in Wrapped().state_dict().items()}
    for state in (head, other):
        with pytest.raises(InvalidInputError, match="another network"):
            load_weights(Wrapped(), state, "x")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_by_name(value: float, tmp_path: Path) -> None:
    state = Net().state_dict()
    state["conv.weight"][0, 0, 0, 0] = value
    with pytest.raises(InvalidInputError, match=r"net\.pth .*not finite, first in 'conv.weight'"):
        file_state(saved(tmp_path, state))


@pytest.mark.parametrize("content", [{"epoch": 3, "lr": 0.1}, {}, {"state_dict": {"a": 1}}])
def test_a_file_without_a_network_says_what_it_holds(content: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no state_dict") as caught:
        file_state(saved(tmp_path, content))
    assert all(key in str(caught.value) for key in content)


def test_position_embeddings_of_another_size_say_so() -> None:
    class Positions(Net):
        def __init__(self, count: int) -> None:
            super().__init__()
            self.pos_embedding = nn.Parameter(torch.zeros(1, count, 4))

    with pytest.raises(InvalidInputError, match="belong to another image size"):
        load_weights(Positions(4), Positions(9).state_dict(), "x")
