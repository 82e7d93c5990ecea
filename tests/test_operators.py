"""One set of properties for all operators; a new operator joins by one line in OPERATORS."""

import copy
import inspect
import pickle
from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

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
    PhaseRetrieval,
    Similarity,
    StructuredSensing,
)
from iagan_lightning.operators.blur import motion_kernel
from iagan_lightning.operators.checks import check_operator
from iagan_lightning.operators.fourier import Design, opposite, random_mask


def matrix(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


# No frequency is far below the others, so that nothing is truncated; not symmetric, so that a mirrored one is noticed.
WELL_CONDITIONED = torch.tensor([[0.0, 0.1, 0.05], [0.05, 0.7, 0.0], [0.0, 0.1, 0.0]], dtype=torch.float64)


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
    "gaussian": lambda: GaussianSensing((3, 6, 5), ratio=0.4, seed=1),
    "gaussian-full": lambda: GaussianSensing((1, 5, 5), ratio=1.0),
    "gaussian-tall": lambda: GaussianSensing((1, 4, 4), matrix=matrix(30, 16)),
    "gaussian-rank-deficient": lambda: GaussianSensing((1, 4, 4), matrix=matrix(9, 4) @ matrix(4, 16)),
    "dct": lambda: GaussianSensing((3, 7, 6), ratio=0.3, seed=2, design="dct"),
    "fourier": lambda: FourierSensing((3, 8, 8), ratio=0.4, seed=3),
    "fourier-odd": lambda: FourierSensing((1, 7, 9), ratio=0.5, seed=3),
    "fourier-quadrant": lambda: FourierSensing((2, 8, 12), ratio=0.3, seed=3, design="quadrant"),
    "fourier-mask": lambda: FourierSensing((1, 8, 7), mask=matrix(8, 7) > 0.3),
    "fourier-all": lambda: FourierSensing((1, 6, 6), ratio=1.0),
    "blur-exact": lambda: Blur((2, 8, 10), kernel=WELL_CONDITIONED),
    "blur-exact-odd": lambda: Blur((1, 7, 5), kernel=WELL_CONDITIONED),
    "blur-exact-zero": lambda: Blur((1, 7, 8), kernel="gaussian", size=3, std=0.5, padding="zero"),
    "blur-exact-reflect": lambda: Blur((1, 7, 8), kernel="gaussian", size=3, std=0.5, padding="reflect"),
    "blur-exact-replicate": lambda: Blur((1, 6, 7), kernel="gaussian", size=4, std=0.5, padding="replicate"),
    "inpainting": lambda: Inpainting((3, 6, 8), ratio=0.5, seed=4),
    "inpainting-box": lambda: Inpainting((3, 6, 8), box=(1, 2, 3, 4)),
    "inpainting-channels": lambda: Inpainting((2, 6, 8), mask=matrix(2, 6, 8) > 0),
    "identity": lambda: Identity((3, 5, 4)),
    "grayscale": lambda: Grayscale((3, 5, 4)),
    "grayscale-mean": lambda: Grayscale((4, 5, 4)),
    "similarity": lambda: Similarity((3, 12, 12), size=(7, 8), side=6.4, angle=-20),
    "similarity-level": lambda: Similarity((1, 9, 12), size=(5, 9), centre=(4.3, 1.8), side=7.1),
    "similarity-tall": lambda: Similarity((2, 6, 6), size=(12, 13), side=12, angle=4),
    "composition": lambda: Composition(
        (3, 8, 8), [Grayscale, partial(Blur, kernel=WELL_CONDITIONED), partial(Inpainting, ratio=0.6)]
    ),
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
    measured = A.measured(torch.ones_like(y[0]).expand(1, *y.shape[1:]))
    assert A.num_measurements == int(measured.abs().sum())
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


def test_every_operator_passes_its_own_checks(A):
    assert [verdict for verdict in check_operator(A) if verdict.passed is False] == []


def test_state_of_every_operator_can_be_loaded(A, request):
    """What a checkpoint holds is what an operator of other random numbers needs to become this one."""
    name = request.node.callspec.params["A"]
    other = {
        "gaussian": lambda: GaussianSensing((3, 6, 5), ratio=0.4, seed=9),
        "dct": lambda: GaussianSensing((3, 7, 6), ratio=0.3, seed=9, design="dct"),
        "fourier": lambda: FourierSensing((3, 8, 8), ratio=0.4, seed=9),
        "inpainting": lambda: Inpainting((3, 6, 8), ratio=0.5, seed=9),
    }.get(name, OPERATORS[name])()
    x = images(A)
    other.pseudo_inverse(other(x))  # fills whatever is kept, which loading must empty
    other.load_state_dict(A.state_dict())
    assert torch.equal(A(x), other(x))
    assert torch.equal(A.pseudo_inverse(A(x)), other.pseudo_inverse(A(x)))


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


def test_blur_is_a_convolution():
    """Against SciPy, kernel not mirrored by mistake, for every padding and both kinds of solution."""
    ndimage = pytest.importorskip("scipy.ndimage")
    modes = {"circular": "wrap", "zero": "constant", "reflect": "mirror", "replicate": "nearest"}
    x = images(Blur((2, 9, 12), size=1))
    line = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)
    for kernel in (torch.outer(line, line.flip(0) ** 2), WELL_CONDITIONED, matrix(5, 3)):
        for padding, mode in modes.items():
            y = Blur((2, 9, 12), kernel=kernel, padding=padding)(x)
            expected = [[ndimage.convolve(c.numpy(), kernel.numpy(), mode=mode) for c in image] for image in x]
            assert np.allclose(y, np.array(expected), atol=1e-12), (padding, kernel.shape)


