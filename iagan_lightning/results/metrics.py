"""Quality of reconstructions: distance to the truth, agreement with the measurements, perceptual similarity."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from iagan_lightning.data.images import to_8bit
from iagan_lightning.methods.inputs import images_of, measurements_of, truths_of
from iagan_lightning.methods.precision import without_autocast
from iagan_lightning.operators import LinearOperator, Operator
from iagan_lightning.results.lpips import Backbone, large_enough_for_lpips, load_lpips
from iagan_lightning.results.registry import metric, own_metrics

__all__ = ["evaluate", "metric"]

WINDOW = 11  # pixels of a side of the window of SSIM


@torch.no_grad()
def evaluate(
    x: Tensor | np.ndarray,
    y: Tensor | np.ndarray,
    operator: Operator,
    truth: Tensor | np.ndarray | None = None,
    noise_std: float | None = 0.0,
    lpips: Backbone = "none",
) -> list[dict[str, float]]:
    r"""Return the metrics of each image of a batch.

    ``residual`` is :math:`|A x - y| / |y|` before clamping, ``residual_8bit`` the same after clamping and rounding to
    8 bits, ``residual_sigma`` (with noise) :math:`|A x - y| / (2 \sigma \sqrt m)`, near 1 for the truth (for complex
    y near :math:`\sqrt 2`). With the truth: ``mse`` and ``psnr`` [dB] on the [0, 1] scale after clamping, ``ssim``
    (see ``structural_similarity``), ``lpips_<backbone>``, and with :math:`e = (x - x_{true}) / 2` unclamped and
    :math:`P_A = A^+ A` the mean of :math:`(P_A e)^2`, ``row_space_mse``, and of :math:`(e - P_A e)^2`,
    ``null_space_mse``; both are absent where conjugate gradients cannot find A^+, and where A is not linear. Metrics of
    one's own (``metric``) follow.

    All in float32 at least, also under autocast. An image that is not a number has metrics that are none, and changes
    nothing for the others.

    Args:
        x: reconstructions ``(B, C, H, W)`` in [-1, 1], as all images and measurements tensors or NumPy arrays.
        y: measurements ``(B, *operator.measurement_shape)``.
        operator: A.
        truth: true images ``(B, C, H, W)`` in [-1, 1].
        noise_std: noise level of y on the [0, 1] scale; None where it is unknown.
        lpips: backbone of LPIPS, or ``none``.

    Raises:
        ValueError: for whole numbers, for other shapes, and for a truth that is not on the scale of [-1, 1].
    """
    x, y = images_of(x, operator), measurements_of(y, operator)
    if len(y) != len(x):
        raise ValueError(f"one y for each x is needed; {len(x)} images came with {len(y)} measurements")
    truth = None if truth is None else truths_of(truth, len(x), operator)
    with without_autocast(x.device):
        columns = _columns(x, y, operator, truth, noise_std, lpips)
    values = {name: column.cpu().double().tolist() for name, column in columns.items()}
    return [{name: column[i] for name, column in values.items()} for i in range(len(x))]


def _columns(
    x: Tensor, y: Tensor, operator: Operator, truth: Tensor | None, noise_std: float | None, lpips: Backbone
) -> dict[str, Tensor]:
    """Return the metrics of a batch, ``(B,)`` each; see ``evaluate``."""
    residual = _norm(operator.difference(x, y))
    shown = torch.where(x.isnan(), x, to_8bit(x).to(x.dtype) / 127.5 - 1)
    columns = {"residual": residual / _norm(y), "residual_8bit": _norm(operator.difference(shown, y)) / _norm(y)}
    if noise_std:
        columns["residual_sigma"] = residual / (2 * noise_std * math.sqrt(operator.num_measurements))
    if truth is not None:
        from torchmetrics.functional.image import peak_signal_noise_ratio

        truth = truth.to(x)
        a, b = ((image.clamp(-1, 1) + 1) / 2 for image in (x, truth))
        columns["mse"] = (a - b).square().flatten(1).mean(1)
        columns["psnr"] = peak_signal_noise_ratio(a, b, data_range=1.0, reduction="none", dim=(1, 2, 3))
        if min(x.shape[-2:]) >= WINDOW:
            columns["ssim"] = structural_similarity(a, b)
        distance = load_lpips(lpips)
        if distance is not None and large_enough_for_lpips(tuple(x.shape[-2:])):
            columns[f"lpips_{lpips}"] = distance(x.clamp(-1, 1), truth.clamp(-1, 1))
        error = (x - truth) / 2
        row_space = _project(operator, error)
        if row_space is not None:
            columns["row_space_mse"] = row_space.square().flatten(1).mean(1)
            columns["null_space_mse"] = (error - row_space).square().flatten(1).mean(1)
    return columns | own_metrics(x, y=y, operator=operator, truth=truth, noise_std=noise_std)


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    r"""Return the mean structural similarity of two batches of images in [0, 1], ``(B,)``.

    The published definition: Gaussian windows of 11 x 11 pixels and standard deviation 1.5, those that lie wholly
    within the picture, each channel by itself, :math:`K_1 = 0.01`, :math:`K_2 = 0.03`. It is scikit-image's
    (``gaussian_weights=True, use_sample_covariance=False``) and that of torchmetrics up to 1.4; from 1.5.2 on
    torchmetrics also takes the mean over windows that reach beyond the border, into the picture's reflection.

    Args:
        a, b: ``(B, C, H, W)``, height and width at least 11.

    Source: Wang, Bovik, Sheikh and Simoncelli, Image quality assessment: from error visibility to structural
    similarity, IEEE Transactions on Image Processing 13(4), 2004.

    Example:
        >>> x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> structural_similarity(x, x).tolist(), structural_similarity(x, 1 - x).item() < 0
        ([1.0], True)
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    _, each = structural_similarity_index_measure(a, b, data_range=1.0, reduction="none", return_full_image=True)
    border = WINDOW // 2
    return each[..., border:-border, border:-border].flatten(1).mean(1)


