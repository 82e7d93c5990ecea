"""Quality of reconstructions: distance to the truth, agreement with the measurements, perceptual similarity."""

from __future__ import annotations

import functools
import math
import socket
import warnings
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from iagan_lightning.operators import LinearOperator

Backbone = Literal["alex", "vgg", "squeeze", "none"]


@torch.no_grad()
def evaluate(
    x: Tensor,
    y: Tensor,
    operator: LinearOperator,
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
    conjugate gradients cannot find A^+.

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
        try:
            row_space = operator.pseudo_inverse(operator(error))
        except RuntimeError:  # an ill-conditioned operator without a pseudo-inverse of its own: P_A is out of reach
            pass
        else:
            columns["row_space_mse"] = row_space.square().flatten(1).mean(1)
            columns["null_space_mse"] = (error - row_space).square().flatten(1).mean(1)
    values = {name: column.double().tolist() for name, column in columns.items()}
    return [{name: column[i] for name, column in values.items()} for i in range(len(x))]


def to_8bit(x: Tensor) -> Tensor:
    """Return images of [-1, 1] as uint8, clamped and rounded.

    Example:
        >>> to_8bit(torch.tensor([-1.5, -1.0, 0.0, 1.0])).tolist()
        [0, 0, 128, 255]
    """
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


@functools.cache  # one warning per size, not one per image
def large_enough_for_lpips(size: tuple[int, int]) -> bool:
    """Tell whether the backbones have anything left of a picture of this size after their pooling."""
    if min(size) >= 32:
        return True
    warnings.warn(f"LPIPS needs pictures of at least 32 x 32 pixels; {size[1]} x {size[0]} have none", stacklevel=2)
    return False


@functools.cache
def load_lpips(backbone: Backbone) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return LPIPS (linear heads v0.1; Zhang et al., CVPR 2018) as a function of two batches in [-1, 1].

    None, with one warning, where the backbone's weights are neither in torch's cache (``TORCH_HOME``) nor can be
    downloaded.
    """
    if backbone == "none":
        return None
    if backbone not in get_args(Backbone):
        raise ValueError(f"lpips is one of {', '.join(get_args(Backbone))}; {backbone!r} was given")
    try:
        network = lpips_network(backbone)
    except Exception as error:  # no network, a damaged cache, torchvision that does not fit torch ...
        warnings.warn(
            f"LPIPS ({backbone}) is left out, its weights cannot be loaded: {type(error).__name__}: {error}. "
            f"Put them into $TORCH_HOME/hub/checkpoints, choose another --lpips, or --lpips none.",
            stacklevel=2,
        )
        return None

    def distance(a: Tensor, b: Tensor) -> Tensor:
        # On the CPU and image by image: the same figure for a picture in whatever batch it came.
        pairs = zip(a.float().cpu(), b.float().cpu(), strict=True)
        return torch.stack([network(one[None], other[None]).flatten()[0] for one, other in pairs])

    return distance


def lpips_network(backbone: str) -> Any:
    """Return the network of LPIPS, frozen, from torch's cache or the network."""
    patience = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(20)  # a cluster without a network must not wait for a download for ever
        with warnings.catch_warnings():
            # https://github.com/richzhang/PerceptualSimilarity/issues/108: old arguments of torchvision
            warnings.filterwarnings("ignore", message="(The parameter 'pretrained'|Arguments other than a weight)")
            import lpips

            return lpips.LPIPS(net=backbone, verbose=False).eval().requires_grad_(False)
    finally:
        socket.setdefaulttimeout(patience)


def _norm(x: Tensor) -> Tensor:
    return x.abs().flatten(1).norm(dim=1)
