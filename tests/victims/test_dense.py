"""torchvision's networks that segment and detect, as modules of one tensor that can be cut."""

import pytest
import torch
import torchvision

from splitleak.victims.cuts import split
from splitleak.victims.dense import Detector, Segmenter
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import make_network
from splitleak.victims.seeding import seeded

IMAGES = torch.linspace(0, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64)


def test_a_segmenter_says_what_torchvisions_own_forward_says() -> None:
    with seeded("network"):
        network = torchvision.models.get_model(
            "deeplabv3_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=3
        ).eval()
    with torch.no_grad():
        torch.testing.assert_close(Segmenter(network, 64).eval()(IMAGES), network(IMAGES)["out"])


def test_a_detector_says_what_torchvisions_own_detections_are_made_of() -> None:
    with seeded("network"):
        network = torchvision.models.get_model(
            "ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=3
        ).eval()
    with torch.no_grad():
        detector = Detector(network, 64).eval()
        outputs = detector(IMAGES)
        said = network.head(list(network.backbone(IMAGES).values()))
    torch.testing.assert_close(outputs[..., 4:8], said["bbox_regression"])
    torch.testing.assert_close(outputs[..., 8:], said["cls_logits"])
    # 4x4, 2x2, then 1x1 places, each with six boxes; the first is square, a fifth of the side, in the first cell
    assert outputs.shape == (2, 6 * (16 + 4 + 1 + 1 + 1 + 1), 11)
    assert torch.allclose(outputs[:, 0, :4], torch.tensor([0.025, 0.025, 0.225, 0.225]), atol=1e-6)


@pytest.mark.parametrize(
    ("model", "cut", "shape", "said"),
    [
        ("deeplabv3_mobilenet_v3_large", "C4", (672, 4, 4), (3, 64, 64)),
        ("ssdlite320_mobilenet_v3_large", "C4", (672, 4, 4), (144, 12)),
        ("ssdlite320_mobilenet_v3_large", "pyramid", (672 * 16 + 480 * 4 + 512 + 256 + 256 + 128,), (144, 12)),
        pytest.param("fcn_resnet50", "backbone.layer2", (512, 8, 8), (3, 64, 64), marks=pytest.mark.slow),
    ],
)
def test_a_single_tensor_crosses_the_cut(model: str, cut: str, shape: tuple[int, ...], said: tuple[int, ...]) -> None:
    with seeded("network"):
        network = make_network(model, 3, 64)
    halves = split(network, model, cut, 64)
    assert halves.cut.shape == shape
    with torch.no_grad():
        outputs = halves.tail(halves.encoder(IMAGES))
        mean, std = (torch.tensor(of)[:, None, None] for of in (network.mean, network.std))
        torch.testing.assert_close(outputs, network.module((IMAGES - mean) / std), atol=1e-4, rtol=1e-4)
    assert outputs.shape[1:] == said


def test_a_cut_that_the_feature_pyramid_jumps_is_refused_with_the_nearest() -> None:
    network = make_network("ssdlite320_mobilenet_v3_large", 2, 64)
    with pytest.raises(InvalidInputError, match="more than its output would have to be sent"):
        split(network, "ssdlite320_mobilenet_v3_large", "backbone.features.1", 64)


def test_the_backbones_are_those_of_the_other_tasks() -> None:
    """C4 is one place: what SSDLite sends there is of the shape that the classifier sends."""
    shapes = {
        split(make_network(model, 2, 64), model, "C4", 64).cut.shape
        for model in ("mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large")
    }
    assert shapes == {(672, 4, 4)}
