"""What every measurement operator A has, linear or not, with working defaults for everything but ``forward``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from inspect import signature
from itertools import chain
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from iagan_lightning.checks import check_integers, check_seed, check_seeds
from iagan_lightning.devices import has_float64
from iagan_lightning.operators.modes import (
    UNCOUNTED,
    cast,
    has_values,
    in_autocast,
    in_transform,
    may_keep,
    ordinary,
    version_of,
)
from iagan_lightning.operators.noise import check_noise_std

FULL = frozenset((torch.float32, torch.float64))
FROM_MEASUREMENTS = ("adjoint", "pseudo_inverse", "naive")
FROM_IMAGES = ("difference", "vjp", "back_project", "back_project_rounded")


def exact(method: Callable[..., Any]) -> Callable[..., Any]:
    """Guard a method of images or measurements: out of autocast, with constants as they are now; no images of none.

    A level of noise or rounding that it takes is checked, whether the method uses it or not.

    Subclasses need not ask for it: ``Operator`` does, for each method of theirs that is in ``FROM_MEASUREMENTS`` or
    ``FROM_IMAGES``. ``forward`` is guarded by ``__call__``.
    """
    first = method.__name__ in FROM_MEASUREMENTS
    taken = list(signature(method).parameters)[1:]
    levels = [(taken.index(name), name) for name in ("noise_std", "quantisation") if name in taken]

    @wraps(method)
    def guarded(self: Operator, *args: Any, **kwargs: Any) -> Any:
        for place, name in levels:
            check_noise_std(args[place] if place < len(args) else kwargs.get(name, 0.0), name)
        given = args[0] if args else next((v for v in kwargs.values() if isinstance(v, Tensor)), None)
        if not isinstance(given, Tensor):
            return method(self, *args, **kwargs)
        if self.sources:
            self._refresh()
        if first and given.ndim and not given.shape[0]:
            return _nothing(self._check_measurement(given), self.image_shape)
        if not in_autocast(given.device):
            return method(self, *args, **kwargs)
        with torch.autocast(given.device.type, enabled=False):
            return method(self, *args, **kwargs)

    return guarded


class Operator(nn.Module):
    r"""A map :math:`y = A(x)` from images to measurements, differentiable by PyTorch. Linear ones: ``LinearOperator``.

    Images are ``(B, C, H, W)`` in [-1, 1], measurements ``(B, *measurement_shape)``, real or complex. An operator that
    is not linear can be reconstructed from, but has no adjoint, pseudo-inverse or back-projection. Whole numbers are
    refused, by every operator: what they count is not on the scale of images. A batch may be empty.

    Constants of an operator are float64 buffers. They stay float64 when the module is cast, and ``constant`` hands
    out a copy in the precision of the image at hand: results in float64 are exact, results in float32 are as good
    as float32 allows, and half precision under autocast never reaches the arithmetic of A. On a device without float64
    they stay on the CPU, their copies go there. What an operator keeps is made out of inference mode, and never in a
    transform of ``torch.func``, a ``FakeTensorMode`` or a graph that is being recorded; it is made anew when a constant
    is loaded, exchanged, or changed in place.

    Args:
        image_shape: ``(C, H, W)`` of the images that the operator takes.

    Attributes:
        measurement_shape: shape of one measurement; a subclass sets it, or it is found by one forward call.

    Example:
        >>> class Squares(Operator):
        ...     def forward(self, x):
        ...         return x.square()
        >>> A = Squares((1, 2, 2))
        >>> x = torch.ones(1, 1, 2, 2)
        >>> A.vjp(x, torch.ones(1, 1, 2, 2)).flatten().tolist()
        [2.0, 2.0, 2.0, 2.0]
    """

    regularised = False  # True where pseudo_inverse trades exactness for stability, by design
    compressed_sensing = False  # True where the paper's longer joint schedule applies (Gaussian, Fourier)
    sources: tuple[str, ...] = ()  # buffers from which ``_follow`` makes others

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Guard a subclass's own methods, and say of what type the image shape is where it leaves that open."""
        super().__init_subclass__(**kwargs)
        for name in (*FROM_MEASUREMENTS, *FROM_IMAGES):
            if isinstance(method := cls.__dict__.get(name), FunctionType):
                setattr(cls, name, exact(method))
        init = cls.__dict__.get("__init__")  # the command line asks for the type
        if isinstance(init, FunctionType) and init.__code__.co_argcount > 1:
            init.__annotations__.setdefault(init.__code__.co_varnames[1], Sequence[int])
        if cls.__new__ is not object.__new__ and "__new__" not in cls.__dict__:
            _make_plainly(cls)

    def __init__(self, image_shape: Sequence[int]) -> None:
        super().__init__()
        self.image_shape = check_image_shape(image_shape)
        self._measurement_shape: tuple[int, ...] | None = None
        self._tried: tuple[tuple[int, ...], bool] | None = None  # shape of one measurement, and whether it is complex
        self._kept: dict[str, tuple[torch.dtype, torch.device, Any, int, Any]] = {}
        self._followed: list[tuple[str, Tensor | None, int]] = []  # the sources, when they were last looked at

    # What a subclass writes ------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Return A(x) for a batch of images. Every subclass writes this."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def difference(self, x: Tensor, y: Tensor) -> Tensor:
        """Return A(x) - y, whose mean square is minimised; of measurements that are intervals, what is missing to them.

        Args:
            x: images ``(B, C, H, W)``.
            y: measurements ``(B, *measurement_shape)``.
        """
        measured = self(x)
        return measured - y.to(measured.dtype)

    def naive(self, y: Tensor) -> Tensor | None:
        """Return the plain reconstruction that results are compared with; None where there is none."""
        return None

    def picture(self, y: Tensor) -> Tensor | None:
        """Return one measurement ``measurement_shape`` as an image ``(1 or 3, h, w)`` in [-1, 1], or None."""
        return y if y.ndim == 3 and len(y) in (1, 3) and not y.is_complex() else None

    # What every operator gets ----------------------------------------------------------------------------------

    def __call__(self, x: Tensor) -> Tensor:
        """Return A(x), in full precision also under autocast."""
        # Small operators take microseconds: nothing here may cost as many. Entering the context does.
        shape = x.shape
        if shape[1:] != self.image_shape or x.dtype not in FULL:
            x = self._check_image(x)
        if self.sources:
            self._refresh()
        if not shape[0]:
            y = _nothing(x, self.measurement_shape)
            return y.to(y.dtype.to_complex()) if self.complex_valued else y
        if not in_autocast(x.device):
            return super().__call__(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().__call__(x)

    @exact
    def vjp(self, x: Tensor, y: Tensor) -> Tensor:
        r"""Return :math:`J(x)^T y`, J being the derivative of A at x: of :math:`\mathrm{Re}\langle y, A(x)\rangle`.

        Args:
            x: images ``(B, C, H, W)``.
            y: measurements ``(B, *measurement_shape)``.
        """
        y = self._check_measurement(y)
        x = self._check_image(x).to(_real(y.dtype))
        if in_transform():
            value, pull = torch.func.vjp(self, x)[:2]
            return pull(y.to(value.dtype))[0]
        trained = (p.requires_grad for p in self.parameters())
        again = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad or any(trained))
        # Autograd does not run in inference mode (Lightning's test and predict), nor on its tensors.
        with torch.inference_mode(False), torch.enable_grad():
            x, y = ordinary(x), ordinary(y)
            if not (again and x.requires_grad):
                x = x.detach().requires_grad_()
            inner = (self._usable()(x) * y.conj()).real.sum()
            try:
                return torch.autograd.grad(inner, x, create_graph=again)[0]
            except RuntimeError:
                if has_values(x):
                    raise
                # A FakeTensorMode can claim a device that is not there, and autograd does not run on such a one. There
                # are no values to be wrong: the shape is what is asked for.
                return torch.zeros_like(x)

    @torch.no_grad()
    def measure(self, x: Tensor, noise_std: float = 0.0, seed: int | Sequence[int] = 0) -> Tensor:
        r"""Return :math:`y = A(x) + e`.

        Args:
            x: images ``(B, C, H, W)`` in [-1, 1].
            noise_std: standard deviation of e on the **[0, 1]** scale, so that 10/255 means ten grey levels; e
                itself has twice that, because images span [-1, 1]. Complex y: independently on both parts.
            seed: image i draws its noise on the CPU from seed + i, or from seed[i].

        Example:
            >>> from iagan_lightning.operators import BicubicDownsampling
            >>> A = BicubicDownsampling((3, 64, 64), scale=2)
            >>> x = torch.zeros(2, 3, 64, 64)
            >>> round(A.measure(x, noise_std=0.1, seed=0).std().item(), 2)
            0.2
        """
        check_noise_std(noise_std)
        y = self(x)
        if noise_std == 0 or not len(y):
            return y.clone()  # A(x) may be x itself, or a view of it; what is measured stays
        real = _real(y.dtype)
        noise = torch.stack([_noise(y.shape[1:], y.is_complex(), s) for s in check_seeds(seed, len(y))]).to(y.device)
        noise = noise.to(y.dtype if y.is_complex() else real)
        return y + 2 * noise_std * self.measured(noise)

    def measured(self, y: Tensor) -> Tensor:
        """Return y with the entries that A never measures set to zero (for most operators: y itself)."""
        return y

    def held_out(self, fraction: float, seed: int) -> Tensor:
        """Return which entries of one measurement to keep back, bool ``measurement_shape``, on the CPU.

        They test a reconstruction from the others. Entries that are never measured are not among them, and entries
        that tell each other (a Fourier coefficient and its conjugate) are kept back together.

        Args:
            fraction: part of the measured entries, in (0, 1).
            seed: of the random choice.

        Raises:
            ValueError: where there is nothing to divide.

        Example:
            >>> from iagan_lightning.operators import Inpainting
            >>> int(Inpainting((3, 10, 10), ratio=0.5).held_out(0.1, seed=0).sum())
            15
        """
        scores = self._scores(torch.Generator().manual_seed(check_seed(seed)))
        device = next((b.device for b in self.buffers()), torch.device("cpu"))
        ones = torch.ones(1, *self.measurement_shape, dtype=torch.float32, device=device)
        scores = torch.where(self.measured(ones)[0].cpu() != 0, scores, torch.inf)
        count = round(fraction * int(scores.isfinite().sum()))
        if not 0 < count < int(scores.isfinite().sum()):
            raise ValueError(f"of {self.num_measurements} measurements no part of {fraction} can be kept back")
        return scores <= scores.flatten().kthvalue(count).values

    def _scores(self, draw: torch.Generator) -> Tensor:
        """Return random numbers, the entries with the lowest are kept back; those that belong together share one."""
        return torch.rand(self.measurement_shape, generator=draw, dtype=torch.float32, device="cpu")

    @property
    def measurement_shape(self) -> tuple[int, ...]:
        """Shape of one measurement, without the batch axis."""
        self._refresh()
        return self._try()[0] if self._measurement_shape is None else self._measurement_shape

    @property
    def complex_valued(self) -> bool:
        """Whether measurements are complex; found by one forward call."""
        return self._try()[1]

    def _try(self) -> tuple[tuple[int, ...], bool]:
        """Return the shape of one measurement and whether it is complex, as one forward call tells."""
        if self._tried is None:
            device = next((b.device for b in self.buffers()), torch.device("cpu"))
            with torch.no_grad():
                y = self(torch.zeros(1, *self.image_shape, dtype=torch.float32, device=device))
            self._tried = tuple(y.shape[1:]), y.is_complex()
        return self._tried

    @property
    def num_measurements(self) -> int:
        """Number of measured entries m; a complex entry counts once."""
        return int(torch.Size(self.measurement_shape).numel())

    def extra_repr(self) -> str:
        """Return the settings that ``repr`` shows; results are recorded with them."""
        return f"image_shape={self.image_shape}"

    # Constants: float64, whatever the module is cast to ---------------------------------------------------------

    def constant(self, name: str, like: Tensor) -> Tensor:
        """Return buffer ``name`` on the device and in the (real or complex) precision of ``like``.

        Masks become numbers; whole numbers (indices) keep their type.
        """
        buffer = self._buffers[name]
        kept = self._kept.get(name)
        if (
            kept is not None
            and kept[0] == like.dtype
            and kept[1] == like.device
            and kept[2] is buffer
            and not torch.compiler.is_compiling()
            and (kept[3] == UNCOUNTED or kept[3] == buffer._version)
            and not isinstance(like, FakeTensor)
        ):
            return kept[4]
        assert buffer is not None
        dtype = _real(like.dtype)
        if buffer.is_complex():
            dtype = dtype.to_complex()
        elif not buffer.is_floating_point() and buffer.dtype != torch.bool:
            dtype = buffer.dtype
        return self._keep(name, like, lambda: cast(buffer, dtype, like), buffer)

    def _keep(self, name: str, like: Tensor, make: Callable[[], Any], source: Any = None) -> Any:
        """Return what ``make`` makes for the precision and device of ``like``, made once where it may be kept.

        It is made anew when the operator is moved to another device or loaded, and when ``source`` is another object or
        has been changed in place.
        """
        if torch.compiler.is_compiling():
            return make()
        kept = self._kept.get(name)
        fake = isinstance(like, FakeTensor)
        version = version_of(source)
        here = (like.dtype, like.device)
        if kept is not None and not fake and kept[:2] == here and kept[2] is source and kept[3] == version:
            return kept[4]
        with torch.inference_mode(False), torch.no_grad():
            made = make()
        if not fake and may_keep():
            self._kept[name] = *here, source, version, made
        return made

    def _follow(self) -> None:
        """Make what follows from the ``sources``: called when they are there, and whenever they have changed."""

    def _update(self) -> None:
        """Call ``_follow`` for the sources as they are now."""
        with torch.inference_mode(False), torch.no_grad():
            self._follow()
        self._look()

    def _look(self) -> None:
        """Take the sources as those that have been followed."""
        buffers = [(name, self._buffers[name]) for name in self.sources]
        self._followed = [(name, buffer, version_of(buffer)) for name, buffer in buffers]

    def _refresh(self) -> None:
        """Follow sources that have been exchanged, or changed in place."""
        if torch.compiler.is_compiling():
            return
        for name, seen, version in self._followed:
            source = self._buffers[name]
            if source is not seen or (version != UNCOUNTED and source._version != version):  # type: ignore[union-attr]
                if not isinstance(source, FakeTensor):
                    self._update()
                return

    def _usable(self) -> Callable[[Tensor], Tensor]:
        """Return A, with copies in place of what autograd cannot use because A was made in inference mode."""
        tensors = chain(self.named_parameters(), self.named_buffers())
        copies = {name: tensor.clone() for name, tensor in tensors if tensor.is_inference()}
        return partial(torch.func.functional_call, self, copies) if copies else self

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in self.__dict__.get("_buffers", ()):
            self._tried = None
            if name in self.sources:
                self._update()

    # Copies have the constants' copies, whose versions are counted anew.

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled; of what is kept, that which is up to date."""
        self._refresh()
        kept = {name: each for name, each in self._kept.items() if each[3] == version_of(each[2])}
        return {**self.__dict__, "_kept": kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of another operator."""
        super().__setstate__(state)
        self._kept = {name: (*each[:3], version_of(each[2]), each[4]) for name, each in self._kept.items()}
        self._look()

    def _apply(self, fn: Any, recurse: bool = True) -> Operator:
        # Casting a module to float32 and back to float64 would leave rounded constants: only moves go through.
        def move(tensor: Tensor) -> Tensor:
            try:
                moved = fn(tensor)
                moved = moved if moved.dtype == tensor.dtype else tensor.to(moved.device)
            except Exception:
                double = tensor.dtype in (torch.float64, torch.complex128)
                if not double or has_float64(fn(torch.empty(0, dtype=torch.float32)).device):
                    raise
                return tensor  # the device has no float64: its copies are made here and go there
            if moved.device.type == "meta" and tensor.device.type != "meta":
                raise ValueError(
                    f"{type(self).__name__} holds numbers that the meta device cannot: leave it where it is, it takes "
                    "images on the meta device there"
                )
            return moved

        self._refresh()
        super()._apply(move, recurse)
        # A Trainer moves its module before every fit, mostly to where it is: factors of minutes are then still good.
        stayed = {(id(buffer), version_of(buffer)) for buffer in self._buffers.values()}
        self._kept = {
            name: each for name, each in self._kept.items() if each[3] != UNCOUNTED and (id(each[2]), each[3]) in stayed
        }
        self._look()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._kept.clear()
        self._tried = None
        super()._load_from_state_dict(*args, **kwargs)
        self._update()

    # Checks ----------------------------------------------------------------------------------------------------

    def _check_image(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"{type(self).__name__} takes images of shape (batch, {', '.join(map(str, self.image_shape))}); "
                f"{tuple(x.shape)} was given"
            )
        if not x.is_floating_point():
            eight = " (pixels of 8 bits: x / 127.5 - 1)" if x.dtype == torch.uint8 else ""
            raise ValueError(
                f"{type(self).__name__} takes real images in [-1, 1], of floating point{eight}; {x.dtype} was given"
            )
        return _full_precision(x)

    def _check_measurement(self, y: Tensor) -> Tensor:
        if y.shape[1:] != self.measurement_shape:
            raise ValueError(
                f"{type(self).__name__} gives measurements of shape "
                f"(batch, {', '.join(map(str, self.measurement_shape))}); {tuple(y.shape)} was given"
            )
        if y.dtype in FULL:
            return y
        if not y.is_floating_point() and not (y.is_complex() and self.complex_valued):
            real = "" if self.complex_valued else "real "
            raise ValueError(
                f"{type(self).__name__} gives {real}measurements of images in [-1, 1], of floating point; {y.dtype} "
                "was given"
            )
        return _full_precision(y)


