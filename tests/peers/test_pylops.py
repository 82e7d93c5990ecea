"""PyLops takes our operators for its own: its dot test, and its least squares beside our pseudo-inverses."""

import numpy as np
import pytest
import torch
from flat import DAMPED, DAMPING, EXACT, NOISE_STD, SHIPPED, Flat

pylops = pytest.importorskip("pylops", reason="needs pylops: pip install '.[test]'")

pytestmark = pytest.mark.peers


class Wrapped(pylops.LinearOperator):
    """One of our operators as one of PyLops."""

    def __init__(self, A, dtype=torch.float64):
        self.flat = Flat(A, dtype)
        super().__init__(dtype=np.dtype(str(dtype).removeprefix("torch.")), shape=self.flat.shape)

    def _matvec(self, v):
        return self.flat.forward(v)

    def _rmatvec(self, w):
        return self.flat.adjoint(w)


@pytest.fixture(autouse=True)
def _seed():
    np.random.seed(0)  # PyLops draws from NumPy's own


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("name", SHIPPED)
def test_dot_test(name, dtype, error):
    assert pylops.utils.dottest(Wrapped(SHIPPED[name](), dtype), rtol=error, atol=error)


@pytest.mark.parametrize("name", EXACT)
def test_least_squares_from_zero_is_the_pseudo_inverse(name):
    Op = Wrapped(SHIPPED[name]())
    w = np.random.default_rng(1).standard_normal(Op.shape[0])
    x = pylops.optimization.basic.cgls(Op, w, niter=2000, tol=1e-24)[0]
    assert np.allclose(x, Op.flat.inverse(w), atol=1e-7)


@pytest.mark.parametrize("name", DAMPED)
def test_damped_least_squares_is_the_pseudo_inverse_with_noise(name):
    Op = Wrapped(SHIPPED[name]())
    w = np.random.default_rng(1).standard_normal(Op.shape[0])
    x = pylops.optimization.basic.lsqr(Op, w, damp=DAMPING, niter=500, atol=1e-14, btol=1e-14, conlim=0)[0]
    assert np.allclose(x, Op.flat.inverse(w, NOISE_STD), atol=1e-8)


@pytest.mark.parametrize("name", ["bicubic-renormalise", "gaussian", "fourier", "blur-exact", "inpainting", "user"])
def test_chained_with_operators_of_pylops(name):
    """What PyLops makes of ours and its own has an adjoint too: A (I - 0.5 S), stacked upon S, S a shift."""
    Op = Wrapped(SHIPPED[name]())
    shift = pylops.Identity(Op.shape[1]) - 0.5 * pylops.Roll(Op.shape[1], shift=1)
    assert pylops.utils.dottest(pylops.VStack([Op @ shift, shift]), rtol=1e-12, atol=1e-12)