@pytest.mark.parametrize("size", [(16, 16), (15, 21)])
def test_circular_blur_is_deepinvs(size):
    physics = pytest.importorskip("deepinv").physics
    A = Blur((3, *size), kernel="uniform", size=9)
    reference = physics.BlurFFT((3, *size), filter=A.get_buffer("weights")[None, None]).double()
    x = images(A)
    assert torch.allclose(A(x), reference.A(x), atol=1e-12)
    assert torch.allclose(A.adjoint(x), reference.A_adjoint(x), atol=1e-12)


def test_gaussian_sensing_is_deepinvs_with_its_matrix():
    physics = pytest.importorskip("deepinv").physics
    reference = physics.CompressedSensing(20, (3, 6, 5))
    A = GaussianSensing((3, 6, 5), matrix=reference._A)
    x = images(A, dtype=torch.float32)
    assert torch.allclose(A(x), reference.A(x), atol=1e-5)
    assert torch.allclose(A.pseudo_inverse(A(x)), reference.A_dagger(A(x)), atol=1e-4)


def test_inpainting_is_deepinvs():
    physics = pytest.importorskip("deepinv").physics
    A = Inpainting((3, 6, 5), ratio=0.4)
    x = images(A)
    assert torch.equal(A(x), physics.Inpainting((3, 6, 5), mask=A.mask.double()).A(x))


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_fourier_sensing_is_deepinvs_mri(size):
    """deepinv keeps zero frequency in the middle, on both sides: image and mask are shifted."""
    physics = pytest.importorskip("deepinv").physics
    A = FourierSensing((1, *size), ratio=0.5, seed=1)
    x = images(A)
    shifted = torch.fft.fftshift(x, dim=(-2, -1))
    shifted = torch.cat([shifted, torch.zeros_like(shifted)], dim=1)  # real and imaginary part
    mask = torch.fft.fftshift(A.mask.double())
    y = physics.MRI(mask=mask, img_size=(2, *size)).double().A(shifted)
    y = torch.fft.ifftshift(torch.complex(y[:, 0], y[:, 1]), dim=(-2, -1))
    magnitudes = y.abs().flatten(1)[:, A.mask.flatten()]
    assert torch.allclose(A(x)[:, 0].abs(), magnitudes, atol=1e-12)


