"""One TensorBoard run per image: curves over all fits, images on the way, the final comparison."""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
from iagan_lightning.callbacks.curves import curve_point, is_point
from PIL import Image

from iagan_lightning.data.images import to_pillow
from iagan_lightning.methods.phases import require_method
from iagan_lightning.methods.test_time_module import TestTimeModule
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.sheet import sheet_of

CELL = 128  # of the final comparison: small, because TensorBoard shows pictures in narrow cards


class TensorBoardImages(pl.Callback):
    """Write ``OUT/tensorboard/NAME/events...`` for each image.

    Tags: ``objective``, ``residual``, ``psnr`` (with the truth) and ``stage`` (from 0, the first fit, to 1, the last)
    over all evaluations, ``image/csgm`` and ``image/iagan`` while they form, ``final/comparison``, and
    ``final/METHOD/METRIC``. The HPARAMS tab compares runs: settings of all fits beside the final metrics.

    Args:
        out: folder of the run.
        density: of the curves' points, see ``is_point``.
        images: every how many of these points come with pictures on the way.
    """

    phase = "write"

    def __init__(self, out: str, density: float = 4, images: int = 4) -> None:
        self.out = OutputFolder(out)
        self.density, self.images = density, images
        self._writers: list[Any] = []
        self._steps = self._points = self._written = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open one writer per image at the first fit."""
        module = require_method(pl_module, self)
        if module.is_first or not self._writers:
            from torch.utils.tensorboard import FileWriter

            self._close()
            self._writers = [FileWriter(str(self.out.tensorboard(name))) for name in module.names]
            self._steps = self._written = 0
        self._points = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a point of the curves, and now and then the images."""
        step, self._steps = self._steps, self._steps + 1
        if is_point(batch_idx, self.density):
            self._write(require_method(pl_module, self), step, pictured=self._points % self.images == 0)
            self._points += 1

    def _write(self, module: TestTimeModule, step: int, pictured: bool) -> None:
        curves, images = curve_point(module)
        values = {tag: curve.tolist() for tag, curve in curves.items()}
        tag = f"image/{module.current.result or module.stage}"
        place = module.fits.index(module.current) / max(len(module.fits) - 1, 1)
        for index, writer in enumerate(self._writers):
            scalars = {name: curve[index] for name, curve in values.items()} | {"stage": place}
            pictures = {tag: to_pillow(images[index])} if pictured else {}
            writer.add_summary(summary(scalars, pictures), step)
        self._written = step

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write where the fit ended; after the last one the comparison and the final metrics; close the files."""
        module = require_method(pl_module, self)
        if self._writers and self._written < self._steps - 1:
            self._write(module, self._steps - 1, pictured=False)
        if not module.is_last:
            return
        from torch.utils.tensorboard.summary import hparams

        for index, writer in enumerate(self._writers):
            metrics = module.metrics[index] if module.metrics else {}
            results = {method: images[index].cpu() for method, images in module.results.items()}
            truth = None if module.truth is None else module.truth[index].cpu()
            picture = module.operator.picture(module.y[index])
            sheet = sheet_of(results, truth, picture, metrics, module.titles, CELL)
            finals = {f"final/{method}/{name}": value for method, row in metrics.items() for name, value in row.items()}
            # Of the columns that each run could declare, TensorBoard believes the first run's: it finds all by itself.
            _, start, end = hparams(settings_of(module), {})
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


def settings_of(module: TestTimeModule) -> dict[str, str | float | bool]:
    """Return what distinguishes runs, flat, as HPARAMS takes it: noise, preset, operator, settings of all fits."""
    settings: dict[str, str | float | bool] = {
        "noise_std": "unknown" if module.noise_std is None else module.noise_std,
        "preset": module.preset or "none",
        "operator": repr(module.operator),
    }
    for fit in module.fits:
        if fit.result is not None:
            given = {f"{fit.name}/{key}": value for key, value in asdict(fit.settings).items()}
            settings.update(
                {key: value if isinstance(value, int | float) else str(value) for key, value in given.items()}
            )
    return settings
