"""deepinv takes our operators for physics of its own, and holds them to its identities."""

import pytest
import torch
from flat import DAMPED, DAMPING, EXACT, NOISE_STD, SHIPPED
from test_operators import dense, images, inner

physics = pytest.importorskip("deepinv.physics", reason="needs deepinv: pip install '.[test]'")

pytestmark = pytest.mark.peers


def wrapped(A):
    """One of our operators as a physics; complex measurements as pairs of real numbers."""
    forward, adjoint = A, A.adjoint
    if A.complex_valued:
        forward = lambda x: torch.view_as_real(A(x))  # noqa: E731
        adjoint = lambda y: A.adjoint(torch.view_as_complex(y.contiguous()))  # noqa: E731
    return physics.LinearPhysics(
        A=lambda x, **_: forward(x), A_adjoint=lambda y, **_: adjoint(y), img_size=A.image_shape,
        implicit_backward_solver=False,
    )  # fmt: skip


@pytest.fixture(params=SHIPPED)
def A(request):
    return SHIPPED[request.param]()


def test_adjointness(A):
    assert wrapped(A).adjointness_test(images(A), num_samples=4) < 1e-12


def test_norm(A):
    """deepinv's power iteration gives the largest singular value, squared."""
    norm = wrapped(A).compute_sqnorm(images(A, 1), max_iter=2000, tol=1e-6, verbose=False)
    assert float(norm) == pytest.approx(float(torch.linalg.matrix_norm(dense(A), 2)) ** 2, rel=1e-2)


def test_vector_jacobian_product(A):
    P, x = wrapped(A), images(A)
    v = P.A(images(A))
    assert torch.allclose(P.A_vjp(x, v), P.A_adjoint(v), atol=1e-12)
    by_autograd = physics.Physics(A=P.A).A_vjp(x, v)
    assert torch.allclose(by_autograd, P.A_adjoint(v), atol=1e-12)


def test_gram_operators_are_symmetric_and_positive(A):
    P, x, other = wrapped(A), images(A, 1), images(A, 1)
    y, beyond = P.A(x), P.A(other)
    assert torch.allclose(inner(P.A_adjoint_A(x), other), inner(x, P.A_adjoint_A(other)), atol=1e-10)
    assert torch.allclose(inner(P.A_A_adjoint(y), beyond), inner(y, P.A_A_adjoint(beyond)), atol=1e-10)
    assert torch.allclose(inner(P.A_adjoint_A(x), x), y.square().sum(), rtol=1e-10)


@pytest.mark.parametrize("name", EXACT)
def test_its_pseudo_inverse_is_ours(name):
    A = SHIPPED[name]()
    y = A(images(A, 1))
    given = torch.view_as_real(y) if y.is_complex() else y
    x = wrapped(A).A_dagger(given, solver="lsqr", max_iter=2000, tol=1e-12)
    assert torch.allclose(x, A.pseudo_inverse(y), atol=1e-6)


@pytest.mark.parametrize("name", DAMPED)
def test_its_proximal_step_is_our_damped_inverse(name):
    """min |A x - y|^2 / 2 + |x - z|^2 / (2 gamma) at z = 0 is damped by 1 / gamma."""
    A = SHIPPED[name]()
    y = A(images(A, 1))
    x = wrapped(A).prox_l2(torch.zeros_like(y), y, gamma=1 / DAMPING**2, solver="lsqr", max_iter=2000, tol=1e-12)
    assert torch.allclose(x, A.pseudo_inverse(y, NOISE_STD), atol=1e-6)
