"""A photograph restored: enlarged in agreement with its pixels, its faces reconstructed and put back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from iagan_lightning.checks import check_seed
from iagan_lightning.data.faces import Face
from iagan_lightning.data.framing import Frame, frame_of
from iagan_lightning.generators import Generator
from iagan_lightning.methods.views import views_of
from iagan_lightning.operators.noise import check_noise_std
from iagan_lightning.photo.blur import check_blur
from iagan_lightning.photo.compressed import share_within
from iagan_lightning.photo.enlarging import agreeing, enlarged, reduced
from iagan_lightning.photo.face import Place, enlarged_frame, place_of, reconstructed
from iagan_lightning.photo.level import MOST, jpeg_level, jpeg_quality, noise_level
from iagan_lightning.photo.pasting import feathered
from iagan_lightning.photo.picture import Photograph, to_levels
from iagan_lightning.photo.priors import chosen_prior, larger_prior, loaded
from iagan_lightning.photo.record import VERSION
from iagan_lightning.photo.sight import distances, see, unfit
from iagan_lightning.safety import MAX_PIXELS

SLOW = 512  # pixels of a prior
SHARE = 4  # exponent by which neighbouring faces share the pixels between them


@dataclass(frozen=True)
class Patch:
    """A face that was restored: where it lies in the photograph, and the enlargement there before and after.

    Attributes:
        unsure: of several views, the standard deviation of the error of each pixel, ``(1, s h, s w)`` on the [0, 1]
            scale, 0 where the face does not count; None of a single one.
    """

    place: Place
    before: Tensor
    after: Tensor
    unsure: Tensor | None = None


@dataclass(frozen=True)
class Restored:
    """A photograph that is done.

    Attributes:
        photograph: the result; depth, colours and EXIF data are those of the original.
        record: what is to be said of it, as JSON holds it.
        patches: the faces that were restored, upright.
        quarters: by how many quarters of a circle to the left the original was turned to be upright.
    """

    photograph: Photograph
    record: dict[str, Any]
    patches: list[Patch]
    quarters: int


def check_scale(scale: int, size: tuple[int, int]) -> None:
    """Raise ValueError for a scale that is none, or makes a photograph of a size larger than is read."""
    if scale < 1:
        raise ValueError(f"scale is a whole number, 1 or more; {scale} was given")
    height, width = (length * scale for length in size)
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"{scale} times {size[1]} x {size[0]} is a picture of {width} x {height} pixels, more than is read "
            f"({MAX_PIXELS:,}): choose a smaller --scale"
        )


def restore(
    photograph: Photograph,
    scale: int = 2,
    prior: str | None = None,
    noise_std: float | None = None,
    seed: int = 0,
    views: int = 1,
    blur: float | None = 0.0,
    tell: Callable[[str], object] | None = None,
    **settings: Any,
) -> Restored:
    r"""Return a photograph at s times its size, its faces restored by a prior, in agreement with every pixel.

    With A_s the mean over s x s pixels, p the photograph and X the result, A_s X = p within rounding, everywhere and
    after X has been rounded to the file's depth. Where p is noisy that holds outside of faces, and a face differs from
    p by the noise.

    Args:
        photograph: p.
        scale: s. With 1 only noise and compression can be undone, and only in faces.
        prior: name or file of the prior; by default the best for each face of those that are here.
        noise_std: of p, on the [0, 1] scale; estimated by default.
        seed: of the searches.
        views: how often each face is reconstructed, by the prior as it is, mirrored ...: their mean is nearer to the
            truth, and where they differ they were guessing.
        blur: through which faces were seen, the standard deviation of a Gaussian in pixels of p; None to estimate it
            for each. Blurred as much and reduced, faces agree with p then, not as they are.
        tell: called with a line before each face that is reconstructed, which may take minutes.
        **settings: further arguments of ``reconstruct``: ``preset``, ``joint``, those of Lightning's Trainer ...

    Raises:
        ValueError: for a scale, prior, seed or noise level that cannot be, and where facenet-pytorch is not installed.
    """
    check_scale(scale, photograph.size)
    views_of(views)
    check_seed(seed)
    if blur is not None:
        check_blur(blur)
    begin = time.monotonic()
    generator = loaded(prior) if prior else None
    quarters, faces = see(photograph.pixels)
    remarks: list[str] = []
    level = _level(photograph, noise_std, remarks)
    remarks = [*photograph.remarks, *(remarks if faces else [])]  # only faces are treated by it
    upright = photograph.turned(quarters)
    if quarters:
        remarks.append(f"turned by {90 * (quarters if quarters < 3 else -1)} degrees to find faces, and back")
    p = upright.pixels
    X = enlarged(p, scale)
    settings = {"seed": seed, "views": views, "blur": blur, **settings}
    work = _Work(p, X, faces, scale, level, photograph.levels, prior, generator, settings, tell or (lambda line: None))
    about, patches = [], []
    for face in faces:
        record, patch = work.on(face)
        about.append(record)
        patches += [patch] if patch else []
    soft = any("blur" in face for face in about if face["done"])
    X = agreeing(X, reduced(X, scale).clamp(0, 1) if level or soft else p, scale)
    whole = torch.from_numpy(to_levels(X, photograph.levels)).to(torch.float32) / (photograph.levels - 1)
    seen = reduced(whole, scale)
    within = share_within(seen.rot90(-quarters, (1, 2)), photograph)
    record = {
        "version": VERSION,
        "size": list(photograph.size),
        "scale": scale,
        "format": photograph.kind,
        **({"jpeg_quality": jpeg_quality(photograph.tables)} if photograph.tables else {}),
        "noise_std": level,
        "noise_estimated": noise_std is None,
        "agreement": 255 * float((seen - p).abs().max()),
        **({"jpeg_within": within} if within is not None else {}),
        "turned": 90 * quarters,
        "remarks": remarks,
        "faces": about,
        "blur": "auto" if blur is None else blur,
        "views": views,
        "seed": seed,
        "seconds": time.monotonic() - begin,
    }
    result = replace(upright, pixels=X).turned(-quarters)
    return Restored(result, record, patches, quarters)


def _level(photograph: Photograph, given: float | None, remarks: list[str]) -> float:
    """Return the noise level to be reckoned with, and remark on where it is not to be relied on."""
    if given is not None:
        check_noise_std(given)
        return given
    noise = noise_level(photograph.pixels, luma=bool(photograph.tables))
    if noise is None:
        noise = 0.0
        if not photograph.tables:
            remarks.append("too few pixels to estimate their noise, so they are taken as they are (--noise_std)")
    if photograph.tables:
        changed = jpeg_level(photograph.tables)
        if changed > noise:
            remarks.append(
                f"JPEG of quality {jpeg_quality(photograph.tables)}: what it changed, about {255 * changed:.1f}/255, "
                "counts as noise; it hides what noise there was before (--noise_std)"
            )
            return changed
    if noise > MOST:
        remarks.append(f"noise of {255 * noise:.0f}/255: above 25/255 the estimate is too low (--noise_std)")
    return noise


@dataclass(frozen=True)
class _Work:
    """A photograph p upright, its enlargement X, into which one face after the other is pasted, and the settings."""

    p: Tensor
    X: Tensor
    faces: list[Face]
    scale: int
    noise_std: float
    levels: int
    prior: str | None
    generator: Generator | None
    settings: dict[str, Any]
    tell: Callable[[str], object]

    def on(self, face: Face) -> tuple[dict[str, Any], Patch | None]:
        """Restore a face where that can be; return its record, and its patch where it was done."""
        about: dict[str, Any] = {
            "eyes": [list(eye) for eye in face.eyes],
            "mouth": [list(corner) for corner in face.mouth],
            "distance": distances(face)[0],
            "score": face.score,
            "done": False,
        }
        why = unfit(face)
        if why is None and self.scale == 1 and not self.noise_std and self.settings["blur"] == 0:
            why = "nothing is missing in a clean photograph at scale 1"
        name, generator = self.prior, self.generator
        if why is None and name is None:
            prior = chosen_prior(face, self.scale)
            if prior is None:
                larger = larger_prior(face, self.scale)
                why = "larger than any prior that is here" + (f": iagan priors get {larger}" if larger else "")
            else:
                name = prior.name
        if why is not None or name is None:
            return {**about, "why": why}, None
        generator = generator or loaded(name)
        assert generator.framing is not None
        frame, pixels = frame_of(face, generator.framing), generator.image_shape[2]
        about |= {"prior": name, "pixels": pixels, "frame": frame._asdict()}
        if pixels < frame.side:
            return {**about, "why": f"it fills {frame.side:.0f} pixels, more than the {pixels} of {name}"}, None
        place = place_of(frame, (self.p.shape[1], self.p.shape[2]))
        slow = pixels >= SLOW and not torch.cuda.is_available()
        said = f"face {self.faces.index(face) + 1} of {len(self.faces)}, by {name}"
        self.tell(said + ", which takes minutes without a GPU" * slow)
        part = place.of(self.X, self.scale)
        before = part.clone()
        others = [frame_of(other, generator.framing) for other in self.faces if other is not face]
        weight = self._share(place, others)
        after, found, unsure = reconstructed(
            before, place.of(self.p), weight, place.frame, generator, self.scale, self.noise_std, self.levels,
            **self.settings,
        )  # fmt: skip
        if not found["done"]:
            return about | found, None
        part.copy_(after)
        return about | found, Patch(place, before, after, unsure)

    def _share(self, place: Place, others: list[Frame]) -> Tensor:
        """Return how much a face counts at each pixel of its place: beside others, left alone or not, only its part."""
        size = (place.size[0] * self.scale, place.size[1] * self.scale)

        def weight(frame: Frame) -> Tensor:
            return feathered(enlarged_frame(frame, self.scale), size)

        own = weight(place.frame)
        shares = own**SHARE
        for other in others:
            there = other._replace(x=other.x - place.columns.start, y=other.y - place.rows.start)
            shares = shares + weight(there) ** SHARE
        return own * own**SHARE / shares.clamp(min=1e-12)
