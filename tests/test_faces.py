"""Claims about quality, on the public weights and real faces."""

import json
import math

import pytest
import torch

from iagan_lightning.cli import main
from iagan_lightning.data.images import read_image
from iagan_lightning.operators import FourierSensing
from iagan_lightning.paper import published_figures


def run(shared, out, *arguments):
    faces, weights = shared / "data" / "faces128-test", shared / "weights" / "began64-celeba.pth"
    command = f"super-resolution --data.root {faces} --data.size 64 --data.limit 4 --model.generator {weights}"
    options = f"--operator.scale 4 --operator.padding zero --lpips squeeze --out {out}"
    status = main([*command.split(), *options.split(), *arguments])
    assert status == 0
    methods = json.loads((out / "summary.json").read_text())["methods"]
    return {
        method: {key: table[key]["mean"] for key in ("psnr", "lpips_squeeze", "residual")}
        for method, table in methods.items()
    }


@pytest.mark.slow
def test_noiseless(shared, tmp_path):
    mean = run(shared, tmp_path)
    assert mean["csgm"]["psnr"] < mean["csgm_bp"]["psnr"]
    assert mean["iagan_bp"]["psnr"] > mean["naive"]["psnr"] + 0.8
    assert mean["iagan_bp"]["lpips_squeeze"] < mean["naive"]["lpips_squeeze"] / 2
    assert mean["iagan"]["lpips_squeeze"] < min(mean[method]["lpips_squeeze"] for method in ("csgm", "csgm_bp"))
    assert mean["iagan_bp"]["residual"] < 1e-5
    # The plain bicubic row is a golden number: wrong crops, ranges or borders would move it.
    assert mean["naive"]["psnr"] == pytest.approx(22.82, abs=0.01)


@pytest.mark.slow
def test_noisy(shared, tmp_path):
    mean = run(shared, tmp_path, "--noise_std", "10/255")
    assert mean["iagan"]["psnr"] > mean["csgm"]["psnr"] + 1
    assert mean["iagan"]["lpips_squeeze"] < mean["csgm"]["lpips_squeeze"]
    assert mean["iagan"]["psnr"] > mean["naive"]["psnr"] - 0.5


@pytest.mark.slow
@pytest.mark.parametrize("task", ["super-resolution", "super-resolution --noise_std 10/255"])
def test_results_do_not_depend_on_how_many_go_side_by_side(tmp_path, task):
    """L-BFGS amplifies rounding, so not to the last bit; the bundled portraits and prior, the whole fast preset."""
    psnr = {}
    for images in (1, 2):
        out = tmp_path / str(images)
        options = f"--data.images_per_fit {images} --trainer.accelerator cpu --lpips none --tensorboard 0 --out {out}"
        assert main([*task.split(), *options.split()]) == 0
        records = [json.loads(path.read_text()) for path in sorted(out.rglob("metrics.json"))]
        psnr[images] = [record["methods"]["iagan"]["psnr"] for record in records]
    assert psnr[2] == pytest.approx(psnr[1], abs=0.05)


@pytest.mark.slow
def test_masks_of_the_published_difficulty_are_as_hard_as_published(shared):
    x = torch.stack([read_image(face) for face in sorted((shared / "data" / "faces128-test").iterdir())])
    for ratio in (0.3, 0.5):
        published, _ = published_figures("1", "CelebA")[f"fourier-{ratio}", "naive"]
        mse = []
        for seed in range(8):
            A = FourierSensing((3, 128, 128), ratio=ratio, seed=seed, design="published-difficulty")
            naive = A.naive(A.measure(x, 10 / 255, seed=0)).clamp(-1, 1)
            mse.append(float((naive - x).square().mean() / 4))
        assert -10 * math.log10(sum(mse) / 8) == pytest.approx(published, abs=0.3)
