"""Operators in PyTorch's special modes: right there, and as right as before afterwards; gradients; kinds of devices."""

import copy
from functools import partial

import pytest
import torch
from test_operators import OPERATORS, images, inner, matrix
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from iagan_lightning import Stage, reconstruct
from iagan_lightning.operators import (
    JPEG,
    BicubicDownsampling,
    Blur,
    Composition,
    FourierSensing,
    GaussianSensing,
    Inpainting,
    LinearOperator,
    PhaseRetrieval,
    gaussian,
)
from iagan_lightning.operators.gaussian import factorise


class EverySecondRow(LinearOperator):
    """README's own operator: what it returns is a view of what it gets."""

    def forward(self, x):
        return x[..., ::2, :]


class Masked(LinearOperator):
    """A user's operator with a buffer that it uses as it is."""

    def __init__(self, image_shape):
        super().__init__(image_shape)
        self.register_buffer("weights", torch.linspace(0.5, 1, image_shape[2]).double())

    def forward(self, x):
        return (x * self.weights.to(x)).sum(1, keepdim=True)


class Trained(LinearOperator):
    """An operator with parameters of its own, of less than full rank."""

    def __init__(self, image_shape, values=(0.3, 1.7)):
        super().__init__(image_shape)
        self.width = torch.nn.Parameter(torch.as_tensor(values, dtype=torch.float64))

    def forward(self, x):
        x = self.width[0] * x + self.width[1].square() * x.roll(1, -1)
        return torch.stack([x[..., 0], x[..., 1], x[..., 0] * 2 * self.width[0]], -1)


def deepinv():
    physics = pytest.importorskip("deepinv").physics
    from iagan_lightning.operators.deepinv import DeepinvOperator

    return DeepinvOperator((1, 8, 6), physics.Downsampling(img_size=(1, 8, 6), filter="bicubic", factor=2))


SPECIAL = {
    "every-second-row": lambda: EverySecondRow((2, 6, 5)),
    "buffer": lambda: Masked((2, 6, 5)),
    "blur-truncated": lambda: Blur((1, 8, 9), size=3),
    "blur-truncated-zero": lambda: Blur((1, 8, 7), size=3, padding="zero"),
    "blur-general": lambda: Blur((1, 8, 7), kernel="motion", size=3, angle=30, padding="reflect"),
    "blur-general-zero": lambda: Blur((2, 6, 7), kernel=matrix(3, 3) / 5, padding="zero"),
    "blur-then-inpainting": lambda: Composition(
        (1, 6, 7), [partial(Blur, kernel="gaussian", size=3, std=0.5), partial(Inpainting, ratio=0.6)]
    ),
    "deepinv": deepinv,
}
ALL = {**OPERATORS, **SPECIAL}
FOREIGN = ("deepinv", "buffer")  # they use tensors of their own, which a FakeTensorMode takes only if it is told to
NOT_LINEAR = {
    "phase-gaussian": lambda: PhaseRetrieval((1, 6, 5)),
    "phase-fourier": lambda: PhaseRetrieval((2, 6, 5), kind="fourier"),
    "jpeg": lambda: JPEG((3, 11, 9), quality=30),
}


@pytest.fixture(params=ALL)
def A(request):
    return ALL[request.param]()


def everything(A, x, seed=0):
    """What an operator can be asked for."""
    y = A(x)
    yield "forward", y
    yield "measure", A.measure(x, noise_std=0.1, seed=seed)
    if isinstance(A, LinearOperator):
        yield "adjoint", A.adjoint(y)
        yield "pseudo-inverse", A.pseudo_inverse(y)
        yield "damped", A.pseudo_inverse(y, noise_std=0.1)
        yield "naive", A.naive(y)
        yield "back-projection", A.back_project(0.5 * x, y)
        yield "up to the noise", A.back_project(0.5 * x, y, 0.1)