def _make_plainly(kind: type) -> None:
    """Let a class be made as itself, of whatever it takes, though the one it derives from chooses among classes."""

    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(cls)

    new.__signature__ = signature(kind.__init__)  # type: ignore[attr-defined, misc]
    kind.__new__ = new  # type: ignore[assignment, method-assign]


def check_image_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    """Return a shape of images as three whole numbers, or raise ValueError."""
    channels, height, width = check_integers("image_shape", image_shape, ("channels", "height", "width"))
    return channels, height, width


def _full_precision(x: Tensor) -> Tensor:
    """Half precision would drown the measurements in rounding: it becomes float32."""
    if x.dtype == torch.complex32:
        return x.to(torch.complex64)
    return x if x.dtype in FULL or x.is_complex() else x.float()


def _nothing(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Return real zeros for an empty batch, through which gradients pass."""
    like = like.real if like.is_complex() else like
    return like.new_zeros(0, *shape) + 0 * like.sum()


def _real(dtype: torch.dtype) -> torch.dtype:
    return dtype.to_real() if dtype.is_complex else dtype


def _noise(shape: Sequence[int], is_complex: bool, seed: int) -> Tensor:
    """Unit normal noise (on both parts of a complex entry), always drawn on the CPU and in float32."""
    draw = torch.Generator().manual_seed(check_seed(seed))
    parts = (*shape, 2) if is_complex else shape
    noise = torch.randn(*parts, generator=draw, dtype=torch.float32, device="cpu")
    return torch.view_as_complex(noise) if is_complex else noise
