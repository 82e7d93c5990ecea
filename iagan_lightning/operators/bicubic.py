"""Bicubic downsampling with its exact pseudo-inverse.

The operator is separable, so A x is D_h x D_w^T with two small matrices, and A^+ y is D_h^+ y D_w^+T: two matrix
products, exact, instead of an iterative solver on the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from iagan_lightning.checks import check_choice, check_integers, check_kind
from iagan_lightning.operators.linear import LinearOperator, bicubic_upsampling
from iagan_lightning.operators.modes import on_the_cpu

Padding = Literal["renormalise", "zero", "reflect", "replicate", "circular"]


class BicubicDownsampling(LinearOperator):
    r"""Anti-aliased bicubic downsampling, :math:`y = D_h\, x\, D_w^T` for each channel.

    The kernel is that of Keys with a = -0.5, stretched by the scale s (support 4 s), with half-pixel centres.

    Args:
        image_shape: ``(C, H, W)`` of the large image.
        scale: integer factor s that divides H and W; or
        size: ``(h, w)`` of the small image, any size up to ``(H, W)``.
        padding: what lies beyond the border. ``"renormalise"``: nothing, the remaining weights are scaled to sum 1
            (equals ``F.interpolate(mode="bicubic", antialias=True)``, borders included); ``"zero"``: mid-grey, 0 in
            [-1, 1] (the authors' public code); ``"reflect"``, ``"replicate"``, ``"circular"`` as in ``F.pad``.

    Shapes: x ``(B, C, H, W)`` and y ``(B, C, h, w)``, both in [-1, 1] up to the kernel's overshoot.

    Raises:
        ValueError: when scale does not divide the image, or the size is larger than the image.

    Source: Keys, Cubic convolution interpolation for digital image processing, 1981.

    Example:
        >>> A = BicubicDownsampling((3, 64, 64), scale=4)
        >>> y = A(torch.ones(1, 3, 64, 64))
        >>> tuple(y.shape), bool(torch.allclose(y, torch.ones(())))
        ((1, 3, 16, 16), True)
        >>> bool(torch.allclose(A(A.pseudo_inverse(y)), y, atol=1e-6))
        True
    """

    sources = ("rows", "columns")
    rows: Tensor
    columns: Tensor
    rows_inverse: Tensor
    columns_inverse: Tensor

    def __init__(
        self,
        image_shape: Sequence[int],
        scale: int | None = None,
        size: tuple[int, int] | None = None,
        padding: Padding = "renormalise",
    ) -> None:
        super().__init__(image_shape)
        check_choice("padding", padding, Padding)
        height, width = self.image_shape[1:]
        self.size = small_size((height, width), scale, size)
        self.scale, self.padding = scale, padding
        for name, large, small in (("rows", height, self.size[0]), ("columns", width, self.size[1])):
            self.register_buffer(name, downsampling_matrix(large, small, padding))
        self._update()

    def _follow(self) -> None:
        for name in self.sources:
            self.register_buffer(f"{name}_inverse", torch.linalg.pinv(self.get_buffer(name)))
        self._measurement_shape = (self.image_shape[0], len(self.rows), len(self.columns))

    def forward(self, x: Tensor) -> Tensor:
        """Return A x: ``(B, C, H, W)`` -> ``(B, C, h, w)``."""
        return self.constant("rows", x) @ x @ self.constant("columns", x).mT

    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^T y: ``(B, C, h, w)`` -> ``(B, C, H, W)``."""
        y = self._check_measurement(y)
        return self.constant("rows", y).mT @ y @ self.constant("columns", y)

    def pseudo_inverse(self, y: Tensor, noise_std: float = 0.0) -> Tensor:
        """Return A^+ y, exactly, whatever the noise, of which A^+ amplifies little.

        The condition number of A A^T is about 4 up to three quarters of the image's size, 6 at seven eighths. It grows
        where hardly a pixel is left out: of 64 pixels it is 17 at 60 and 220 at 63, and noise comes out up to the root
        of that larger.
        """
        del noise_std
        y = self._check_measurement(y)
        return self.constant("rows_inverse", y) @ y @ self.constant("columns_inverse", y).mT

    def naive(self, y: Tensor) -> Tensor:
        """Return plain bicubic upsampling of y, the paper's comparison."""
        return bicubic_upsampling(self._check_measurement(y), self.image_shape[1:])

    def extra_repr(self) -> str:
        """Return the settings that ``repr`` shows."""
        factor = f"scale={self.scale}" if self.scale else f"size={self.size}"
        return f"image_shape={self.image_shape}, {factor}, padding={self.padding!r}"


def small_size(large: tuple[int, int], scale: int | None, size: Sequence[int] | None) -> tuple[int, int]:
    """Return the size of the small image for a scale or a size, or say what is wrong with them."""
    check_kind("scale", scale, int | None)
    if size is not None:
        height, width = check_integers("size", size, ("height", "width"))
        if not (1 <= height <= large[0] and 1 <= width <= large[1]):
            raise ValueError(f"size {height} x {width} must lie between 1 x 1 and the image's {large[0]} x {large[1]}")
        if scale is not None and (height * scale, width * scale) != large:
            raise ValueError(
                f"size {height} x {width} contradicts scale {scale}, which takes {large[0]} x {large[1]} to "
                f"{large[0] / scale:g} x {large[1] / scale:g}: leave one of them out"
            )
        return height, width
    if scale is None:
        raise ValueError("BicubicDownsampling needs a scale, for example scale=4, or a size")
    if scale < 1:
        raise ValueError(f"scale is at least 1; {scale} was given")
    for side, length in zip(("height", "width"), large, strict=True):
        if length % scale:
            fitting = [str(s) for s in range(2, length + 1) if large[0] % s == 0 and large[1] % s == 0]
            choice = f"choose {', '.join(fitting[:6])}" if fitting else "no integer scale does"
            raise ValueError(
                f"scale {scale} does not divide the image {side} {length}: {choice}, or give a size, or crop"
            )
    return large[0] // scale, large[1] // scale


def keys_kernel(t: Tensor, a: float = -0.5) -> Tensor:
    """Return the cubic convolution kernel of Keys (1981) at t; zero outside [-2, 2]."""
    t = t.abs()
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return torch.where(t <= 1, near, torch.where(t < 2, far, 0.0))


@on_the_cpu
def downsampling_matrix(large: int, small: int, padding: Padding = "renormalise") -> Tensor:
    """Return the ``(small, large)`` float64 matrix that resamples one axis.

    Example:
        >>> downsampling_matrix(4, 2).sum(1).tolist()
        [1.0, 1.0]
    """
    stretch = large / small
    centre = (torch.arange(small, dtype=torch.float64) + 0.5) * stretch - 0.5
    reach = int(2 * stretch) + 1
    taps = centre.floor().long()[:, None] + torch.arange(-reach, reach + 2)
    weights = keys_kernel((taps - centre[:, None]) / stretch)
    weights = weights / weights.sum(1, keepdim=True)  # over the whole support: borders are the padding's business

    matrix = torch.zeros(small, large, dtype=torch.float64)
    inside = (taps >= 0) & (taps < large)
    if padding in ("zero", "renormalise"):
        matrix.scatter_add_(1, taps.clamp(0, large - 1), torch.where(inside, weights, 0.0))
        return matrix if padding == "zero" else matrix / matrix.sum(1, keepdim=True)
    return matrix.scatter_add_(1, _fold(taps, large, padding), weights)


def _fold(index: Tensor, length: int, padding: Padding) -> Tensor:
    """Map indices beyond an axis to the ones that the padding repeats, as often as it takes."""
    if padding == "circular":
        return index % length
    if padding == "replicate" or length == 1:
        return index.clamp(0, length - 1)
    period = 2 * (length - 1)
    return (length - 1) - (index % period - (length - 1)).abs()