# Inference mode --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", {**ALL, **NOT_LINEAR})
def test_inference_mode(name):
    """As in Lightning's Trainer.test: the same results, and nothing that later calls stumble over."""
    make = {**ALL, **NOT_LINEAR}[name]
    A, x = make(), images(make(), dtype=torch.float32)
    expected = dict(everything(make(), x))
    with torch.inference_mode():
        inside = dict(everything(A, x.clone()))
    for key, value in expected.items():
        assert torch.equal(inside[key], value), key
    y = A(x.requires_grad_())
    y.abs().sum().backward()
    assert x.grad.abs().sum() > 0
    if isinstance(A, LinearOperator):
        y = y.detach().requires_grad_()
        (A.adjoint(y).sum() + A.pseudo_inverse(y).sum()).backward()
        assert y.grad.isfinite().all()


@pytest.mark.parametrize("name", {**ALL, **NOT_LINEAR})
def test_made_in_inference_mode(name):
    make = {**ALL, **NOT_LINEAR}[name]
    expected = dict(everything(make(), x := images(make(), dtype=torch.float32)))
    with torch.inference_mode():
        A = make()
        A(x)
    if name != "deepinv":  # its own constants are not ours
        A(x.requires_grad_()).abs().sum().backward()
    for key, value in everything(A, x.detach()):
        assert torch.equal(value, expected[key]), key


# torch.func and torch.compile ------------------------------------------------------------------------------------


def test_vmap_is_a_loop(A):
    x = torch.stack([images(A), images(A), images(A)])
    y = torch.stack([A(each) for each in x])
    for f, values in ((A, x), (A.adjoint, y), (A.pseudo_inverse, y), (A.naive, y)):
        mapped = torch.func.vmap(f)(values)
        assert torch.allclose(mapped, torch.stack([f(each) for each in values]), atol=1e-9)
    damped = torch.func.vmap(partial(A.pseudo_inverse, noise_std=0.1))(y)
    assert torch.allclose(damped, torch.stack([A.pseudo_inverse(each, 0.1) for each in y]), atol=1e-9)
    moved = torch.func.vmap(A.pseudo_inverse, in_dims=1, out_dims=1)(y.transpose(0, 1))
    assert torch.allclose(moved.transpose(0, 1), torch.stack([A.pseudo_inverse(each) for each in y]), atol=1e-9)


# torch.func.jvp itself: https://github.com/pytorch/pytorch/issues/174865
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_transforms_leave_nothing_behind(A):
    """Derivatives by torch.func are those of A, and ordinary calls give afterwards what they gave before."""
    fresh, x, y = copy.deepcopy(A), images(A), A(images(A))
    v = images(A)
    A = copy.deepcopy(A)
    _, tangent = torch.func.jvp(A, (x,), (v,))
    assert torch.allclose(tangent, fresh(v), atol=1e-12)
    x_hat = torch.func.grad(lambda y: inner(A.pseudo_inverse(y), x))(y)
    assert torch.allclose(inner(x_hat, y), inner(fresh.pseudo_inverse(y), x), atol=1e-9)
    _, tangent = torch.func.jvp(A.pseudo_inverse, (y,), (y,))
    assert torch.allclose(tangent, fresh.pseudo_inverse(y), atol=1e-9)
    _, tangent = torch.func.jvp(A.adjoint, (y,), (y,))
    assert torch.allclose(tangent, fresh.adjoint(y), atol=1e-12)
    for (key, got), (_, expected) in zip(everything(A, x), everything(fresh, x), strict=True):
        assert torch.equal(got, expected), key


@pytest.mark.parametrize("name", ["inpainting", "fourier", "user-complex", "blur-general"])
def test_compiled(name):
    A, fresh = ALL[name](), ALL[name]()
    x = images(A)
    y = fresh(x)
    torch.compiler.reset()
    for compiled, expected, given in (
        (A, fresh, x),
        (A.adjoint, fresh.adjoint, y),
        (A.pseudo_inverse, fresh.pseudo_inverse, y),
    ):
        assert torch.allclose(torch.compile(compiled, backend="eager")(given), expected(given), atol=1e-12)
    assert torch.compile(A, backend="eager", fullgraph=True)(x).shape == y.shape
    A(x.requires_grad_()).abs().sum().backward()
    assert torch.equal(A(x.detach()), y)


