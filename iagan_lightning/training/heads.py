"""Heads with which MobileStyleGAN makes its pictures at fewer pixels: least squares, and a few steps of descent.

The teacher is the network itself: what is wanted are the means of blocks of its large pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from iagan_lightning.generators.mobile_stylegan import MobileStyleGAN
from iagan_lightning.generators.mobile_stylegan_reduced import CHANGE, JOINT, ReducedMobileStyleGAN, reduce

RIDGE = 1e-6  # of the squares of each feature
RATE = 5e-5  # of Adam, for weights that follow the head
EDGES = 0.1  # weight of the error of differences beside that of values

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
        v = whole(torch.randn(1, *whole.latent_shape, generator=draw), to="w")
        if mixed and number % 2:
            v = v * (0.4 + 0.7 * torch.rand((), generator=draw))
        yield v, F.avg_pool2d(whole(v, space="w"), whole.resolution // pixels)


@torch.no_grad()
def fit_head(G: ReducedMobileStyleGAN, data: Callable[[], Iterator[Pair]], share: float = 1.0) -> None:
    """Give a network the head that comes nearest to the pictures, in the mean square.

    First the coefficients, then the filter that joins their blocks.

    Args:
        G: the network, whose head is replaced.
        data: makes the pairs, anew at each call.
        share: of the pixels, drawn at random, that are used for the coefficients.
    """
    head = G.to_img
    draw, equations = torch.Generator().manual_seed(0), LeastSquares()
    for v, wanted in data():
        design, coefficients = _design(G, v), haar(wanted).flatten(2)[0]
        kept = torch.randperm(design.shape[1], generator=draw)[: max(1, round(share * design.shape[1]))]
        equations.add(design[:, kept], coefficients[:, kept])
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


def follow(G: ReducedMobileStyleGAN, data: Iterator[Pair], steps: int) -> None:
    """Let the weights of the levels that do not grow follow the head, by a few steps of Adam."""
    names = [name for name, _ in G.named_parameters() if follows(G, name)]
    adapted = [G.get_parameter(name).requires_grad_(True) for name in names]
    optimiser = torch.optim.Adam(adapted, lr=RATE, betas=(0.9, 0.99))
    for step, (v, wanted) in zip(range(steps), data, strict=False):
        for group in optimiser.param_groups:
            done = max(0.0, (step / steps - 0.4) / 0.6)
            group["lr"] = RATE * min(1, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * done))
        error = G(v, space="w") - wanted
        edges = error.diff(dim=2).square().mean() + error.diff(dim=3).square().mean()
        optimiser.zero_grad()
        (error.square().mean() + EDGES * edges).backward()
        optimiser.step()
    for weight in adapted:
        weight.requires_grad_(False)


def follows(G: ReducedMobileStyleGAN, name: str) -> bool:
    """Tell whether a weight may follow the head: kernels and biases of the levels that do not grow."""
    level = name.split(".")[1] if name.startswith("layers.") else ""
    return level != "" and int(level) >= G.grown and ".modulation." not in name


def head_of(G: ReducedMobileStyleGAN, whole: MobileStyleGAN) -> dict[str, Tensor]:
    """Return what ``reduce`` takes as ``head``: the head, and by how much weights have followed it."""
    before = reduce(whole, G.resolution).state_dict()
    changes = {
        f"{CHANGE}{name}": weight.detach() - before[name]
        for name, weight in G.named_parameters()
        if follows(G, name) and not torch.equal(weight, before[name])
    }
    return {**{name: weight.detach() for name, weight in G.to_img.named_parameters(recurse=False)}, **changes}


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
    """Return all that the head's coefficients are linear in, ``(size, pixels)``, the last row of ones."""
    styles = G.styles(v)
    features, last = G.features(styles)
    around = F.unfold(G.to_img.modulate(last, styles[:, -1]), 3, padding=1)[0]
    return torch.cat((around, features.flatten(2)[0], torch.ones_like(around[:1])))
