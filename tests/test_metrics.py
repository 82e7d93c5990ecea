"""Metrics beside published values."""

import pytest
import torch

from iagan_lightning.data import ImageData
from iagan_lightning.operators import Identity
from iagan_lightning.results.metrics import evaluate


def test_lpips_is_the_published_one(shared):
    """Images in [-1, 1], the range that decides: the values of the example in torchmetrics' documentation."""
    random = torch.Generator().manual_seed(42)
    a, b = (torch.rand(2, 3, 100, 100, generator=random) * 2 - 1 for _ in range(2))
    rows = evaluate(a, a, Identity((3, 100, 100)), truth=b, lpips="squeeze")
    assert [row["lpips_squeeze"] for row in rows] == pytest.approx([0.1024, 0.0938], abs=5e-5)


def test_images_of_a_run_draw_different_numbers(portraits, tmp_path):
    """Starting latents and noise come from each picture's name."""
    samples = ImageData().samples(0, (3, 64, 64))
    assert len({sample.seed for sample in samples}) == len(samples) == 2
    read = [ImageData().read(sample, (3, 64, 64), Identity, 0.1) for sample in samples]
    noise = [measured.y - measured.truth for measured in read]
    assert abs(torch.corrcoef(torch.stack([n.flatten() for n in noise]))[0, 1]) < 0.05
