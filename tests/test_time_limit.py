"""A limit of seconds: what fits in is done, the best so far is the result."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from iagan_lightning.callbacks import BackProjection, BestObjective, StageStopping, TimeLimit, ViewMean
from torch import Tensor

from iagan_lightning import IAGAN, Stage, adapt, reconstruct
from iagan_lightning.cli import main
from iagan_lightning.data.images import to_pillow
from iagan_lightning.generators import BEGAN, Generator, save_generator
from iagan_lightning.methods.trainers import quiet_trainer
from iagan_lightning.operators import BicubicDownsampling
from iagan_lightning.results.files import read_json

SHAPE = (3, 16, 16)
STAGES = {"latent": Stage("adam", 20, lr=0.05, stop="never"), "joint": Stage("adam", 20, stop="never")}


class Clock(pl.Callback):
    """A clock that goes on by one second with every evaluation."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def on_before_zero_grad(self, *_: Any) -> None:
        self.now += 1.0


@pytest.fixture
def G() -> Generator:
    torch.manual_seed(0)
    return BEGAN(16, 4, 8)


@pytest.fixture
def truth() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3)) - 0.5


def made(G: Generator, truth: Tensor, seconds: float, views: int) -> IAGAN:
    A, clock = BicubicDownsampling(SHAPE, scale=4), Clock()
    module = IAGAN(G, **STAGES)
    module.begin(A(truth), A, views=views)
    callbacks = [clock, BestObjective(), StageStopping(), BackProjection(), ViewMean(), TimeLimit(seconds, clock)]
    return adapt(module, quiet_trainer(accelerator="cpu", callbacks=callbacks))


def counts(module: IAGAN) -> dict[str, int]:
    return {fit: int(spent[0]) for fit, spent in module.evaluations.items()}


def test_each_fit_has_its_part_and_the_last_one_the_rest(G: Generator, truth: Tensor) -> None:
    assert counts(made(G, truth, 20, 1)) == {"latent": 10, "joint": 10}
    assert counts(made(G, truth, 12, 1)) == {"latent": 6, "joint": 6}
    assert counts(made(G, truth, 30, 1)) == {"latent": 15, "joint": 15}
    assert counts(made(G, truth, 70, 1)) == {"latent": 20, "joint": 20}


def test_views_are_made_while_there_is_time_for_them(G: Generator, truth: Tensor) -> None:
    two = {"latent": 20, "joint": 20, "latent-mirror": 20, "joint-mirror": 20}
    assert counts(made(G, truth, 81, 4)) == two
    assert counts(made(G, truth, 1000, 2)) == two
    alone = made(G, truth, 79, 4)
    assert counts(alone) == {"latent": 20, "joint": 20}
    assert alone.views == ("identity",) and alone.final == "iagan" and "iagan_mean" not in alone.results
    both = made(G, truth, 100, 4)
    assert both.views == ("identity", "mirror") and both.final == "iagan_mean"
    assert both.titles["iagan_mean"] == "IAGAN, 2 views"


def test_too_short_a_time_still_gives_an_exact_picture(G: Generator, truth: Tensor) -> None:
    A = BicubicDownsampling(SHAPE, scale=4)
    result = reconstruct(A(truth), A, G, time=1e-6, views=2, accelerator="cpu", **STAGES)
    assert {fit: spent.tolist() for fit, spent in result.evaluations.items()} == {"latent": [1, 1], "joint": [1, 1]}
    torch.testing.assert_close(A(result.iagan_bp), A(truth), atol=1e-5, rtol=0)


def test_what_takes_less_is_what_it_is_without_a_limit(G: Generator, truth: Tensor) -> None:
    A = BicubicDownsampling(SHAPE, scale=4)
    limited = reconstruct(A(truth), A, G, time=3600.0, views=2, accelerator="cpu", **STAGES)
    free = reconstruct(A(truth), A, G, views=2, accelerator="cpu", **STAGES)
    assert torch.equal(limited.iagan_mean, free.iagan_mean)


def test_every_image_of_a_run_has_the_time(G: Generator, truth: Tensor) -> None:
    """A limit counts from the first fit of an image, not from the first image."""
    A, clock = BicubicDownsampling(SHAPE, scale=4), Clock()
    limit, module = TimeLimit(12, clock), IAGAN(G, **STAGES)
    for _ in range(2):
        module.begin(A(truth), A)
        adapt(module, quiet_trainer(accelerator="cpu", callbacks=[clock, BestObjective(), StageStopping(), limit]))
        assert counts(module) == {"latent": 6, "joint": 6}


def test_the_option(tmp_path, G: Generator, truth: Tensor, capsys) -> None:
    (tmp_path / "faces").mkdir()
    to_pillow(truth[0]).save(tmp_path / "faces" / "a.png")
    save_generator(G, tmp_path / "own.safetensors")
    words = [
        "denoising",
        "--data.root",
        str(tmp_path / "faces"),
        "--model.generator",
        str(tmp_path / "own.safetensors"),
    ]
    words += ["--lpips", "none", "--trainer.accelerator", "cpu", "--out", str(tmp_path / "out")]
    assert main([*words, "--time", "1e-6"]) == 0
    assert read_json(tmp_path / "out/images/a/metrics.json")["evaluations"] == {"latent": 1, "joint": 1}
    assert main(words) == 2 and "time was 1e-06, now None" in capsys.readouterr().err
    assert main([*words, "--time", "0"]) == 2
    assert "time is a number of seconds above 0; 0.0 was given" in capsys.readouterr().err