@pytest.mark.parametrize("kind", ["Downsampling", "Blur"])
def test_a_deepinv_physics_as_operator(kind):
    physics = pytest.importorskip("deepinv").physics
    from iagan_lightning.operators.deepinv import DeepinvOperator

    kernel = torch.tensor([[0.0, 0.1, 0.0], [0.1, 0.6, 0.1], [0.0, 0.1, 0.0]])[None, None]
    made = {
        "Downsampling": lambda: physics.Downsampling((2, 8, 8), filter="gaussian", factor=2, padding="circular"),
        "Blur": lambda: physics.Blur(filter=kernel, padding="circular"),
    }[kind]()
    A = DeepinvOperator((2, 8, 8), made)
    assert [verdict for verdict in check_operator(A) if verdict.passed is False] == []
    x = images(A, dtype=torch.float32)
    assert torch.equal(A(x), made.A(x))


def test_a_physics_that_does_not_fit():
    from iagan_lightning.operators.deepinv import DeepinvOperator

    with pytest.raises(ValueError, match="has A and A_adjoint; Linear has not"):
        DeepinvOperator((1, 4, 4), torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="cannot be built"):
        DeepinvOperator((1, 4, 4), {"class_path": "deepinv.physics.Nothing"})


# Masks and matrices ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", get_args(Design))
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("size", [(64, 64), (33, 47)])
def test_fourier_masks_hit_their_ratio_for_every_seed(design, ratio, size):
    for seed in range(5):
        mask = random_mask(*size, ratio, seed, design)
        assert abs(float(mask.double().mean()) - ratio) < 0.01
        assert torch.equal(mask, random_mask(*size, ratio, seed, design))
        if design != "quadrant":
            assert torch.equal(mask, opposite(mask))
            assert mask[0, 0]
        else:
            assert torch.equal(mask, mask.flip(0, 1))
    assert not torch.equal(random_mask(*size, 0.3, 0, design), random_mask(*size, 0.3, 1, design))


def test_masks_of_the_published_difficulty():
    masks = torch.stack([random_mask(31, 24, 0.3, seed, "published-difficulty") for seed in range(200)])
    rows, columns = ((torch.fft.fftfreq(n) * n).round() for n in (31, 24))
    within = rows[:, None] ** 2 + columns**2 <= 9
    assert within.sum() == 29
    assert masks[:, within].all(), "everything up to three cycles per image"
    share = (round(0.3 * 31 * 24) - 29) / (31 * 24 - 29)
    often = masks[:, ~within].double().mean(0)
    assert often.mean() == pytest.approx(share, abs=2e-3)
    assert (often - share).abs().max() < 5 * (share * (1 - share) / 200) ** 0.5, "of the others none before the rest"


def test_quadrant_masks_are_the_public_codes():
    """The public code's own drawing, with the widths of FACTS, gives masks of the same density by radius."""
    half, t = 32, 0.26 * 32
    random = torch.Generator().manual_seed(0)
    reference = torch.zeros(64, 64, dtype=torch.float64)
    for _ in range(60):
        u = (torch.randn(half * half, 2, generator=random).abs() * t).floor().long() % half
        quadrant = torch.zeros(half, half, dtype=torch.bool)
        quadrant[u[:, 0], u[:, 1]] = True
        top = torch.cat([quadrant, quadrant.flip(1)], 1)
        reference += torch.cat([top, top.flip(0)], 0).double() / 60
    ours = torch.stack([random_mask(64, 64, 0.3, seed, "quadrant").double() for seed in range(60)]).mean(0)
    assert float(reference.mean()) == pytest.approx(0.3, abs=0.005)
    assert (ours - reference).abs().mean() < 0.03
    assert (ours - reference).mean().abs() < 0.005


def test_eigenvalues_of_the_quadrant_design():
    """Off by one from Hermitian symmetry: for real images A^T A has eigenvalues 0, 1/2 and 1."""
    eigenvalues = torch.linalg.eigvalsh(dense(A := FourierSensing((1, 8, 8), 0.4, design="quadrant")).T @ dense(A))
    near = torch.stack([(eigenvalues - value).abs() for value in (0.0, 0.5, 1.0)]).amin(0)
    assert near.max() < 1e-10
    assert (eigenvalues - 0.5).abs().min() < 1e-10


