"""However a file names its tensors, the network has them all and it is said what was done, or it is refused."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import make_network
from splitleak.victims.weights import Loaded, classifier, load_weights, read_weights

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


def load(net: nn.Module, weights: str) -> Loaded:
    return load_weights(net, read_weights(weights), "net.pth")


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + key: value for key, value in state.items()}


def other(state: State) -> State:
    return {key: value + 1 for key, value in state.items()}


SPELLED: dict[str, tuple[Callable[[State], object], str]] = {
    "plain": (prefixed(""), ""),
    "parallel": (prefixed("module."), ""),
    "compiled": (prefixed("_orig_mod."), ""),
    "both": (prefixed("module._orig_mod."), ""),
    "opacus": (prefixed("_module."), ""),
    "averaged": (lambda state: {"n_averaged": torch.tensor(3), **prefixed("module.")(state)}, ""),
    "lightning": (
        lambda state: {"state_dict": prefixed("model.")(state), "epoch": 3},
        "names are read without 'state_dict.model.'",
    ),
    "loss first": (
        lambda state: {"criterion.weight": torch.ones(3), **prefixed("net.")(state)},
        "left out 1 tensors beside the network: criterion.weight",
    ),
    "tutorial": (
        lambda state: {"optimizer_state_dict": {0: {"exp_avg": torch.ones(2)}}, "model_state_dict": state},
        "left out 1 tensors beside the network",
    ),
    "nested twice": (lambda state: {"checkpoint": {"weights": state}}, "without 'checkpoint.weights.'"),
    "averages beside": (
        lambda state: {"model_ema": other(state), "model": state},
        "it also holds copies, which FILE#PART takes: model_ema",
    ),
    "averages of Lightning": (
        lambda state: {"state_dict": {**prefixed("ema.")(other(state)), **prefixed("model.")(state)}},
        "copies, which FILE#PART takes: state_dict.ema",
    ),
    "student of another network": (
        lambda state: {
            **prefixed("teacher.")(dict(torchvision.models.alexnet().state_dict())),
            **prefixed("s.")(state),
        },
        "names are read without 's.'",
    ),
    "older": (lambda state: {key: value for key, value in state.items() if "num_batches" not in key}, ""),
    "auxiliary": (lambda state: {**state, "aux1.fc.weight": torch.ones(2)}, "left out 1 tensors of auxiliary heads"),
    "half": (lambda state: {key: value.half() for key, value in state.items()}, "stored in float16"),
    "brain": (lambda state: {key: value.bfloat16() for key, value in state.items()}, "stored in bfloat16"),
}


@pytest.mark.parametrize(("spelled", "note"), SPELLED.values(), ids=SPELLED)
@pytest.mark.parametrize("make", [Net, Wrapped])
def test_every_tensor_is_loaded_and_said(
    make: type[Net | Wrapped], spelled: Callable[[State], object], note: str, tmp_path: Path
) -> None:
    right, net = make(), make()
    (right.backbone if isinstance(right, Wrapped) else right).bn.running_mean += 1
    loaded = load(net, saved(tmp_path, spelled(dict(right.state_dict()))))
    assert all(key.endswith("num_batches_tracked") for key in loaded.untrained)
    assert note in "; ".join(loaded.notes)
    assert bool(note) == bool(loaded.notes)
    for key, value in right.state_dict().items():
        assert torch.allclose(net.state_dict()[key], value, atol=1e-2), key


def test_a_wrapper_within_and_one_that_is_missing(tmp_path: Path) -> None:
    right, net = Wrapped(), Wrapped()
    state = {key.replace("backbone.", "backbone.module."): value for key, value in right.state_dict().items()}
    assert load(net, saved(tmp_path, state)) == Loaded((), ())
    assert torch.equal(net.backbone.conv.weight, right.backbone.conv.weight)
    assert load(net, saved(tmp_path, Net().state_dict())).notes == ("names are read with 'backbone.' before them",)


def test_a_part_is_taken_by_its_name(tmp_path: Path) -> None:
    states = {name: dict(Net().state_dict()) for name in ("student", "teacher")}
    place = saved(tmp_path, {"nets": states, "epoch": 3})
    with pytest.raises(InvalidInputError, match=r"several networks that fit: say net.pth#nets.student or .*teacher"):
        load(Net(), place)
    for name, state in states.items():
        net = Net()
        assert load(net, f"{place}#nets.{name}") == Loaded((), ())
        assert torch.equal(net.conv.weight, state["conv.weight"])
    with pytest.raises(InvalidInputError, match=r"has no part 'ema'; it has nets"):
        read_weights(f"{place}#ema")


def test_shared_tensors_are_written_once_by_safetensors(tmp_path: Path) -> None:
    class Tied(Net):
        def __init__(self) -> None:
            super().__init__()
            self.again, self.end = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
            self.again.weight = self.conv.weight

    right, net = Tied(), Tied()
    save_model(right, str(tmp_path / "net.safetensors"))
    assert len(read_weights(str(tmp_path / "net.safetensors"))) == len(right.state_dict()) - 1
    assert load(net, str(tmp_path / "net.safetensors")) == Loaded((), ())
    assert all(torch.equal(value, right.state_dict()[key]) for key, value in net.state_dict().items())


def test_torchvisions_older_names_of_densenets_are_read() -> None:
    right, net = torchvision.models.densenet121(num_classes=2), torchvision.models.densenet121(num_classes=2)
    older = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): v for key, v in right.state_dict().items()}
    assert older.keys() != right.state_dict().keys()
    assert load_weights(net, older, "x") == Loaded((), ())
    assert all(torch.equal(value, right.state_dict()[key]) for key, value in net.state_dict().items())


def test_a_file_needs_no_suffix(tmp_path: Path) -> None:
    network = torchvision.models.squeezenet1_1(num_classes=2)
    torch.save(network.state_dict(), tmp_path / "checkpoint")
    assert make_network("squeezenet1_1", 2, 32, str(tmp_path / "checkpoint")).untrained == ()


def test_a_file_of_weights_with_another_normalisation_says_so(tmp_path: Path) -> None:
    torch.save(torchvision.models.googlenet(num_classes=2, init_weights=False).state_dict(), tmp_path / "net.pth")
    made = make_network("googlenet", 2, 32, str(tmp_path / "net.pth"))
    assert any("expect mean and deviation 0.5" in note for note in made.notes)


def test_a_wrapped_network_is_no_classifier_as_a_whole() -> None:
    loaded = load_weights(Wrapped(5), Wrapped(3).state_dict(), "x")
    assert loaded.untrained == ("backbone.head.bias", "backbone.head.weight")
    assert "'backbone.head.weight' is 3x4 there and 5x4 here: not taken" in loaded.notes
    head = {key: value for key, value in Wrapped().state_dict().items() if ".head." in key}
    others = {key.replace("conv", "stem"): value for key, value in Wrapped().state_dict().items()}
    for state in (head, others):
        with pytest.raises(InvalidInputError, match="another network"):
            load_weights(Wrapped(), state, "x")


@pytest.mark.parametrize(
    ("model", "head"),
    [
        ("resnet18", "fc"),
        ("vgg11", "classifier"),
        ("squeezenet1_1", "classifier"),
        ("mobilenet_v3_small", "classifier"),
        ("vit_b_32", "heads"),
        ("swin_t", "head"),
    ],
)
def test_the_classifier_is_what_torchvision_calls_so(model: str, head: str) -> None:
    with torch.device("meta"):
        assert classifier(torchvision.models.get_model(model)) == head


def test_a_body_that_comes_last_is_no_classifier() -> None:
    with torch.device("meta"):
        body = torchvision.models.resnet18()
        assert classifier(nn.Sequential(nn.Conv2d(3, 3, 1), body)) == "1.fc"
    dense = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Sequential(nn.Linear(3, 3)), nn.Linear(3, 2)))
    assert classifier(dense) == "1.1"


def test_a_file_of_nothing_that_fits_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no key fits"):
        load_weights(nn.Sequential(nn.Linear(2, 2)), {"0.weight": torch.ones(3, 3)}, "x")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_by_name(value: float) -> None:
    state = Net().state_dict()
    state["conv.weight"][0, 0, 0, 0] = value
    with pytest.raises(InvalidInputError, match=r"x holds .*not finite, first in 'conv.weight'"):
        load_weights(Net(), state, "x")


@pytest.mark.parametrize("odd", [torch.int8, torch.bool, torch.complex64])
def test_no_real_numbers_are_refused(odd: torch.dtype) -> None:
    state = Net().state_dict()
    state["conv.weight"] = state["conv.weight"].to(odd)
    with pytest.raises(InvalidInputError, match=r"'conv.weight' is .*real numbers"):
        load_weights(Net(), state, "x")


def test_quantised_tensors_are_refused() -> None:
    state = Net().state_dict()
    state["conv.weight"] = torch.quantize_per_tensor(state["conv.weight"], 0.1, 0, torch.qint8)
    with pytest.raises(InvalidInputError, match="no plain numbers"):
        load_weights(Net(), state, "x")


@pytest.mark.parametrize("content", [{"epoch": 3, "lr": 0.1}, {}, {"state_dict": {"a": 1}}, [1], "text", None])
def test_a_file_without_a_network_says_what_it_holds(content: object, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no state_dict") as caught:
        read_weights(saved(tmp_path, content))
    assert all(key in str(caught.value) for key in (content if isinstance(content, dict) else ()))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no readable weights file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00",
            "no readable weights file: .*begins with b'version https:",
        ),
        (b"PK\x03\x04 but no more", "no readable weights file"),
        (b"\x89HDF\r\n\x1a\n", "no readable weights file"),
    ],
)
def test_what_is_no_file_of_torch_says_so_in_one_line(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "net.ckpt").write_bytes(content)
    with pytest.raises(InvalidInputError, match=reason) as caught:
        read_weights(str(tmp_path / "net.ckpt"))
    assert "\n" not in str(caught.value)


def test_a_whole_module_is_not_unpickled(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="save a state_dict"):
        read_weights(saved(tmp_path, Net()))


@pytest.mark.parametrize("model", ["vit_b_32", "timm:vit_tiny_patch16_224", "timm:swin_tiny_patch4_window7_224"])
def test_position_embeddings_of_another_size_are_interpolated(model: str, tmp_path: Path) -> None:
    trained = make_network(model, 3, 96).module
    save_file(trained.state_dict(), tmp_path / "net.safetensors")
    made = make_network(model, 3, 128, str(tmp_path / "net.safetensors"))
    assert made.untrained == ()
    assert any("resized for this image size" in note for note in made.notes)
    own, before = made.module.state_dict(), trained.state_dict()
    differing = [key for key in before if own[key].shape != before[key].shape]
    assert differing
    assert all(torch.equal(own[key], before[key]) for key in before if own[key].shape == before[key].shape)
    for key in differing:
        assert own[key].std() == pytest.approx(float(before[key].std()), rel=0.5)


def test_position_embeddings_of_a_network_in_a_file_are_not() -> None:
    class Positions(Net):
        def __init__(self, count: int) -> None:
            super().__init__()
            self.pos_embedding = nn.Parameter(torch.zeros(1, count, 4))

    with pytest.raises(InvalidInputError, match="belong to another image size"):
        load_weights(Positions(4), Positions(9).state_dict(), "x")


RETURNED = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))

def parallel(): return nn.DataParallel(Net())
def compiled(): return torch.compile(Net())
def half(): return Net().half()
def double(): return Net().double()
def lazy(): return nn.Sequential(nn.LazyConv2d(3, 3))
def meta(): return Net().to("meta")
def diverged():
    net = Net()
    nn.init.constant_(net.conv.bias, float("nan"))
    return net
"""


@pytest.fixture
def returned(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(RETURNED)
    return str(tmp_path / "net.py")


@pytest.mark.parametrize(
    ("function", "note"),
    [
        ("parallel", "taken out of its DataParallel"),
        ("compiled", "taken out of its OptimizedModule"),
        ("half", "computed in float32, returned in float16"),
        ("double", "computed in float32, returned in float64"),
    ],
)
def test_what_a_function_wraps_is_taken_out_and_said(function: str, note: str, returned: str) -> None:
    made = make_network(f"{returned}:{function}", 2, 16)
    assert made.notes == (note,)
    assert made.module(torch.rand(1, 3, 16, 16)).dtype == torch.float32
    assert type(made.module).__name__ == "Net"


@pytest.mark.parametrize(
    ("function", "reason"),
    [("lazy", "has no numbers yet"), ("meta", "has no numbers yet"), ("diverged", "'conv.bias' .*not finite")],
)
def test_a_network_without_numbers_is_refused(function: str, reason: str, returned: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        make_network(f"{returned}:{function}", 2, 16)
