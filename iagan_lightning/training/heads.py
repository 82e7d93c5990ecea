"""Heads with which MobileStyleGAN makes its pictures at fewer pixels, by least squares.

The teacher is the network itself: what is wanted are the means of blocks of its large pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from iagan_lightning.generators.mobile_stylegan import MobileStyleGAN
from iagan_lightning.generators.mobile_stylegan_reduced import JOINT, ReducedMobileStyleGAN

RIDGE = 1e-6  # of the squares of each feature
EVEN = 8  # pixels across the blocks over which errors are averaged
WEIGHT = 30.0  # of these averages beside the errors themselves

Pair = tuple[Tensor, Tensor]  # whitened w (1, latent), and the picture that is wanted of it (1, 3, pixels, pixels)


def pairs(whole: MobileStyleGAN, pixels: int, samples: int, seed: int = 0, mixed: bool = True) -> Iterator[Pair]:
    """Yield whitened w and the means of blocks of the whole network's pictures.

    Args:
        whole: the network.
        pixels: of the pictures that are wanted.
        samples: how many.
        seed: of the latents.
        mixed: every other w lies nearer to the mean, by a factor of .4 to 1.1, for there searches begin.
    """
    draw = torch.Generator().manual_seed(seed)
    for number in range(samples):
        v = whole(torch.randn(1, *whole.latent_shape, generator=draw, dtype=torch.float32), to="w")
        if mixed and number % 2:
            v = v * (0.4 + 0.7 * torch.rand((), generator=draw, dtype=torch.float32))
        yield v, F.avg_pool2d(whole(v, space="w"), whole.resolution // pixels)


@torch.no_grad()
def fit_head(G: ReducedMobileStyleGAN, data: Callable[[], Iterator[Pair]], share: float = 1.0) -> None:
    """Give a network the head that comes nearest to the pictures, in the mean square.

    First the coefficients, then the filter that joins their blocks. In flat parts of a picture an error of the
    coefficients that is the same everywhere is a grid, which the eye sees long before the mean square does: errors
    averaged over blocks of 8 x 8 therefore count 30 times.

    Args:
        G: the network, whose head is replaced.
        data: makes the pairs, anew at each call.
        share: of the pixels, drawn at random, that are used for the coefficients.
    """
    head = G.to_img
    draw, equations = torch.Generator().manual_seed(0), LeastSquares()
    for v, wanted in data():
        design, coefficients = _design(G, v), haar(wanted)[0]
        pixels = design[0].numel()
        kept = torch.randperm(pixels, generator=draw)[: max(1, round(share * pixels))]
        equations.add(design.flatten(1)[:, kept], coefficients.flatten(1)[:, kept])
        scale = EVEN * (WEIGHT * share) ** 0.5
        even = [scale * F.adaptive_avg_pool2d(x, -(-x.shape[-1] // EVEN)).flatten(1) for x in (design, coefficients)]
        equations.add(even[0], even[1])
    weights = equations.solve()
    around = head.around[0].numel()
    head.around.copy_(weights[:, :around].reshape(head.around.shape))
    head.across.copy_(weights[:, around:-1].reshape(head.across.shape))
    head.bias.copy_(weights[:, -1])
    torch.nn.init.dirac_(head.filter)
    head.offset.zero_()
    equations = LeastSquares()
    for v, wanted in data():
        image = G(v, space="w")
        patches = F.unfold(image, JOINT, padding=JOINT // 2)[0]
        equations.add(torch.cat((patches, torch.ones_like(patches[:1]))), wanted.flatten(2)[0])
    weights = equations.solve()
    head.filter.copy_(weights[:, :-1].reshape(head.filter.shape))
    head.offset.copy_(weights[:, -1])


def head_of(G: ReducedMobileStyleGAN) -> dict[str, Tensor]:
    """Return what ``reduce`` takes as ``head``."""
    return {name: weight.detach() for name, weight in G.to_img.named_parameters(recurse=False)}


class LeastSquares:
    """Normal equations, gathered a few at a time.

    Example:
        >>> equations = LeastSquares()
        >>> x = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
        >>> equations.add(x, torch.stack((x[0] - 2 * x[1],)))
        >>> equations.solve().round(decimals=3)
        tensor([[ 1., -2.]])
    """

    def __init__(self) -> None:
        self.sums, self.outputs = torch.zeros(()), 0

    def add(self, given: Tensor, wanted: Tensor) -> None:
        """Add observations ``(features, n)`` of what is given and ``(outputs, n)`` of what is wanted."""
        rows, self.outputs = torch.cat((given, wanted)), len(wanted)
        self.sums = self.sums + (rows @ rows.T).double()

    def solve(self) -> Tensor:
        """Return the weights ``(outputs, features)``."""
        size = len(self.sums) - self.outputs
        matrix = self.sums[:size, :size] + RIDGE * self.sums.diagonal()[:size].diag()
        return torch.linalg.solve(matrix, self.sums[:size, size:]).T.float()


def haar(image: Tensor) -> Tensor:
    """Return the coefficients of which ``inverse_haar`` makes an image.

    Example:
        >>> from iagan_lightning.generators.mobile_stylegan import inverse_haar
        >>> x = torch.rand(2, 3, 4, 6)
        >>> bool(torch.allclose(inverse_haar(haar(x)), x, atol=1e-6))
        True
    """
    a, b, c, d = F.pixel_unshuffle(image, 2).unflatten(1, (-1, 4)).unbind(2)
    details = torch.stack((a + b - c - d, a - b + c - d, a - b - c + d), 2)
    return torch.cat((a + b + c + d, details.flatten(1, 2)), 1) / 2


def _design(G: ReducedMobileStyleGAN, v: Tensor) -> Tensor:
    """Return all that the head's coefficients are linear in, ``(size, pixels / 2, pixels / 2)``, ones last."""
    styles = G.styles(v)
    features, last = G.features(styles)
    around = F.unfold(G.to_img.modulate(last, styles[:, -1]), 3, padding=1).unflatten(2, last.shape[-2:])
    return torch.cat((around, features, torch.ones_like(features[:, :1])), 1)[0]