def test_gaussian_entries():
    A = GaussianSensing((3, 32, 32), ratio=0.2, seed=7)
    entries = A.get_buffer("matrix").double()
    assert entries.mean().item() == pytest.approx(0, abs=1e-4)
    assert entries.var().item() == pytest.approx(1 / A.num_measurements, rel=0.01)
    assert not torch.equal(entries, GaussianSensing((3, 32, 32), ratio=0.2, seed=8).get_buffer("matrix").double())


@pytest.mark.parametrize(("ratio", "size"), [(0.122, 24), (0.61, 24), (0.9, 24), (0.122, 64)])
def test_float32_residual_of_gaussian_back_projection(ratio, size):
    A = GaussianSensing((3, size, size), ratio=ratio)
    y = A(images(A, dtype=torch.float32))
    bp = A.back_project(images(A, dtype=torch.float32), y)
    assert (A(bp) - y).norm() < 1e-6 * y.norm()


def test_a_matrix_that_does_not_fit_memory_is_refused_before_it_is_made():
    with pytest.raises(ValueError, match=r"takes 3\d\d\d\.\d GB .* GB are free: choose design=\"dct\""):
        GaussianSensing((3, 1024, 1024), ratio=0.1, design="dense")
    GaussianSensing((3, 256, 256), ratio=0.1, design="dct")


@pytest.mark.parametrize(("ratio", "design"), [(0.12, "dense"), (0.13, "dct")])
def test_large_matrices_are_not_drawn_unless_asked_for(ratio, design, monkeypatch):
    monkeypatch.setattr("iagan_lightning.operators.gaussian.LARGEST", int(4 * 0.125 * 192**2))
    A = GaussianSensing((3, 8, 8), ratio)
    assert f"design={design!r}" in repr(A)
    assert ("matrix" in dict(A.named_buffers())) == (design == "dense")
    assert isinstance(GaussianSensing((3, 8, 8), 0.13, design="dense").matrix, torch.Tensor)


def test_rows_of_the_dct_design_are_orthonormal():
    A = GaussianSensing((3, 8, 8), ratio=0.5, design="dct")
    rows = dense(A)
    assert torch.allclose(rows @ rows.T, torch.eye(len(rows), dtype=torch.float64), atol=1e-12)
    assert rows.abs().max() < 0.35  # spread over the image: no row looks at a few pixels


def test_masks_and_kernels_from_files(tmp_path):
    pixels = (torch.rand(8, 6) > 0.5).numpy()
    Image.fromarray((pixels * 255).astype("uint8")).save(tmp_path / "mask.png")
    np.save(tmp_path / "mask.npy", pixels)
    torch.save(torch.from_numpy(pixels), tmp_path / "mask.pt")
    for name in ("mask.png", "mask.npy", "mask.pt"):
        for kind in (Inpainting, FourierSensing):
            A, B = kind((3, 8, 6), mask=str(tmp_path / name)), kind((3, 8, 6), mask=torch.from_numpy(pixels))
            assert repr(A) == repr(B)
            assert torch.equal(A(images(B, 1) * 0 + 1), B(images(B, 1) * 0 + 1))
    weights = Blur((1, 8, 8), kernel=str(tmp_path / "mask.png")).get_buffer("weights")
    assert weights.sum().item() == pytest.approx(1)
    np.save(tmp_path / "matrix.npy", np.ones((2, 12)))
    assert GaussianSensing((3, 2, 2), matrix=tmp_path / "matrix.npy").num_measurements == 2


def test_motion_kernels():
    for angle in (0, 30, 90, 135):
        kernel = motion_kernel(9, angle)
        assert kernel.sum().item() == pytest.approx(1)
        assert torch.allclose(kernel, kernel.flip(0, 1), atol=1e-12)
    assert torch.allclose(motion_kernel(9, 0.0), motion_kernel(9, 90.0).T, atol=1e-12)
    assert motion_kernel(9, 0.0)[4].sum().item() == pytest.approx(1)
    rising = motion_kernel(9, 45.0)
    assert rising[1, 7] > 0 and rising[1, 1] == 0  # counter-clockwise: up to the right


