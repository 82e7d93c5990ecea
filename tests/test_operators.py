"""One set of properties for all operators; a new operator joins by one line in OPERATORS."""

import pytest
import torch
import torch.nn.functional as F

from iagan_lightning.operators import BicubicDownsampling, LinearOperator


class Shear(LinearOperator):
    """A user's operator: forward alone."""

    def forward(self, x):
        return x[..., ::2, :] + 0.5 * x[..., 1::2, :].roll(1, -1)


class ComplexRows(LinearOperator):
    """A user's operator with complex measurements."""

    def forward(self, x):
        return torch.fft.fft(x, norm="ortho")[..., ::2, :]


OPERATORS = {
    **{f"bicubic-{padding}": lambda p=padding: BicubicDownsampling((3, 16, 24), scale=4, padding=p)
       for padding in ("renormalise", "zero", "reflect", "replicate", "circular")},
    "bicubic-odd": lambda: BicubicDownsampling((3, 15, 9), scale=3),
    "bicubic-grey": lambda: BicubicDownsampling((1, 16, 16), scale=8, padding="zero"),
    "bicubic-size": lambda: BicubicDownsampling((3, 17, 21), size=(7, 20)),
    "bicubic-identity": lambda: BicubicDownsampling((3, 8, 8), scale=1),
    "bicubic-tiny-reflect": lambda: BicubicDownsampling((1, 8, 8), scale=8, padding="reflect"),
    "user": lambda: Shear((2, 8, 6)),
    "user-complex": lambda: ComplexRows((1, 6, 5)),
}  # fmt: skip


@pytest.fixture(params=OPERATORS)
def A(request):
    return OPERATORS[request.param]()


def images(A, batch=2, dtype=torch.float64):
    return torch.rand(batch, *A.image_shape, dtype=dtype) * 2 - 1


def dense(A):
    """The matrix of A, real and imaginary parts below each other."""
    n = torch.Size(A.image_shape).numel()
    columns = A(torch.eye(n, dtype=torch.float64).reshape(n, *A.image_shape)).flatten(1)
    return (torch.view_as_real(columns).flatten(1) if columns.is_complex() else columns).T


def real(y):
    return torch.view_as_real(y).flatten(1) if y.is_complex() else y.flatten(1)


def inner(a, b):
    return (a.conj() * b).real.sum()


def test_adjoint(A):
    x = images(A)
    y = A(images(A))
    left, right = inner(A(x), y), inner(x, A.adjoint(y))
    assert abs(left - right) < 1e-12 * A(x).norm() * y.norm()


def test_shapes(A):
    y = A(images(A, 3))
    assert y.shape == (3, *A.measurement_shape)
    assert A.num_measurements == y[0].numel()
    for back in (A.adjoint(y), A.pseudo_inverse(y), A.naive(y)):
        assert back.shape == (3, *A.image_shape)
        assert not back.is_complex()


def test_linear(A):
    a, b = images(A), images(A)
    assert torch.allclose(A(2 * a - 3 * b), 2 * A(a) - 3 * A(b), atol=1e-13)


def test_moore_penrose(A):
    x, y = images(A), A(images(A)) + A(images(A)).roll(1, 0)
    y = y + torch.randn_like(y)
    inverse = A.pseudo_inverse
    assert torch.allclose(A(inverse(A(x))), A(x), atol=1e-10)
    assert torch.allclose(inverse(A(inverse(y))), inverse(y), atol=1e-10)
    other, y2 = images(A), torch.randn_like(y)
    # A A^+ and A^+ A are symmetric.
    assert abs(inner(A(inverse(y)), y2) - inner(y, A(inverse(y2)))) < 1e-10 * y.numel()
    assert abs(inner(inverse(A(x)), other) - inner(x, inverse(A(other)))) < 1e-10 * x.numel()


def test_pseudo_inverse_is_that_of_the_dense_matrix(A):
    y = A(images(A)) + 0.1 * torch.randn_like(A(images(A)))
    expected = (torch.linalg.pinv(dense(A)) @ real(y).T).T.reshape(-1, *A.image_shape)
    assert torch.allclose(A.pseudo_inverse(y), expected, atol=1e-9)


def test_gradient(A):
    x, y = images(A).requires_grad_(), A(images(A))
    (A(x) - y).abs().square().sum().backward()
    assert torch.allclose(x.grad, 2 * A.adjoint(A(x) - y), atol=1e-12)


def test_batch_is_loop(A):
    x = images(A, 3)
    y = A(x)
    for i in range(3):
        assert torch.allclose(A(x[i : i + 1])[0], y[i], atol=1e-14)
        assert torch.allclose(A.pseudo_inverse(y[i : i + 1])[0], A.pseudo_inverse(y)[i], atol=1e-10)


def test_back_projection(A):
    truth, x = images(A), images(A)
    y = A(truth)
    bp = A.back_project(x, y)
    null = lambda v: v - A.pseudo_inverse(A(v))  # noqa: E731
    assert torch.allclose(A(bp), y, atol=1e-9)
    assert torch.allclose(null(bp), null(x), atol=1e-9)
    assert torch.allclose(A.back_project(bp, y), bp, atol=1e-9)


