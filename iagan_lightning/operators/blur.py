"""Blur: convolution with a kernel, and the regularised inverse that it needs.

Convolutions are diagonal in some basis: circular ones in the Fourier basis, separable ones with any padding in the
products of the singular vectors of two small matrices. There the pseudo-inverse is a division, truncated or damped
where the divisor is small. Other kernels with other paddings have no such basis and fall back on iterations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from iagan_lightning.checks import check_choice, check_kind, check_number, in_words
from iagan_lightning.operators.bicubic import _fold
from iagan_lightning.operators.files import Array, fingerprint, read_kernel
from iagan_lightning.operators.linear import LinearOperator
from iagan_lightning.operators.modes import on_the_cpu
from iagan_lightning.operators.operator import check_image_shape

Padding = Literal["circular", "zero", "reflect", "replicate"]
KERNELS = ("uniform", "gaussian", "motion")

SIGNAL_POWER = 0.25  # mean square of images in [-1, 1]: what noise is weighed against


class Blur(LinearOperator):
    r"""Convolution with a kernel, :math:`y = k * x` for each channel (a true convolution: the kernel is mirrored).

    It is made as a ``CircularBlur``, ``SeparableBlur`` or ``GeneralBlur``, by padding and kernel. With the singular
    values s of A, :math:`A^+` without noise is 1 / s where s is above ``truncation`` times the largest, else 0, so that
    :math:`A^+ A` is a projector. With noise it is :math:`s / (s^2 + (2 \sigma)^2 / P)` (Tikhonov), P = 0.25 being the
    power of images in [-1, 1]. A ``GeneralBlur`` is damped by the truncation even without noise.

    Args:
        image_shape: ``(C, H, W)``.
        kernel: ``"uniform"``, ``"gaussian"`` (with ``std``) or ``"motion"`` (a line of length ``size``, with
            ``angle``); or a kernel of one's own ``(kh, kw)``, or its .pt, .npy or picture file (a picture is scaled
            to sum 1).
        size: side of the named kernels in pixels.
        std: standard deviation of the Gaussian in pixels.
        angle: direction of the motion in degrees, counter-clockwise from the x axis.
        padding: what lies beyond the border: ``"circular"`` (the authors' choice), ``"zero"`` (mid-grey),
            ``"reflect"`` or ``"replicate"``.
        truncation: singular values below this part of the largest are not inverted.

    Shapes: x ``(B, C, H, W)`` in [-1, 1] -> y of the same shape; the kernel's centre is at index size // 2.

    Raises:
        ValueError: for an unknown kernel or padding, or a kernel larger than the image.

    Source: Abu Hussein, Tirer and Giryes, AAAI 2020, Section 4.3 (uniform, 9 x 9, noise 10/255).

    Example:
        >>> A = Blur((3, 16, 16), kernel="uniform", size=3)
        >>> y = A(torch.ones(1, 3, 16, 16))
        >>> bool(torch.allclose(y, torch.ones(()))), A
        (True, Blur(image_shape=(3, 16, 16), kernel='uniform', size=3, padding='circular'))
    """

    sources = ("weights",)

    def __new__(
        cls,
        image_shape: Sequence[int] = (),
        kernel: Array = "uniform",
        size: int = 9,
        std: float | None = None,
        angle: float = 0.0,
        padding: Padding = "circular",
        truncation: float = 1e-2,
    ) -> Blur:
        """Return an operator of the class in whose basis the convolution is diagonal."""
        if cls is not Blur:
            return super().__new__(cls)
        check_image_shape(image_shape)
        check_choice("padding", padding, Padding)
        if padding == "circular":
            return super().__new__(CircularBlur)
        _, weights = kernel_of(kernel, size, std, angle)
        return super().__new__(GeneralBlur if separate(weights) is None else SeparableBlur)

    def __init__(
        self,
        image_shape: Sequence[int],
        kernel: Array = "uniform",
        size: int = 9,
        std: float | None = None,
        angle: float = 0.0,
        padding: Padding = "circular",
        truncation: float = 1e-2,
    ) -> None:
        super().__init__(image_shape)
        check_choice("padding", padding, Padding)
        check_number("truncation", truncation)
        if not 0 <= truncation < 1:
            raise ValueError(f"truncation lies in [0, 1); {truncation} was given")
        self.padding, self.truncation = padding, truncation
        self.name, weights = kernel_of(kernel, size, std, angle)
        self.register_buffer("weights", weights)
        self._measurement_shape = self.image_shape
        self._update()

    def _follow(self) -> None:
        weights = self.get_buffer("weights")
        height, width = self.image_shape[1:]
        if weights.shape[0] > height or weights.shape[1] > width:
            raise ValueError(
                f"the kernel of {weights.shape[0]} x {weights.shape[1]} pixels is larger than the image of {height} x "
                f"{width}: choose a smaller one"
            )
        for name, constant in self._basis(weights.cpu()).items():
            self.register_buffer(name, constant.to(weights.device))

    def _basis(self, weights: Tensor) -> dict[str, Tensor]:
        """Return the constants of the basis by their names, for weights on the CPU."""
        return {}

    def pseudo_inverse(self, y: Tensor, noise_std: float = 0.0) -> Tensor:
        """Return A^+ y, truncated, or damped for the noise; see ``Blur``."""
        return self._inverse(self._check_measurement(y), (2 * noise_std) ** 2 / SIGNAL_POWER)

    def _inverse(self, y: Tensor, damping: float) -> Tensor:
        """Return A^+ y with a damping, truncated where that is 0."""
        raise NotImplementedError

    def naive(self, y: Tensor) -> Tensor:
        """Return a copy of the blurred image itself, the paper's comparison."""
        return self._check_measurement(y).clone()

    def back_project_rounded(self, x_hat: Tensor, y: Tensor, quantisation: float) -> Tensor:
        r"""Return :math:`\hat x + A^+ (y - A \hat x)` for rounded measurements, A^+ being that of Tikhonov.

        What is sought is not a picture but the error e that x still has, and rounding is weighed against the power of
        that: :math:`|y - A x|^2` less the rounding's own, over how much A leaves of the power of a random image.
        Weighed against the power of pictures, as noise is, the rounding would come out far larger than e. Errors that
        are not like a random image, those of a poor x, seem too powerful so; what the truncation of A keeps out stays
        damped for them too. A well-conditioned blur amplifies little, and is inverted exactly.

        Args:
            x_hat: images ``(B, C, H, W)``.
            y: measurements ``(B, *measurement_shape)``.
            quantisation: standard deviation of the rounding, on the [0, 1] scale.

        Example:
            >>> A = Blur((1, 32, 32), size=5)
            >>> x = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
            >>> y = (A(x) * 127.5).round() / 127.5
            >>> plain, rounded = A.back_project(0 * x, y), A.back_project_rounded(0 * x, y, 1 / 255 / 12**0.5)
            >>> bool((rounded - x).norm() < (plain - x).norm())
            True
        """
        if not self.regularised or not quantisation or not len(x_hat):
            return self.back_project(x_hat, y)
        rounding, least = (2 * quantisation) ** 2, (self.truncation * float(self.get_buffer("weights").sum())) ** 2
        residual = self._check_measurement(y) - self(x_hat)
        draw = torch.Generator().manual_seed(0)
        random = torch.randn(x_hat.shape[1:], generator=draw, dtype=x_hat.dtype, device="cpu").to(x_hat.device)[None]
        passed = self(random).square().mean() / random.square().mean()
        power = (residual.square().flatten(1).mean(1) - rounding).clamp(min=rounding) / passed
        # Each image has its own damping, so that none depends on its companions.
        tiny = torch.finfo(torch.float64).tiny
        dampings = [max(rounding / max(float(p), tiny), least) for p in power]
        steps = [self._inverse(r[None], damping) for r, damping in zip(residual, dampings, strict=True)]
        return x_hat + torch.cat(steps)

    def extra_repr(self) -> str:
        """Return the settings that ``repr`` shows."""
        truncation = f", truncation={self.truncation}" if self.truncation != 1e-2 else ""
        return f"image_shape={self.image_shape}, {self.name}, padding={self.padding!r}{truncation}"

    def _get_name(self) -> str:
        return "Blur"  # in records, whatever the basis

    def _singular_values(self) -> Tensor:
        """Return all singular values, or their moduli, in float64."""
        raise NotImplementedError

    @property
    def regularised(self) -> bool:  # type: ignore[override]
        """True where some singular values lie below the truncation."""
        self._refresh()
        values = self._singular_values()
        return bool(values.min() <= self.truncation * values.max())

    def _inverse_square(self, values: Tensor, damping: float) -> Tensor:
        """Return what takes s to its regularised inverse by multiplication: 1 / s^2, truncated or damped."""
        if damping > 0:
            return 1 / (values.square() + damping)
        kept = values > max(self.truncation, torch.finfo(values.dtype).eps * max(self.image_shape)) * values.max()
        return torch.where(kept, 1 / values.where(kept, 1).square(), 0)


class CircularBlur(Blur):
    """Blur with circular padding: a product in the Fourier basis. Arguments as of ``Blur``."""

    def _basis(self, weights: Tensor) -> dict[str, Tensor]:
        if self.padding != "circular":
            raise ValueError(f"CircularBlur pads circularly; padding {self.padding!r} was given: take Blur")
        whole = torch.zeros(self.image_shape[1:], dtype=torch.float64, device="cpu")
        whole[: weights.shape[0], : weights.shape[1]] = weights
        whole = whole.roll((-(weights.shape[0] // 2), -(weights.shape[1] // 2)), (0, 1))
        return {"transfer": torch.fft.rfft2(whole)}

    def forward(self, x: Tensor) -> Tensor:
        """Return the blurred image."""
        return torch.fft.irfft2(torch.fft.rfft2(x) * self.constant("transfer", x), s=self.image_shape[1:])

    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^T y."""
        y = self._check_measurement(y)
        return torch.fft.irfft2(torch.fft.rfft2(y) * self.constant("transfer", y).conj(), s=self.image_shape[1:])

    def _inverse(self, y: Tensor, damping: float) -> Tensor:
        transfer = self.constant("transfer", y)
        inverse = transfer.conj() * self._inverse_square(transfer.abs(), damping)
        return torch.fft.irfft2(torch.fft.rfft2(y) * inverse, s=self.image_shape[1:])

    def _singular_values(self) -> Tensor:
        return self.get_buffer("transfer").abs()


class SeparableBlur(Blur):
    """Blur with a separable kernel and any padding: diagonal in the singular vectors of two small matrices."""

    def _basis(self, weights: Tensor) -> dict[str, Tensor]:
        factors = separate(weights)
        if factors is None or self.padding == "circular":
            raise ValueError("SeparableBlur wants a separable kernel, and a padding that is not circular: take Blur")
        basis: dict[str, Tensor] = {}
        for side, length, factor in zip(("rows", "columns"), self.image_shape[1:], factors, strict=True):
            matrix = convolution_matrix(length, factor, self.padding)
            left, values, right = torch.linalg.svd(matrix)
            basis |= {side: matrix, f"{side}_left": left, f"{side}_values": values, f"{side}_right": right}
        return basis

    def forward(self, x: Tensor) -> Tensor:
        """Return the blurred image."""
        return self.constant("rows", x) @ x @ self.constant("columns", x).mT

    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^T y."""
        y = self._check_measurement(y)
        return self.constant("rows", y).mT @ y @ self.constant("columns", y)

    def _inverse(self, y: Tensor, damping: float) -> Tensor:
        values = torch.outer(self.constant("rows_values", y), self.constant("columns_values", y))
        y = self.constant("rows_left", y).mT @ y @ self.constant("columns_left", y)
        y = y * (values * self._inverse_square(values, damping))
        return self.constant("rows_right", y).mT @ y @ self.constant("columns_right", y)

    def _singular_values(self) -> Tensor:
        return torch.outer(self.get_buffer("rows_values"), self.get_buffer("columns_values"))


class GeneralBlur(Blur):
    """Blur with any kernel and padding: no basis is known, the inverse is iterated and always damped."""

    regularised = True

    def _basis(self, weights: Tensor) -> dict[str, Tensor]:
        self._largest = float(weights.abs().sum())
        return {}

    def forward(self, x: Tensor) -> Tensor:
        """Return the blurred image."""
        kernel = self.constant("weights", x).flip(0, 1).expand(x.shape[1], 1, -1, -1)
        rows, columns = self.get_buffer("weights").shape
        around = [columns - 1 - columns // 2, columns // 2, rows - 1 - rows // 2, rows // 2]
        mode = "constant" if self.padding == "zero" else self.padding
        return F.conv2d(F.pad(x, around, mode=mode), kernel, groups=x.shape[1])

    def _inverse(self, y: Tensor, damping: float) -> Tensor:
        return self._solved(y, max(damping, (self.truncation * self._largest) ** 2))


@on_the_cpu
def kernel_of(kernel: Array, size: int = 9, std: float | None = None, angle: float = 0.0) -> tuple[str, Tensor]:
    """Return what repr says of a kernel, and its weights ``(kh, kw)`` in float64; arguments as of ``Blur``.

    Example:
        >>> kernel_of("uniform", size=2)[1].tolist()
        [[0.25, 0.25], [0.25, 0.25]]
    """
    check_kind("std of a kernel", std, float | None)
    check_number("angle of a kernel", angle)
    named = kernel if isinstance(kernel, str) else None
    for name, value, of in (("std", std, "gaussian"), ("angle", angle or None, "motion")):
        if value is not None and named != of:
            raise ValueError(f"{name} belongs to kernel {of}; {value} was given with {in_words(kernel)}")
    if not isinstance(kernel, str) or kernel not in KERNELS:
        if isinstance(kernel, str) and "." not in kernel:
            raise ValueError(f"kernel is one of {', '.join(KERNELS)}, a tensor or a file; {kernel!r} was given")
        weights = read_kernel(kernel)
        if weights.ndim != 2 or not weights.numel() or not bool(torch.isfinite(weights).all()):
            raise ValueError(f"a kernel is a finite array (kh, kw); shape {tuple(weights.shape)} was given")
        return f"kernel={fingerprint(weights)}", weights
    check_number("size of a kernel", size, int)
    if size < 1:
        raise ValueError(f"size of a kernel is at least 1; {size} was given")
    if kernel == "uniform":
        return f"kernel='uniform', size={size}", torch.full((size, size), 1 / size**2, dtype=torch.float64)
    if kernel == "gaussian":
        if std is None or not 0 < std < math.inf:
            raise ValueError(f"a Gaussian kernel needs std, in pixels, above 0; {std} was given")
        t = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
        line = torch.exp(-(t**2) / (2 * std**2))
        weights = torch.outer(line, line)
        return f"kernel='gaussian', size={size}, std={std}", weights / weights.sum()
    if not math.isfinite(angle):
        raise ValueError(f"angle is a finite number of degrees; {angle} was given")
    return f"kernel='motion', size={size}, angle={angle}", motion_kernel(size, angle)


@on_the_cpu
def motion_kernel(length: int, angle: float) -> Tensor:
    """Return a straight line of ``length`` pixels through the centre, its points shared out to the nearest pixels.

    Example:
        >>> motion_kernel(3, 0.0).tolist()[1]
        [0.25, 0.5, 0.25]
    """
    points = 32 * length + 1
    t = torch.linspace(-(length - 1) / 2, (length - 1) / 2, points, dtype=torch.float64)
    t = t.clone()
    weight = torch.ones_like(t)
    weight[[0, -1]] = 0.5  # the trapezoidal rule: both ends count half
    y = (length - 1) / 2 - t * math.sin(math.radians(angle))
    x = (length - 1) / 2 + t * math.cos(math.radians(angle))
    kernel = torch.zeros(length, length, dtype=torch.float64)
    top, left = y.floor().long(), x.floor().long()
    for rows, columns in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = (1 - (y - top - rows).abs()) * (1 - (x - left - columns).abs()) * weight
        inside = (top + rows < length) & (left + columns < length) & (top + rows >= 0) & (left + columns >= 0)
        kernel.index_put_(((top + rows)[inside], (left + columns)[inside]), share[inside], accumulate=True)
    return kernel / kernel.sum()


def separate(kernel: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the column and the row whose outer product is the kernel, or None where there are none.

    Example:
        >>> separate(torch.ones(3, 3, dtype=torch.float64)) is None, separate(torch.eye(3, dtype=torch.float64)) is None
        (False, True)
    """
    left, values, right = torch.linalg.svd(kernel)
    if len(values) > 1 and values[1] > 1e-12 * values[0]:
        return None
    return left[:, 0] * values[0].sqrt(), right[0] * values[0].sqrt()


@on_the_cpu
def convolution_matrix(length: int, kernel: Tensor, padding: Padding) -> Tensor:
    """Return the ``(length, length)`` matrix that convolves one axis.

    Example:
        >>> convolution_matrix(3, torch.tensor([1.0, 2.0, 3.0]), "zero").tolist()
        [[2.0, 1.0, 0.0], [3.0, 2.0, 1.0], [0.0, 3.0, 2.0]]
    """
    n = len(kernel)
    taps = torch.arange(length)[:, None] - (torch.arange(n) - n // 2)
    weights = kernel.expand(length, n)
    matrix = torch.zeros(length, length, dtype=kernel.dtype)
    if padding == "zero":
        inside = (taps >= 0) & (taps < length)
        return matrix.scatter_add_(1, taps.clamp(0, length - 1), torch.where(inside, weights, 0.0))
    return matrix.scatter_add_(1, _fold(taps, length, padding), weights.contiguous())
