"""Doing what a user has chosen: from the file of a picture to pictures, words and files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from iagan_lightning.app.choices import CHOICES, Job, finds_faces, prior_named
from iagan_lightning.app.framed import framed
from iagan_lightning.app.watch import Watch
from iagan_lightning.checks import check_choice
from iagan_lightning.data.images import quantisation, to_pillow
from iagan_lightning.data.measured import from_picture
from iagan_lightning.operators import (
    BicubicDownsampling,
    Blur,
    FourierSensing,
    Identity,
    Inpainting,
    LinearOperator,
)
from iagan_lightning.photo.level import noise_level
from iagan_lightning.photo.picture import as_png, read_photograph, to_levels
from iagan_lightning.photo.record import lines
from iagan_lightning.photo.restoring import check_scale, restore
from iagan_lightning.photo.sheet import what_was_invented
from iagan_lightning.reconstruction import reconstruct
from iagan_lightning.results.files import png_of
from iagan_lightning.results.finished import WHITE, Finished
from iagan_lightning.results.remarks import KINDS, offered, unexplained, unknown_to_the_prior

DETECTOR = "a photograph needs the detector of faces: pip install 'iagan-lightning[align]'; the other tasks do without"


@dataclass(frozen=True)
class Outcome:
    """What the page shows in the end, and what can be downloaded.

    Attributes:
        before, after: input and result, as pictures.
        extra, about: a map of the result, and what it shows.
        words: what is to be said of it.
        png: the result as a file.
        record: the metrics.
    """

    before: Image.Image
    after: Image.Image
    extra: Image.Image
    about: str
    words: list[str]
    png: bytes
    record: dict[str, Any]


def check(job: Job) -> None:
    """Raise ValueError for what cannot be meant."""
    check_choice("task", job.task, CHOICES)
    choice = CHOICES[job.task]
    if job.known and not choice.known:
        raise ValueError(f"{choice.label} takes a picture as it is")
    if not job.known and not choice.own:
        raise ValueError(f"{choice.label} takes a picture that is known, which is measured first")
    if job.task == "photo" and not finds_faces():
        raise ValueError(DETECTOR)


def do(job: Job, watch: Watch) -> Outcome:
    """Carry a job out.

    Raises:
        OSError: for a file that is no picture.
        ValueError: for one that is too large, and for settings that do not fit it.
        StoppedError: where the watch has been told to.
    """
    check(job)
    return _photograph(job, watch) if job.task == "photo" else _reconstruction(job, watch)


# A photograph ----------------------------------------------------------------------------------------------------


def _photograph(job: Job, watch: Watch) -> Outcome:
    watch.line("reading the photograph")
    photograph = read_photograph(job.picture)
    check_scale(job.scale, photograph.size)
    watch.line("looking for faces")
    done = restore(
        photograph,
        job.scale,
        job.prior or None,
        None,
        job.seed,
        tell=watch.line,
        preset=job.preset,
        callbacks=[watch],
        progress=False,
        **job.settings,
    )
    watch.line("writing the picture")
    record = {"image": job.name, "output": f"{job.name}_iagan.png", **done.record}
    return Outcome(
        _grey_or_colour(photograph.pixels),
        _grey_or_colour(done.photograph.pixels),
        what_was_invented(done),
        "What the prior has added to the plain enlargement: white is a quarter of the range. A clean photograph says "
        "nothing about it.",
        [line.strip() for line in lines(record)],
        as_png(done.photograph),
        record,
    )


def _grey_or_colour(pixels: Tensor) -> Image.Image:
    values = to_levels(pixels, 256).astype("uint8")
    return Image.fromarray(values[0] if len(values) == 1 else values.transpose(1, 2, 0))


# The tasks -------------------------------------------------------------------------------------------------------


def _reconstruction(job: Job, watch: Watch) -> Outcome:
    watch.line("reading the picture")
    ready = framed(job)
    generator = prior_named(job.prior)
    A = operator_of(job, generator.image_shape, ready.x, ready.intact)
    words = [ready.remark] if ready.remark else []
    noise_std = job.noise / 255
    if job.known:
        y, truth, rounding = A.measure(ready.x[None], noise_std=noise_std, seed=job.seed), ready.x, 0.0
    else:
        y, truth, rounding = from_picture(ready.x, A), None, quantisation(job.picture)
        if job.task == "denoising" and not job.noise:
            noise_std = _estimated(ready.x)
            words.append(f"Its noise is estimated as {255 * noise_std:.1f}/255.")
    watch.line("")
    result = reconstruct(
        y,
        A,
        generator,
        noise_std,
        job.preset,
        job.seed,
        quantisation=rounding,
        callbacks=[watch],
        progress=False,
        **job.settings,
    )
    finished = replace(result.images[0], name=job.name, truth=truth).with_metrics()
    record = finished.record()
    x = finished.results[finished.offered]
    before = finished.measurement
    extra, about = _map(finished, x)
    return Outcome(
        to_pillow(finished.results["naive"] if before is None else before),
        to_pillow(x),
        extra,
        about,
        [*words, *said_of(record)],
        png_of(to_pillow(x)),
        record,
    )


def operator_of(job: Job, image_shape: tuple[int, int, int], x: Tensor, intact: Tensor | None) -> LinearOperator:
    """Return A.

    Args:
        job: what is wanted.
        image_shape: of the prior.
        x: the picture, framed.
        intact: where it is opaque.

    Raises:
        ValueError: for settings that do not fit.
    """
    if job.task == "super-resolution":
        if job.known:
            return BicubicDownsampling(image_shape, scale=job.scale)
        return BicubicDownsampling(image_shape, size=(x.shape[1], x.shape[2]))
    if job.task == "inpainting":
        return Inpainting(image_shape, mask=_mask(job, intact))
    if job.task == "denoising":
        return Identity(image_shape)
    if job.task == "deblurring":
        return Blur(image_shape, "gaussian", std=job.width, padding="reflect")
    return FourierSensing(image_shape, ratio=job.ratio, seed=job.seed)


def _mask(job: Job, intact: Tensor | None) -> Tensor:
    """Return where the picture is intact: neither drawn over nor transparent."""
    masks = [mask for mask in (job.mask, intact) if mask is not None]
    mask = torch.stack(masks).all(0) if masks else None
    if mask is None or bool(mask.all()):
        raise ValueError("nothing is missing yet: draw over what is to be filled in")
    if not bool(mask.any()):
        raise ValueError("the whole picture is drawn over, and nothing of it is left: erase some of the drawing")
    return mask


def _estimated(x: Tensor) -> float:
    """Return the noise level of a picture.

    Raises:
        ValueError: where it seems to have none.
    """
    level = noise_level((x + 1) / 2)
    if not level:
        raise ValueError("no noise was found in the picture: set its level, in levels of 255")
    return level


def _map(finished: Finished, x: Tensor) -> tuple[Image.Image, str]:
    """Return a map of a result, and what it shows."""
    if finished.uncertainty_picture is not None:
        about = "How sure each pixel is: its standard deviation, white for a quarter of the range or more."
        return to_pillow(finished.uncertainty_picture), about
    A, y = finished.operator, finished.y[None]
    if isinstance(A, Identity):
        change, about = x - y[0], "What was taken away: white is a quarter of the range."
    else:
        assert isinstance(A, LinearOperator)
        with torch.no_grad():
            change = x - A.pseudo_inverse(A(x[None]))[0]
        about = (
            "What was invented: the part of the result about which the input says nothing, white for a quarter of the "
            "range."
        )
    size = change.abs().mean(0, keepdim=True) / 2 / WHITE
    return to_pillow(size.clamp(max=1) * 2 - 1), about


def said_of(record: dict[str, Any]) -> list[str]:
    """Return what is said of a result: how far it agrees, whether the prior knows it, and what deserves a second look.

    Example:
        >>> methods = {"csgm": {"residual": 0.6}, "iagan": {"residual": 0.01}}
        >>> for line in said_of({"image": "a", "methods": methods, "seconds": {"total": 2.0}}):
        ...     print(line)
        Residual: the result leaves 1.0 % of the input unexplained.
        The prior does not know such a picture: alone it leaves 60 % of its contrast unexplained, so do not believe it.
        It took 2 s.
    """
    methods, best = record["methods"], offered(record)
    own = methods[best]
    sigmas = f", {own['residual_sigma']:.2f} times its noise" if "residual_sigma" in own else ""
    residual = 100 * own["residual"]
    share = f"{residual:.1f} %" if residual >= 0.05 else "nothing that could be seen"
    words = [f"Residual: the result leaves {share} of the input unexplained{sigmas}."]
    if "psnr" in own:
        plain = f"the plain reconstruction {methods['naive']['psnr']:.1f} dB"
        words.append(f"PSNR against the true picture: {own['psnr']:.1f} dB, {plain}.")
    alone = f"{100 * unexplained(record):.0f} % of its contrast unexplained"
    if unknown_to_the_prior(record):
        words.append(f"The prior does not know such a picture: alone it leaves {alone}, so do not believe it.")
    else:
        words.append(f"The prior knows such a picture: alone it leaves {alone}.")
    if "uncertainty" in record:
        words.append(f"Standard deviation of the error, by the views: {255 * record['uncertainty']['mean']:.1f}/255.")
    for concerns, text in KINDS.items():
        if concerns is not unknown_to_the_prior and concerns(record):
            words.append(text.format(count="1 of 1 pictures", names=record["image"]))
    return [*words, f"It took {record['seconds']['total']:.0f} s."]
