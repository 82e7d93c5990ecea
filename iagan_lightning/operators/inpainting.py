"""Inpainting: some pixels are measured, the others are not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iagan_lightning.checks import check_integers, check_number, check_seed
from iagan_lightning.operators.files import Array, fingerprint, read_picture
from iagan_lightning.operators.linear import LinearOperator
from iagan_lightning.operators.modes import on_the_cpu


class Inpainting(LinearOperator):
    r"""Keep the measured pixels and set the others to 0 (mid-grey): :math:`y = M \odot x`.

    Exactly one of ``ratio``, ``box`` and ``mask`` says which pixels are measured, in all channels alike unless the mask
    has channels.

    Args:
        image_shape: ``(C, H, W)``.
        ratio: part of the pixels that is measured, at random, in (0, 1].
        seed: of the random pixels, drawn on the CPU.
        box: ``(top, left, height, width)`` of a rectangle that is missing.
        mask: ``(H, W)`` or ``(C, H, W)``, True where measured; or its .pt, .npy or picture file (white where measured).

    Shapes: x ``(B, C, H, W)`` in [-1, 1] -> y of the same shape, 0 where nothing is measured.

    Raises:
        ValueError: for a ratio outside (0, 1], a mask of another size, or a box beyond the image.

    Example:
        >>> A = Inpainting((1, 2, 2), mask=torch.tensor([[True, False], [True, True]]))
        >>> A(torch.ones(1, 1, 2, 2)).tolist(), A.num_measurements
        ([[[[1.0, 0.0], [1.0, 1.0]]]], 3)
    """

    sources = ("mask",)
    mask: Tensor

    def __init__(
        self,
        image_shape: Sequence[int],
        ratio: float | None = None,
        seed: int = 0,
        box: tuple[int, int, int, int] | None = None,
        mask: Array = None,
    ) -> None:
        super().__init__(image_shape)
        channels, height, width = self.image_shape
        self.ratio, self.seed = ratio, seed
        self.box: tuple[int, ...] | None = None
        self.given: str | None = None
        if sum(value is not None for value in (ratio, box, mask)) != 1:
            raise ValueError("Inpainting takes exactly one of ratio, box and mask")
        if mask is not None:
            mask = read_picture(mask)
            if tuple(mask.shape) not in ((height, width), (channels, height, width), (1, height, width)):
                raise ValueError(
                    f"the mask has shape ({height}, {width}) or ({channels}, {height}, {width}); {tuple(mask.shape)} "
                    "was given"
                )
            mask = mask > 0.5 if mask.is_floating_point() else mask.bool()
            self.given = fingerprint(mask)
        elif box is not None:
            self.box = check_integers("box", box, ("top", "left", "height", "width"), lowest=0)
            top, left, rows, columns = self.box
            if min(top, left) < 0 or min(rows, columns) < 1 or top + rows > height or left + columns > width:
                raise ValueError(
                    f"box is (top, left, height, width) inside the image of {height} x {width}; {self.box} was given"
                )
            mask = torch.ones(height, width, dtype=torch.bool, device="cpu")
            mask[top : top + rows, left : left + columns] = False
        else:
            assert ratio is not None
            check_number("ratio", ratio)
            if not 0 < ratio <= 1:
                raise ValueError(f"ratio lies in (0, 1]: the part of the pixels that is measured; {ratio} was given")
            mask = random_pixels(height, width, ratio, seed)
        # One plane where the channels are alike: it stays in the processor's cache, three would not.
        self.register_buffer("mask", mask if mask.ndim == 3 else mask[None])
        self._measurement_shape = self.image_shape
        self._update()

    def _follow(self) -> None:
        # Counted once: the objective divides by it in every evaluation, and a device would be waited for each time.
        self._count = int(self.mask.expand(self.image_shape).sum())
        if not self._count:
            raise ValueError("the mask measures nothing: it is False everywhere")

    def forward(self, x: Tensor) -> Tensor:
        """Return the measured pixels, 0 elsewhere."""
        return x * self.constant("mask", x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return the measured pixels of y, 0 elsewhere."""
        y = self._check_measurement(y)
        return y * self.constant("mask", y)

    def pseudo_inverse(self, y: Tensor, noise_std: float = 0.0) -> Tensor:
        """Return A^+ y = A^T y."""
        del noise_std
        return self.adjoint(y)

    def naive(self, y: Tensor) -> Tensor:
        """Return the masked image itself, the paper's comparison."""
        return self.adjoint(y)

    def measured(self, y: Tensor) -> Tensor:
        """Return y with the entries that are never measured set to 0."""
        return y * self.constant("mask", y)

    @property
    def num_measurements(self) -> int:
        """Number of measured entries over all channels."""
        self._refresh()
        return self._count

    def extra_repr(self) -> str:
        """Return the settings that ``repr`` shows."""
        drawn = f"box={self.box}" if self.box else f"ratio={self.ratio}, seed={self.seed}"
        return f"image_shape={self.image_shape}, {f'mask={self.given}' if self.given else drawn}"


@on_the_cpu
def random_pixels(height: int, width: int, ratio: float, seed: int) -> Tensor:
    """Return a mask ``(height, width)`` that measures a part of the pixels, at least one, each as likely as any.

    Example:
        >>> int(random_pixels(4, 4, 0.5, seed=0).sum())
        8
    """
    draw = torch.Generator().manual_seed(check_seed(seed))
    mask = torch.zeros(height * width, dtype=torch.bool)
    mask[torch.randperm(height * width, generator=draw)[: max(round(ratio * height * width), 1)]] = True
    return mask.reshape(height, width)