# Regularised inverses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["circular", "zero", "replicate"])
def test_the_blurs_truncated_inverse_is_a_projector(padding):
    A = Blur((1, 16, 18), kernel="uniform", size=5, padding=padding)
    assert A.regularised
    x, other = images(A), images(A)
    P = lambda v: A.pseudo_inverse(A(v))  # noqa: E731
    assert torch.allclose(P(P(x)), P(x), atol=1e-10)
    assert abs(inner(P(x), other) - inner(x, P(other))) < 1e-10
    assert torch.allclose(A(P(x)), A(x), atol=0.05)  # all but what lies below the truncation


@pytest.mark.parametrize("kernel", ["separable", "general"])
@pytest.mark.parametrize("padding", ["circular", "zero", "reflect"])
def test_the_damped_inverse_solves_its_equations(kernel, padding):
    """(A^T A + lambda) x = A^T y with lambda = (2 sigma)^2 / 0.25, by whatever way."""
    A = Blur((1, 9, 8), kernel="uniform" if kernel == "separable" else matrix(3, 3) / 5, size=3, padding=padding)
    y = images(A)
    x = A.pseudo_inverse(y, noise_std=0.1)
    assert torch.allclose(A.adjoint(A(x)) + 0.16 * x, A.adjoint(y), atol=1e-9)
    assert A.pseudo_inverse(y, noise_std=0.2).norm() < x.norm() < A.pseudo_inverse(y, noise_std=0.05).norm()


@pytest.mark.parametrize("name", ["bicubic-zero", "gaussian", "fourier", "inpainting", "blur-exact", "identity"])
def test_back_projection_up_to_the_noise(name):
    """The residual falls to the power of the noise and no further; what is nearer already stays as it is."""
    A, level = OPERATORS[name](), 0.1
    truth, x = images(A), images(A)
    y = A.measure(truth, level, seed=3)
    allowed = A.num_measurements * (2 * level) ** 2 * (2 if y.is_complex() else 1)
    energy = lambda image: (A(image) - y).abs().square().flatten(1).sum(1)  # noqa: E731
    assert (energy(x) > allowed).all()
    bp = A.back_project(x, y, level)
    assert torch.allclose(energy(bp), torch.full((2,), allowed, dtype=torch.float64), rtol=1e-6)
    exact = A.back_project(x, y)
    near = exact + 0.5 * (bp - exact)
    assert torch.equal(A.back_project(near, y, level), near)


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
    ("make", "message"),
    [
        (lambda s: GaussianSensing(s), r"ratio lies in \(0, 1\]"),
        (lambda s: GaussianSensing(s, ratio=1.2), r"ratio lies in \(0, 1\].*1.2 was given"),
        (lambda s: GaussianSensing(s, matrix=torch.zeros(3, 5)), r"of shape \(m, 192\).*\(3, 5\)"),
        (lambda s: GaussianSensing(s, ratio=0.1, matrix=torch.zeros(3, 192)), "not both"),
        (lambda s: GaussianSensing(s, ratio=0.1, design="sparse"), "design is one of auto, dense, dct"),
        (lambda s: FourierSensing(s, ratio=0), r"ratio lies in \(0, 1\].*0 was given"),
        (lambda s: FourierSensing(s, mask=torch.ones(8, 7)), r"mask has shape \(8, 8\); \(8, 7\)"),
        (lambda s: FourierSensing(s, mask=torch.zeros(8, 8)), "measures nothing"),
        (lambda s: FourierSensing(s, mask="nowhere.png"), "nowhere.png cannot be read"),
        (
            lambda s: FourierSensing(s, ratio=0.5, design="radial"),
            "hermitian, quadrant, published-difficulty",
        ),
        (lambda s: Blur(s, size=9), "kernel of 9 x 9 pixels is larger than the image of 8 x 8"),
        (lambda s: Blur(s, kernel="box"), "kernel is one of uniform, gaussian, motion"),
        (lambda s: Blur(s, kernel="gaussian", size=3), "needs std"),
        (lambda s: Blur(s, kernel=torch.ones(3)), "a kernel is a finite array"),
        (lambda s: Blur(s, size=3, padding="valid"), "padding is one of"),
        (lambda s: Blur(s, size=0), "at least 1"),
        (lambda s: Inpainting(s), "exactly one of ratio, box and mask"),
        (lambda s: Inpainting(s, ratio=0.5, box=(0, 0, 1, 1)), "exactly one of"),
        (lambda s: Inpainting(s, ratio=1.5), r"ratio lies in \(0, 1\]"),
        (lambda s: Inpainting(s, box=(5, 5, 4, 2)), "inside the image of 8 x 8"),
        (lambda s: Inpainting(s, mask=torch.ones(2, 8, 8)), r"mask has shape \(8, 8\) or \(3, 8, 8\)"),
        (lambda s: Grayscale(s, weights=[1, 2]), "needs 3 finite weights"),
        (lambda s: Similarity(s, size=(0, 8)), "whole numbers from 1"),
        (lambda s: Similarity(s, size=(8, 8), side=0), "side is above 0"),
        (lambda s: Similarity(s, size=(8, 8), centre=(float("nan"), 0)), r"centre is \(x, y\), finite numbers"),
        (lambda s: Similarity(s, size=(8, 8), samples=0), "samples is at least 1"),
        (lambda s: Similarity(s, size=(8, 8), centre=(20, 3)), "no pixel of the photograph lies inside"),
        (lambda s: Composition(s, []), "at least one operator"),
        (lambda s: Composition(s, [partial(GaussianSensing, ratio=0.5), Identity]), "operator 2 needs an image"),
        (lambda s: Composition(s, [Grayscale, Identity(s)]), r"operator 2 takes \(3, 8, 8\)"),
    ],
)
def test_operators_refuse_what_does_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make((3, 8, 8))


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
    with pytest.raises(ValueError, match="at least 0"):
        A.measure(torch.zeros(1, 3, 16, 16), noise_std=-0.1)


