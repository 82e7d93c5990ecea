"""Codes of an auto-encoder as latents: a generator of codes becomes one of standard normal z."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from iagan_lightning.generators.began import BEGAN
from iagan_lightning.generators.pyramid import Pyramid

Network = TypeVar("Network", bound=BEGAN | Pyramid)


def root_of_covariance(mean: Tensor, square: Tensor) -> Tensor:
    """Return R with R R^T the covariance of codes, in float64.

    Args:
        mean: of the codes, ``(latent,)``.
        square: their second moment, the mean of c c^T, ``(latent, latent)``.
    """
    covariance = square.double() - torch.outer(mean.double(), mean.double())
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    return vectors * eigenvalues.clamp(min=0).sqrt()


@torch.no_grad()
def take_standard_normal(network: Network, mean: Tensor, square: Tensor) -> Network:
    """Let the layers that z enters get ``mean + R z`` where they got codes; the network itself is changed.

    Example:
        >>> G, mean = Pyramid(widths=[4], latent=2, start=2), torch.tensor([5.0, -1.0])
        >>> with torch.no_grad():
        ...     image = G(mean[None])
        ...     G = take_standard_normal(G, mean, 4 * torch.eye(2) + torch.outer(mean, mean))
        ...     bool(torch.allclose(G(torch.zeros(1, 2)), image, atol=1e-5))
        True
    """
    mean, root = mean.cpu().double(), root_of_covariance(mean, square).cpu()
    for layer in network.latent_layers:
        weight = layer.weight.double()
        layer.bias.add_((weight @ mean).float())
        layer.weight.copy_(weight @ root)
    return network
