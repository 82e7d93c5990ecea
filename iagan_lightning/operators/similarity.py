r"""An image somewhere in a photograph, scaled and turned: what the photograph's pixels see of it.

A face that was cut out of a photograph and resampled agrees with the crop; with this operator it agrees with the very
pixels that the camera gave.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from iagan_lightning.checks import check_integers, check_kind, check_number, check_numbers
from iagan_lightning.operators.bicubic import keys_kernel
from iagan_lightning.operators.linear import LinearOperator
from iagan_lightning.operators.modes import on_the_cpu

AT_ONCE = 2**22  # taps that are made at once: some 100 MB


class Similarity(LinearOperator):
    r"""Pixels of a photograph, each the mean over its area of an image that lies scaled, turned and shifted under it.

    Between its pixels the image is interpolated bicubically (Keys, a = -0.5). A pixel of the photograph is measured
    where it lies wholly inside the image; the others are 0, and do not count.

    Args:
        image_shape: ``(C, H, W)`` of the image.
        size: ``(h, w)`` of the photograph, or of the part of it that matters.
        side: width of the image in pixels of the photograph; w by default.
        centre: where the middle of the image lies, ``(x, y)`` in pixels of the photograph; (0, 0) is the middle of its
            first pixel. The middle of the photograph by default.
        angle: by how many degrees the image's upper side falls, from left to right.
        samples: points in a row and in a column of each pixel, of which the mean is taken; as many as the image has
            pixels there by default. With s times as many, s x s means of the pixels of a photograph s times as fine are
            those of this one, exactly.

    Shapes: x ``(B, C, H, W)`` and y ``(B, C, h, w)``, both in [-1, 1] up to the kernel's overshoot.

    Raises:
        ValueError: where no pixel of the photograph lies inside the image.

    Source: Keys, Cubic convolution interpolation for digital image processing, 1981.

    Example:
        >>> A = Similarity((3, 64, 64), size=(20, 24), side=16, angle=10)
        >>> y = A(torch.ones(1, 3, 64, 64))
        >>> tuple(y.shape), A.num_measurements // 3, round(float(y.sum()) / A.num_measurements, 6)
        ((1, 3, 20, 24), 220, 1.0)
    """

    sources = ("mask",)
    taps: Tensor
    weights: Tensor
    mask: Tensor

    def __init__(
        self,
        image_shape: Sequence[int],
        size: tuple[int, int],
        side: float | None = None,
        centre: tuple[float, float] | None = None,
        angle: float = 0.0,
        samples: int | None = None,
    ) -> None:
        super().__init__(image_shape)
        channels, _, width = self.image_shape
        rows, columns = check_integers("size", size, ("height", "width"))
        check_kind("side", side, float | None)
        check_number("angle", angle)
        self.size, self.side, self.angle = (rows, columns), float(columns if side is None else side), float(angle)
        x, y = check_numbers("centre", ((columns - 1) / 2, (rows - 1) / 2) if centre is None else centre, ("x", "y"))
        self.centre = x, y
        if not 0 < self.side < math.inf or not math.isfinite(self.angle):
            raise ValueError(f"side is above 0 and finite, angle is finite; {side} and {angle} were given")
        check_kind("samples", samples, int | None)
        self.samples = math.ceil(width / self.side - 1e-9) if samples is None else int(samples)
        if self.samples < 1:
            raise ValueError(f"samples is at least 1; {samples} was given")
        self._measurement_shape = (channels, rows, columns)
        self._make()
        self._update()

    def _follow(self) -> None:
        # Counted once: the objective divides by it in every evaluation, and a device would be waited for each time.
        self._count = self.image_shape[0] * int(self.mask.sum())
        if not self._count:
            raise ValueError("the mask measures nothing: it is False everywhere")

    @on_the_cpu
    def _make(self) -> None:
        """Find which pixels of the image each pixel of the photograph sees, and how much of each."""
        _, height, width = self.image_shape
        middles = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in self.size)).view(-1, 2)
        corners = self._in_image(middles[:, None] + torch.cartesian_prod(*[torch.tensor([-0.5, 0.5]).double()] * 2))
        last = torch.tensor([height - 0.5, width - 0.5], dtype=torch.float64)
        inside = ((corners > -0.5 - 1e-6) & (corners < last + 1e-6)).all(-1).all(-1)
        if not bool(inside.any()):
            x, y = self.centre
            raise ValueError(
                f"no pixel of the photograph lies inside an image of {self.side:g} pixels around "
                f"({x:g}, {y:g}): choose a larger side, or another centre"
            )
        self.register_buffer("mask", inside.view(self.size))
        seen, step = inside.nonzero()[:, 0], max(AT_ONCE // (16 * self.samples**2), 1)
        parts = [self._seen_by(middles[some]) for some in seen.split(step)]
        most = max((taps.shape[1] for taps, _ in parts), default=1)
        taps = torch.zeros(len(inside), most, dtype=torch.long)
        weights = torch.zeros(len(inside), most, dtype=torch.float64)
        for some, (index, weight) in zip(seen.split(step), parts, strict=True):
            taps[some, : index.shape[1]], weights[some, : index.shape[1]] = index, weight
        self.register_buffer("taps", taps)
        self.register_buffer("weights", weights)

    def _in_image(self, places: Tensor) -> Tensor:
        """Return where places (row, column) of the photograph lie in the image, ``(..., 2)`` likewise."""
        _, height, width = self.image_shape
        turn, finer = math.radians(self.angle), width / self.side
        down, across = places[..., 0] - self.centre[1], places[..., 1] - self.centre[0]
        rows = finer * (math.cos(turn) * down - math.sin(turn) * across) + (height - 1) / 2
        columns = finer * (math.cos(turn) * across + math.sin(turn) * down) + (width - 1) / 2
        return torch.stack([rows, columns], -1)

    def _seen_by(self, middles: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pixels of the image that pixels ``(n, 2)`` of the photograph see and their weights, ``(n, k)``."""
        _, height, width = self.image_shape
        steps = (torch.arange(self.samples, dtype=torch.float64) + 0.5) / self.samples - 0.5
        points = self._in_image(middles[:, None] + torch.cartesian_prod(steps, steps).view(-1, 2))
        near = points.floor()[..., None] + torch.arange(-1, 3)  # (n, points, 2, 4)
        weights = keys_kernel(points[..., None] - near)
        weights = weights[:, :, 0, :, None] * weights[:, :, 1, None, :] / self.samples**2
        rows, columns = near[:, :, 0].clamp(0, height - 1), near[:, :, 1].clamp(0, width - 1)
        taps = (rows[..., None] * width + columns[..., None, :]).long()
        # The same pixel of the image is seen from several points: each is counted once, with what all of them see.
        pixel = torch.arange(len(middles))[:, None].expand(-1, taps[0].numel())
        size = (len(middles), height * width)
        seen = torch.sparse_coo_tensor(
            torch.stack([pixel.flatten(), taps.flatten()]), weights.flatten(), size, check_invariants=False
        ).coalesce()
        pixel, tap = seen.indices()
        number = torch.bincount(pixel, minlength=len(middles))
        place = torch.arange(len(pixel)) - (number.cumsum(0) - number)[pixel]
        index = torch.zeros(len(middles), int(number.max()), dtype=torch.long)
        weight = torch.zeros(index.shape, dtype=torch.float64)
        index[pixel, place], weight[pixel, place] = tap, seen.values()
        return index, weight

    def forward(self, x: Tensor) -> Tensor:
        """Return A x: ``(B, C, H, W)`` -> ``(B, C, h, w)``."""
        seen = x.flatten(2)[..., self.constant("taps", x)] * self.constant("weights", x)
        return seen.sum(-1).unflatten(-1, self.size)

    def naive(self, y: Tensor) -> Tensor:
        """Return the photograph's pixels at the image's, interpolated bilinearly between those that are measured."""
        y = self._check_measurement(y)
        _, height, width = self.image_shape
        rows, columns = self.size
        turn, coarser = math.radians(self.angle), self.side / width
        down = (torch.arange(height, dtype=torch.float64, device="cpu")[:, None] - (height - 1) / 2) * coarser
        across = (torch.arange(width, dtype=torch.float64, device="cpu") - (width - 1) / 2) * coarser
        to_right = self.centre[0] + math.cos(turn) * across - math.sin(turn) * down
        to_bottom = self.centre[1] + math.sin(turn) * across + math.cos(turn) * down
        grid = torch.stack([(2 * to_right + 1) / columns - 1, (2 * to_bottom + 1) / rows - 1], -1)
        grid = grid.to(y.dtype).to(y.device).expand(len(y), -1, -1, -1)
        mask = self.constant("mask", y).expand(len(y), 1, -1, -1)
        seen = F.grid_sample(torch.cat([y * mask, mask], 1), grid, "bilinear", "border", align_corners=False)
        return seen[:, :-1] / seen[:, -1:].clamp(min=1e-3)

    def measured(self, y: Tensor) -> Tensor:
        """Return y with the pixels that do not lie inside the image set to 0."""
        return y * self.constant("mask", y)

    @property
    def num_measurements(self) -> int:
        """Number of measured pixels over all channels."""
        self._refresh()
        return self._count

    def extra_repr(self) -> str:
        """Return the settings that ``repr`` shows."""
        return (
            f"image_shape={self.image_shape}, size={self.size}, side={self.side:g}, "
            f"centre=({self.centre[0]:g}, {self.centre[1]:g}), angle={self.angle:g}, samples={self.samples}"
        )
