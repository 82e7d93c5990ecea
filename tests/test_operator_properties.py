"""Properties of operators over drawn shapes, precisions, scales and masks: a list of cases has its blind spots."""

from typing import get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_operators import inner

from iagan_lightning.operators import (
    BicubicDownsampling,
    Blur,
    Composition,
    FourierSensing,
    GaussianSensing,
    Grayscale,
    Identity,
    Inpainting,
    LinearOperator,
    Similarity,
)
from iagan_lightning.operators.fourier import Design

# The same examples in every run: a failure here is a change in the code, not luck.
settings.register_profile(
    "operators",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
PROFILE = settings.get_profile("operators")
PADDINGS = st.sampled_from(["zero", "reflect", "replicate", "circular"])
EXACT = {torch.float64: 1e-9, torch.float32: 1e-4}


class Strided(LinearOperator):
    """A user's operator: forward alone, inverted by conjugate gradients."""

    def __init__(self, image_shape, step, turn):
        super().__init__(image_shape)
        self.step, self.turn = step, turn

    def forward(self, x):
        return (x + 0.3 * x.roll(self.turn, -1))[..., :: self.step, :]


@st.composite
def shapes(draw):
    side = st.integers(1, 12)
    return draw(st.sampled_from([1, 3])), draw(side), draw(side)


@st.composite
def masks(draw, shape):
    size = draw(st.sampled_from([shape[1:], shape]))
    return torch.rand(size, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))) > 0.6


@st.composite
def bicubic(draw, shape):
    size = tuple(draw(st.integers(1, n)) for n in shape[1:])
    return BicubicDownsampling(shape, size=size, padding=draw(st.sampled_from(["renormalise"]) | PADDINGS))


@st.composite
def scaled(draw, shape):
    scale = draw(st.integers(2, 3))
    shape = shape[0], shape[1] * scale, shape[2] * scale
    return BicubicDownsampling(shape, scale=scale, padding=draw(PADDINGS))


@st.composite
def gaussian(draw, shape):
    design = draw(st.sampled_from(["dense", "dct"]))
    return GaussianSensing(
        shape, ratio=draw(st.sampled_from([0.1, 0.5, 0.7])), seed=draw(st.integers(0, 9)), design=design
    )


@st.composite
def fourier(draw, shape):
    if draw(st.booleans()):
        mask = draw(masks(shape))
        mask = mask if mask.ndim == 2 else mask[0]
        mask[0, 0] = True
        return FourierSensing(shape, mask=mask)
    ratio, design = draw(st.sampled_from([0.2, 0.5, 1.0])), draw(st.sampled_from(get_args(Design)))
    return FourierSensing(shape, ratio=ratio, seed=draw(st.integers(0, 9)), design=design)


@st.composite
def blur(draw, shape):
    line = torch.tensor([0.1, 0.75, 0.15], dtype=torch.float64)  # no frequency far below the others
    kernel = torch.outer(line[: min(3, shape[1])], line[: min(3, shape[2])])
    return Blur(shape, kernel=kernel, padding=draw(PADDINGS), truncation=0.0)


@st.composite
def inpainting(draw, shape):
    mask = draw(masks(shape))
    mask.view(-1)[0] = True
    return Inpainting(shape, mask=mask)


@st.composite
def own(draw, shape):
    return Strided(shape, step=draw(st.integers(1, 3)), turn=draw(st.integers(0, 2)))


@st.composite
def composed(draw, shape):
    first = draw(blur(shape))
    return Composition(shape, [first, draw(bicubic(shape))])


@st.composite
def similarity(draw, shape):
    shape = shape[0], shape[1] + 8, shape[2] + 8
    finer = draw(st.floats(1.4, 3.0))  # pixels of the photograph that are finer than the image's hardly differ
    return Similarity(
        shape, size=(9, 9), side=shape[2] / finer, centre=(4.2, 3.9), angle=draw(st.floats(-180.0, 180.0))
    )


KINDS = {
    "bicubic": bicubic,
    "scaled": scaled,
    "gaussian": gaussian,
    "fourier": fourier,
    "blur": blur,
    "inpainting": inpainting,
    "grayscale": lambda shape: st.just(Grayscale(shape)),
    "identity": lambda shape: st.just(Identity(shape)),
    "similarity": similarity,
    "own": own,
    "composition": composed,
}


@pytest.mark.parametrize("kind", KINDS)
@PROFILE
@given(
    data=st.data(),
    shape=shapes(),
    dtype=st.sampled_from(list(EXACT)),
    scale=st.sampled_from([1.0, 1e-3, 1e3]),
    seed=st.integers(0, 99),
)
def test_operators(kind, data, shape, dtype, scale, seed):
    A = data.draw(KINDS[kind](shape), label="A")
    random, error = torch.Generator().manual_seed(seed), EXACT[dtype]

    def draw():
        return scale * (torch.rand(3, *A.image_shape, generator=random, dtype=torch.float64).to(dtype) * 2 - 1)

    def close(p, q):
        return (p - q).norm() <= error * max(p.norm(), q.norm(), scale)

    def equal(p, q, *factors):
        return abs(p - q) <= error * max(factors[0].norm() * factors[1].norm(), scale**2)

    a, b, x = draw(), draw(), draw()
    y, other = A(a), A(b)
    assert y.dtype in (dtype, dtype.to_complex()) and A.adjoint(y).dtype == dtype
    assert close(A(2 * a - 3 * b), 2 * y - 3 * other)
    assert equal(inner(y, other), inner(a, A.adjoint(other)), y, other)

    inverse = A.pseudo_inverse
    beyond = A.measured(y + scale * torch.rand(y.shape, generator=random, dtype=torch.float64).to(dtype))
    assert close(A(inverse(y)), y)
    assert close(inverse(A(inverse(beyond))), inverse(beyond))
    assert equal(inner(A(inverse(beyond)), other), inner(beyond, A(inverse(other))), beyond, other)
    assert equal(inner(inverse(y), b), inner(a, inverse(other)), a, b)

    for i in range(3):
        one = slice(i, i + 1)
        assert close(A(a[one]), y[one])
        assert close(A.adjoint(y[one]), A.adjoint(y)[one])
        assert close(inverse(beyond[one]), inverse(beyond)[one])

    bp = A.back_project(x, y)
    assert close(A(bp), y)
    assert close(A.back_project(bp, y), bp)
