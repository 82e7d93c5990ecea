"""Writing the results of each image to its own folder."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping
from typing import Any, Literal

import pytorch_lightning as pl
from safetensors.torch import save as to_safetensors

from iagan_lightning.checks import check_choice
from iagan_lightning.data.images import to_pillow
from iagan_lightning.methods.fit import space_of
from iagan_lightning.methods.phases import require_method
from iagan_lightning.methods.test_time_module import TestTimeModule
from iagan_lightning.results.familiarity import Familiarity, familiarity, unexplained
from iagan_lightning.results.files import write_picture
from iagan_lightning.results.finished import Finished
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.uncertainty import kind_of

Save = Literal["images", "pictures", "weights"]  # what is kept of each image


class ResultWriter(pl.Callback):
    """Write pictures, measurements and ``metrics.json`` of each image when its last fit has ended.

    Args:
        out: folder of the run.
        save: ``weights`` also writes ``weights.safetensors`` with the latent of each fit, ``FIT.z``, and by how much
            the last one changed each weight, ``FIT.change.NAME``, in half precision, and of several views the last one
            of each: ``iagan rebuild`` makes the image again. ``pictures`` also writes the result that is offered of
            each image, and nothing else of it, as ``OUT/pictures/NAME.png``: a folder like the one that was given.
        notes: what else the record of an image is to say, by its name.
        pictures: names of the pictures to write; all by default.
    """

    phase, concludes = "write", True

    def __init__(
        self,
        out: OutputFolder | str | os.PathLike[str],
        save: Save = "images",
        notes: Mapping[str, Mapping[str, Any]] | None = None,
        pictures: Collection[str] | None = None,
    ) -> None:
        check_choice("save", save, Save)
        self.out = out if isinstance(out, OutputFolder) else OutputFolder(out)
        self.save, self.notes, self.pictures = save, notes or {}, pictures

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write after the last fit; metrics.json comes last, its presence means that the image is done."""
        module = require_method(pl_module, self)
        if module.is_last:
            for index, name in enumerate(module.names):
                weights = _variables(module, index) if self.save == "weights" else None
                image = finished(module, index, self.notes.get(name, {}))
                folder = self.out.make(name)
                if self.save == "pictures":
                    write_picture(self.out.picture(name), to_pillow(image.results[image.offered]))
                image.write(folder, weights, self.pictures)


def finished(module: TestTimeModule, index: int, notes: Mapping[str, Any] | None = None) -> Finished:
    """Return what is known of an image of a method whose last fit has ended.

    Args:
        module: the method.
        index: of the image in the batch.
        notes: what else its record is to say.
    """
    return Finished(
        name=module.names[index],
        seed=module.seeds[index],
        y=module.y[index],
        operator=module.operator,
        noise_std=module.noise_std,
        quantisation=module.quantisation,
        results={name: images[index].float().cpu() for name, images in module.results.items()},
        final=module.final,
        seconds={stage: time / len(module.names) for stage, time in module.seconds.items()},
        evaluations={stage: int(n[index]) for stage, n in module.evaluations.items()},
        objective={stage: float(value[index]) for stage, value in module.objective.items()},
        misfit={stage: float(value[index]) for stage, value in module.misfits.items()},
        broken=[stage for stage, images in module.broken.items() if images[index]],
        preset=module.preset,
        device=str(module.fitted_on),
        space=module.fits[0].space,
        truth=None if module.truth is None else module.truth[index].cpu(),
        metrics=module.metrics[index] if module.metrics else {},
        titles=module.titles,
        notes=notes or {},
        uncertainty=None if module.uncertainty is None else module.uncertainty[index].float().cpu(),
        calibrated=module.calibrated,
        familiarity=familiar(module, index),
    )


def familiar(module: TestTimeModule, index: int) -> Familiarity | None:
    """Return how well the prior of a method explains an image by itself.

    From the result of its first fit with one, which is None where that adapts weights, where there is no generator, and
    where y shows nothing but noise. It is judged by what known pictures leave where the search is that with which they
    were measured.
    """
    fit = next((fit for fit in module.fits if fit.result), None)
    if fit is None or fit.space is None or fit.result not in module.results or module.weights_of(fit.name):
        return None
    x, y, A = module.results[fit.result][index, None], module.y[index, None], module.operator
    x = x.to(y.device)  # when all fits have ended Lightning has taken y and A to the CPU, and no results
    left = float(unexplained(x, y, A, module.noise_std))
    kind = kind_of(A, module.noise_std)
    usual = module.is_calibrated("latent")
    typical = module.generator.calibration.typical(kind, A.num_measurements) if usual else None
    return familiarity(left, typical, fit.space) if math.isfinite(left) else None


def _variables(module: TestTimeModule, index: int) -> bytes:
    """The latents, and the weights as the difference from the prior's: small numbers, for which 16 bits are enough.

    Raises:
        ValueError: for a method whose weights are no change of a generator's.
    """
    if module.image_shape is None:
        raise ValueError(f"save weights stores how a generator has changed; {type(module).__name__} has none")
    tensors = {f"{stage}.z": kept.z[index].float() for stage, kept in module.kept.items()}
    ends = [fit for fit in module.fits if fit.result in module.outcomes]
    for fit in ends:
        for name, adapted in module.weights_of(fit.name).items():
            prior = module.generator.get_parameter(name)
            tensors[f"{fit.name}.change.{name}"] = (adapted[index].to(prior) - prior).half()
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    views = {fit.name: fit.view for fit in ends}
    about = {"fit": ends[0].name, "space": space_of(ends[0], module.fits), "views": json.dumps(views)}
    return to_safetensors(plain, metadata=about)
