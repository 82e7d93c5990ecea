"""What every reconstruction starts from: checked measurements, seeds, and how far an image is from y."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from torch import Tensor

from iagan_lightning.operators import LinearOperator


def check_problem(
    y: Tensor,
    operator: LinearOperator,
    noise_std: float | None,
    seeds: int | Sequence[int],
    names: Sequence[str] | None,
) -> tuple[list[int], list[str]]:
    """Return a seed and a name for each of the measurements ``(B, *operator.measurement_shape)``.

    Raises:
        ValueError: when shapes, counts or the noise level do not fit together.
    """
    if tuple(y.shape[1:]) != operator.measurement_shape or len(y) == 0:
        raise ValueError(
            f"y must have shape (batch, {', '.join(map(str, operator.measurement_shape))}); "
            f"{tuple(y.shape)} was given (for one image add a batch axis: y[None])"
        )
    if noise_std is not None and not noise_std >= 0:
        raise ValueError(f"noise_std is at least 0 (on the [0, 1] scale); {noise_std} was given")
    seeds = [seeds + i for i in range(len(y))] if isinstance(seeds, int) else list(seeds)
    names = [f"image-{i}" for i in range(len(y))] if names is None else list(names)
    if not len(seeds) == len(names) == len(y):
        raise ValueError(f"{len(y)} measurements came with {len(seeds)} seeds and {len(names)} names")
    return seeds, names


def squared_errors(operator: LinearOperator, images: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`|y - A x|^2` of every measurement, ``(B, m)``; the objective is its sum over num_measurements.

    Example:
        >>> import torch
        >>> from iagan_lightning.operators import Identity
        >>> squared_errors(Identity((1, 1, 2)), torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 2.0]]]]))
        tensor([[1., 4.]])
    """
    measured = operator(images)
    difference = measured - y.to(measured.dtype)
    return (difference.abs().square() if difference.is_complex() else difference.square()).flatten(1)


def derived_seed(seed: int, purpose: str) -> int:
    """Return a seed for one purpose: no two of them, nor the noise drawn from the seed itself, share random numbers.

    Example:
        >>> derived_seed(0, "latent") == derived_seed(0, "latent"), derived_seed(0, "latent") == derived_seed(0, "dip")
        (True, False)
    """
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:7], "big")
