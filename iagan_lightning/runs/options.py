"""The options that every task has: written here once, read by LightningCLI, the run and its record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from iagan_lightning.callbacks import TimeLimit
from iagan_lightning.callbacks.back_projection import Projection
from iagan_lightning.callbacks.result_writer import Save
from iagan_lightning.checks import check_fields
from iagan_lightning.methods import DIPSettings
from iagan_lightning.operators.noise import check_noise_std
from iagan_lightning.results.lpips import Backbone
from iagan_lightning.runs.levels import parse_fraction


@dataclass
class RunOptions:
    """What a run does besides adapting.

    Args:
        noise_std: standard deviation of the noise on the [0, 1] scale, also as a fraction such as 10/255. It is
            added to measured pictures, and only declared for measurements of your own; "unknown" for those lets
            measurements that are held out decide how long to adapt.
        back_projection: add csgm_bp and iagan_bp, which agree with y exactly; by default where noise_std is 0.
            discrepancy: with noise too, but only as far as the noise allows. naive: always, with the plain
            reconstruction in place of A^+, as the authors' public code does; y is then only approached.
        views: 1 to 8 reconstructions that are averaged, or --samples; by default as many as the preset has.
        time: seconds for the fits of an image, at most.
        dip: also reconstruct with Deep Image Prior, an untrained network. The preset paper takes its official
            steps, fast an eighth of them, called DIP (short). Compressed sensing and deblurring have no official
            settings; those of x4 super-resolution are used.
        dip_settings: settings of Deep Image Prior that replace those of the preset.
        lpips: backbone of the perceptual distance: alex, vgg, squeeze or none.
        out: folder for the results; runs/TASK-DATE-TIME by default. Finished images in it are skipped.
        out_format: folders, one for each image, or parquet. That is shards of many images, a row and a column of bytes
            for each of its files, which iagan export makes folders of.
        pictures: to keep of each image, as [iagan_bp,truth]; else all.
        save: images; weights too, for iagan rebuild. That is the latents and the change of the weights of each
            image, from which it makes the image again. pictures: also the result of each as OUT/pictures/NAME.png.
        engine: local, or ray: the machines of a Ray cluster. That of RAY_ADDRESS; without it, a cluster of this
            machine alone.
        tensorboard: first images that get a TensorBoard run.
        quiet: print nothing but what went wrong.
        json: print the summary as JSON instead of a table. Nothing else goes to standard output.
    """

    noise_std: float | str = 0.0
    back_projection: Projection = None
    views: int | None = None
    time: float | None = None
    dip: bool = False
    dip_settings: DIPSettings = DIPSettings()  # noqa: RUF009 - frozen dataclass
    lpips: Backbone = "alex"
    out: str | None = None
    save: Save = "images"
    pictures: list[str] | None = None
    out_format: Literal["folders", "parquet"] = "folders"
    engine: Literal["local", "ray"] = "local"
    tensorboard: int = 64
    quiet: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "of a run")
        if self.tensorboard < 0:
            raise ValueError(f"tensorboard is a number of images, 0 or more; {self.tensorboard} was given")
        if self.save == "pictures" and (self.engine, self.out_format) != ("local", "folders"):
            raise ValueError("save pictures goes with engine local and out_format folders; iagan export makes folders")
        if self.time is not None:
            TimeLimit(self.time)

    @property
    def level(self) -> float | None:
        """The noise level as a number; None where it is unknown."""
        return parse_level(self.noise_std)

    @property
    def baseline(self) -> DIPSettings | None:
        """The settings of Deep Image Prior; None where it is left out."""
        return self.dip_settings if self.dip else None


def parse_level(noise_std: float | str) -> float | None:
    """Return a noise level given as a number or as a fraction, None for ``unknown``.

    Raises:
        ValueError: for anything else, and outside [0, 1].

    Example:
        >>> parse_level("10/255") == 10 / 255, parse_level(0.1), parse_level("unknown")
        (True, 0.1, None)
    """
    if noise_std == "unknown":
        return None
    level = parse_fraction(noise_std)
    check_noise_std(level)
    return level
