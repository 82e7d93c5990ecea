"""The best linear estimator: what training pictures say through their mean and covariance alone, without a network.

Pictures are taken for normal, with the covariance of k principal components and an isotropic rest:
``x ~ N(mu, W W^T + s I)``. Of ``y = A x + e``, e of variance v, the mean of x is then known in closed form,

    x = mu + C A^T (A C A^T + v I)^-1 (y - A mu),    C = W W^T + s I,

and is here computed in the coordinates of the components. With ``B = (A^T A + v / s)^-1 A^T`` (A^+ where v is 0),

    z = (I + W^T B A W / s)^-1 W^T B (y - A mu) / s,    x = mu + W z + B (y - A mu - A W z),

which needs A, A^T and conjugate gradients: nothing as large as y times y, and real numbers for complex y too.

Source: Tipping and Bishop, Probabilistic principal component analysis, Journal of the Royal Statistical Society B 61,
1999, for the prior; the estimator is the Wiener filter of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from iagan_lightning.operators import LinearOperator
from iagan_lightning.operators.conjugate_gradients import solve_normal_equations
from iagan_lightning.training.picture_set import PictureSet

BLOCK = 1024  # pictures that are on the scale of [-1, 1] at a time, and components that are inverted at a time
SPARE = 40  # directions that are followed beside those wanted: the last wanted ones are found more exactly


class Statistics:
    """Mean, principal components and rest of a set of pictures.

    Attributes:
        mean: ``(C, H, W)``, in [-1, 1].
        components: W, ``(k, C, H, W)``: principal directions, each as long as the standard deviation along it exceeds
            that of the rest, so that the covariance is ``W W^T + rest``.
        rest: variance s of a pixel in every other direction.
        count: pictures that they come from.
    """

    def __init__(self, mean: Tensor, components: Tensor, rest: float, count: int) -> None:
        self.mean, self.components, self.rest, self.count = mean, components, rest, count

    def save(self, path: Path) -> None:
        """Write them to a safetensors file."""
        numbers = {"rest": torch.tensor(self.rest, dtype=torch.float64), "count": torch.tensor(self.count)}
        tensors = {"mean": self.mean, "components": self.components, **numbers}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """Read what ``save`` wrote.

        Raises:
            ValueError: for another file.
        """
        try:
            stored = load_file(path)
            return cls(stored["mean"], stored["components"], float(stored["rest"]), int(stored["count"]))
        except (OSError, KeyError, SafetensorError) as error:
            raise ValueError(f"{path} holds no statistics of pictures: {type(error).__name__}: {error}") from error


def fit(pictures: Tensor, k: int, rounds: int = 4) -> Statistics:
    """Return the statistics of pictures ``(n, C, H, W)`` as uint8, with k principal components.

    Components by subspace iteration: as many passes over the pictures as there are rounds, without their covariance.

    Raises:
        ValueError: for fewer pictures or pixels than it takes to tell k components from the rest.
    """
    n, pixels = len(pictures), pictures[0].numel()
    most = min(n, pixels) - 1
    if not 0 < k <= most:
        raise ValueError(f"{n} pictures of {pixels} numbers have 1 to {most} components; {k} were asked for")
    mean = sum(x.double().sum(0) for x in _blocks(pictures)) / n
    total = float(sum((x - mean.float()).double().square().sum() for x in _blocks(pictures))) / n
    basis = torch.randn(pixels, min(k + SPARE, n, pixels), generator=torch.Generator().manual_seed(0))
    for _ in range(rounds):
        basis, _ = torch.linalg.qr(_covariance(pictures, mean.float(), basis))
    variances, turn = torch.linalg.eigh((basis.mT @ _covariance(pictures, mean.float(), basis)).double())
    variances, directions = variances.flip(0)[:k], (basis.double() @ turn.flip(1)[:, :k]).mT
    rest = (total - float(variances.sum())) / (pixels - k)
    components = directions * (variances - rest).clamp(min=0).sqrt()[:, None]
    shape = pictures.shape[1:]
    return Statistics(mean.float().reshape(shape), components.float().reshape(k, *shape), rest, n)


def fit_file(root: Path, size: int, k: int) -> Statistics:
    """Return the statistics of the pictures in a folder or tar file, cropped and shrunk as in training."""
    given = PictureSet(str(root), size)
    return fit(torch.stack([given[i, False] for i in range(len(given))]), k)


def _blocks(pictures: Tensor) -> Iterator[Tensor]:
    return (block.flatten(1).float() / 127.5 - 1 for block in pictures.split(BLOCK))


def _covariance(pictures: Tensor, mean: Tensor, basis: Tensor) -> Tensor:
    """Return the pictures' covariance times a basis."""
    product = torch.zeros_like(basis)
    for x in _blocks(pictures):
        x -= mean
        product += x.mT @ (x @ basis)
    return product / len(pictures)


class LinearEstimator:
    """The estimator for one operator and level of noise; making it costs far more than using it.

    Args:
        statistics: of the pictures.
        operator: A.
        noise_std: standard deviation of the noise on the [0, 1] scale.
    """

    def __init__(self, statistics: Statistics, operator: LinearOperator, noise_std: float = 0.0) -> None:
        if (shape := tuple(statistics.mean.shape)) != operator.image_shape:
            raise ValueError(f"the statistics are of images {shape}, the operator takes {operator.image_shape}")
        self.operator, self.rest = operator, statistics.rest
        self.damping = (2 * noise_std) ** 2 / statistics.rest
        self.mean, self.components = statistics.mean.double()[None], statistics.components.double()
        self.reached = torch.cat([self._inverse(operator(part)) for part in self.components.split(64)])
        gain = self.components.flatten(1) @ self.reached.flatten(1).mT / self.rest
        self.factor = torch.linalg.cholesky(torch.eye(len(gain), dtype=gain.dtype) + (gain + gain.mT) / 2)

    def __call__(self, y: Tensor) -> Tensor:
        """Return the images ``(B, C, H, W)`` of measurements."""
        y = y.to(torch.complex128) if y.is_complex() else y.double()
        seen = self._inverse(y - self.operator(self.mean))
        towards = self.components.flatten(1) @ seen.flatten(1).mT / self.rest
        z = torch.cholesky_solve(towards, self.factor).mT
        x = self.mean + seen + torch.einsum("bk,kchw->bchw", z, self.components - self.reached)
        return x.float()

    def _inverse(self, y: Tensor) -> Tensor:
        """Return B y."""
        if self.damping == 0:
            return self.operator.pseudo_inverse(y)
        return solve_normal_equations(self.operator, self.operator.adjoint, y, damping=self.damping)
