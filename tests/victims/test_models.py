"""Weights go into the network that they belong to, or nowhere, and the error says why."""

from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from splitleak.victims import models
from splitleak.victims.cuts import find_cuts, split, uncut
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import make_network
from splitleak.victims.seeding import seeded

MODEL, SIZE, CLASSES = "resnet18", 32, 5
State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _no_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPLITLEAK_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))


@pytest.fixture(scope="module")
def trained() -> State:
    """A state that no initialisation gives."""
    with seeded("trained"):
        state = torchvision.models.get_model(MODEL, num_classes=CLASSES).state_dict()
        return {key: value + 1 if value.is_floating_point() else value + 3 for key, value in state.items()}


def save(state: Mapping[str, Tensor], path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(dict(state), path)
    else:
        torch.save(dict(state), path)
    return str(path)


def refusal(weights: str, model: str = MODEL, classes: int = CLASSES) -> str:
    with pytest.raises(InvalidInputError) as caught:
        make_network(model, classes, SIZE, weights)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth"])
def test_a_weights_file_is_loaded_whole(file: str, trained: State) -> None:
    save(trained, Path(file))
    network = make_network(MODEL, CLASSES, SIZE, file)
    loaded = network.module.state_dict()
    assert loaded.keys() == trained.keys()
    assert all(torch.equal(loaded[key], trained[key]) for key in trained)
    assert network.untrained == ()
    assert not network.module.training


def test_a_checkpoint_with_its_state_inside_is_loaded(trained: State) -> None:
    torch.save({"state_dict": trained, "epoch": 3}, "w.pth")
    loaded = make_network(MODEL, CLASSES, SIZE, "w.pth").module.state_dict()
    assert torch.equal(loaded["conv1.weight"], trained["conv1.weight"])


def test_a_missing_classifier_is_reported_and_keeps_its_start(trained: State) -> None:
    save({key: value for key, value in trained.items() if not key.startswith("fc.")}, Path("w.pth"))
    with seeded("start"):
        network = make_network(MODEL, CLASSES, SIZE, "w.pth")
    with seeded("start"):
        fresh = make_network(MODEL, CLASSES, SIZE)
    assert network.untrained == ("fc.bias", "fc.weight")
    assert torch.equal(network.module.fc.weight, fresh.module.fc.weight)
    assert torch.equal(network.module.conv1.weight, trained["conv1.weight"])


def test_a_classifier_of_other_classes_is_reported_and_keeps_its_start(trained: State) -> None:
    weights = save(trained, Path("w.pth"))
    with seeded("start"):
        network = make_network(MODEL, CLASSES + 2, SIZE, weights)
    with seeded("start"):
        fresh = make_network(MODEL, CLASSES + 2, SIZE)
    assert network.untrained == ("fc.bias", "fc.weight")
    assert network.module.fc.out_features == CLASSES + 2
    assert torch.equal(network.module.fc.weight, fresh.module.fc.weight)


def test_only_the_last_layer_of_a_deep_classifier_depends_on_the_classes() -> None:
    source = make_network("mobilenet_v3_small", CLASSES, SIZE)
    weights = save(source.module.state_dict(), Path("w.safetensors"))
    network = make_network("mobilenet_v3_small", CLASSES + 1, SIZE, weights)
    assert network.untrained == ("classifier.3.bias", "classifier.3.weight")
    assert torch.equal(network.module.classifier[0].weight, source.module.classifier[0].weight)


def test_any_other_missing_key_is_listed(trained: State) -> None:
    part = {key: value for key, value in trained.items() if key != "layer1.0.conv1.weight"}
    message = refusal(save(part, Path("w.pth")))
    assert "another network" in message
    assert "1 keys missing (layer1.0.conv1.weight)" in message


def test_an_unknown_key_is_listed(trained: State) -> None:
    message = refusal(save(trained | {"layer9.weight": torch.zeros(2)}, Path("w.safetensors")))
    assert "1 keys unknown (layer9.weight)" in message
    assert "missing" not in message


def test_a_key_of_another_shape_is_listed(trained: State) -> None:
    message = refusal(save(trained | {"conv1.weight": torch.zeros(64, 3, 3, 3)}, Path("w.pth")))
    assert "1 keys of another shape (conv1.weight)" in message


def test_weights_of_another_network_are_refused_and_long_lists_shortened(trained: State) -> None:
    message = refusal(save(trained, Path("w.pth")), model="squeezenet1_1")
    assert "weights of another network" in message
    assert "keys unknown (bn1.bias, bn1.running_mean, bn1.running_var, bn1.weight, ...)" in message
    assert len(message) < 500


def test_a_refusal_changes_nothing(trained: State) -> None:
    module = make_network(MODEL, CLASSES, SIZE).module
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(InvalidInputError):
        models.load_weights(module, trained | {"layer9.weight": torch.zeros(2)}, "w.pth")
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


class Payload:
    """What a hostile file would have unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("executed"),)  # type: ignore[return-value]


def test_a_pickled_object_is_refused_and_never_run(trained: State) -> None:
    torch.save({**trained, "more": Payload()}, "w.pth")
    assert "holds more than tensors" in refusal("w.pth")
    assert not Path("executed").exists()


def test_a_pickled_network_is_refused() -> None:
    torch.save(nn.Linear(2, 2), "w.pth")
    assert "holds more than tensors" in refusal("w.pth")


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("kept", [0, 10, 0.5])
def test_a_truncated_file_is_refused(file: str, kept: float, trained: State) -> None:
    whole = Path(save(trained, Path(file))).read_bytes()
    Path(file).write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    message = refusal(file)
    assert file in message
    assert "no readable weights file" in message


@pytest.mark.parametrize("content", [b"hello world, this is no pickle", b"<html>404</html>"])
def test_a_file_of_another_kind_is_refused(content: bytes) -> None:
    Path("w.pth").write_bytes(content)
    assert "w.pth" in refusal("w.pth")


@pytest.mark.parametrize("content", [torch.zeros(3), {"state_dict": 3}, [torch.zeros(3)], {0: torch.zeros(2)}])
def test_a_file_without_a_state_is_refused(content: object) -> None:
    torch.save(content, "w.pth")
    assert "holds no state_dict" in refusal("w.pth")


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal("nets/w.pth")
    assert str(tmp_path / "nets" / "w.pth") in message
    assert "SPLITLEAK_WEIGHTS (not set)" in message
    monkeypatch.setenv("SPLITLEAK_WEIGHTS", str(tmp_path / "shelf"))
    message = refusal("nets/w.pth")
    assert str(tmp_path / "nets" / "w.pth") in message
    assert str(tmp_path / "shelf" / "nets" / "w.pth") in message


def test_weights_are_found_on_the_shelf_and_here_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: State
) -> None:
    shelf = tmp_path / "shelf"
    monkeypatch.setenv("SPLITLEAK_WEIGHTS", str(shelf))
    save(trained, shelf / "w.pth")
    loaded = make_network(MODEL, CLASSES, SIZE, "w.pth").module.state_dict()
    assert torch.equal(loaded["conv1.weight"], trained["conv1.weight"])
    save(trained | {"conv1.weight": torch.full((64, 3, 7, 7), 9.0)}, tmp_path / "w.pth")
    assert (make_network(MODEL, CLASSES, SIZE, "w.pth").module.conv1.weight == 9).all()


def place(model: str, state: State, hub: Path) -> None:
    """Where torch.hub keeps what it has downloaded."""
    url = torchvision.models.get_model_weights(model)["IMAGENET1K_V1"].url
    save(state, hub / "hub" / "checkpoints" / url.rpartition("/")[2])


def test_torchvisions_weights_are_taken_from_torch_hubs_folder(tmp_path: Path) -> None:
    with seeded("published"):
        state = torchvision.models.get_model(MODEL).state_dict()
    place(MODEL, state, tmp_path / "torch_home")
    for name in ("IMAGENET1K_V1", "DEFAULT"):
        network = make_network(MODEL, 1000, SIZE, name)
        assert network.untrained == ()
        assert torch.equal(network.module.conv1.weight, state["conv1.weight"])
    few = make_network(MODEL, CLASSES, SIZE, "IMAGENET1K_V1")
    assert few.untrained == ("fc.bias", "fc.weight")
    assert torch.equal(few.module.conv1.weight, state["conv1.weight"])


def test_torchvisions_old_densenet_files_are_loaded(tmp_path: Path) -> None:
    with seeded("published"):
        state = torchvision.models.get_model("densenet121").state_dict()
    # what the published file looks like: dots inside names, and no counters of batches
    old = {
        key.replace(".norm1.", ".norm.1.")
        .replace(".norm2.", ".norm.2.")
        .replace(".conv1.", ".conv.1.")
        .replace(".conv2.", ".conv.2."): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    place("densenet121", old, tmp_path / "torch_home")
    network = make_network("densenet121", CLASSES, SIZE, "IMAGENET1K_V1")
    loaded = network.module.state_dict()["features.denseblock1.denselayer1.conv2.weight"]
    assert torch.equal(loaded, state["features.denseblock1.denselayer1.conv2.weight"])
    assert network.untrained == ("classifier.bias", "classifier.weight")


@pytest.mark.parametrize(
    ("model", "auxiliary", "kept"),
    [
        ("googlenet", "aux1.fc1.weight", "conv1.conv.weight"),
        ("inception_v3", "AuxLogits.fc.weight", "Conv2d_1a_3x3.conv.weight"),
    ],
)
def test_torchvisions_auxiliary_heads_are_left_out(model: str, auxiliary: str, kept: str, tmp_path: Path) -> None:
    with seeded("published"):
        state = torchvision.models.get_model(model, init_weights=False, aux_logits=True).state_dict()
    assert auxiliary in state
    place(model, state, tmp_path / "torch_home")
    network = make_network(model, CLASSES, SIZE, "IMAGENET1K_V1")
    assert torch.equal(network.module.state_dict()[kept], state[kept])
    assert network.untrained == ("fc.bias", "fc.weight")


def test_a_download_that_fails_names_file_and_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    message = refusal("IMAGENET1K_V1", classes=1000)
    url = torchvision.models.get_model_weights(MODEL)["IMAGENET1K_V1"].url
    assert url in message
    assert str(tmp_path / "torch_home" / "hub" / "checkpoints" / url.rpartition("/")[2]) in message
    assert "no route to host" in message


def test_unknown_weights_offer_names() -> None:
    message = refusal("IMAGENET1K_V7")
    assert f"unknown weights of {MODEL}: 'IMAGENET1K_V7'" in message
    assert "IMAGENET1K_V1" in message
    message = refusal("zzzzz")
    assert all(name in message for name in ("IMAGENET1K_V1", "scratch", ".safetensors"))


def test_timm_networks_take_no_weights_names() -> None:
    pytest.importorskip("timm")
    assert "path of a weights file" in refusal("IMAGENET1K_V1", model="timm:mobilenetv1_100")


@pytest.mark.parametrize(("model", "near"), [("resnet19", "resnet18"), ("mobilenet_v3_larg", "mobilenet_v3_large")])
def test_an_unknown_network_offers_near_names(model: str, near: str) -> None:
    message = refusal("scratch", model=model)
    assert f"unknown network '{model}'" in message
    assert near in message


def test_an_unknown_timm_network_offers_near_names() -> None:
    pytest.importorskip("timm")
    assert "mobilenetv1_100" in refusal("scratch", model="timm:mobilenetv1_10")


def test_detection_networks_are_not_offered() -> None:
    assert MODEL in models.names()
    assert "fasterrcnn_resnet50_fpn" not in models.names()


@pytest.mark.parametrize("model", ["mobilenet_v3_small", "resnet18", "densenet121", "squeezenet1_1"])
def test_nothing_works_in_place_once_it_is_taken_apart(model: str) -> None:
    own = torchvision.models.get_model(model, num_classes=CLASSES)
    assert any(getattr(module, "inplace", False) for module in own.modules()), "then this proves nothing"
    whole = uncut(make_network(model, CLASSES, 64), 64)
    assert not any(getattr(module, "inplace", False) for module in whole.modules())


def test_batch_statistics_keep_up_with_a_short_training() -> None:
    own = [m for m in torchvision.models.get_model("mobilenet_v3_small").modules() if isinstance(m, nn.BatchNorm2d)]
    assert own[0].momentum == 0.01
    made = [m for m in make_network("mobilenet_v3_small", 2, 64).module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(made) == len(own)
    assert {module.momentum for module in made} == {0.1}


@pytest.mark.parametrize("size", [32, 96])
def test_transformers_fit_their_positions_to_the_size(size: int) -> None:
    module = make_network("vit_b_32", CLASSES, size).module
    assert module.encoder.pos_embedding.shape == (1, (size // 32) ** 2 + 1, 768)


def test_a_size_that_a_network_cannot_take_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="50 px"):
        find_cuts(make_network("vit_b_32", CLASSES, 50), 50)


def test_a_cut_reaches_below_a_network_without_auxiliary_heads() -> None:
    network = make_network("googlenet", CLASSES, 64)
    assert split(network, "googlenet", "inception3b", 64).cut.shape == (480, 8, 8)
