"""What users of a PyTorch module do to it, and every operator has to take: as it should be, or refused in one line."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from test_operator_modes import ALL, NOT_LINEAR, everything
from test_operators import OPERATORS, WELL_CONDITIONED, images, matrix

from iagan_lightning.operators import (
    JPEG,
    BicubicDownsampling,
    Blur,
    Composition,
    FourierSensing,
    GaussianSensing,
    Grayscale,
    Inpainting,
    LinearOperator,
    PhaseRetrieval,
)

EVERY = {**ALL, **NOT_LINEAR}
GIVEN = ("gaussian-tall", "gaussian-rank-deficient", "fourier-mask", "inpainting-channels")  # made of a tensor


@pytest.fixture(params=EVERY)
def name(request):
    return request.param


def methods(A, x, y):
    """All that A can be asked for, by name, of images x and measurements y."""
    asked = {
        "forward": lambda: A(x),
        "difference": lambda: A.difference(x.flip(0), y),
        "vjp": lambda: A.vjp(x, y),
        "measure": lambda: A.measure(x, 0.1),
    }
    if isinstance(A, LinearOperator):
        asked |= {
            "adjoint": lambda: A.adjoint(y),
            "pseudo-inverse": lambda: A.pseudo_inverse(y),
            "damped": lambda: A.pseudo_inverse(noise_std=0.1, y=y),
            "naive": lambda: A.naive(y),
            "back-projection": lambda: A.back_project(x_hat=0.5 * x, y=y),
            "up to the noise": lambda: A.back_project(0.5 * x, y, 0.1),
            "rounded": lambda: A.back_project_rounded(0.5 * x, y, 1 / 255),
        }
    return asked


# Defaults of PyTorch ----------------------------------------------------------------------------------------------


@pytest.fixture(params=[torch.float64, torch.float16])
def default(request):
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


def test_a_seed_means_the_same_in_any_default_precision(name, default):
    made = EVERY[name]
    if name == "deepinv" and default == torch.float16:
        pytest.skip("its physics is not made in half precision")
    x = images(made())
    A = made()
    here = A(x), A.measure(x, 0.1, seed=3)
    torch.set_default_dtype(torch.float32)
    B = made()
    tolerance = 1e-3 if name in ("buffer", "deepinv") else 1e-9  # these make constants of their own
    for got, expected in zip(here, (B(x), B.measure(x, 0.1, seed=3)), strict=True):
        assert torch.allclose(got, expected, atol=tolerance)
    if A.num_measurements > 3:
        assert torch.equal(A.held_out(0.3, seed=1), B.held_out(0.3, seed=1))


@pytest.mark.parametrize("name", {**OPERATORS, **NOT_LINEAR})
def test_made_under_a_default_device(name):
    """As under ``torch.set_default_device`` or in ``trainer.init_module()``: drawn on the CPU, the same."""
    made = EVERY[name]
    x = images(made())
    if name in GIVEN:
        with torch.device("meta"), pytest.raises(ValueError, match=r"on the meta device was given, [^\n]*$"):
            made()
        return
    with torch.device("meta"):
        A = made()
        y, noisy = A(x), A.measure(x, 0.1)
    B = made()
    assert torch.equal(y, B(x)) and torch.equal(noisy, B.measure(x, 0.1))


# Kinds of numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_only_real_images_of_floating_point(name, dtype):
    A = EVERY[name]()
    x, y = torch.ones(2, *A.image_shape).to(dtype), torch.ones(2, *A.measurement_shape).to(dtype)
    for key, ask in methods(A, x, y).items():
        if dtype.is_complex and A.complex_valued and key not in ("forward", "difference", "measure", "vjp"):
            continue
        with pytest.raises(ValueError, match=rf"of floating point[^\n]*; {dtype} was given$"):
            ask()


@pytest.mark.parametrize(
    ("level", "said"),
    [
        (25, r"is on the \[0, 1\] scale, at least 0 and at most 1; 25 was given: 25/255 is meant\?"),
        (-1, r"is on the \[0, 1\] scale, .*; -1 was given"),
        (math.nan, r"is on the \[0, 1\] scale, .*; nan was given"),
        ("0.1", "is a number on the .0, 1. scale, such as 10 / 255; '0.1' was given"),
        (None, "is a number on the .0, 1. scale, such as 10 / 255; None was given"),
    ],
)
def test_a_level_of_noise_is_refused_wherever_it_is_given(name, level, said):
    A = EVERY[name]()
    x = images(A)
    y = A(x)
    asked = [("noise_std", lambda: A.measure(x, level))]
    if isinstance(A, LinearOperator):
        asked += [
            ("noise_std", lambda: A.pseudo_inverse(y, level)),
            ("noise_std", lambda: A.pseudo_inverse(noise_std=level, y=y)),
            ("noise_std", lambda: A.back_project(x, y, level)),
            ("quantisation", lambda: A.back_project_rounded(x, y, quantisation=level)),
        ]
    for given, ask in asked:
        with pytest.raises(ValueError, match=f"^{given} {said}$"):
            ask()


def test_a_pseudo_inverse_of_ones_own_need_not_know_of_noise():
    class Twice(LinearOperator):
        def forward(self, x):
            return 2 * x

        def pseudo_inverse(self, y, times=1):
            return y / 2 * times

    A, y = Twice((1, 2, 2)), torch.ones(1, 1, 2, 2)
    assert torch.equal(A.pseudo_inverse(y, 10), 5 * y)


@pytest.mark.parametrize("truncation", [1e-2, 0.0])
@pytest.mark.parametrize("padding", ["circular", "reflect"])
def test_measurements_that_were_hardly_rounded_are_back_projected(padding, truncation):
    A = Blur((1, 12, 12), size=5, padding=padding, truncation=truncation)
    x = images(A, dtype=torch.float32)
    y = A(x)
    assert torch.equal(A.back_project_rounded(0.5 * x, y, 0.0), A.back_project(0.5 * x, y)), "nothing was rounded"
    for rounding in (0.0, 1e-25, 1e-200):
        assert torch.equal(A.back_project_rounded(x, y, rounding), x), "there is nothing to mend"
    with torch.device("meta"):
        assert torch.equal(A.back_project_rounded(0.5 * x, y, 1e-3), A.back_project_rounded(0.5 * x, y, 1e-3))


def test_pictures_of_8_bits_are_told_what_to_do():
    with pytest.raises(ValueError, match=r"pixels of 8 bits: x / 127.5 - 1"):
        Grayscale((3, 4, 4)).measure(torch.full((1, 3, 4, 4), 200, dtype=torch.uint8), 0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(name, dtype):
    A = EVERY[name]()
    x = images(A, dtype=torch.float32).to(dtype)
    assert torch.equal(A(x), A(x.float()))
    if isinstance(A, LinearOperator) and not A.complex_valued:
        y = A(x).to(dtype)
        assert torch.equal(A.adjoint(y), A.adjoint(y.float()))


def test_autocast_reaches_nothing_that_is_exact(name):
    A = EVERY[name]()
    x = images(A, dtype=torch.float32)
    y = A(x)
    expected = {key: ask() for key, ask in methods(A, x, y).items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for key, ask in methods(A, x, y).items():
            assert torch.equal(ask(), expected[key]), key


def test_autocast_does_not_reach_a_method_of_ones_own():
    class Product(LinearOperator):
        def forward(self, x):
            return x @ x.new_full((4, 4), 0.3)

        def difference(self, x, y):
            return x @ x.new_full((4, 4), 0.3) - y

        def adjoint(self, y):
            """Return what the documentation says."""
            return y @ y.new_full((4, 4), 0.3)

    A, y = Product((1, 4, 4)), torch.rand(1, 1, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert A.adjoint(y).dtype == A.difference(y, y).dtype == torch.float32
    assert Product.adjoint.__doc__ == "Return what the documentation says."


# Constants that change --------------------------------------------------------------------------------------------

MASK = matrix(8, 6) > 0
CHANGED = {
    "bicubic": [lambda p=p: BicubicDownsampling((1, 12, 8), scale=2, padding=p) for p in ("zero", "circular")],
    "gaussian": [lambda s=s: GaussianSensing((1, 4, 5), ratio=0.5, seed=s) for s in (0, 1)],
    "dct": [lambda s=s: GaussianSensing((1, 4, 5), ratio=0.5, seed=s, design="dct") for s in (0, 1)],
    "fourier": [lambda m=m: FourierSensing((2, 8, 6), mask=m) for m in (MASK, MASK.roll(1, 0) | MASK)],
    "inpainting": [lambda m=m: Inpainting((2, 8, 6), mask=m) for m in (MASK, ~MASK)],
    "grayscale": [lambda w=w: Grayscale((2, 3, 4), weights=w) for w in ((0.4, 0.6), (1, -2))],
    "blur": [lambda k=k: Blur((1, 8, 6), kernel=k) for k in (WELL_CONDITIONED, WELL_CONDITIONED.T)],
    "blur-separable": [
        lambda s=s: Blur((1, 8, 6), kernel="gaussian", size=3, std=s, padding="zero") for s in (0.4, 0.6)
    ],
    "blur-general": [
        lambda k=k: Blur((1, 8, 6), kernel=k, padding="reflect") for k in (WELL_CONDITIONED, 2 * WELL_CONDITIONED)
    ],
    "phase-gaussian": [lambda s=s: PhaseRetrieval((1, 4, 5), seed=s) for s in (0, 1)],
    "phase-fourier": [lambda r=r: PhaseRetrieval((1, 8, 6), ratio=r, kind="fourier") for r in (0.4, 0.7)],
    "jpeg": [lambda q=q: JPEG((3, 9, 6), quality=q) for q in (20, 60)],
}  # fmt: skip
CHANGED["composition"] = [
    partial(lambda w, m: Composition((2, 8, 6), [partial(Grayscale, weights=w), partial(FourierSensing, mask=m)]), w, m)
    for w, m in (((0.4, 0.6), MASK), ((1, -2), MASK.roll(1, 0) | MASK))
]


def sources(A):
    """The constants that A is made from: all but those that follow from others."""
    for path, module in A.named_modules():
        own = dict(module.named_buffers(recurse=False))
        for each in getattr(module, "sources", ()) or own:
            if each in own:
                yield path, each
        if "signs" in own:
            yield path, "signs"


def copies(A):
    return copy.deepcopy(A), pickle.loads(pickle.dumps(A))  # noqa: S301  # our own


@pytest.mark.parametrize("way", ["put in its place", "in place", "loaded", "in place, then copied", "functional"])
@pytest.mark.parametrize("kind", CHANGED)
def test_constants_that_change_are_followed(kind, way):
    """After an operator's constants have become another's, it is the other, in both precisions."""
    A, B = (make() for make in CHANGED[kind])
    for dtype in (torch.float32, torch.float64):
        list(everything(A, images(A, dtype=dtype)))  # fills whatever is kept
    tensors = {f"{path}.{name}".lstrip("."): B.get_submodule(path).get_buffer(name) for path, name in sources(A)}
    if way == "functional":
        x = images(A)
        assert torch.equal(torch.func.functional_call(A, tensors, x), B(x))
        B = CHANGED[kind][0]()  # and is itself again afterwards
    elif way == "loaded":
        A.load_state_dict(B.state_dict())
    else:
        for key, tensor in tensors.items():
            path, _, name = key.rpartition(".")
            if way == "put in its place":
                setattr(A.get_submodule(path), name, tensor.clone())
            else:
                A.get_submodule(path).get_buffer(name).copy_(tensor)
    for each in copies(A) if "copied" in way else [A]:
        assert each.measurement_shape == B.measurement_shape and each.num_measurements == B.num_measurements
        for dtype in (torch.float32, torch.float64):
            x = images(B, dtype=dtype)
            for (key, got), (_, expected) in zip(everything(each, x), everything(B, x), strict=True):
                assert got.shape == expected.shape and torch.allclose(got, expected, atol=1e-5), key


def test_a_constant_that_does_not_fit_is_refused():
    A = FourierSensing((1, 8, 6), ratio=0.5)
    with pytest.raises(ValueError, match=r"the mask has shape \(8, 6\); \(6, 8\) was given"):
        A.mask = torch.ones(6, 8, dtype=torch.bool)
    A = Inpainting((1, 8, 6), ratio=0.5)
    with pytest.raises(ValueError, match="the mask measures nothing"):
        A.mask = A.mask & ~A.mask
    A = Blur((1, 8, 6), kernel="gaussian", size=3, std=1.0, padding="zero")
    with pytest.raises(ValueError, match="SeparableBlur wants a separable kernel"):
        A.weights = WELL_CONDITIONED


@pytest.mark.parametrize("kind", ["fourier", "inpainting", "blur", "blur-separable", "gaussian"])
def test_constants_are_the_operators_own(kind):
    """Operators made of one tensor, and the tensor itself, do not change with each other."""
    make = {
        "fourier": lambda c: FourierSensing((1, 4, 4), mask=c),
        "inpainting": lambda c: Inpainting((1, 4, 4), mask=c),
        "blur": lambda c: Blur((1, 4, 4), kernel=c),
        "blur-separable": lambda c: Blur((1, 4, 4), kernel=c, padding="zero"),
        "gaussian": lambda c: GaussianSensing((1, 2, 2), matrix=c),
    }[kind]
    given = torch.ones(4, 4, dtype=torch.bool if kind in ("fourier", "inpainting") else torch.float64)
    A, B = make(given), make(given)
    x = images(A)
    y = A(x)
    B.get_buffer(B.sources[0]).view(-1)[1:] = 0
    assert bool(given.all())
    given.zero_()
    assert torch.equal(A(x), y)
    assert B(x).shape != y.shape or not torch.equal(B(x), y)


def test_a_copy_need_not_make_again_what_it_has():
    A = GaussianSensing((1, 4, 4), ratio=0.5)
    y = A(images(A))
    A.pseudo_inverse(y)
    for B in copies(A):
        before = {key: kept[-1] for key, kept in B._kept.items()}
        assert before and torch.equal(B.pseudo_inverse(y), A.pseudo_inverse(y))
        assert all(B._kept[key][-1] is value for key, value in before.items())


def inpainting_of_deepinv(mask):
    physics = pytest.importorskip("deepinv").physics
    from iagan_lightning.operators.deepinv import DeepinvOperator

    made = physics.Inpainting((1, 8, 6), mask=mask[None].float())
    return made, DeepinvOperator((1, 8, 6), made)


def test_a_physics_that_is_told_something_else():
    physics, A = inpainting_of_deepinv(MASK)
    for dtype in (torch.float32, torch.float64):
        x = images(A, dtype=dtype)
        assert torch.equal(A(x), x * MASK)
        physics.update(mask=(~MASK)[None].float())
        assert torch.equal(A(x), x * ~MASK) and torch.equal(A.adjoint(x), x * ~MASK)
        physics.mask.fill_(1)
        assert torch.equal(A(x), x) and torch.equal(A.adjoint(x), x)
        physics.update(mask=MASK[None].float())


def test_the_state_of_a_physics():
    (_, A), (_, B) = inpainting_of_deepinv(MASK), inpainting_of_deepinv(~MASK)
    x = images(A, dtype=torch.float32)
    A(x), B(x)
    assert "physics.mask" in A.state_dict()
    B.load_state_dict(A.state_dict())
    assert torch.equal(B(x), x * MASK)
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"physics\.mask\""):
        B.load_state_dict({})
    with pytest.raises(RuntimeError, match="size mismatch for mask"):
        B.load_state_dict({**A.state_dict(), "physics.mask": torch.ones(1, 1, 5, 6)})


# Derivatives ------------------------------------------------------------------------------------------------------


# forward derivatives themselves: https://github.com/pytorch/pytorch/issues/174865
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize("name", ALL)
def test_the_gradient_of_the_adjoint(name):
    """Of |A^T y|^2 + sum Re y: 2 A A^T y + 1; and the forward derivative of A^T is A^T."""
    A = ALL[name]()
    y = A(images(A)).requires_grad_()
    gradient = torch.autograd.grad(A.adjoint(y).square().sum() + y.real.sum(), y)[0]
    y = y.detach()
    assert torch.allclose(gradient, 2 * A(A.adjoint(y)) + 1, atol=1e-10)
    v = A(images(A))
    with torch.autograd.forward_ad.dual_level():
        dual = A.adjoint(torch.autograd.forward_ad.make_dual(y, v))
        tangent = torch.autograd.forward_ad.unpack_dual(dual).tangent
    assert torch.allclose(tangent, A.adjoint(v), atol=1e-10)


# Batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_a_broken_item_changes_nothing_for_its_neighbours(name, broken):
    A = EVERY[name]()
    x = images(A, 3, dtype=torch.float32)
    y = A(x)
    whole = {key: ask() for key, ask in methods(A, x, y).items()}
    x, y = x.clone(), y.clone()
    x[1], y[1] = broken, broken
    for key, ask in methods(A, x, y).items():
        got = ask()
        assert torch.equal(got[::2], whole[key][::2]), key
        assert not got[1].isfinite().all(), key


@pytest.mark.parametrize("name", ALL)
def test_the_size_of_measurements_does_not_matter(name):
    A = ALL[name]()
    y = A(images(A, dtype=torch.float32))
    for scale in (2.0**-60, 2.0**-100, 2.0**60, 2.0**100):
        sizes = torch.tensor([1.0, scale]).reshape(2, *[1] * (y.ndim - 1))
        for inverse in (A.pseudo_inverse, partial(A.pseudo_inverse, noise_std=0.1)):
            got, expected = inverse(y * sizes), inverse(y)
            assert torch.allclose(got[0], expected[0], atol=1e-6)
            assert torch.allclose(got[1] / scale, expected[1], atol=1e-5), scale


def test_an_empty_batch_gives_an_empty_batch(name):
    A = EVERY[name]()
    x, y = images(A, dtype=torch.float32), A(images(A, dtype=torch.float32))
    whole = {key: ask() for key, ask in methods(A, x, y).items()}
    x = x[:0].clone().requires_grad_()
    for key, ask in methods(A, x, y[:0]).items():
        got = ask()
        assert got.shape == (0, *whole[key].shape[1:]) and got.dtype == whole[key].dtype, key
    A(x).abs().sum().backward()
    assert x.grad.shape == x.shape
    with pytest.raises(ValueError, match="was given"):
        A(torch.zeros(0, 7, 7, 7))


def test_what_is_measured_does_not_change_afterwards(name):
    """Only A(x) itself may be x or a view of it."""
    A = EVERY[name]()
    x = images(A, dtype=torch.float32)
    y = A(x).clone()
    for key, make in {**methods(A, x, y), "measure": lambda: A.measure(x)}.items():
        if key != "forward":
            before = x.clone(), y.clone()
            make().fill_(7)
            assert torch.equal(x, before[0]) and torch.equal(y, before[1]), key
