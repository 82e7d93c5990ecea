r"""JPEG: what a file of it holds of an image, and which images are the ones that it can have come from.

A file holds the rounded cosine coefficients of 8 x 8 blocks. Of an image x it says, of each coefficient
:math:`(B x)_i`, in which interval it lies: as long as the rounding step, and mostly around 0.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, JpegImagePlugin
from torch import Tensor

from iagan_lightning.checks import check_choice, check_number
from iagan_lightning.operators.modes import on_the_cpu
from iagan_lightning.operators.operator import Operator, exact
from iagan_lightning.safety import open_picture

Sampling = Literal["4:4:4", "4:2:2", "4:2:0"]

BLOCK = 8
LEVEL = 1 / 127.5  # of 255, for images in [-1, 1]
# An encoder rounds luma and chroma to whole levels before it transforms them. That moves a coefficient by .3 levels in
# the standard deviation, so by no more than this; but all of a flat block likewise, whose mean counts eightfold.
INEXACT, INEXACT_MEAN = 2.0, 4.1
SURE = 0.3  # of a step, from a multiple of it: what is read from pixels further away may be another multiple
COLOURS = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))  # ITU-R BT.601


class JPEG(Operator):
    r"""Compression as JPEG, :math:`y = q \operatorname{round}(B x / q)`: the coefficients of a file. Not linear.

    B turns RGB into luma and chroma, averages the chroma over neighbours and takes the orthonormal cosine transform of
    blocks of 8 x 8; q are the rounding steps. The derivative is that of B x, as if nothing were rounded.

    A reconstruction is held to the intervals around y, those within :math:`r`, and only a little to y itself. r is
    q / 2, the rounding, and 2 levels of 255 more, of a block's mean 4.1: encoders round luma and chroma to whole levels
    before they transform them, and no original may lie outside for that. With :math:`a = B x - y` the ``difference`` is
    :math:`\min(1, s / r)\, a` for :math:`|a| \le r`, and grows as a does beyond. At long steps, where y is mostly 0
    because nothing finer fits into it, that lets the prior choose.

    Args:
        image_shape: ``(C, H, W)``, C 1 or 3.
        quality: 1 to 100, on the scale of the Independent JPEG Group.
        sampling: of the chroma: ``4:4:4``, one for each pixel; ``4:2:2``, for two in a row; ``4:2:0``, for 2 x 2.
        tables: rounding steps of the components, 64 each, row by row, of 255 levels, instead of those of a quality;
            one for all (the 64 alone will do), one for luma and one for chroma, or one each.
        inside: s, levels of 255 that the ends of a long interval differ by from its middle. 0 is the bare interval: all
            within is equally good. Of 0, 2, 4 and 8 the last is best on three faces (``docs/photo.md``).

    Shapes: x ``(B, C, H, W)`` in [-1, 1] -> y ``(B, m)``, coefficients of images in [-1, 1]. Blocks that the picture
    does not fill continue its border.

    Raises:
        ValueError: for an unknown sampling, a quality outside 1 to 100, steps below 1, or more than three channels.

    Source: ITU-T T.81, Annexes A and K; the colours of ITU-T T.871.

    Example:
        >>> A = JPEG((3, 32, 32), quality=30)
        >>> x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
        >>> y = A(x)
        >>> [round(A.reach[i].item() * 127.5, 1) for i in (0, 1)], A.tables[0][:2]  # r in levels, and q
        ([17.6, 11.0], (27, 18))
        >>> A.num_measurements, round((A(x) - y).abs().max().item(), 6), A.within(A.naive(y), y).item() > 0.9
        (1536, 0.0, True)
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        quality: int = 75,
        sampling: Sampling = "4:2:0",
        tables: Sequence[Sequence[int]] | Sequence[int] | None = None,
        inside: float = 8.0,
    ) -> None:
        super().__init__(image_shape)
        channels, height, width = self.image_shape
        if channels not in (1, 3):
            raise ValueError(f"JPEG has pictures of 1 or 3 channels; {channels} were given")
        check_choice("sampling", sampling, Sampling)
        check_number("inside", inside)
        if not 0 <= inside < math.inf:
            raise ValueError(f"inside is a number of levels of 255, 0 or more; {inside} was given")
        self.quality, self.sampling, self.inside = quality if tables is None else None, sampling, float(inside)
        steps = _as_tables(tables_of(quality) if tables is None else tables)
        self.tables = [steps[min(component, len(steps) - 1)] for component in range(channels)]
        across, down = (1, 1) if channels == 1 else {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2)}[sampling]
        self.coarser = down, across
        # Of whole units, each of one or several blocks.
        self.filled = tuple(
            math.ceil(length / (BLOCK * factor)) * BLOCK * factor
            for length, factor in ((height, down), (width, across))
        )
        # A unit's blocks that lie wholly outside of the picture say nothing of it.
        luma, chroma = (
            (blocks_of(math.ceil(height / down)), blocks_of(math.ceil(width / across)))
            for down, across in ((1, 1), self.coarser)
        )
        self.planes = [luma, *[chroma] * (channels - 1)]
        self._measurement_shape = (sum(math.prod(plane) for plane in self.planes),)
        self._make()

    @on_the_cpu
    def _make(self) -> None:
        """Make the transform, the colours and the step of each coefficient."""
        k = torch.arange(BLOCK, dtype=torch.float64)
        cosines = torch.cos(math.pi / BLOCK * k[:, None] * (k + 0.5)) * math.sqrt(2 / BLOCK)
        cosines[0] /= math.sqrt(2)
        self.register_buffer("cosines", cosines)
        self.register_buffer("colours", torch.tensor(COLOURS, dtype=torch.float64))
        self.register_buffer("rgb", torch.linalg.inv(torch.tensor(COLOURS, dtype=torch.float64)))
        steps = [
            torch.tensor(table, dtype=torch.float64).view(BLOCK, BLOCK).repeat(rows // BLOCK, columns // BLOCK)
            for table, (rows, columns) in zip(self.tables, self.planes, strict=True)
        ]
        self.register_buffer("steps", LEVEL * torch.cat([step.flatten() for step in steps]))
        slack = torch.full((BLOCK, BLOCK), INEXACT, dtype=torch.float64)
        slack[0, 0] = INEXACT_MEAN
        slacks = [slack.repeat(rows // BLOCK, columns // BLOCK).flatten() for rows, columns in self.planes]
        self.register_buffer("reach", self.get_buffer("steps") / 2 + LEVEL * torch.cat(slacks))

    @exact
    def coefficients(self, x: Tensor) -> Tensor:
        """Return B x, the coefficients before they are rounded, ``(B, m)``."""
        x = self._check_image(x)
        (rows, columns), (_, height, width) = self.filled, self.image_shape
        x = F.pad(x, (0, columns - width, 0, rows - height), mode="replicate")
        if x.shape[1] == 1:
            return self._transformed(x - LEVEL / 2, 0)  # black is level -128 of those that are transformed
        x = torch.einsum("kc,bchw->bkhw", self.constant("colours", x), x)
        luma, chroma = x[:, :1] - LEVEL / 2, F.avg_pool2d(x[:, 1:], self.coarser)  # chroma is 0 in the middle
        return torch.cat([self._transformed(luma, 0), self._transformed(chroma, 1)], 1)

    def _transformed(self, planes: Tensor, component: int) -> Tensor:
        """Return the coefficients of a component's planes, or of several alike, given in whole units."""
        D, (rows, columns) = self.constant("cosines", planes), self.planes[component]
        blocks = (
            planes[..., :rows, :columns].unflatten(3, (columns // BLOCK, BLOCK)).unflatten(2, (rows // BLOCK, BLOCK))
        )
        return torch.einsum("ui,bkhiwj,vj->bkhuwv", D, blocks, D).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the coefficients that the file holds, ``(B, m)``."""
        c, steps = self.coefficients(x), self.constant("steps", x)
        return c + (steps * (c / steps).round() - c).detach()

    def difference(self, x: Tensor, y: Tensor) -> Tensor:
        """Return what each coefficient of x lacks to lie where y says, ``(B, m)``: see above."""
        away, reach = self.coefficients(x) - y, self.constant("reach", x)
        inner = torch.maximum(torch.minimum(away, reach), -reach)
        return away - inner + (self.inside * LEVEL / reach).clamp(max=1) * inner

    @exact
    def within(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the share of coefficients of x that lie within the intervals that y tells, ``(B,)``."""
        reach = self.constant("reach", x)
        inside = (self.coefficients(x) - self._check_measurement(y)).abs() <= reach
        return inside[:, reach.isfinite()].to(x.dtype).mean(1)

    def naive(self, y: Tensor) -> Tensor:
        """Return what a decoder shows: each coefficient in the middle of its interval, chroma repeated."""
        y = self._check_measurement(y)
        parts = []
        for component, c in enumerate(y.split([math.prod(plane) for plane in self.planes], 1)):
            pixels = self._pixels(c, component)
            if component:
                pixels = pixels.repeat_interleave(self.coarser[0], 2).repeat_interleave(self.coarser[1], 3)
            parts.append(pixels[..., : self.image_shape[1], : self.image_shape[2]])
        x = torch.cat(parts, 1)
        if len(parts) == 3:
            x = torch.einsum("kc,bchw->bkhw", self.constant("rgb", y), x)
        return x

    def _pixels(self, c: Tensor, component: int) -> Tensor:
        """Return the plane of a component ``(B, 1, rows, columns)`` from its coefficients."""
        D, (rows, columns) = self.constant("cosines", c), self.planes[component]
        blocks = c.view(-1, rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
        plane = torch.einsum("ui,bhuwv,vj->bhiwj", D, blocks, D).reshape(-1, 1, rows, columns)
        return plane if component else plane + LEVEL / 2

    def picture(self, y: Tensor) -> Tensor:
        """Return one measurement as the picture that a decoder shows."""
        return self.naive(y[None])[0].clamp(-1, 1)

    def extra_repr(self) -> str:
        """Return the settings that ``repr`` shows."""
        how = f"quality={self.quality}" if self.quality is not None else f"tables={self.tables}"
        return f"image_shape={self.image_shape}, {how}, sampling={self.sampling!r}, inside={self.inside:g}"


def _as_tables(tables: Any) -> list[tuple[float, ...]]:
    """Return the rounding steps of one or several tables, or raise ValueError."""
    several = list(tables) if isinstance(tables, Iterable) else []
    several = [several] if several and all(isinstance(step, Real) for step in several) else several
    steps = [tuple(table) if isinstance(table, Iterable) else () for table in several]
    if not steps or not all(
        len(table) == BLOCK**2 and all(isinstance(step, Real) and 1 <= float(step) < math.inf for step in table)
        for table in steps
    ):
        raise ValueError("tables of JPEG have 64 rounding steps each, 1 or more")
    return steps


def blocks_of(length: int) -> int:
    """Return a length in pixels filled up to whole blocks.

    Example:
        >>> blocks_of(9)
        16
    """
    return math.ceil(length / BLOCK) * BLOCK


def tables_of(quality: int) -> list[list[int]]:
    """Return the rounding steps of luma and chroma that Pillow takes for a quality.

    Example:
        >>> [table[:4] for table in tables_of(50)]
        [[16, 11, 10, 16], [17, 18, 24, 47]]
    """
    check_number("quality of JPEG", quality, int)
    if not 1 <= quality <= 100:
        raise ValueError(f"quality of JPEG is a number from 1 to 100; {quality} was given")
    buffer = io.BytesIO()
    Image.new("RGB", (BLOCK, BLOCK)).save(buffer, "JPEG", quality=quality)
    tables = Image.open(buffer).quantization  # type: ignore[attr-defined]
    return [list(tables[component]) for component in sorted(tables)]


def read_jpeg(source: str | os.PathLike[str] | bytes) -> tuple[JPEG, Tensor]:
    """Return the operator that a JPEG file is the measurement of, and that measurement, ``(1, m)``, as it lies stored.

    Pillow gives pixels, of which whole blocks are transformed again: near to a multiple of its step, that multiple is
    what the file holds. Chroma is what an enlargement of it, as libjpeg makes it, came from. What pixels do not tell
    (blocks cut off at black or white, or by the border of the picture) is not held against any image.

    Args:
        source: the file, or its content.

    Raises:
        OSError: for a file that is missing, damaged or no JPEG.
        ValueError: for one of other colours than JPEG's luma and chroma, or of another sampling, and for one too large.
    """
    if isinstance(source, bytes):
        content = source
    else:
        with open(source, "rb") as file:
            content = file.read()
    with open_picture(io.BytesIO(content)) as file:
        if file.format not in ("JPEG", "MPO"):
            raise OSError(f"a picture of the format {file.format}, and no JPEG")
        stored: Any = file
        width, height = file.size
        of_sampling = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"} | ({-1: "4:4:4"} if file.mode == "L" else {})
        sampling = of_sampling.get(JpegImagePlugin.get_sampling(file))
        if sampling is None or file.mode not in ("L", "RGB") or stored.info.get("adobe_transform") == 0:
            raise ValueError("a JPEG of other colours, or another sampling of them, than 4:4:4, 4:2:2 and 4:2:0")
        tables = [list(stored.quantization[layer[3]]) for layer in stored.layer]
    A = JPEG((len(tables), height, width), sampling=sampling, tables=tables)  # type: ignore[arg-type]
    # Of whole blocks of luma all pixels are read, those beyond the border too. In that size a file has as many blocks.
    size = blocks_of(height), blocks_of(width)
    with open_picture(io.BytesIO(_resized(content, size))) as file:
        if len(tables) == 3:
            file.draft("YCbCr", file.size)  # the colours that are stored: fewer are cut off than of red, green and blue
        levels = torch.from_numpy(np.array(file)).double().view(*size, -1).permute(2, 0, 1)[None]
    chroma = levels[:, 1:]
    for axis, factor in zip((2, 3), A.coarser, strict=True):
        chroma = _before_enlargement(chroma, axis) if factor == 2 else chroma
    parts = [levels[:, :1], *([chroma] if len(tables) == 3 else [])]
    c = torch.cat([A._transformed(_whole(part - 128, A.planes[k]) * LEVEL, k) for k, part in enumerate(parts)], 1)
    read = torch.cat([_readable(part, A.planes[k]).flatten(1) for k, part in enumerate(parts)], 1)
    steps = A.get_buffer("steps")
    y = steps * (c / steps).round()
    read &= (c - y).abs() <= SURE * steps
    A.reach = torch.where(read[0], A.get_buffer("reach"), torch.inf)
    return A, y.float()


def _whole(plane: Tensor, size: tuple[int, int]) -> Tensor:
    """Return planes ``(1, K, h, w)`` of which the last rows and columns may be missing, continued to whole blocks."""
    return F.pad(plane, (0, size[1] - plane.shape[3], 0, size[0] - plane.shape[2]), mode="replicate")


def _readable(plane: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which coefficients are told by planes of levels: of blocks that are whole, and not cut off at an end."""
    cut = ((plane <= 0) | (plane >= 255)).double()
    cut = F.pad(cut, (0, size[1] - plane.shape[3], 0, size[0] - plane.shape[2]), value=1.0)
    blocks = F.max_pool2d(cut, BLOCK) == 0
    return blocks.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)


def _before_enlargement(planes: Tensor, axis: int) -> Tensor:
    """Return the samples of which libjpeg's enlargement by 2 made these: each is 3 parts of one and 1 of the next."""
    length = planes.shape[axis] // 2
    samples = torch.arange(length)
    means = 6 * torch.eye(length, dtype=planes.dtype)
    for beside in (-1, 1):  # the first and the last have themselves beside them
        means[samples, (samples + beside).clamp(0, length - 1)] += 1
    planes = planes.unflatten(axis, (length, 2)).mean(axis + 1).movedim(axis, -1)
    return torch.linalg.solve(means / 8, planes[..., None])[..., 0].movedim(-1, axis)


def _resized(content: bytes, size: tuple[int, int]) -> bytes:
    """Return a JPEG with another size in its frame header.

    Raises:
        OSError: where there is no such header.
    """
    place = 2
    while place + 9 < len(content) and content[place] == 0xFF:
        kind = content[place + 1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height_width = b"".join(length.to_bytes(2, "big") for length in size)
            return content[: place + 5] + height_width + content[place + 9 :]
        place += 1 if kind == 0xFF else 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    raise OSError("a damaged JPEG: it has no frame header")
