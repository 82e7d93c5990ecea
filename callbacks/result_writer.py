"""Writing the results of each image to its own folder."""

from __future__ import annotations

import json
import os
from typing import Literal

import pytorch_lightning as pl
import torch
from safetensors.torch import save as to_safetensors

from iagan_lightning.data.images import to_pillow
from iagan_lightning.methods.iagan import IAGAN
from iagan_lightning.results.files import write_bytes, write_picture, write_tensors, write_text
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.sheet import sheet_of


class ResultWriter(pl.Callback):
    """Write pictures, measurements and ``metrics.json`` of each image when its last stage has ended.

    Args:
        out: folder of the run.
        save: ``weights`` also writes ``weights.safetensors`` with ``latent.z``, ``joint.z`` and by how much each weight
            was changed, ``joint.change.<name>``, in half precision: ``iagan rebuild`` makes the images again.
    """

    def __init__(
        self, out: OutputFolder | str | os.PathLike[str], save: Literal["images", "weights"] = "images"
    ) -> None:
        self.out = out if isinstance(out, OutputFolder) else OutputFolder(out)
        self.save = save

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write after the joint stage; metrics.json comes last, its presence means that the image is done."""
        assert isinstance(pl_module, IAGAN)
        if pl_module.stage == "joint":
            for index in range(len(pl_module.names)):
                self._write(pl_module, index)

    def _write(self, module: IAGAN, index: int) -> None:
        name = module.names[index]
        folder = self.out.make(name)
        y = module.y[index].cpu()
        truth = None if module.truth is None else module.truth[index].cpu()
        results = {method: images[index].float().cpu() for method, images in module.results.items()}
        metrics = module.metrics[index] if module.metrics else {}
        write_tensors(folder / "measurement.pt", y)
        picture = module.operator.picture(module.y[index])
        if picture is not None:
            write_picture(folder / "measurement.png", to_pillow(picture))
        mask = getattr(module.operator, "mask", None)
        if isinstance(mask, torch.Tensor):  # as it is read again: --operator.mask mask.png
            alike = mask if mask.ndim == 2 else mask[0]
            write_picture(folder / "mask.png", to_pillow(alike[None].float() * 2 - 1))
        if truth is not None:
            write_picture(folder / "truth.png", to_pillow(truth))
        for method, image in results.items():
            write_picture(folder / f"{method}.png", to_pillow(image))
        write_picture(folder / "comparison.png", sheet_of(results, truth, picture, metrics, module.titles))
        if self.save == "weights":
            write_bytes(folder / "weights.safetensors", to_safetensors(_variables(module, index)))
        # Of attempts that failed or were killed.
        for remnant in (folder / "error.txt", *folder.glob(".*.part")):
            remnant.unlink(missing_ok=True)
        seconds = {stage: time / len(module.names) for stage, time in module.seconds.items()}
        record = {
            "image": name,
            "seed": module.seeds[index],
            "operator": repr(module.operator),
            "noise_std": module.noise_std,
            "preset": module.preset,
            "device": str(module.y.device),
            "seconds": {**seconds, "total": sum(seconds.values())},
            "evaluations": {stage: int(n[index]) for stage, n in module.evaluations.items()},
            "objective": {stage: float(value[index]) for stage, value in module.objective.items()},
            "methods": metrics,
            **({"titles": module.titles} if module.titles else {}),
        }
        write_text(folder / "metrics.json", json.dumps(record, indent=2) + "\n")


def _variables(module: IAGAN, index: int) -> dict[str, torch.Tensor]:
    """The latents, and the weights as the difference from the prior's: small numbers, for which 16 bits are enough."""
    tensors = {f"{stage}.z": kept.z[index].float() for stage, kept in module.kept.items()}
    for name, adapted in zip(module.adapted, module.kept["joint"].weights, strict=True):
        prior = module.generator.get_parameter(name)
        tensors[f"joint.change.{name}"] = (adapted[index].to(prior) - prior).half()
    return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
