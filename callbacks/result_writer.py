"""Writing the results of each image to its own folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from safetensors.torch import save as to_safetensors

from iagan_lightning.data.images import to_pillow
from iagan_lightning.methods.phases import require_method
from iagan_lightning.methods.test_time_module import TestTimeModule
from iagan_lightning.results.files import as_json, write_bytes, write_picture, write_tensors, write_text
from iagan_lightning.results.folder import METRICS_VERSION, OutputFolder
from iagan_lightning.results.metrics import outside
from iagan_lightning.results.registry import about_own
from iagan_lightning.results.sheet import sheet_of

OUTSIDE = 0.01  # share of a back-projection's values that may lie far outside [-1, 1]; up to 0.003 do where A is exact


class ResultWriter(pl.Callback):
    """Write pictures, measurements and ``metrics.json`` of each image when its last fit has ended.

    Args:
        out: folder of the run.
        save: ``weights`` also writes ``weights.safetensors`` with the latent of each fit, ``FIT.z``, and by how much
            the last one changed each weight, ``FIT.change.NAME``, in half precision: ``iagan rebuild`` makes the image
            again.
        notes: what else the record of an image is to say, by its name.
    """

    phase, concludes = "write", True

    def __init__(
        self,
        out: OutputFolder | str | os.PathLike[str],
        save: Literal["images", "weights"] = "images",
        notes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.out = out if isinstance(out, OutputFolder) else OutputFolder(out)
        self.save, self.notes = save, notes or {}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write after the last fit; metrics.json comes last, its presence means that the image is done."""
        module = require_method(pl_module, self)
        if module.is_last:
            for index in range(len(module.names)):
                self._write(module, index)

    def _write(self, module: TestTimeModule, index: int) -> None:
        name = module.names[index]
        folder = self.out.make(name)
        y = module.y[index].cpu()
        truth = None if module.truth is None else module.truth[index].cpu()
        results = {method: images[index].float().cpu() for method, images in module.results.items()}
        metrics = module.metrics[index] if module.metrics else {}
        write_tensors(folder / "measurement.pt", y)
        picture = _drawable(module.operator.picture(module.y[index]))
        if picture is not None:
            write_picture(folder / "measurement.png", to_pillow(picture))
        mask = _mask_picture(getattr(module.operator, "mask", None))
        if mask is not None:
            write_picture(folder / "mask.png", to_pillow(mask))
        if truth is not None:
            write_picture(folder / "truth.png", to_pillow(truth))
        for method, image in results.items():
            write_picture(folder / f"{method}.png", to_pillow(image))
        write_picture(folder / "comparison.png", sheet_of(results, truth, picture, metrics, module.titles))
        if self.save == "weights":
            write_bytes(folder / "weights.safetensors", _variables(module, index))
        # Of attempts that failed or were killed.
        for remnant in (folder / "error.txt", *folder.glob(".*.part")):
            remnant.unlink(missing_ok=True)
        final, broken = module.final, [stage for stage, images in module.broken.items() if images[index]]
        projected = results.get(f"{final}_bp")
        within = projected is not None and float(outside(projected[None])) <= OUTSIDE
        seconds = {stage: time / len(module.names) for stage, time in module.seconds.items()}
        record = {
            "version": METRICS_VERSION,
            "image": name,
            "seed": module.seeds[index],
            "operator": repr(module.operator),
            "noise_std": module.noise_std,
            "quantisation": module.quantisation,
            "preset": module.preset,
            "result": final,
            "offered": f"{final}_bp" if within else final,
            "device": str(module.y.device),
            "seconds": {**seconds, "total": sum(seconds.values())},
            "evaluations": {stage: int(n[index]) for stage, n in module.evaluations.items()},
            "objective": {stage: float(value[index]) for stage, value in module.objective.items()},
            "misfit": {stage: float(value[index]) for stage, value in module.misfits.items()},
            "methods": metrics,
            **({"broken": broken} if broken else {}),
            **self.notes.get(name, {}),
            **({"titles": module.titles} if module.titles else {}),
            **({"about": about} if (about := about_own()) else {}),
        }
        write_text(folder / "metrics.json", as_json(record))


def _mask_picture(mask: object) -> torch.Tensor | None:
    """Return a mask as ``(1, H, W)`` in [-1, 1], as it is read again (``--operator.mask mask.png``).

    None where no one picture tells it: channels that differ, values beyond [0, 1], or another kind of mask altogether.

    Example:
        >>> _mask_picture(torch.tensor([[True, False]])).tolist(), _mask_picture(torch.ones(4)) is None
        ([[[1.0, -1.0]]], True)
    """
    if not isinstance(mask, torch.Tensor) or mask.is_complex() or mask.ndim not in (2, 3) or not mask.numel():
        return None
    planes = mask.detach().cpu().float()
    planes = planes if mask.ndim == 3 else planes[None]
    inside = ((planes >= 0) & (planes <= 1)).all()
    return planes[:1] * 2 - 1 if inside and (planes == planes[:1]).all() else None


def _drawable(picture: torch.Tensor | None) -> torch.Tensor | None:
    """Return what a user's operator calls a picture if it is one, ``(1 or 3, h, w)``, else None."""
    if picture is None or picture.is_complex() or picture.ndim != 3 or len(picture) not in (1, 3):
        return None
    return picture if picture.numel() else None


def _variables(module: TestTimeModule, index: int) -> bytes:
    """The latents, and the weights as the difference from the prior's: small numbers, for which 16 bits are enough.

    Raises:
        ValueError: for a method whose weights are no change of a generator's.
    """
    if module.image_shape is None:
        raise ValueError(f"save weights stores how a generator has changed; {type(module).__name__} has none")
    last = module.fits[-1]
    tensors = {f"{stage}.z": kept.z[index].float() for stage, kept in module.kept.items()}
    for name, adapted in module.weights_of(last.name).items():
        prior = module.generator.get_parameter(name)
        tensors[f"{last.name}.change.{name}"] = (adapted[index].to(prior) - prior).half()
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    return to_safetensors(plain, metadata={"fit": last.name, "space": last.space or "z"})
