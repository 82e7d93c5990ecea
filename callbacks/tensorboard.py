"""One TensorBoard run per image: curves over all fits, images on the way, the final comparison.

TensorBoard sorts its groups by name and opens the first two: the names below put the curves first, then what a result
came to, then pictures on the way.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
from iagan_lightning.callbacks.curves import curve_point, is_point
from iagan_lightning.callbacks.result_writer import finished
from PIL import Image

from iagan_lightning.data.images import to_pillow
from iagan_lightning.methods.fit import Fit, nothing
from iagan_lightning.methods.phases import require_method
from iagan_lightning.methods.test_time_module import TestTimeModule
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.registry import METRICS
from iagan_lightning.results.sheet import TITLES, sheet_of

CELL, COLUMNS = 128, 4  # of the final comparison: TensorBoard shrinks what is wider than a narrow card, captions too
EVENTS = "events.out.tfevents.*"  # what FileWriter names its files
CURVES = ("objective", "psnr", "residual")


class TensorBoardImages(pl.Callback):
    """Write ``OUT/tensorboard/NAME/events...`` for each image.

    Tags: ``curve/objective``, ``curve/residual``, ``curve/psnr`` (with the truth) and ``curve/stage`` (from 0, the
    first fit, to 1, the last) over all evaluations; ``final/comparison`` and ``final/METHOD/METRIC``; ``image/csgm``
    and ``image/iagan`` while they form; ``result/METRIC``, evaluations and seconds of the result that is offered;
    ``stage/FIT/CURVE``, a dot where a fit ends. The tab CUSTOM SCALARS has these dots on their curves, HPARAMS compares
    runs: the settings of ``compared`` beside ``result/METRIC``.

    Args:
        out: folder of the run.
        density: of the curves' points, see ``is_point``.
        images: every how many of these points come with pictures on the way.
        names: of the images that get a run; all by default. What an attempt before has written of one is deleted.
    """

    phase = "write"

    def __init__(self, out: str, density: float = 4, images: int = 4, names: Collection[str] | None = None) -> None:
        self.out = OutputFolder(out)
        self.density, self.images, self.names = density, images, names
        self._writers: dict[int, Any] = {}  # by the index of the image
        self._steps = self._points = self._written = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open one writer per image at the first fit, in the place of what an earlier attempt has left."""
        module = require_method(pl_module, self)
        if module.is_first or not self._writers:
            from torch.utils.tensorboard import FileWriter

            self._close()
            boards = {i: self.out.tensorboard(name) for i, name in enumerate(module.names) if self._shows(name)}
            for event in (event for board in boards.values() if module.is_first for event in board.glob(EVENTS)):
                event.unlink()
            self._writers = {index: FileWriter(str(board)) for index, board in boards.items()}
            for writer in self._writers.values():
                writer.add_summary(layout(), 0)
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

    def _shows(self, name: str) -> bool:
        return self.names is None or name in self.names

    def _write(self, module: TestTimeModule, step: int, pictured: bool) -> None:
        curves, images = curve_point(module)
        values = {f"curve/{tag}": curve.tolist() for tag, curve in curves.items()}
        tag = f"image/{module.current.result or module.stage}"
        place = module.fits.index(module.current) / max(len(module.fits) - 1, 1)
        for index, writer in self._writers.items():
            scalars = {name: curve[index] for name, curve in values.items()} | {"curve/stage": place}
            pictures = {tag: to_pillow(images[index])} if pictured else {}
            writer.add_summary(summary(scalars, pictures), step)
        self._written = step

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write where the fit ended; after the last one the comparison and the final metrics; close the files."""
        module = require_method(pl_module, self)
        if self._writers and self._steps:
            if self._written < self._steps - 1:
                self._write(module, self._steps - 1, pictured=False)
            ends = {f"stage/{module.stage}/{tag}": curve.tolist() for tag, curve in curve_point(module)[0].items()}
            for index, writer in self._writers.items():
                writer.add_summary(summary({tag: values[index] for tag, values in ends.items()}, {}), self._steps - 1)
        if not module.is_last:
            return
        for index, writer in self._writers.items():
            done = finished(module, index)
            record = done.record()
            sheet = sheet_of(done.shown, done.truth, done.measurement, done.metrics, done.titles, CELL, COLUMNS)
            finals = {f"final/{method}/{key}": x for method, row in done.metrics.items() for key, x in row.items()}
            offered = {key: x for key, x in done.metrics.get(record["offered"], {}).items() if key in METRICS}
            spent = {"evaluations": sum(done.evaluations.values()), "seconds": sum(done.seconds.values())}
            results = {f"result/{key}": x for key, x in {**offered, **spent}.items()}
            whole = summary(finals | results, {"final/comparison": sheet})
            method = (TITLES | done.titles).get(record["offered"], record["offered"])
            whole.MergeFrom(comparison(module, method, offered.keys()))
            writer.add_summary(whole, self._steps)
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the files of an image that failed."""
        self._close()

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}


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


def layout() -> Any:
    """Return what the tab CUSTOM SCALARS shows: each curve with a dot where a fit ended; the same in every run."""
    from torch.utils.tensorboard.summary import custom_scalars

    charts = {tag: ["Multiline", [f"^curve/{tag}$", f"^stage/.+/{tag}$"]] for tag in CURVES}
    return custom_scalars({"curves, with a mark where a stage ends": charts})


def comparison(module: TestTimeModule, method: str, measured: Collection[str]) -> Any:
    """Return what the tab HPARAMS takes of a run: its settings, and which columns to show.

    Args:
        module: the method, with its plan.
        method: what the offered result is called.
        measured: its metrics.
    """
    from tensorboard.plugins.hparams.summary_v2 import HParam, Metric, hparams_config_pb
    from torch.utils.tensorboard.summary import hparams

    few = {"method": method, **compared(module)}
    # TensorBoard takes the columns of all runs from the first: metrics are declared that only others may have. Three
    # networks for LPIPS would be three columns, two of them empty.
    columns = [key for key in METRICS if key in measured or not key.startswith("lpips")]
    titles = {key: f"{METRICS[key].title} {METRICS[key].unit}".strip() for key in columns}
    whole = hparams_config_pb(
        [HParam(key) for key in few],
        [Metric(f"result/{key}", display_name=titles.get(key, key)) for key in [*columns, "evaluations", "seconds"]],
    )
    _, start, end = hparams(few | settings_of(module), {})
    whole.MergeFrom(start)
    whole.MergeFrom(end)
    return whole


def compared(module: TestTimeModule) -> dict[str, str | float | bool]:
    """Return the few settings by which runs are compared, under names that every method has.

    What each fit has of its own is one text, in the order of the fits: ``lbfgs, adam``.
    """
    fits = [fit for fit in module.fits if fit.result is not None]

    def each(setting: Callable[[Fit], Any]) -> str:
        return ", ".join(str(setting(fit)) for fit in fits)

    def rates(fit: Fit) -> str:
        """Return Adam's rate of the latent, and after a stroke that of the weights, where they are used."""
        used = [] if fit.space is None else [f"{fit.settings.lr:g}"]
        used += [] if fit.adapts is nothing else [f"{fit.settings.lr_weights:g}"]
        return "/".join(used) if fit.settings.optimizer == "adam" else "none"

    return {
        **{key: value for key, value in settings_of(module).items() if "/" not in key},
        "optimizer": each(lambda fit: fit.settings.optimizer),
        "steps": each(lambda fit: fit.settings.steps),
        "lr": each(rates),
        "stop": each(lambda fit: fit.settings.stop),
    }


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