def evaluate_all(
    results: Mapping[str, Tensor],
    y: Tensor,
    operator: Operator,
    truth: Tensor | None = None,
    noise_std: float | None = 0.0,
    lpips: Backbone = "none",
) -> tuple[dict[str, Tensor], list[dict[str, dict[str, float]]]]:
    """Return all results, the plain reconstruction ``naive`` before them, and of each image the metrics by result.

    Args:
        results: reconstructions ``(B, C, H, W)`` by name.
        y, operator, truth, noise_std, lpips: as of ``evaluate``.
    """
    naive = operator.naive(y)
    results = dict(results) if naive is None else {"naive": naive, **results}
    metrics: list[dict[str, dict[str, float]]] = [{} for _ in y]
    for name, images in results.items():
        rows = evaluate(images, y, operator, truth, noise_std, lpips)
        for own, row in zip(metrics, rows, strict=True):
            own[name] = row
    return results, metrics


def outside(x: Tensor) -> Tensor:
    """Return the share of the values of each image that lie beyond [-1, 1] by more than 0.1, ``(B,)``.

    Example:
        >>> outside(torch.tensor([0.0, 1.05, -1.2, 3.0]).reshape(1, 1, 2, 2)).tolist()
        [0.5]
    """
    return (x.abs() > 1.1).float().flatten(1).mean(1)


def _project(operator: Operator, error: Tensor) -> Tensor | None:
    """Return :math:`A^+ A e`, None where it is out of reach; of an error that is not finite no number."""
    if not isinstance(operator, LinearOperator):
        return None
    finite = error.isfinite().flatten(1).all(1)
    projected = torch.full_like(error, torch.nan)
    if bool(finite.any()):
        try:
            found = operator.pseudo_inverse(operator(error[finite]))
        except RuntimeError:  # an ill-conditioned operator without a pseudo-inverse of its own
            return None
        projected[finite] = found.to(error.dtype)
    return projected


def _norm(x: Tensor) -> Tensor:
    return x.abs().flatten(1).norm(dim=1)