def test_conjugate_gradients_refuse_what_is_not_linear():
    class Square(LinearOperator):
        def forward(self, x):
            return x * x + x

    with pytest.raises(RuntimeError, match="not linear"):
        Square((1, 4, 4)).pseudo_inverse(torch.randn(1, 1, 4, 4, dtype=torch.float64))


def test_held_out_entries(A):
    if A.num_measurements < 4:
        pytest.skip("nothing to divide")
    held = A.held_out(0.2, seed=5)
    assert held.shape == A.measurement_shape and held.dtype == torch.bool
    assert torch.equal(held, A.held_out(0.2, seed=5))
    assert held.sum() == pytest.approx(0.2 * A.num_measurements, abs=2)
    measured = A.measured(torch.ones(1, *A.measurement_shape))[0] != 0
    assert not (held & ~measured).any()


@pytest.mark.parametrize(
    "name", ["fourier", "fourier-odd", "fourier-quadrant", "fourier-mask", "inpainting", "composition"]
)
def test_held_out_entries_are_not_told_by_the_others(name):
    A = OPERATORS[name]()
    if name == "composition":  # only its last operator matters here
        A = A.operators[-1]
    held = A.held_out(0.3, seed=1).flatten()
    D = dense(A)
    held = held.repeat_interleave(len(D) // len(held))
    assert (D[held] @ D[~held].T).abs().max() < 1e-12
    assert D[held].abs().max() > 0


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 9, 7)])
def test_held_out_magnitudes_are_not_told_by_their_twins(shape):
    A = PhaseRetrieval(shape, ratio=0.5, kind="fourier")
    held = A.held_out(0.1, seed=0)
    y = A(torch.rand(1, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1)[0]
    for mine, theirs in zip(y[held].tolist(), held.nonzero()[:, 0].tolist(), strict=True):
        assert ((y[theirs][~held[theirs]] - mine).abs() > 1e-9).all()
    assert held.sum() == pytest.approx(0.1 * held.numel(), abs=2)
    assert not held[:, (A.transform.index == 0).nonzero()].any(), "nothing else tells the mean"


def test_nothing_to_hold_out():
    with pytest.raises(ValueError, match="no part"):
        GaussianSensing((1, 2, 2), ratio=0.25).held_out(0.05, seed=0)


# An image in a photograph ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["loaded", "put in its place", "in place"])
def test_the_measured_pixels_of_a_similarity_are_those_of_its_mask(way):
    """Of another centre, say, which leaves fewer pixels inside: the objective divides by their number."""
    A, B = (Similarity((1, 12, 12), size=(7, 8), side=6, centre=centre) for centre in ((3.5, 3), (1.5, 3)))
    assert A.num_measurements > B.num_measurements
    if way == "loaded":
        A.load_state_dict(B.state_dict())
    elif way == "in place":
        A.mask.copy_(B.mask)
    else:
        A.mask = B.mask.clone()
    assert A.num_measurements == B.num_measurements == int(A.measured(torch.ones(1, *A.measurement_shape)).sum())
    with pytest.raises(ValueError, match="the mask measures nothing"):
        A.mask = torch.zeros_like(B.mask)


@pytest.mark.parametrize(("small", "condition"), [(16, 4.2), (32, 4.5), (48, 4.3), (56, 6.2), (60, 17.2), (63, 217.8)])
def test_the_condition_of_a_bicubic_is_what_is_said_of_it(small, condition):
    A = BicubicDownsampling((1, 64, 64), size=(small, small))
    values = torch.linalg.svdvals(A.rows)
    assert float(values.max() / values.min()) ** 4 == pytest.approx(condition, rel=0.02)


def test_arrays_as_nested_lists():
    shape, M, mask = (1, 2, 2), [[1.0, 0.0, 2.0, 0.5], [0.1, 0.0, 0.0, 0.0]], ((True, False), [1, 1])
    x = images(Identity(shape))
    for one, other in (
        (GaussianSensing(shape, matrix=M), GaussianSensing(shape, matrix=torch.tensor(M, dtype=torch.float64))),
        (Inpainting(shape, mask=mask), Inpainting(shape, mask=torch.ones(2, 2).tril() > 0)),
        (FourierSensing(shape, mask=mask), FourierSensing(shape, mask=torch.ones(2, 2).tril() > 0)),
        (Blur(shape, kernel=[[0.5, 0.5]]), Blur(shape, kernel=torch.full((1, 2), 0.5))),
    ):
        assert torch.equal(one(x), other(x))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32])
