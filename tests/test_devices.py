"""What happens on a GPU, as far as a machine without one can tell.

PyTorch's fake tensors claim to lie on ``cuda:0``, have shapes and no values. An operation with a tensor that was left
on the CPU raises, and so does whatever needs a value: a condition, ``item``, ``nonzero``, for which the host would
wait. Gradients are given, a backward pass is not to be had.
"""

import contextlib
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from iagan_lightning.callbacks import BestObjective, CurveWriter, StageStopping
from iagan_lightning.callbacks.curves import curve_point
from iagan_lightning.callbacks.result_writer import familiar, finished
from test_operator_modes import WithoutFloat64
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from iagan_lightning import DIP, IAGAN, ILO, DIPSettings, Stage, adapt
from iagan_lightning.generators import BEGAN, PGGAN, ModuleGenerator, Pyramid
from iagan_lightning.methods.trainers import quiet_lightning, quiet_trainer
from iagan_lightning.operators import BicubicDownsampling
from iagan_lightning.results.familiarity import unexplained

SHAPE = (3, 16, 16)
GENERATORS = {
    "BEGAN": lambda: BEGAN(16, 4, 8),
    "skip": lambda: BEGAN(16, 4, 8, skip=True),
    "PGGAN": lambda: PGGAN(16, (8, 8, 4), 6),
    "Pyramid": lambda: Pyramid((8, 4), 6, 4),
    "module": lambda: ModuleGenerator(nn.Sequential(nn.Linear(8, 768), nn.Tanh(), nn.Unflatten(1, SHAPE)), [8]),
}


class Pinned(TorchDispatchMode):
    """Pinned memory, which fake tensors have not."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        pins = func is torch.ops.aten._pin_memory.default
        return args[0].clone() if pins else func(*args, **(kwargs or {}))


class NoWaiting(Pinned):
    """Refuse copies to the device for which the host would wait: of more than a number, and not from pinned memory."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = super().__torch_dispatch__(func, types, args, kwargs)
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            given = args[1] if func is torch.ops.aten.copy_.default else args[0]
            waits = given.device.type != output.device.type and not (kwargs or {}).get("non_blocking")
            assert not (waits and given.ndim), f"{tuple(given.shape)} copied from {given.device} to {output.device}"
        return output


@pytest.fixture
def mode():
    return FakeTensorMode()


@contextlib.contextmanager
def on_the_device(mode):
    with mode, NoWaiting():
        yield


def pretended(tensor, mode):
    with mode:
        return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="cuda:0")


