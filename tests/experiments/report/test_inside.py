"""Inside an attack: the maps that were sent, the stages of a decoder, and the figure of both."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import DECODER, HEAD, NOISE, NONE, RIDGE, run_plan
from torch import Tensor

from splitleak.attacks.base import Reconstruction, Staged
from splitleak.attacks.checks import check_attack
from splitleak.attacks.decoder import Decoder
from splitleak.attacks.inverse_network import InverseNetwork
from splitleak.attacks.knowledge import BlackBox
from splitleak.attacks.networks.seed import TRANSPOSE_LAYERS, transpose_decoder, upsample_decoder
from splitleak.attacks.networks.staged import StagedDecoder
from splitleak.attacks.toy import toy_knowledge
from splitleak.experiments.report.figures import inside_figure
from splitleak.experiments.results.load import load_results
from splitleak.experiments.results.results import Results
from splitleak.experiments.stages.inside import MAPS, active_maps, components, stage_pictures

INVERSE = '[[attacks]]\nname = "inverse_network"\nepochs = 1\n'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("inside")
    results, _, _ = run_plan(HEAD + NONE + NOISE + RIDGE + DECODER + INVERSE, folder, shared=True)
    return folder / "runs" / "tiny", results


def loaded(run: tuple[Path, list[dict[str, Any]]]) -> Results:
    folder, results = run
    return load_results(folder, [result["id"] for result in results])


@pytest.mark.parametrize("attack", [Decoder(width=16, epochs=1), InverseNetwork(epochs=1)])
def test_stages_end_in_the_answer_and_leave_no_hook(attack: Reconstruction[BlackBox]) -> None:
    knows, _ = toy_knowledge(attack)
    assert isinstance(knows, BlackBox)
    answer = attack.fit(knows)
    assert isinstance(answer, StagedDecoder)
    with torch.no_grad():
        stages = answer.stages(knows.intercepted)
        assert torch.equal(stages[-1], answer(knows.intercepted))
    assert len(stages) > 1
    assert not any(layer._forward_hooks for layer in answer.network.modules())


@pytest.mark.parametrize("depth", TRANSPOSE_LAYERS)
def test_each_transposed_convolution_is_a_stage(depth: str) -> None:
    network = transpose_decoder(8, depth).eval()
    stages = StagedDecoder(network, network, lambda output: output).stages(torch.rand(2, 8, 2, 2))
    assert [stage.shape[1] for stage in stages] == [width for width, _ in TRANSPOSE_LAYERS[depth]]
    assert stages[-1].shape == (2, 3, 32, 32)


def test_each_upsampling_is_a_stage() -> None:
    network = upsample_decoder(8).eval()
    stages = StagedDecoder(network, network, lambda output: output).stages(torch.rand(2, 8, 2, 2))
    assert [tuple(stage.shape[1:]) for stage in stages] == [
        (112, 2, 2),
        (480, 4, 4),
        (80, 8, 8),
        (16, 16, 16),
        (3, 32, 32),
    ]


class _Boasting(Reconstruction[BlackBox]):
    """Shows stages that are not its own."""

    paper: ClassVar[str] = "a test's"

    def fit(self, knows: BlackBox) -> Staged:
        decode = Decoder(width=16, epochs=4).fit(knows)

        class Boaster(Staged):
            def __call__(self, release: Tensor) -> Tensor:
                return decode(release)

            def stages(self, release: Tensor) -> list[Tensor]:
                return [release, 1 - decode(release)]

        return Boaster()


def test_the_contract_notices_stages_of_another_answer() -> None:
    assert any("shows its stages truly" in problem for problem in check_attack(_Boasting()))


def test_the_most_active_maps_are_shown() -> None:
    release = torch.rand(1, 1, 4, 4).expand(1, 100, 4, 4) * torch.arange(100.0)[:, None, None]
    shown = active_maps(release)
    assert shown.shape == (MAPS, 4, 4)
    assert shown.dtype == torch.uint8
    assert (shown.amax((1, 2)) == 255).all()
    few = torch.stack([torch.eye(3), 5 * torch.eye(3).flip(1), torch.zeros(3, 3)])
    assert torch.equal(active_maps(few[None])[:2], 255 * (few[:2] > 0).byte())
    still = torch.cat([torch.zeros(MAPS, 3, 3), few[:2]])[None]  # the last two move
    assert torch.equal(active_maps(still)[-2:], 255 * (few[:2] > 0).byte())


def test_maps_that_vary_alike_keep_their_places() -> None:
    """Stored releases are rounded to half precision, which must not reorder what is shown."""
    pattern = torch.rand(4, 4, dtype=torch.float64)
    alike = torch.stack([pattern, pattern.flip(0)])
    for first, second in ((1, 1 + 1e-4), (1 + 1e-4, 1)):
        release = alike * torch.tensor([first, second])[:, None, None]
        assert (active_maps(release[None]).int() - active_maps(alike[None]).int()).abs().max() <= 1


def test_components_show_what_varies_most() -> None:
    pattern = torch.linspace(-1, 1, 16).view(1, 1, 4, 4)
    maps = torch.cat([pattern, -2 * pattern, torch.zeros(1, 3, 4, 4)], 1)
    picture = components(maps)
    # the heaviest weight counts as positive: that of the second map
    assert torch.equal(picture[0, 0].flatten().argsort(), torch.arange(15, -1, -1))
    assert picture[:, 1:] == pytest.approx(0.5, abs=1e-6)
    assert components(torch.zeros(1, 2, 4, 4)) == pytest.approx(0.5)


def test_the_last_picture_is_the_answer() -> None:
    answer = torch.rand(1, 3, 8, 8)
    pictures = stage_pictures([torch.rand(1, 5, 2, 2), answer])
    assert pictures.shape == (2, 3, 8, 8)
    assert torch.equal(pictures[1], (255 * answer[0]).round().byte())


def test_a_run_keeps_the_inside_of_its_decoders(run: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, results = run
    for result in results:
        maps, stages = (folder / "cells" / f"{result['id']}.{kind}.png" for kind in ("maps", "stages"))
        if result["attack"]["name"] not in ("decoder", "inverse_network"):
            assert result.get("inside") is None
            assert not maps.exists()
            continue
        count = len(result["inside"]["stages"])
        strip = np.asarray(Image.open(stages))
        assert strip.shape == (32, 32 * count, 3)
        first = np.asarray(Image.open(folder / "cells" / f"{result['id']}.png"))[:, :32].astype(int)
        assert abs(strip[:, -32:].astype(int) - first).max() <= 1  # batches of another size round otherwise
        channels, rows, columns = result["inside"]["release"]
        shown = min(MAPS, channels)
        assert Image.open(maps).size == (8 * (columns + 1) + 1, -(-shown // 8) * (rows + 1) + 1)


def test_a_cell_keeps_the_training_of_victim_and_defence(run: tuple[Path, list[dict[str, Any]]]) -> None:
    for cell in loaded(run).cells:
        assert [len(cell.training[name]) for name in ("victim", "defence")] == [1, 1]


@pytest.mark.parametrize("defence", ["none", "gaussian_noise sigma=0.5"])
def test_the_figure_shows_maps_and_each_decoder(run: tuple[Path, list[dict[str, Any]]], defence: str) -> None:
    results = loaded(run)
    row = next(row for row in results.rows if row.defence.label == defence)
    figure = inside_figure(run[0], results, row)
    assert figure is not None
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.images]
    assert titles[0] == "the photo"
    assert titles[1].startswith("the most active maps of ")
    assert titles.count("answer") == 2


def test_without_decoders_there_is_no_figure(run: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, cells = run
    linear = load_results(folder, [cell["id"] for cell in cells if cell["attack"]["name"] == "ridge"])
    assert linear.undefended
    assert inside_figure(folder, linear, linear.undefended) is None