def test_a_matrix_of_whole_numbers_measures(dtype):
    given = matrix(5, 12) > 0
    A, B = (GaussianSensing((3, 2, 2), matrix=given.to(kind)) for kind in (dtype, torch.float64))
    for kind in (torch.float32, torch.float64):
        x = images(A, dtype=kind)
        assert torch.equal(A(x), B(x)) and torch.equal(A.pseudo_inverse(A(x)), B.pseudo_inverse(B(x)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda M: M[:0], r"measures nothing: \(0, 12\) was given"),
        (lambda M: M.clone().fill_(torch.nan), "not finite"),
        (lambda M: torch.cat([M, torch.full((1, 12), torch.inf)]), "not finite"),
    ],
)
def test_a_matrix_that_measures_nothing_is_refused(spoil, message):
    with pytest.raises(ValueError, match=message):
        GaussianSensing((3, 2, 2), matrix=spoil(matrix(5, 12)))


@pytest.mark.parametrize("make", [GaussianSensing, Blur, partial(Blur, padding="zero"), Identity])
def test_a_shape_that_is_none_is_refused(make):
    for shape in (5, (8, 8), (3, 8, 8.5), "abc", None):
        with pytest.raises(ValueError, match="image_shape is"):
            make(shape)


class Weighted(GaussianSensing):
    def __init__(self, level, image_shape=(1, 4, 4), **settings):
        super().__init__(image_shape, **settings)
        self.level = level


