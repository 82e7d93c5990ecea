"""Folders of pictures and of measurements -> samples, each with its own operator, seed and measurements."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from iagan_lightning.checks import check_given
from iagan_lightning.data.faces import require_detector
from iagan_lightning.data.folders import ARRAYS, Listing, list_pictures
from iagan_lightning.data.framing import Sight, cut_face
from iagan_lightning.data.images import Fit, check_large_enough, fit_image, opaque, quantisation, read_image, shift_rows
from iagan_lightning.data.measured import from_picture
from iagan_lightning.data.members import File, Member, holds_shards, list_members, opened, sizes_known
from iagan_lightning.data.names import names_of, pair, without_suffix
from iagan_lightning.generators.base import Framing
from iagan_lightning.operators import BicubicDownsampling, Inpainting, Operator
from iagan_lightning.operators.files import read_tensor
from iagan_lightning.operators.measurements import as_measurement, misfit
from iagan_lightning.safety import picture_size, picture_suffixes

OperatorFactory = Callable[..., Operator]
WRITTEN = {".json", ".txt", ".csv", ".png", ".pt", ".safetensors"}  # in the folder of an image
EXAMPLES = Path(__file__).parent.parent / "examples"


@dataclass(frozen=True)
class Sample:
    """One image to reconstruct, read when it is its turn.

    Attributes:
        name: relative path without the ending, or with it where another file has a claim to that (``data.names``).
        seed: what its random numbers start from.
        truth: file of the true image, or None.
        measurement: file of the measurements, or None when the operator makes them from the truth.
        file: relative path of the file that it is named after.
    """

    name: str
    seed: int
    truth: File | None
    measurement: File | None
    file: str = ""


@dataclass(frozen=True)
class Measured:
    """A sample that has been read.

    Attributes:
        y: measurements ``(1, *measurement_shape)``.
        operator: A.
        truth: the true image, where there is one.
        quantisation: standard deviation of the rounding of y on the [0, 1] scale, where y came as a picture.
        face: what is to be said of the face that was cut out; None where none was.
    """

    y: Tensor
    operator: Operator
    truth: Tensor | None
    quantisation: float = 0.0
    face: Sight | None = None

    @property
    def notes(self) -> dict[str, float]:
        """What the record of the image says of how it was read.

        Of a face that was cut out, the detector's ``face_score``, how many ``faces`` there were, and what part of the
        frame lies outside the picture, ``face_outside``; of an inpainting, which ``share`` is measured.
        """
        notes: dict[str, float] = {}
        if self.face is not None:
            notes |= {"face_score": round(self.face.score, 4), "faces": self.face.faces}
            notes["face_outside"] = round(self.face.outside, 4)
        if isinstance(self.operator, Inpainting):
            notes["share"] = round(self.operator.num_measurements / math.prod(self.operator.image_shape), 6)
        return notes


class ImageData(pl.LightningDataModule):
    """Pictures to reconstruct.

    Args:
        root: folder (or one file) of true images, which the operator then measures. Or shards of pictures, tar files
            as WebDataset's or Parquet files with a column of bytes; a folder of such, or a URL that fsspec opens.
        measurements: folder (or one file) of your own measurements: pictures, .pt or .npy. With root too, the two
            folders are pairs of the same names. With neither, two bundled portraits are reconstructed.
        size: height and width of the images; the generator's when left out.
        fit: how pictures are brought to that size: crop (the centre), resize (stretch) or pad.
        align: find the largest face in each picture, level it and cut it out as the generator's framing is
            (needs facenet-pytorch: pip install 'iagan-lightning[align]').
        alpha: what transparent parts of measured pictures are: white paper, or by mask what is missing in each of
            them and inpainted.
        shift: pixels by which true pictures are moved down once they have their size, the top row repeated; negative
            moves them up. Priors trained on aligned pictures know none that are not.
        limit: use only the first so many pictures.
        images_per_fit: pictures adapted side by side; auto takes as many as a GPU's memory holds (one on a CPU), and a
            number that turns out too large is halved.
    """

    def __init__(
        self,
        root: str | None = None,
        measurements: str | None = None,
        size: int | None = None,
        fit: Fit = "crop",
        align: bool = False,
        alpha: Literal["white", "mask"] = "white",
        shift: int = 0,
        limit: int | None = None,
        images_per_fit: int | Literal["auto"] = 1,
    ) -> None:
        super().__init__()
        check_given(ImageData.__init__, locals(), "data.")
        for name, value in (("limit", limit), ("images_per_fit", images_per_fit), ("size", size)):
            if isinstance(value, int) and value < 1:
                raise ValueError(f"data.{name} is at least 1; {value} was given")
        if root is None and measurements is None:
            root = str(EXAMPLES)
        self.root, self.measurements = root, measurements
        if shift and measurements is not None:
            raise ValueError("data.shift moves true pictures before they are measured; data.measurements were given")
        if align:
            if root is not None and measurements is not None:
                raise ValueError(
                    "data.align cannot cut pairs of data.root and data.measurements alike: align them beforehand, or "
                    "give only one of the two"
                )
            require_detector()
        if alpha == "mask" and (measurements is None or align):
            raise ValueError(
                "data.alpha mask takes what is missing from the transparency of data.measurements"
                + (", as they are: align them beforehand" if align else "; give the damaged pictures there")
            )
        self.size, self.fit, self.align, self.shift, self.alpha = size, fit, align, shift, alpha
        self.limit, self.images_per_fit = limit, images_per_fit
        self.left_out: list[str] = []  # of the folders, a line for each of which something was

    def samples(
        self,
        seed: int,
        image_shape: tuple[int, int, int],
        check: bool = True,
        known: Mapping[str, str] | None = None,
    ) -> list[Sample]:
        """Return the samples in the order of their names.

        Args:
            seed: that of the run.
            image_shape: that of the generator.
            check: look at the sizes of all pictures; one of several processes is enough for that.
            known: names that were given in the same run before, and the files that have them.

        Raises:
            ValueError: when a folder is missing or holds no pictures, when pairs do not match, when two pictures
                would write to the same place, or when a picture is too small for the images or a measured picture too
                large.
        """
        if self.size is not None and (self.size, self.size) != image_shape[1:]:
            raise ValueError(
                f"data.size {self.size} is not the generator's {image_shape[1]} x {image_shape[2]}: leave it out, or "
                "choose a generator of that size"
            )
        truths = _listed(self.root) if self.root is not None else None
        measured = _listed(self.measurements, ARRAYS) if self.measurements is not None else None
        self.left_out = [listing.left_out for listing in (truths, measured) if listing and listing.left_out]
        partners = self._pairs(truths.files, measured.files) if truths and measured else {}
        base = truths or measured
        assert base is not None
        names = names_of(base.files, known)
        _refuse_clashes(names)
        samples = []
        for path, name in sorted(names.items(), key=itemgetter(1))[: self.limit]:
            truth = truths.files[path] if truths else None
            measurement = measured.files[partners.get(path, path)] if measured else None
            samples.append(Sample(name, image_seed(seed, path), truth, measurement, path))
        for file in sizes_known(sample.truth for sample in samples if check and sample.truth):
            if self.fit == "crop" and not self.align and (size := picture_size(file)):
                try:
                    check_large_enough(size, image_shape[1:])
                except ValueError as error:
                    raise ValueError(f"{file}: {error}") from None
        return samples

    def _pairs(self, truths: Iterable[str], measured: Iterable[str]) -> dict[str, str]:
        try:
            return pair(truths, measured)
        except KeyError as error:
            (name,) = error.args
            where = self.measurements if any(name in (path, without_suffix(path)) for path in truths) else self.root
            raise ValueError(
                f"data.root and data.measurements must be pairs of the same names: {name} is not in {where}"
            ) from None

    def read(
        self,
        sample: Sample,
        image_shape: tuple[int, int, int],
        operator: OperatorFactory,
        noise_std: float,
        framing: Framing = "tight",
    ) -> Measured:
        """Read the files of a sample, measure the truth where there are no measurements.

        Args:
            sample: which.
            image_shape: that of the generator.
            operator: makes A.
            noise_std: of the measurements that are made of a truth.
            framing: of the generator's faces, where they are to be aligned.

        Raises:
            OSError, ValueError: for files that cannot be read or do not fit.
        """
        truth, face = None, None
        if sample.truth is not None:
            picture, face = self._picture(sample.truth, image_shape[0], framing)
            truth = fit_image(picture, image_shape[1:], self.fit)[None]
            truth = shift_rows(truth, self.shift)
        if sample.measurement is None:
            assert truth is not None
            A = operator(image_shape)
            return Measured(A.measure(truth, noise_std, seed=sample.seed), A, truth, face=face)
        if isinstance(sample.measurement, Path) and sample.measurement.suffix.lower() in ARRAYS:
            return Measured(*measurement_of(sample.measurement, image_shape, operator), truth)
        picture, face = self._picture(sample.measurement, image_shape[0], framing)
        if self.alpha == "mask":
            operator = with_mask(operator, opaque(opened(sample.measurement)))
        A = operator_for(operator, image_shape, tuple(picture.shape), sample.measurement)
        if len(picture) != A.measurement_shape[0]:
            picture, face = self._picture(sample.measurement, A.measurement_shape[0], framing)
        try:
            y = from_picture(picture, A)
        except ValueError as error:
            raise ValueError(f"{sample.measurement}: {error}") from None
        return Measured(y, A, truth, quantisation(opened(sample.measurement)), face)

    def _picture(self, file: File, channels: int, framing: Framing) -> tuple[Tensor, Sight | None]:
        picture = read_image(opened(file), channels)
        return cut_face(picture, framing) if self.align else (picture, None)

    def check_measurements(
        self, samples: list[Sample], image_shape: tuple[int, int, int], operator: OperatorFactory
    ) -> None:
        """Build the operator of each size of picture once, so that misfits show before any work is done.

        Of arrays the first is read: what is wrong with all of them is mostly the same.
        """
        if self.alpha == "mask":  # settings that leave no room for it
            with_mask(operator, torch.ones(image_shape[1:], dtype=torch.bool))(image_shape)
        files = [*sizes_known(sample.measurement for sample in samples if sample.measurement is not None)]
        if (first := next((path for path in files if path.suffix.lower() in ARRAYS), None)) is not None:
            try:
                read_array(first)
            except ValueError:  # a damaged file is its own failure
                pass
            else:
                measurement_of(first, image_shape, operator)
        if self.align:  # the sizes are known only when the faces have been found
            return
        seen: set[tuple[int, int]] = set()
        for path in files:
            size = picture_size(path) if path.suffix.lower() in picture_suffixes() else None
            if size is not None and size not in seen:
                operator_for(operator, image_shape, (image_shape[0], *size), path)
                seen.add(size)


def with_mask(factory: OperatorFactory, mask: Tensor) -> OperatorFactory:
    """Return a factory of the inpainting with this mask.

    Raises:
        ValueError: by the factory, where it makes something else.
    """

    def inpainting(image_shape: tuple[int, int, int]) -> Operator:
        A = factory(image_shape)
        if not isinstance(A, Inpainting):
            raise ValueError(f"data.alpha mask says what is missing for Inpainting; {type(A).__name__} was given")
        # A picture of another size than the images is refused with the operator as it is, in the words for all.
        return factory(image_shape, mask=mask) if mask.shape == image_shape[1:] else A

    return inpainting


def operator_for(
    factory: OperatorFactory, image_shape: tuple[int, int, int], shape: tuple[int, ...], path: File
) -> Operator:
    """Return the operator of measurements of this shape; a downsampling takes its size from them.

    A picture is colour or grey as the operator wants it: only its height and width must be those of the measurements.
    """
    is_picture = isinstance(path, Member) or path.suffix.lower() in picture_suffixes()
    sized = is_picture or (len(shape) == 3 and shape[0] == image_shape[0])
    A: Operator | None = None
    try:
        A = factory(image_shape)
    except ValueError as error:
        problem = str(error)  # a downsampling without a scale, perhaps: then the picture's size tells
    else:
        if A.measurement_shape[is_picture:] == shape[is_picture:]:
            return A
        if not is_picture and not isinstance(A, BicubicDownsampling):
            return A  # as_measurement tells what does not fit
        problem = misfit(shape, A.measurement_shape)
        if is_picture and len(A.measurement_shape) != 3:
            problem = (
                f"the measurements of {type(A).__name__} are no pictures: give arrays of shape {A.measurement_shape} "
                "as .pt or .npy"
            )
    if sized and (shape[1] > image_shape[1] or shape[2] > image_shape[2]):
        raise ValueError(
            f"{path}: a measurement of {shape[2]} x {shape[1]} pixels is larger than the generator's image of "
            f"{image_shape[2]} x {image_shape[1]}: choose a generator of a higher resolution, or give the picture "
            "with --data.root to have it measured"
        )
    if A is None or isinstance(A, BicubicDownsampling):
        try:
            A = factory(image_shape, size=shape[1:] if sized else image_shape[1:])
            if sized:
                return A
            problem = misfit(shape, (image_shape[0], "height", "width"))
        except TypeError:
            pass  # not a downsampling
        except ValueError as error:
            if "argument 'size'" not in str(error):  # that of a run says so in this way
                problem = str(error) if sized else misfit(shape, (image_shape[0], "height", "width"))
    raise ValueError(f"{path}: {problem}")


def measurement_of(path: Path, image_shape: tuple[int, int, int], factory: OperatorFactory) -> tuple[Tensor, Operator]:
    """Return the measurements in a .pt or .npy file as a batch of one, and their operator.

    Raises:
        ValueError: for a file that cannot be read, or whose measurements are of another shape or kind than the
            operator makes.
    """
    y = read_array(path)
    A = operator_for(factory, image_shape, tuple(y.shape), path)
    try:
        return as_measurement(y, A)[None], A
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_array(path: Path) -> Tensor:
    """Return measurements from a .pt or .npy file as a tensor; nothing in the file is executed.

    Raises:
        ValueError: for a file that holds anything but one array of floating-point or complex numbers. Whole numbers
            are a picture of 0 ... 255 almost surely.
    """
    y = read_tensor(path)
    if not (y.is_floating_point() or y.is_complex()):
        kind = str(y.dtype).removeprefix("torch.")
        raise ValueError(
            f"{path} holds whole numbers ({kind}); measurements are A(x) of images in [-1, 1]: store them as floats on "
            "that scale, or give a picture file"
        )
    return y.to(torch.complex64) if y.is_complex() else y.float()


def image_seed(seed: int, relative_path: str) -> int:
    """Return the seed of an image: it depends on the run's seed and the image's name, not on order or devices.

    Example:
        >>> image_seed(0, "a.png") == image_seed(0, "a.png"), image_seed(0, "a.png") == image_seed(1, "a.png")
        (True, False)
    """
    return int.from_bytes(
        hashlib.sha256(f"{seed} {relative_path}".encode("utf-8", "surrogateescape")).digest()[:4], "big"
    )


def _listed(root: str, also: Collection[str] = ()) -> Listing:
    """Return the pictures of a folder, or in shards; arrays too where they are asked for, but none from a shard."""
    return list_members(root) if holds_shards(root) else list_pictures(root, also)


def _refuse_clashes(names: dict[str, str]) -> None:
    """Raise ValueError where a file that one picture's folder will hold would be a folder of another picture's."""
    owners = {name: path for path, name in names.items()}
    for path, name in names.items():
        parts = name.split("/")
        for depth in range(1, len(parts)):
            if Path(parts[depth]).suffix in WRITTEN and (above := owners.get("/".join(parts[:depth]))):
                raise ValueError(f"the results of {path} would lie where those of {above} do: rename one of them")