# Gradients -------------------------------------------------------------------------------------------------------


def check(f, *values):
    return torch.autograd.gradcheck(f, values, eps=1e-6, atol=1e-6, rtol=1e-5, check_batched_grad=False, fast_mode=True)


def test_gradients(A):
    x, y = images(A).requires_grad_(), A.measured(A(images(A)).detach()).requires_grad_()
    assert check(A, x)
    assert check(A.adjoint, y)
    assert check(A.pseudo_inverse, y)
    assert check(partial(A.pseudo_inverse, noise_std=0.2), y)
    assert check(A.naive, y)
    assert check(A.back_project, x, y)
    assert check(partial(A.back_project, noise_std=0.05), x, y)


@pytest.mark.parametrize("name", ["user", "user-complex", "every-second-row", "blur-general", "composition"])
def test_second_derivatives(name):
    A = ALL[name]()
    y = A(images(A)).requires_grad_()
    for f in (A.adjoint, A.pseudo_inverse):
        energy = lambda y, f=f: f(y).pow(3).sum()  # noqa: E731
        assert torch.autograd.gradgradcheck(energy, (y,), fast_mode=True, atol=1e-4)


def test_gradients_are_those_of_finite_differences():
    """The figures of README's operator, which autograd once gave as 190.0."""
    A = EverySecondRow((1, 8, 8))
    x, y = images(A), A(images(A))
    slope = lambda x: A.back_project(x, y).square().sum()  # noqa: E731
    gradient = torch.autograd.grad(slope(x.requires_grad_()), x)[0]
    expected = 2 * (x.detach() - A.adjoint(A(x.detach())))  # A^+ A is a projector, y lies in the rows that stay
    assert torch.allclose(gradient, expected, atol=1e-9)


def test_no_nan_where_back_projection_has_nothing_to_do():
    A = BicubicDownsampling((1, 8, 8), scale=2)
    x = images(A).requires_grad_()
    y = A(x).detach()
    for noise_std in (1e-9, 0.1, 1.0):
        gradient = torch.autograd.grad(A.back_project(x, y, noise_std).sum(), x)[0]
        assert torch.allclose(gradient, torch.ones_like(x)), noise_std
    A = Blur((1, 8, 8), size=3, padding="zero")  # regularised: the noise's level is never reached
    far = (A(x).detach() + 3).requires_grad_()
    gradient = torch.autograd.grad(A.back_project(x, far, 1e-6).sum(), far)[0]
    assert gradient.isfinite().all()


def test_gradients_reach_the_operators_own_parameters():
    """Through A, A^T and A^+, of less than full rank and with y beyond its range."""
    y, values = matrix(2, 1, 4, 3), torch.tensor([0.3, 1.7], dtype=torch.float64)
    for method in ("adjoint", "pseudo_inverse"):
        A = Trained((1, 4, 5))
        target = images(A)
        (getattr(A, method)(y) * target).sum().backward()
        got = A.width.grad
        step = 1e-5
        for i in range(2):
            with torch.no_grad():
                moved = [
                    (getattr(Trained((1, 4, 5), values + d * torch.eye(2).double()[i]), method)(y) * target).sum()
                    for d in (step, -step)
                ]
            assert (moved[0] - moved[1]) / (2 * step) == pytest.approx(got[i].item(), rel=1e-5)


# Kinds of devices ------------------------------------------------------------------------------------------------


class WithoutFloat64(TorchDispatchMode):
    """A device that has no float64, as Apple's."""

    def __init__(self, device):
        super().__init__()
        self.device = torch.device(device)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            double = isinstance(tensor, torch.Tensor) and tensor.dtype in (torch.float64, torch.complex128)
            if double and tensor.device.type == self.device.type:
                raise TypeError(f"{self.device.type} has no float64 ({function})")
        return result