class Softened(Blur):
    def __init__(self, level, image_shape=(1, 4, 4), **settings):
        super().__init__(image_shape, size=3, **settings)
        self.level = level

    def forward(self, x):
        return self.level * x


@pytest.mark.parametrize("make", [partial(Weighted, ratio=0.5), Softened])
def test_a_class_of_ones_own_is_itself(make):
    A = make(2.0)
    for each in (A, make(level=2.0, image_shape=(1, 4, 4)), copy.deepcopy(A), pickle.loads(pickle.dumps(A))):  # noqa: S301
        assert (type(each), each.level) == (type(A), 2.0)
        assert torch.equal(each(x := images(A)), A(x))
    assert list(inspect.signature(type(A)).parameters) == ["level", "image_shape", "settings"]


def test_a_large_class_of_ones_own_is_not_exchanged(monkeypatch):
    monkeypatch.setattr("iagan_lightning.operators.gaussian.LARGEST", 0)
    assert type(Weighted(2.0, ratio=0.5)) is Weighted
    assert type(GaussianSensing((1, 4, 4), ratio=0.5)) is StructuredSensing
    with pytest.raises(ValueError, match='design "dct" is a StructuredSensing: derive from that'):
        Weighted(2.0, ratio=0.5, design="dct")
    with pytest.raises(ValueError, match="design of a StructuredSensing is one of dct, auto; 'dense' was given"):
        StructuredSensing((1, 4, 4), ratio=0.5, design="dense")


def test_a_similarity_without_turn_averages_blocks():
    """Where pixels of the photograph are blocks of the image's: means of blocks, but for the interpolation."""
    x = images(A := Similarity((3, 12, 16), size=(3, 4)))
    inner_part = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    assert torch.allclose(A(x)[inner_part], F.avg_pool2d(x, 4)[inner_part], atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 15.0, 90.0, -135.0])
def test_a_similarity_sees_each_place_where_it_lies(angle):
    """Of a plane a x + b y + c each pixel's mean is the plane's value in its middle, whatever the turn."""
    A = Similarity((1, 20, 20), size=(9, 12), side=8, centre=(5.2, 4.1), angle=angle)
    rows, columns = torch.meshgrid(*[torch.arange(20, dtype=torch.float64) - 9.5] * 2, indexing="ij")
    turn = np.deg2rad(angle)
    across = np.cos(turn) * columns - np.sin(turn) * rows
    down = np.sin(turn) * columns + np.cos(turn) * rows
    y = A((0.3 * (5.2 + across * 8 / 20) - 0.2 * (4.1 + down * 8 / 20))[None, None])
    down, across = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in (9, 12)], indexing="ij")
    # Nearer than two pixels to the image's border the interpolation sees the border repeated.
    corner = (np.abs(np.cos(turn)) + np.abs(np.sin(turn))) / 2
    turned = [np.cos(turn) * (across - 5.2) + np.sin(turn) * (down - 4.1),
              np.cos(turn) * (down - 4.1) - np.sin(turn) * (across - 5.2)]  # fmt: skip
    within = torch.stack([t.abs() for t in turned]).amax(0) + corner < 4 - 2 * 8 / 20
    assert int(within.sum()) >= 16 and bool(A.mask[within].all())
    assert torch.allclose(y[0, 0][within], (0.3 * across - 0.2 * down)[within], atol=1e-12)


def test_finer_photographs_average_to_coarser_ones():
    """What the photograph s times as fine sees, averaged over s x s pixels, is what the photograph sees."""
    where = {"side": 11.0, "centre": (6.2, 5.1), "angle": 9.0}
    coarse = Similarity((3, 32, 32), size=(12, 13), **where, samples=4)
    fine = Similarity((3, 32, 32), size=(48, 52), side=44, centre=(26.3, 21.9), angle=9.0, samples=1)
    x = images(coarse)
    assert torch.allclose(F.avg_pool2d(fine(x), 4) * coarse.mask, coarse(x), atol=1e-12)
