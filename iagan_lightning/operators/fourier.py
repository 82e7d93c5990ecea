"""Compressed sensing in the frequency domain, as in magnetic resonance imaging with one coil."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from iagan_lightning.checks import check_choice, check_kind, check_seed
from iagan_lightning.operators.files import Array, fingerprint, read_picture
from iagan_lightning.operators.linear import LinearOperator
from iagan_lightning.operators.modes import on_the_cpu

Design = Literal["hermitian", "quadrant", "published-difficulty"]
DISC = 3  # cycles per image: up to there a mask of the published difficulty measures everything, 29 coefficients


class FourierSensing(LinearOperator):
    r"""Some coefficients of the orthonormal two-dimensional Fourier transform of each channel.

    Args:
        image_shape: ``(C, H, W)``.
        ratio: measured coefficients per pixel, in (0, 1]. A real image has conjugate-symmetric coefficients, so
            a symmetric mask of ratio r tells r n independent real numbers.
        seed: of the mask, drawn on the CPU; low frequencies are more likely, as in the authors' public code.
        mask: ``(H, W)``, True where measured, unshifted (frequency 0 first), instead of ratio and seed; or its .pt,
            .npy or picture file (white where measured).
        design: ``"hermitian"``, masks that contain -k with every frequency k, and always frequency 0;
            ``"quadrant"``, the authors' public design, which mirrors index i to N - 1 - i: off by one from that
            symmetry; or ``"published-difficulty"``, Hermitian masks of all frequencies of up to 3 cycles per image
            and, of the others, each as likely as any. The radius is calibrated on the published figures of the plain
            reconstruction alone, 19.23 and 20.53 dB at ratios 0.3 and 0.5, which the public design exceeds by 8 dB:
            on 100 faces of 128 x 128 pixels with noise 10/255 it is 18.95 and 20.27 dB, give or take 0.2 by the seed.

    Shapes: x ``(B, C, H, W)`` in [-1, 1] -> y ``(B, C, number of coefficients)``, complex.

    Raises:
        ValueError: for a ratio outside (0, 1] or a mask of another size.

    Source: Abu Hussein, Tirer and Giryes, AAAI 2020, Section 4.1 (ratios 0.3 and 0.5).

    Example:
        >>> A = FourierSensing((3, 16, 16), ratio=0.5, seed=0)
        >>> y = A(torch.rand(2, 3, 16, 16) * 2 - 1)
        >>> tuple(y.shape), y.is_complex(), bool(torch.allclose(A(A.pseudo_inverse(y)), y, atol=1e-5))
        ((2, 3, 128), True, True)
    """

    compressed_sensing = True
    sources = ("mask",)
    mask: Tensor
    index: Tensor
    share: Tensor

    def __init__(
        self,
        image_shape: Sequence[int],
        ratio: float | None = None,
        seed: int = 0,
        mask: Array = None,
        design: Design = "hermitian",
    ) -> None:
        super().__init__(image_shape)
        check_choice("design", design, Design)
        height, width = self.image_shape[1:]
        self.ratio, self.seed, self.design = ratio, seed, design
        self.given: str | None = None
        if mask is not None:
            if ratio is not None:
                raise ValueError("FourierSensing takes a mask or a ratio, not both")
            mask = read_picture(mask)
            mask = mask > 0.5 if mask.is_floating_point() else mask.bool()
            self.given = fingerprint(mask)
        else:
            check_kind("ratio", ratio, float | None)
            if ratio is None or not 0 < ratio <= 1:
                raise ValueError(f"ratio lies in (0, 1]: measured coefficients per pixel; {ratio} was given")
            mask = random_mask(height, width, ratio, seed, design)
        self.register_buffer("mask", mask)
        self._update()

    def forward(self, x: Tensor) -> Tensor:
        """Return the measured coefficients: ``(B, C, H, W)`` -> ``(B, C, K)``, complex."""
        return torch.fft.fft2(x, norm="ortho").flatten(-2)[..., self.constant("index", x)]

    def adjoint(self, y: Tensor) -> Tensor:
        """Return the real part of the zero-filled inverse transform: ``(B, C, K)`` -> ``(B, C, H, W)``."""
        return torch.fft.ifft2(self._filled(self._check_measurement(y)), norm="ortho").real

    def pseudo_inverse(self, y: Tensor, noise_std: float = 0.0) -> Tensor:
        """Return A^+ y in closed form, for any mask.

        A real image has :math:`X(-k) = X(k)^*`: where both are measured they are averaged, where one is, it tells the
        other, everything else is 0. The real part of an inverse transform adds to each coefficient the conjugate of
        its opposite, so A^T does all of that once each measurement counts as often as nothing else tells it.
        """
        del noise_std
        return self.adjoint(self._check_measurement(y) * self.constant("share", y))

    def naive(self, y: Tensor) -> Tensor:
        """Return the zero-filled inverse transform, the paper's comparison."""
        return self.adjoint(y)

    def picture(self, y: Tensor) -> Tensor:
        """Return the magnitudes of a measurement on a logarithmic scale, frequency 0 in the middle."""
        magnitude = torch.log1p(100 * self._filled(y[None].to(torch.complex64))[0].abs())
        shifted = torch.fft.fftshift(magnitude.mean(0, keepdim=True), dim=(-2, -1))
        return 2 * shifted / shifted.max().clamp(min=1e-12) - 1

    def _scores(self, draw: torch.Generator) -> Tensor:
        scores = torch.rand(self.image_shape, generator=draw, dtype=torch.float32, device="cpu")
        scores = torch.minimum(scores, opposite(scores))
        scores[:, 0, 0] = torch.inf  # nothing else tells the mean
        return scores.flatten(1)[:, self.index.cpu()]

    def extra_repr(self) -> str:
        """Return the settings that ``repr`` shows."""
        drawn = f"ratio={self.ratio}, seed={self.seed}, design={self.design!r}"
        return f"image_shape={self.image_shape}, {f'mask={self.given}' if self.given else drawn}"

    def _filled(self, y: Tensor) -> Tensor:
        if not y.is_complex():
            y = torch.complex(y, torch.zeros_like(y))
        spectrum = y.new_zeros(*y.shape[:-1], math.prod(self.image_shape[1:]))
        spectrum[..., self.constant("index", y)] = y
        return spectrum.unflatten(-1, self.image_shape[1:])

    def _follow(self) -> None:
        if tuple(self.mask.shape) != self.image_shape[1:]:
            height, width = self.image_shape[1:]
            raise ValueError(f"the mask has shape ({height}, {width}); {tuple(self.mask.shape)} was given")
        index = self.mask.flatten().nonzero().flatten()
        if not len(index):
            raise ValueError("the mask measures nothing: it is False everywhere")
        # 1 where the coefficient at -k is measured too (or the same one), 2 where it is not.
        share = 2 / (1 + opposite(self.mask).double()).flatten()[index]
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("share", share, persistent=False)
        self._measurement_shape = (self.image_shape[0], len(index))


