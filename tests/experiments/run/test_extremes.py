"""The ends of the strengths, attacked: the weakest is no defence, the strongest reaches the mean image."""

import json
from pathlib import Path

import pytest
from tiny import HEAD, MEAN, NONE, RIDGE, run_plan

ENDS = {
    "channel_subset": ("keep", 1.0, 0.01),
    "top_k": ("keep", 1.0, 0.001),
    "bottleneck": ("keep", 1.0, 0.01),
    "dropout": ("rate", 0.005, 0.999),
    "gaussian_noise": ("sigma", 0.01, 100.0),
    "laplace_noise": ("scale", 0.01, 100.0),
    "clipped_noise": ("epsilon", 1e6, 0.1),
    "disco": ("rate", 0.01, 0.99),
}
BINARY = '[[defenses]]\nname = "quantisation"\nbits = [16, 1]\n'


@pytest.mark.slow
def test_channels_go_from_no_defence_to_the_floor(tmp_path: Path) -> None:
    swept = "".join(
        f'[[defenses]]\nname = "{name}"\n{field} = {json.dumps(ends)}\n' for name, (field, *ends) in ENDS.items()
    )
    results, _, _ = run_plan(HEAD + NONE + swept + BINARY + MEAN + RIDGE, tmp_path, shared=True)
    assert [result["traceback"] for result in results] == [None] * len(results)
    psnr = {(r["defence"]["label"], r["attack"]["name"]): r["metrics"]["psnr"]["mean"] for r in results}
    floor, undefended = psnr["none", "mean_image"], psnr["none", "ridge"]
    assert undefended > floor + 3
    for name, (field, weakest, strongest) in ENDS.items():
        assert psnr[f"{name} {field}={weakest}", "ridge"] == pytest.approx(undefended, abs=0.2), name
        assert psnr[f"{name} {field}={strongest}", "ridge"] < floor + 0.5, name
    # one bit a value is the least that there is to send, and still a picture
    assert psnr["quantisation bits=16", "ridge"] == pytest.approx(undefended, abs=0.1)
    assert psnr["quantisation bits=1", "ridge"] > floor + 1
