"""SciPy takes our operators for its own: lsqr, lsmr, cg and svds beside our pseudo-inverses and dense matrices."""

import numpy as np
import pytest
import torch
from flat import DAMPED, DAMPING, EXACT, NOISE_STD, SHIPPED, Flat
from test_operators import dense

linalg = pytest.importorskip("scipy.sparse.linalg", reason="needs scipy: pip install '.[test]'")

pytestmark = pytest.mark.peers


def wrapped(A):
    """One of our operators as one of SciPy's, and itself."""
    flat = Flat(A)
    return linalg.LinearOperator(flat.shape, matvec=flat.forward, rmatvec=flat.adjoint, dtype=np.float64), flat


SOLVERS = {
    "lsqr": lambda L, w, damp: linalg.lsqr(L, w, damp=damp, atol=1e-14, btol=1e-14, conlim=0, iter_lim=2000)[0],
    "lsmr": lambda L, w, damp: linalg.lsmr(L, w, damp=damp, atol=1e-14, btol=1e-14, conlim=0, maxiter=2000)[0],
    "cg": lambda L, w, damp: linalg.cg(L.H @ L + damp**2 * linalg.aslinearoperator(np.eye(L.shape[1])), L.H @ w,
                                       rtol=1e-13, maxiter=2000)[0],
}  # fmt: skip


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", EXACT)
def test_least_squares_from_zero_is_the_pseudo_inverse(name, solver):
    L, flat = wrapped(SHIPPED[name]())
    w = np.random.default_rng(1).standard_normal(L.shape[0])
    assert np.allclose(SOLVERS[solver](L, w, 0.0), flat.inverse(w), atol=1e-7)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", DAMPED)
def test_damped_least_squares_is_the_pseudo_inverse_with_noise(name, solver):
    L, flat = wrapped(SHIPPED[name]())
    w = np.random.default_rng(1).standard_normal(L.shape[0])
    assert np.allclose(SOLVERS[solver](L, w, DAMPING), flat.inverse(w, NOISE_STD), atol=1e-8)


@pytest.mark.parametrize("name", SHIPPED)
def test_largest_singular_values(name):
    """From A and A^T alone they are among those of the matrix that A makes of all unit images, the largest first."""
    A = SHIPPED[name]()
    L, _ = wrapped(A)
    expected = torch.linalg.svdvals(dense(A)).numpy()
    if len(expected) < 3:
        pytest.skip("too small for svds")
    start = np.random.default_rng(1).standard_normal(min(L.shape))
    found = np.sort(linalg.svds(L, k=2, v0=start, return_singular_vectors=False))[::-1]
    assert np.isclose(found[0], expected[0], rtol=1e-6)
    assert np.abs(expected - found[1]).min() < 1e-6 * expected[0]  # of equal ones ARPACK need not find each