def opposite(spectrum: Tensor) -> Tensor:
    """Return a spectrum with the entry of -k at every frequency k of the last two axes.

    Example:
        >>> opposite(torch.tensor([[0, 1, 2, 3]])).tolist()
        [[0, 3, 2, 1]]
    """
    return spectrum.flip(-2, -1).roll((1, 1), (-2, -1))


@on_the_cpu
def random_mask(height: int, width: int, ratio: float, seed: int, design: Design = "hermitian") -> Tensor:
    """Return a random mask ``(height, width)`` whose part of True entries is the ratio.

    With ``"published-difficulty"`` all frequencies outside a disc are equally likely. The public code draws
    frequencies again and again with magnitudes |N(0, 1)| t. Drawing until a number of different ones is reached is the
    same as ordering all of them once by exponential variables divided by their probabilities, and taking the first:
    exact for every seed and ratio. t is what reaches the ratio with the public code's number of draws, a quarter of
    the pixels.

    Example:
        >>> float(random_mask(64, 64, 0.3, seed=1).double().mean())
        0.300048828125
    """
    draw = torch.Generator().manual_seed(check_seed(seed))
    half = (math.ceil(height / 2), math.ceil(width / 2))
    spread = spread_for(ratio, half)
    wanted = max(round(ratio * height * width), 1)
    if design == "quadrant":
        chance = torch.outer(*(magnitudes(n, spread) for n in half))
        order = _order(chance, draw)
        rows, columns = order // half[1], order % half[1]
        places = torch.stack(
            [a * width + b for a in (rows, height - 1 - rows) for b in (columns, width - 1 - columns)], dim=1
        )
    else:
        cycles = [torch.minimum(torch.arange(n), n - torch.arange(n)) for n in (height, width)]
        if design == "published-difficulty":
            vertical, horizontal = cycles
            within = vertical[:, None] ** 2 + horizontal**2 <= DISC**2
            number = torch.arange(height * width).reshape(height, width)
            alone = number == opposite(number)  # a pair has two chances, a frequency that is its own opposite one
            chance = torch.where(within, torch.inf, 1 + alone.double())
        else:
            halves = [magnitudes(n // 2 + 1, spread * 2 / n * (n // 2 + 1)) for n in (height, width)]
            chance = torch.outer(*(half[own] for half, own in zip(halves, cycles, strict=True)))
        chance[0, 0] = torch.inf  # without the mean no image can be told from a brighter one: it is always measured
        order = _order(chance, draw)
        rows, columns = order // width, order % width
        places = torch.stack([order, (-rows % height) * width + (-columns % width)], dim=1)
    mask = torch.zeros(height * width, dtype=torch.bool)
    seen = 0
    for group in places.tolist():
        if seen >= wanted:
            break
        new = {place for place in group if not mask[place]}
        if seen + len(new) > wanted and seen:  # a pair too many: a frequency that is its own opposite may still fit
            continue
        mask[list(new)] = True
        seen += len(new)
    return mask.reshape(height, width)


@on_the_cpu
def magnitudes(n: int, spread: float) -> Tensor:
    r"""Return the probabilities of :math:`\lfloor |N(0, 1)|\, t \rfloor \bmod n`, t being ``spread * n``."""
    edges = torch.arange(0, 64 * n + 1, dtype=torch.float64) / max(spread * n, 1e-9)
    mass = torch.erf(edges[1:] / math.sqrt(2)) - torch.erf(edges[:-1] / math.sqrt(2))
    return mass.reshape(64, n).sum(0) + 1e-12  # what can never be drawn comes last


def spread_for(ratio: float, half: tuple[int, int]) -> float:
    """Return t as a part of the half axis for which as many draws as there are cells reach the ratio on average."""

    def reached(spread: float) -> float:
        chance = torch.outer(*(magnitudes(n, spread) for n in half))
        return float((1 - (1 - chance / chance.sum()) ** chance.numel()).mean())

    low, high = 1e-3, 8.0  # at 8 all magnitudes are as good as equally likely
    for _ in range(40):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if reached(middle) < ratio else (low, middle)
    return high


def _order(chance: Tensor, draw: torch.Generator) -> Tensor:
    keys = torch.empty(chance.numel(), dtype=torch.float64).exponential_(generator=draw) / chance.flatten()
    return keys.argsort()