def test_float32_residual_after_back_projection():
    A = BicubicDownsampling((3, 128, 128), scale=4, padding="zero")
    y = A(images(A, dtype=torch.float32))
    bp = A.back_project(images(A, dtype=torch.float32), y)
    assert (A(bp) - y).norm() < 1e-6 * y.norm()


@pytest.mark.parametrize("cast", [torch.float16, torch.float32])
def test_constants_survive_casts_of_the_module(cast):
    A = BicubicDownsampling((1, 12, 12), scale=3)
    x = images(A)
    before = A(x)
    assert torch.equal(A.to(cast).to(torch.float64)(x), before)


def test_half_precision_never_reaches_the_operator():
    A = BicubicDownsampling((3, 16, 16), scale=4)
    x = images(A, dtype=torch.float32).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = A(x)
    assert y.dtype == torch.float32
    assert torch.equal(y, A(x.float()))


def test_state_dict_round_trip():
    A, B = (BicubicDownsampling((1, 12, 12), scale=3, padding=p) for p in ("zero", "circular"))
    x = images(A)
    B(x)  # fills the cache of cast constants, which loading must empty
    B.load_state_dict(A.state_dict())
    assert torch.equal(A(x), B(x))


# Independent references ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 12), (8, 6), (37, 41), (64, 48), (1, 1)])
def test_renormalise_is_antialiased_interpolation(size):
    A = BicubicDownsampling((3, 64, 48), size=size)
    x = images(A)
    assert torch.allclose(A(x), F.interpolate(x, size=size, mode="bicubic", antialias=True), atol=1e-12)


@pytest.mark.parametrize("s", [2, 4, 8])
def test_zero_padding_is_deepinv_on_a_padded_image(s):
    physics = pytest.importorskip("deepinv").physics
    A = BicubicDownsampling((3, 64, 48), scale=s, padding="zero")
    reference = physics.Downsampling(
        img_size=(3, 64 + 3 * s, 48 + 3 * s), filter="bicubic", factor=s, padding="valid"
    ).double()
    x = images(A)
    assert torch.allclose(A(x), reference(F.pad(x, [3 * s // 2] * 4)), atol=1e-12)


@pytest.mark.parametrize("padding", ["reflect", "replicate", "circular"])
def test_other_paddings_are_those_of_torch(padding):
    A = BicubicDownsampling((3, 64, 48), scale=4, padding=padding)
    large = BicubicDownsampling((3, 128, 112), scale=4, padding="zero")
    x = images(A)
    assert torch.allclose(A(x), large(F.pad(x, [32] * 4, mode=padding))[..., 8:-8, 8:-8], atol=1e-13)


# Noise -----------------------------------------------------------------------------------------------------------


def test_noise_level_is_on_the_unit_scale_and_independent_of_the_batch():
    A = BicubicDownsampling((3, 64, 64), scale=1)
    x = torch.zeros(3, 3, 64, 64, dtype=torch.float64)
    y = A.measure(x, noise_std=10 / 255, seed=5)
    assert y.std().item() == pytest.approx(20 / 255, rel=0.01)
    assert torch.equal(A.measure(x[1:2], noise_std=10 / 255, seed=6)[0], y[1])
    assert torch.equal(A.measure(x, noise_std=10 / 255, seed=[5, 6, 7]), y)
    assert torch.equal(A.measure(x), A(x))


def test_complex_noise_is_independent_on_both_parts():
    A = ComplexRows((1, 128, 128))
    y = A.measure(torch.zeros(1, 1, 128, 128, dtype=torch.float64), noise_std=0.1)
    assert y.real.std().item() == pytest.approx(0.2, rel=0.03)
    assert y.imag.std().item() == pytest.approx(0.2, rel=0.03)
    assert abs((y.real * y.imag).mean().item()) < 0.002


# Bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 3}, "scale 3 does not divide the image height 16: choose 2, 4, 8"),
        ({}, "needs a scale"),
        ({"scale": 0}, "at least 1"),
        ({"size": (17, 4)}, "between 1 x 1 and the image's 16 x 24"),
        ({"size": (4, 4), "scale": 4}, "contradicts scale 4"),
        ({"scale": 4, "padding": "wrap"}, "padding is one of"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        BicubicDownsampling((3, 16, 24), **arguments)


def test_wrong_shapes_are_named():
    A = BicubicDownsampling((3, 16, 16), scale=4)
    with pytest.raises(ValueError, match=r"images of shape \(batch, 3, 16, 16\); \(1, 3, 16, 15\)"):
        A(torch.zeros(1, 3, 16, 15))
    with pytest.raises(ValueError, match=r"measurements of shape \(batch, 3, 4, 4\); \(3, 4, 4\)"):
        A.pseudo_inverse(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="noise_std is at least 0"):
        A.measure(torch.zeros(1, 3, 16, 16), noise_std=-0.1)


def test_conjugate_gradients_refuse_what_is_not_linear():
    class Square(LinearOperator):
        def forward(self, x):
            return x * x + x

    with pytest.raises(RuntimeError, match="not linear"):
        Square((1, 4, 4)).pseudo_inverse(torch.randn(1, 1, 4, 4, dtype=torch.float64))