def pretend(module, mode):
    """Move all parameters and buffers of a module to a device that is not there."""
    for part in module.modules():
        for name, p in part._parameters.items():
            if p is not None:
                part._parameters[name] = nn.Parameter(pretended(p, mode), requires_grad=p.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = pretended(buffer, mode)
        if hasattr(part, "_casts"):
            part._casts.clear()
        if hasattr(part, "_device"):
            part._device = torch.device("cuda:0")
    return module


def take_steps(module, steps=4):
    """Evaluate and step with gradients of ones, the callbacks that see every evaluation looking on."""
    trainer = SimpleNamespace(optimizers=[module.configure_optimizers()], should_stop=False, global_step=1)
    best, stopping, curves = BestObjective(), StageStopping(check_every=100), CurveWriter("nowhere")
    stopping.on_train_start(trainer, module)
    for step in range(1, steps):

        def closure(step=step):
            loss = module.training_step(None, step)
            best.on_before_backward(trainer, module, loss)
            for p in module.parameters():
                if p.requires_grad:
                    p.grad = torch.ones_like(p)
            return loss

        module.optimizer_step(0, step, trainer.optimizers[0], closure)
        for callback in (stopping, curves):
            callback.on_train_batch_end(trainer, module, None, None, step)


def began(kind, fit, noise_std=0.0, batch=2, **settings):
    """Return a method that has begun a fit, on the CPU."""
    A = BicubicDownsampling(SHAPE, scale=4)
    module = kind(**settings)
    module.begin(torch.zeros(batch, 3, 4, 4), A, noise_std, truth=torch.zeros(batch, *SHAPE))
    for earlier in module.fits[: [each.name for each in module.fits].index(fit)]:
        module.enter(earlier.name)
        module.keep(module.last_iterate())
    module.enter(fit)
    return module


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_fit_asks_no_float64_of_a_device_that_has_none(mode, optimizer):
    """Apple's; several searches, each of which accepts, end in the place of the float64 that they need."""
    module = began(IAGAN, "latent", generator=BEGAN(16, 4, 8), latent=Stage(optimizer, restarts=2, keep="last"))
    pretend(module, mode)
    with mode, WithoutFloat64("cuda"):
        take_steps(module, steps=5)
        x, A = module.evaluation.image[::2], module.operator
        assert unexplained(x, module.y, A, 0.0).device.type == "cuda"


def test_dip_asks_no_float64_of_a_device_that_has_none(mode):
    module = began(DIP, "dip", settings=DIPSettings(steps=5, stop="variance", window=2, average=0.5))
    pretend(module, mode)
    with mode, Pinned(), WithoutFloat64("cuda"):
        take_steps(module, steps=5)


def test_what_is_said_of_an_image_once_lightning_has_left_the_device():
    """Then y and A are on the CPU, and the results, which are no buffers, where they were made."""
    module = began(IAGAN, "joint", generator=BEGAN(16, 4, 8))
    module.keep(module.last_iterate())
    module.fitted_on = torch.device("cuda:0")
    assert finished(module, 0).device == "cuda:0"
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    module.results = {name: pretended(x, mode) for name, x in module.results.items()}
    with mode, pytest.raises(DataDependentOutputException):  # the number that would be said has no value here
        familiar(module, 0)


def test_what_this_file_catches(mode):
    """A tensor left behind, a condition on a value, and a copy that waits."""
    there, here = pretended(torch.zeros(4), mode), torch.zeros(4)
    with on_the_device(mode):
        with pytest.raises(DataDependentOutputException):
            bool(there.any())
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.zeros(4)
        with pytest.raises(AssertionError, match="copied from cpu to cuda:0"):
            torch.zeros(4).to(there.device)
        with pytest.raises(AssertionError, match="convert all Tensors to FakeTensors"):
            there + here
        assert torch.zeros(4).pin_memory().to(there.device, non_blocking=True).device.type == "cuda"


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_stays_on_its_device(mode, name, batch):
    for fit in ("latent", "joint"):
        module = pretend(began(IAGAN, fit, generator=GENERATORS[name](), preset="paper", batch=batch), mode)
        with on_the_device(mode):
            loss = module.training_step()
            assert isinstance(loss, FakeTensor) and loss.device.type == "cuda"
            assert module.evaluation.image.device.type == "cuda"


@pytest.mark.parametrize(
    ("fit", "noise_std", "optimizer", "keep"),
    [
        ("latent", 0.0, "adam", "last"),
        ("latent", 0.0, "lbfgs", "best"),
        ("joint", 0.1, "adam", "best"),
        ("joint", 0.1, "lbfgs", "last"),
        ("probe", None, "adam", "best"),
        ("joint", None, "adam", "last"),
    ],
)
def test_no_step_of_a_fit_waits_for_the_device(mode, fit, noise_std, optimizer, keep):
    starts = 2 if fit == "latent" else 1
    settings = {"latent": Stage(optimizer, restarts=starts, keep=keep), "joint": Stage(optimizer, keep=keep)}
    module = began(IAGAN, fit, noise_std, generator=BEGAN(16, 4, 8), **settings)
    if module.current.settings.stop == "held-out" and fit == "joint":
        module.limit = pretended(torch.ones(2), mode)
    rows = pretended(torch.tensor([1]), mode)
    pretend(module, mode)
    with on_the_device(mode):
        take_steps(module)
        module.rows = rows  # one of them has ended
        take_steps(module)
        assert curve_point(module)[0]["psnr"].device.type == "cuda"


@pytest.mark.parametrize("fit", ["features", "joint"])
def test_features_stay_on_their_device(mode, fit):
    module = began(ILO, fit, generator=BEGAN(16, 4, 8), depth=8)
    centre = module._centre
    pretend(module, mode)
    if centre is not None:
        module._centre = pretended(centre, mode)
    with on_the_device(mode):
        take_steps(module)


@pytest.mark.parametrize("stop", ["never", "variance", "noise"])
def test_no_step_of_dip_waits_for_the_device(mode, stop):
    settings = DIPSettings(steps=5, stop=stop, window=3, average=0.5)
    module = began(DIP, "dip", 0.1 if stop == "noise" else 0.0, settings=settings)
    with on_the_device(mode):
        take_steps(pretend(module, mode))


# Full precision ---------------------------------------------------------------------------------------------------


def kinds():
    """Return what holds the newer settings, one for each kind of operation; nothing before PyTorch 2.9."""
    cudnn, cuda, mkldnn = torch.backends.cudnn, torch.backends.cuda, torch.backends.mkldnn
    pairs = ((cudnn, "conv"), (cudnn, "rnn"), (cuda, "matmul"), (mkldnn, "conv"), (mkldnn, "matmul"))
    each = (getattr(backend, name, None) for backend, name in pairs)
    return [kind for kind in each if hasattr(kind, "fp32_precision")]


def flags():
    seen = [kind.fp32_precision for kind in kinds()]
    for read in (lambda: torch.backends.cudnn.allow_tf32, lambda: torch.backends.cuda.matmul.allow_tf32):
        try:
            seen.append(read())
        except RuntimeError:  # where somebody has set the newer ones
            seen.append("mixed")
    return [*seen, torch.get_float32_matmul_precision()]


@pytest.fixture
def _flags_put_back():
    before = [(kind, kind.fp32_precision) for kind in kinds()]
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    for kind, value in before:
        kind.fp32_precision = value


class Flags(pl.Callback):
    def __init__(self, fail=False):
        self.fail, self.seen = fail, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(flags())
        if self.fail:
            raise OSError("the disk is full")


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("before", ["default", "high", "off", "one kind"])
@pytest.mark.usefixtures("_flags_put_back")
def test_float32_is_float32_within_a_fit_only(before, fail):
    """On a GPU convolutions would be TF32, which keeps 10 bits of 23; what a user has set is put back."""
    if before == "high":
        torch.set_float32_matmul_precision("high")
    elif before == "off":
        torch.backends.cudnn.allow_tf32 = False
    elif before == "one kind":
        if not kinds():
            pytest.skip("PyTorch before 2.9 has one setting for all kinds of operations")
        kinds()[0].fp32_precision = "ieee"  # from here on older settings cannot be read
    given, watch = flags(), Flags(fail)
    module = IAGAN(BEGAN(16, 4, 8), latent=Stage(steps=2), joint=Stage(steps=2))
    module.begin(torch.zeros(1, 3, 4, 4), BicubicDownsampling(SHAPE, scale=4))
    with quiet_lightning(), pytest.raises(OSError) if fail else contextlib.nullcontext():
        adapt(module, quiet_trainer(accelerator="cpu", callbacks=[watch]))
    assert flags() == given
    for newer, older in ((seen[: len(kinds())], seen[len(kinds()) :]) for seen in watch.seen):
        assert set(newer) <= {"ieee"} and True not in older and older[-1] == "highest"
    assert len(watch.seen) == (1 if fail else 4)
