"""Quality of reconstructions: distance to the truth, agreement with the measurements, perceptual similarity."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from iagan_lightning.data.images import to_8bit
from iagan_lightning.operators import LinearOperator, Operator
from iagan_lightning.results.lpips import Backbone, large_enough_for_lpips, load_lpips
from iagan_lightning.results.registry import metric, own_metrics

__all__ = ["evaluate", "metric"]


@torch.no_grad()
def evaluate(
    x: Tensor,
    y: Tensor,
    operator: Operator,
    truth: Tensor | None = None,
    noise_std: float = 0.0,
    lpips: Backbone = "none",
) -> list[dict[str, float]]:
    r"""Return the metrics of each image of a batch.

    ``residual`` is :math:`|A x - y| / |y|` before clamping, ``residual_8bit`` the same after clamping and rounding to
    8 bits, ``residual_sigma`` (with noise) :math:`|A x - y| / (2 \sigma \sqrt m)`, near 1 for the truth (for complex
    y near :math:`\sqrt 2`). With the truth: ``mse`` and ``psnr`` [dB] on the [0, 1] scale after clamping, ``ssim``,
    ``lpips_<backbone>``, and with :math:`e = (x - x_{true}) / 2` unclamped and :math:`P_A = A^+ A` the mean of
    :math:`(P_A e)^2`, ``row_space_mse``, and of :math:`(e - P_A e)^2`, ``null_space_mse``; both are absent where
    conjugate gradients cannot find A^+, and where A is not linear. Metrics of one's own (``metric``) follow.

    Args:
        x: reconstructions ``(B, C, H, W)`` in [-1, 1].
        y: measurements ``(B, *operator.measurement_shape)``.
        operator: A.
        truth: true images ``(B, C, H, W)`` in [-1, 1].
        noise_std: noise level of y on the [0, 1] scale.
        lpips: backbone of LPIPS, or ``none``.
    """
    residual = _norm(operator(x) - y)
    shown = to_8bit(x).to(x.dtype) / 127.5 - 1
    columns = {"residual": residual / _norm(y), "residual_8bit": _norm(operator(shown) - y) / _norm(y)}
    if noise_std > 0:
        columns["residual_sigma"] = residual / (2 * noise_std * math.sqrt(operator.num_measurements))
    if truth is not None:
        from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

        truth = truth.to(x)
        a, b = ((image.clamp(-1, 1) + 1) / 2 for image in (x, truth))
        columns["mse"] = (a - b).square().flatten(1).mean(1)
        columns["psnr"] = peak_signal_noise_ratio(a, b, data_range=1.0, reduction="none", dim=(1, 2, 3))
        if min(x.shape[-2:]) > 10:  # the standard window is 11 x 11
            ssim = structural_similarity_index_measure(a, b, data_range=1.0, reduction="none")
            assert isinstance(ssim, Tensor)
            columns["ssim"] = ssim.reshape(-1)
        distance = load_lpips(lpips)
        if distance is not None and large_enough_for_lpips(tuple(x.shape[-2:])):
            columns[f"lpips_{lpips}"] = distance(x.clamp(-1, 1), truth.clamp(-1, 1))
        error = (x - truth) / 2
        row_space = _project(operator, error)
        if row_space is not None:
            columns["row_space_mse"] = row_space.square().flatten(1).mean(1)
            columns["null_space_mse"] = (error - row_space).square().flatten(1).mean(1)
    columns |= own_metrics(x, y=y, operator=operator, truth=truth, noise_std=noise_std)
    values = {name: column.double().tolist() for name, column in columns.items()}
    return [{name: column[i] for name, column in values.items()} for i in range(len(x))]


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
        y, operator, truth, lpips: as of ``evaluate``.
        noise_std: likewise; None where the level is unknown.
    """
    naive = operator.naive(y)
    results = dict(results) if naive is None else {"naive": naive, **results}
    metrics: list[dict[str, dict[str, float]]] = [{} for _ in y]
    for name, images in results.items():
        rows = evaluate(images, y, operator, truth, noise_std or 0.0, lpips)
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
    """Return :math:`A^+ A e`, None where it is out of reach."""
    if not isinstance(operator, LinearOperator):
        return None
    try:
        return operator.pseudo_inverse(operator(error))
    except RuntimeError:  # an ill-conditioned operator without a pseudo-inverse of its own
        return None


def _norm(x: Tensor) -> Tensor:
    return x.abs().flatten(1).norm(dim=1)
