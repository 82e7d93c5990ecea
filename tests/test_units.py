"""Results do not depend on the scale of A: A and y in other units are the same problem."""

import pytest
import torch

from iagan_lightning import DIP, DIPSettings, Stage, reconstruct
from iagan_lightning.generators import BEGAN
from iagan_lightning.methods.units import power
from iagan_lightning.operators import BicubicDownsampling, FourierSensing, Inpainting, LinearOperator, Operator

SHAPE = (3, 16, 16)


class Scaled(LinearOperator):
    """Another operator in other units."""

    def __init__(self, A, scale):
        super().__init__(A.image_shape)
        self.A, self.scale = A, scale

    def forward(self, x):
        return self.A(x) * self.scale

    def pseudo_inverse(self, y, noise_std=0.0):
        return self.A.pseudo_inverse(y / self.scale)

    def held_out(self, share, seed):
        return self.A.held_out(share, seed)

    @property
    def num_measurements(self):
        return self.A.num_measurements


@pytest.fixture
def G():
    return BEGAN(16, 4, 8).eval().double()


def pictures(count, dtype):
    """Pale ones, whose measurements have the usual power."""
    return 0.4 + 0.2 * (torch.rand(count, *SHAPE, dtype=dtype) * 2 - 1)


X4 = BicubicDownsampling(SHAPE, scale=4)
FOURIER = FourierSensing(SHAPE, ratio=0.5, seed=0)
SHORT = {"latent": Stage(steps=10), "joint": Stage(steps=8)}
PLANS = {
    "fast": (X4, SHORT),
    "fourier": (FOURIER, SHORT),
    "paper": (X4, {"preset": "paper", **SHORT}),
    "penalty": (X4, {"latent": Stage(steps=10, penalty="latent", weight=0.02), "joint": Stage(steps=5)}),
    "level unknown": (X4, {"noise_std": None, "latent": Stage(steps=5), "joint": Stage(steps=8, lr_weights=1e-3)}),
    "restarts": (X4, {"latent": Stage(restarts=3, halve=4, steps=10), "joint": Stage("lbfgs", 6)}),
    "dip": (X4, {}),
}


@pytest.mark.parametrize("plan", PLANS)
def test_units_of_a_power_of_two_change_no_bit(G, plan):
    """Of A / 1024 the objective is a millionth, below what tolerances of optimisers take for nothing."""
    operator, settings = PLANS[plan]
    x = pictures(2, torch.float64)
    method = DIP(settings=DIPSettings(steps=3, stop="never")) if plan == "dip" else G
    plain, tiny = (
        reconstruct(A(x), A, method, accelerator="cpu", **settings) for A in (operator, Scaled(operator, 2.0**-10))
    )
    assert plain.evaluations.keys() == tiny.evaluations.keys()
    for fit, count in plain.evaluations.items():
        assert torch.equal(count, tiny.evaluations[fit])
    for fit, misfit in plain.misfit.items():
        assert torch.equal(misfit * 2.0**-20, tiny.misfit[fit])
        assert torch.equal(plain.objective[fit] * 2.0**-20, tiny.objective[fit])
    for name, image in plain.results.items():
        assert torch.allclose(image, tiny.results[name], atol=1e-12, rtol=0)


@pytest.mark.parametrize("scale", [1e-20, 1e5])
def test_float32_of_any_size(tiny, scale):
    """Squares of 1e-20 are nothing in float32; the result is that of A up to what rounding does to a path."""
    x, settings = pictures(1, torch.float32), {"latent": Stage(steps=20), "joint": Stage(steps=20)}
    plain, other = (reconstruct(B(x), B, tiny, accelerator="cpu", **settings) for B in (X4, Scaled(X4, scale)))
    for fit in ("latent", "joint"):
        assert other.misfit[fit].item() / scale**2 == pytest.approx(plain.misfit[fit].item(), rel=0.2)
    assert other.iagan.dtype == torch.float32
    assert torch.allclose(X4(other.iagan_bp), X4(x), atol=1e-4)


def test_a_batch_may_hold_measurements_of_different_sizes(G):
    """An operator that is no multiple: a bright and a faint picture, each as it is alone."""

    class Bright(Operator):
        def forward(self, x):
            return (1 + x).square().square()[..., ::2]

    A = Bright(SHAPE)
    y = A(torch.rand(2, *SHAPE, dtype=torch.float64) * 2 - 1) * torch.tensor([1.0, 1e-4]).reshape(2, 1, 1, 1)
    short = {"latent": Stage(steps=6, stop="never"), "joint": Stage(steps=4, stop="never")}
    both = reconstruct(y, A, G, accelerator="cpu", **short)
    for i in (0, 1):
        alone = reconstruct(y[i, None], A, G, seed=i, accelerator="cpu", **short)
        assert torch.allclose(both.iagan[i], alone.iagan[0], atol=1e-6)


def test_ordinary_measurements_are_in_units_of_one(portraits):
    for A in (BicubicDownsampling((3, 64, 64), scale=16), Inpainting((3, 64, 64), ratio=0.1, seed=0),
              FourierSensing((3, 64, 64), ratio=0.05, seed=0)):  # fmt: skip
        y = A(portraits)
        energy, unit = power(y, A.num_measurements)
        assert unit is None and torch.equal(energy, y.abs().square().flatten(1).sum(1) / A.num_measurements)
    assert power(torch.zeros(2, 3), 3)[1] is None
    units = power(torch.tensor([[1.0], [0.0], [1e-3], [1e-30], [1e30]]), 1)[1]
    assert units[:2].tolist() == [1, 1]
    assert bool((units.log2() % 2 == 0).all()), "powers of four: no digit changes"
