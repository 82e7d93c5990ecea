"""One TensorBoard run per image: curves over both stages, images on the way, the final comparison."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from iagan_lightning.callbacks.curves import curve_point, is_point

from iagan_lightning.metrics import to_8bit
from iagan_lightning.module import IAGAN, METHOD
from iagan_lightning.output import OutputFolder
from iagan_lightning.sheet import sheet_of

STAGES = {"latent": 0.0, "probe": 0.5, "joint": 1.0}


class TensorBoardImages(pl.Callback):
    """Write ``OUT/tensorboard/NAME/events...`` for each image.

    Tags: ``objective``, ``residual``, ``psnr`` (with the truth) and ``stage`` (0 latent, 1 joint, 0.5 a probe on part
    of the measurements) over all evaluations, ``image/csgm`` and ``image/iagan`` while they form, ``final/comparison``,
    and ``final/METHOD/METRIC``. The HPARAMS tab compares runs: settings of both stages beside the final metrics.

    Args:
        out: folder of the run.
        density: of the curves' points, see ``is_point``.
        images: density of the pictures on the way.
    """

    def __init__(self, out: str, density: float = 10, images: float = 1) -> None:
        self.out = OutputFolder(out)
        self.density, self.images = density, images
        self._writers: list[Any] = []
        self._steps = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open one writer per image at the first stage."""
        assert isinstance(pl_module, IAGAN)
        if pl_module.stage == "latent" or not self._writers:
            from torch.utils.tensorboard import SummaryWriter

            self._close()
            self._writers = [SummaryWriter(str(self.out.tensorboard(name))) for name in pl_module.names]
            self._steps = 0

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a point of the curves, and now and then the images."""
        assert isinstance(pl_module, IAGAN) and pl_module.evaluation is not None
        step, self._steps = self._steps, self._steps + 1
        if not is_point(batch_idx, self.density):
            return
        curves, images = curve_point(pl_module)
        values = {tag: curve.tolist() for tag, curve in curves.items()}
        for index, writer in enumerate(self._writers):
            for tag, curve in values.items():
                writer.add_scalar(tag, curve[index], step)
            writer.add_scalar("stage", STAGES[pl_module.stage], step)
            if is_point(batch_idx, self.images):
                name = METHOD.get(pl_module.stage, pl_module.stage)
                writer.add_image(f"image/{name}", to_8bit(images[index]).cpu(), step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the comparison and the final metrics, and close the files."""
        assert isinstance(pl_module, IAGAN)
        if pl_module.stage != "joint":
            return
        from torch.utils.tensorboard.summary import hparams

        for index, writer in enumerate(self._writers):
            metrics = pl_module.metrics[index] if pl_module.metrics else {}
            results = {method: images[index].cpu() for method, images in pl_module.results.items()}
            truth = None if pl_module.truth is None else pl_module.truth[index]
            picture = pl_module.operator.picture(pl_module.y[index])
            sheet = np.asarray(sheet_of(results, truth, picture, metrics, pl_module.titles))
            writer.add_image("final/comparison", sheet, self._steps, dataformats="HWC")
            for method, row in metrics.items():
                for name, value in row.items():
                    writer.add_scalar(f"final/{method}/{name}", value, self._steps)
            finals = {f"final/{method}/{name}": value for method, row in metrics.items() for name, value in row.items()}
            for part in hparams(settings_of(pl_module), finals):  # add_hparams would make a run of its own
                writer.file_writer.add_summary(part)
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the files of an image that failed."""
        self._close()

    def _close(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers = []


def settings_of(module: IAGAN) -> dict[str, str | float | bool]:
    """Return what distinguishes runs, flat, as HPARAMS takes it: noise, preset, operator and the stages' settings."""
    settings: dict[str, str | float | bool] = {
        "noise_std": "unknown" if module.noise_std is None else module.noise_std,
        "preset": module.preset,
        "operator": repr(module.operator),
    }
    for name, stage in module.stages.items():
        given = {f"{name}/{key}": value for key, value in asdict(stage).items() if value is not None}
        settings.update({key: value if isinstance(value, int | float) else str(value) for key, value in given.items()})
    return settings