def on(device, A, moved):
    """Ask A for everything on a device that is only claimed: a tensor left on the CPU, or a look at numbers, fails."""
    x = torch.zeros(2, *A.image_shape, device=device)
    if moved:
        A.to(device)
    for key, value in everything(A, x):
        assert value.device.type == device, key
    assert isinstance(A.num_measurements, int)


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("name", {**ALL, **NOT_LINEAR})
def test_on_a_device_of_its_own(name, moved):
    A = {**ALL, **NOT_LINEAR}[name]()
    x = images(A)
    before = copy.deepcopy(A)
    with FakeTensorMode(allow_non_fake_inputs=name in FOREIGN):
        if moved and name != "deepinv":  # its constants are no buffers of ours
            A = copy.deepcopy(A, fakes(A))
        on("cuda", A, moved)
    if not moved:  # nothing that is not there was kept
        for (key, got), (_, expected) in zip(everything(A, x), everything(before, x), strict=True):
            assert torch.equal(got, expected), key


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("name", {**ALL, **NOT_LINEAR})
def test_on_a_device_without_float64(name, moved):
    A = {**ALL, **NOT_LINEAR}[name]()
    with FakeTensorMode(allow_non_fake_inputs=name in FOREIGN), WithoutFloat64("cuda"):
        if moved and name != "deepinv":  # its constants are no buffers of ours
            A = copy.deepcopy(A, fakes(A))
        on("cuda", A, moved)


def fakes(A):
    """What deepcopy is to put in the place of an operator's constants in a FakeTensorMode."""
    mode = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)
    return {id(buffer): mode.from_tensor(buffer) for buffer in A.buffers()}


@pytest.mark.parametrize("name", {**ALL, **NOT_LINEAR})
def test_meta_images_pass_and_the_operator_stays(name):
    A = {**ALL, **NOT_LINEAR}[name]()
    x = torch.zeros(2, *A.image_shape, device="meta")
    if name not in FOREIGN:
        assert {value.device.type for _, value in everything(A, x)} == {"meta"}
    if list(A.buffers()):
        with pytest.raises(ValueError, match=r"holds numbers that the meta device cannot: [^\n]*$"):
            A.to("meta")
    A(images(A))


def test_a_matrix_is_factorised_once_for_all_fits(tiny, monkeypatch):
    """Each fit of a Trainer moves the operator to where it is; the factors of a large matrix take minutes."""
    counted = []
    monkeypatch.setattr(gaussian, "factorise", lambda *given: counted.append(given) or factorise(*given))
    A = GaussianSensing(tiny.image_shape, ratio=0.2)
    stages = {"latent": Stage(steps=2), "joint": Stage(steps=2)}
    for seed in range(2):
        result = reconstruct(A.measure(images(A)[:1].float()), A, tiny, seed=seed, accelerator="cpu", **stages)
        assert result.iagan_bp is not None
    assert len(counted) == 1


def test_what_is_kept_is_dropped_when_the_operator_moves_or_changes():
    A = GaussianSensing((1, 4, 4), ratio=0.5)
    y = A(images(A))
    before = A.pseudo_inverse(y)
    A._apply(lambda tensor: tensor.mul_(2))  # in place
    assert torch.allclose(A.pseudo_inverse(y), before / 2)
    A._apply(torch.clone)  # as to another device
    assert not A._kept
    x = images(A := Inpainting((1, 4, 4), ratio=0.5))
    A(x)
    A.mask = torch.ones(1, 4, 4, dtype=torch.bool)
    assert torch.equal(A(x), x) and A.num_measurements == 16
    x = images(A := FourierSensing((1, 4, 4), ratio=0.5))
    A(x)
    A.mask = torch.ones(4, 4, dtype=torch.bool)
    assert A.measurement_shape == (1, 16) and torch.allclose(A.pseudo_inverse(A(x)), x)
    A, B = (BicubicDownsampling((1, 12, 12), scale=3, padding=p) for p in ("zero", "circular"))
    x = images(A)
    A(x)
    assert torch.equal(torch.func.functional_call(A, dict(B.named_buffers()), x), B(x))
