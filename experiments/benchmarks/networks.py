"""Every network of torchvision, and one of each kind of timm's: where it can be cut, and whether that is right."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track
from rich.table import Table
from torch import Tensor

from splitleak.victims.cuts import Cut, find_cuts, split
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.models import TIMM, Network, make_network, names
from splitleak.victims.seeding import seeded

CLASSES = 10
PHOTOS = 4
SIZES = (64, 70, 96, 128, 224, 240, 256)
"""Tried in turn: some networks take one size only, some none below theirs."""
KINDS = (
    "beit_base_patch16_224",
    "botnet26t_256",
    "cait_xxs24_224",
    "coat_tiny",
    "convit_tiny",
    "convmixer_768_32",
    "convnext_atto",
    "crossvit_9_240",
    "cspdarknet53",
    "davit_tiny",
    "deit_tiny_patch16_224",
    "densenet121",
    "dla34",
    "dpn48b",
    "edgenext_xx_small",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "tf_efficientnet_lite0",
    "efficientvit_b0",
    "efficientvit_m0",
    "eva02_tiny_patch14_224",
    "fasternet_t0",
    "fastvit_t8",
    "focalnet_tiny_srf",
    "gcvit_xxtiny",
    "ghostnet_050",
    "hardcorenas_a",
    "hgnetv2_b0",
    "hiera_tiny_224",
    "hrnet_w18_small",
    "inception_next_atto",
    "inception_v3",
    "levit_128s",
    "mambaout_femto",
    "maxvit_tiny_rw_224",
    "poolformer_s12",
    "mixer_s32_224",
    "mobilenetv1_100",
    "tf_mobilenetv3_small_minimal_100",
    "mobilevit_xxs",
    "mvitv2_tiny",
    "nest_tiny",
    "nf_resnet26",
    "pit_ti_224",
    "pvt_v2_b0",
    "rdnet_tiny",
    "regnetx_002",
    "repghostnet_050",
    "repvit_m0_9",
    "res2net50_14w_8s",
    "resnest14d",
    "resnet10t",
    "resnetv2_50",
    "rexnet_100",
    "selecsls42",
    "seresnet18",
    "skresnet18",
    "starnet_s1",
    "swiftformer_xs",
    "swin_tiny_patch4_window7_224",
    "tiny_vit_5m_224",
    "tnt_s_patch16_224",
    "tresnet_m",
    "twins_svt_small",
    "vgg11",
    "visformer_tiny",
    "vit_tiny_patch16_224",
    "vovnet39a",
    "xcit_nano_12_p16_224",
)
"""One small network of each kind of timm's."""
CONCEALED = 1e-3
HEADER = ("network", "px", "cuts", "way", "off in eval", "off in training", "s")


@dataclass(frozen=True)
class Row:
    """One network. ``evaluated``, ``trained``: largest difference from the network itself, as a share of its largest
    output, over the first, the middle and the last cut; ``refused``: why there is none.
    """

    model: str
    size: int = 0
    cuts: int = 0
    way: str = ""
    evaluated: float = 0.0
    trained: float = 0.0
    seconds: float = 0.0
    refused: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """As a table shows them."""
        if self.refused:
            return (self.model, str(self.size), "none", self.refused, "", "", f"{self.seconds:.0f}")
        facts = (str(self.size), str(self.cuts), self.way, f"{self.evaluated:.0e}", f"{self.trained:.0e}")
        return (self.model, *facts, f"{self.seconds:.0f}")


def row(model: str) -> Row:
    """Cut one network at the smallest size that it takes."""
    began = time.monotonic()
    refused = Row(model)
    for size in SIZES:
        try:
            network = _lively(make_network(model, CLASSES, size))
            cuts = find_cuts(network, size)
        except InvalidInputError as error:
            refused = Row(model, size, refused=str(error), seconds=time.monotonic() - began)
            continue
        if not cuts:
            return Row(model, size, refused="nowhere does a single tensor cross", seconds=time.monotonic() - began)
        chosen = {cut.node: cut for cut in (cuts[0], cuts[len(cuts) // 2], cuts[-1])}.values()
        apart = [_differences(network, model, cut, size) for cut in chosen]
        worst = [max(of_mode) for of_mode in zip(*apart, strict=True)]
        return Row(model, size, len(cuts), cuts[0].way, worst[0], worst[1], time.monotonic() - began)
    return refused


def compare(models: tuple[str, ...]) -> Table:
    """One row for each network."""
    table = Table(*HEADER, box=None, title="networks and their cuts")
    for line in rows(models):
        table.add_row(*line.cells)
    return table


def rows(models: tuple[str, ...]) -> Iterator[Row]:
    """One for each network."""
    for model in track(models, "networks"):
        yield row(model)


def every() -> tuple[str, ...]:
    """All of torchvision's classification networks, and one of each kind of timm's."""
    return (*names(), *(f"{TIMM}{name}" for name in KINDS))


@torch.no_grad()
def _lively(network: Network) -> Network:
    """Heads and layer scales that start at zero would hide errors."""
    with seeded("lively"):
        for value in network.module.parameters():
            if value.numel() and value.abs().max() < CONCEALED:
                value.normal_(std=0.1)
    return network


@torch.no_grad()
def _differences(network: Network, model: str, cut: Cut, size: int) -> tuple[float, float]:
    with seeded("photos"):
        photos = torch.rand(PHOTOS, 3, size, size)
    normalised = (photos - torch.tensor(network.mean)[:, None, None]) / torch.tensor(network.std)[:, None, None]
    own = make_network(model, CLASSES, size).module
    own.load_state_dict(network.module.state_dict())
    halves = split(network, model, cut.node, size)
    found = []
    for training in (False, True):  # in this order: training moves buffers, and nothing here is used again
        halves.encoder.train(training), halves.tail.train(training)
        with seeded("draws"):
            right = own.train(training)(normalised)
        with seeded("draws"):
            found.append(_apart(halves.tail(halves.encoder(photos)), right))
    return found[0], found[1]


def _apart(value: Tensor, right: Tensor) -> float:
    return float((value - right).abs().max() / right.abs().max())


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    with Path(sys.argv[1]).open("w") as page:
        page.write("| " + " | ".join(HEADER) + " |\n|" + "---|" * len(HEADER) + "\n")
        for line in rows(tuple(sys.argv[2:]) or every()):
            page.write("| " + " | ".join(line.cells) + " |\n")
            page.flush()
