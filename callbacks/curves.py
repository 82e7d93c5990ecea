"""The way to a result: objective, residual and PSNR over the evaluations of all fits."""

from __future__ import annotations

import csv
import io
import math
import os
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from iagan_lightning.methods.phases import require_method
from iagan_lightning.methods.test_time_module import TestTimeModule
from iagan_lightning.results.files import write_text
from iagan_lightning.results.folder import OutputFolder


class CurveWriter(pl.Callback):
    """Write ``OUT/images/NAME/curves.csv``: evaluation, stage (the fit), objective, residual and, with the truth, psnr.

    It comes before ``ResultWriter``, whose metrics.json says that an image is done. Values stay on the device until
    the end, so that no evaluation waits for them.

    Args:
        out: folder of the run.
        density: of the points, see ``is_point``.
    """

    phase = "write"

    def __init__(self, out: OutputFolder | str | os.PathLike[str], density: float = 7) -> None:
        self.out = out if isinstance(out, OutputFolder) else OutputFolder(out)
        self.density = density
        self._rows: list[tuple[int, str, dict[str, Tensor]]] = []
        self._step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the previous image at the first fit."""
        if require_method(pl_module, self).is_first:
            self._rows, self._step = [], 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note a point."""
        self._step += 1
        if is_point(batch_idx, self.density):
            self._note(require_method(pl_module, self))

    def _note(self, module: TestTimeModule) -> None:
        self._rows.append((self._step - 1, module.stage, curve_point(module)[0]))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note where the fit ended, and write the files after the last one."""
        module = require_method(pl_module, self)
        if self._rows and self._rows[-1][0] < self._step - 1:
            self._note(module)
        if not module.is_last or not self._rows:
            return
        tags = list(self._rows[0][2])
        values = torch.stack([torch.stack([point[tag] for tag in tags]) for _, _, point in self._rows]).tolist()
        for index, name in enumerate(module.names):
            table = io.StringIO(newline="")
            writer = csv.writer(table, lineterminator="\n")
            writer.writerow(["evaluation", "stage", *tags])
            for (step, stage, _), row in zip(self._rows, values, strict=True):
                writer.writerow([step, stage, *(f"{curve[index]:.5g}" for curve in row)])
            write_text(self.out.make(name) / "curves.csv", table.getvalue())


def is_point(step: int, density: float) -> bool:
    r"""Tell whether a curve gets a point at an evaluation: where :math:`d \log(1 + t / d)` passes an integer.

    Every evaluation at first, then ever fewer, as the objective falls ever slower. How long a fit will last is not
    known beforehand, so the points cannot be spread evenly over it; its last evaluation always gets one.

    Args:
        step: t, from 0 in each fit.
        density: d; 7 gives 16 points in 50 evaluations and 40 in 1600, 1 gives 5 and 9.

    Example:
        >>> [step for step in range(40) if is_point(step, density=1)]
        [0, 1, 2, 7, 20]
    """
    passed, before = (math.ceil(density * math.log1p(t / density)) for t in (step, max(step - 1, 0)))
    return step == 0 or passed > before


def curve_point(module: TestTimeModule) -> tuple[dict[str, Tensor], Tensor]:
    """Return ``(B,)`` objective, residual and (with the truth) psnr of the latest evaluation, and its images.

    Of several starting points each image shows the one that is best at the moment.
    """
    now = module.evaluation
    assert now is not None
    best, misfit, images = now.objective, now.misfit, now.image
    if module.starts > 1:
        best, rows = best.unflatten(0, (len(module.y), -1)).min(1)
        rows = rows + module.starts * torch.arange(len(rows), device=rows.device)
        misfit, images = misfit[rows], images[rows]
    curves = {"objective": best, "residual": (misfit / module.energy).sqrt()}
    if module.truth is not None:
        error = images.clamp(-1, 1) - module.truth.to(images)
        curves["psnr"] = 10 * (4 / error.square().mean((1, 2, 3))).log10()
    return curves, images
