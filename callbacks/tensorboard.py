"""One TensorBoard run per image: curves over both stages, images on the way, the final comparison."""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
from iagan_lightning.callbacks.curves import curve_point, is_point
from PIL import Image

from iagan_lightning.data.images import to_pillow
from iagan_lightning.methods.iagan import IAGAN, METHOD
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.sheet import sheet_of

CELL = 128  # of the final comparison: small, because TensorBoard shows pictures in narrow cards
STAGES = {"latent": 0.0, "probe": 0.5, "joint": 1.0}


class TensorBoardImages(pl.Callback):
    """Write ``OUT/tensorboard/NAME/events...`` for each image.

    Tags: ``objective``, ``residual``, ``psnr`` (with the truth) and ``stage`` (0 latent, 1 joint, 0.5 a probe on part
    of the measurements) over all evaluations, ``image/csgm`` and ``image/iagan`` while they form, ``final/comparison``,
    and ``final/METHOD/METRIC``. The HPARAMS tab compares runs: settings of both stages beside the final metrics.

    Args:
        out: folder of the run.
        density: of the curves' points, see ``is_point``.
        images: every how many of these points come with pictures on the way.
    """

    def __init__(self, out: str, density: float = 4, images: int = 4) -> None:
        self.out = OutputFolder(out)
        self.density, self.images = density, images
        self._writers: list[Any] = []
        self._steps = self._points = self._written = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open one writer per image at the first stage."""
        assert isinstance(pl_module, IAGAN)
        if pl_module.stage == "latent" or not self._writers:
            from torch.utils.tensorboard import FileWriter

            self._close()
            self._writers = [FileWriter(str(self.out.tensorboard(name))) for name in pl_module.names]
            self._steps = self._written = 0
        self._points = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a point of the curves, and now and then the images."""
        assert isinstance(pl_module, IAGAN) and pl_module.evaluation is not None
        step, self._steps = self._steps, self._steps + 1
        if is_point(batch_idx, self.density):
            self._write(pl_module, step, pictured=self._points % self.images == 0)
            self._points += 1

    def _write(self, module: IAGAN, step: int, pictured: bool) -> None:
        curves, images = curve_point(module)
        values = {tag: curve.tolist() for tag, curve in curves.items()}
        tag = f"image/{METHOD.get(module.stage, module.stage)}"
        for index, writer in enumerate(self._writers):
            scalars = {name: curve[index] for name, curve in values.items()} | {"stage": STAGES[module.stage]}
            pictures = {tag: to_pillow(images[index])} if pictured else {}
            writer.add_summary(summary(scalars, pictures), step)
        self._written = step

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write where the stage ended; after the joint stage the comparison and the final metrics; close the files."""
        assert isinstance(pl_module, IAGAN)
        if self._writers and self._written < self._steps - 1:
            self._write(pl_module, self._steps - 1, pictured=False)
        if pl_module.stage != "joint":
            return
        from torch.utils.tensorboard.summary import hparams

        for index, writer in enumerate(self._writers):
            metrics = pl_module.metrics[index] if pl_module.metrics else {}
            results = {method: images[index].cpu() for method, images in pl_module.results.items()}
            truth = None if pl_module.truth is None else pl_module.truth[index]
            picture = pl_module.operator.picture(pl_module.y[index])
            sheet = sheet_of(results, truth, picture, metrics, pl_module.titles, CELL)
            finals = {f"final/{method}/{name}": value for method, row in metrics.items() for name, value in row.items()}
            # Of the columns that each run could declare, TensorBoard believes the first run's: it finds all by itself.
            _, start, end = hparams(settings_of(pl_module), {})
            whole = summary(finals, {"final/comparison": sheet})
            whole.MergeFrom(start)
            whole.MergeFrom(end)
            writer.add_summary(whole, self._steps)
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the files of an image that failed."""
        self._close()

    def _close(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers = []


def summary(scalars: dict[str, float], pictures: dict[str, Image.Image]) -> Any:
    """Return everything of a step as one event: events cost time, however little is in them.

    Pictures are JPEG, because TensorBoard takes a tenth of a microsecond for every byte; the exact ones lie in
    OUT/images.

    Example:
        >>> [value.tag for value in summary({"psnr": 20.0}, {"image": Image.new("RGB", (2, 1))}).value]
        ['psnr', 'image']
    """
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
    for tag, picture in pictures.items():
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "JPEG", quality=85)
        encoded = {"encoded_image_string": buffer.getvalue(), "colorspace": 3}
        image = Summary.Image(width=picture.width, height=picture.height, **encoded)
        values.append(Summary.Value(tag=tag, image=image))
    return Summary(value=values)


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
