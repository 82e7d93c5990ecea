"""In what precision a fit computes: which settings it takes, and what PyTorch and Lightning must not round or scale."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from iagan_lightning.methods.settings import FitSettings
from iagan_lightning.operators.modes import in_autocast

PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed")
HALF = (torch.float16, torch.bfloat16)


def check_precision(precision: object) -> None:
    """Raise ValueError for precisions that would round the latents and weights themselves.

    Args:
        precision: as a Trainer calls it, ``Trainer.precision``.
    """
    if str(precision) not in PRECISIONS:
        raise ValueError(
            f"precision {precision} rounds the latents and weights that are being fitted: choose 32-true, 64-true, or "
            "bf16-mixed for half precision in the generator alone"
        )


def check_dtypes(module: nn.Module) -> None:
    """Raise ValueError for a module that was cast to half precision, or is around a generator that was."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.dtype in HALF:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(
                f"{name} of {type(module).__name__} is {kind}, which would round what is fitted: call float() on the "
                "module, or on its generator before, then begin(y, A); for half precision in the generator alone give "
                "the Trainer precision bf16-mixed"
            )


@contextmanager
def without_autocast(device: torch.device) -> Iterator[None]:
    """Compute in the precision of the tensors on a device and on the CPU, whatever autocast is around.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16), without_autocast(torch.device("cpu")):
        ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
        torch.float32
    """
    with ExitStack() as stack:
        for kind in {"cpu", device.type}:
            if in_autocast(torch.device(kind)):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def float32_in_full() -> Iterator[None]:
    """Compute in float32 what is float32: no TF32 within, which keeps 10 bits of 23.

    PyTorch leaves it on for the convolutions of a GPU. It is a setting of the whole process, put back at the end.

    Example:
        >>> with float32_in_full():
        ...     torch.backends.cudnn.allow_tf32
        False
        >>> torch.backends.cudnn.allow_tf32
        True
    """
    with ExitStack() as restored:
        # The older settings change the newer ones, of which each operation has one of its own: they come first.
        before = [(operation, operation.fp32_precision) for operation in _operations()]
        for operation, value in before:
            restored.callback(setattr, operation, "fp32_precision", value)
        restored.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        torch.set_float32_matmul_precision("highest")
        with suppress(RuntimeError):  # it cannot be told where somebody has set the newer ones
            restored.callback(setattr, torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
            torch.backends.cudnn.allow_tf32 = False
        for operation, _ in before:
            operation.fp32_precision = "ieee"
        yield


def _operations() -> list[Any]:
    """Return the holders of ``fp32_precision``, which newer versions of PyTorch have for each kind of operation."""
    cudnn, cuda, mkldnn = torch.backends.cudnn, torch.backends.cuda, torch.backends.mkldnn
    pairs = [(cudnn, "conv"), (cudnn, "rnn"), (cuda, "matmul"), (mkldnn, "conv"), (mkldnn, "rnn"), (mkldnn, "matmul")]
    operations = (getattr(backend, name, None) for backend, name in pairs)
    return [operation for operation in operations if hasattr(operation, "fp32_precision")]


@contextmanager
def unscaled(trainer: pl.Trainer, settings: FitSettings) -> Iterator[None]:
    """Leave the loss of an L-BFGS fit unscaled under ``16-mixed``.

    Such a fit is float32 throughout, where no gradient vanishes. And whoever scales leaves steps out: a line search
    has to hear of every evaluation, of one that is infinite above all.
    """
    plugin: Any = trainer.precision_plugin
    scaler = getattr(plugin, "scaler", None)
    if scaler is None or settings.optimizer != "lbfgs":
        yield
        return
    plugin.scaler = None
    try:
        yield
    finally:
        plugin.scaler = scaler
