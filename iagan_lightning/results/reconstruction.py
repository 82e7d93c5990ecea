"""What ``reconstruct`` returns: results by name, shown in a notebook, saved as a run saves them."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from iagan_lightning.methods.inputs import truths_of
from iagan_lightning.results.files import png_of
from iagan_lightning.results.finished import Finished
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.lpips import Backbone
from iagan_lightning.results.sheet import sheet_of, stack_sheets

EXPECTED = ("csgm", "csgm_bp", "iagan", "iagan_bp", "iagan_mean", "dip")  # None where they were not made
ROWS = 8  # images that a notebook shows


@dataclass(frozen=True, repr=False)
class Reconstruction:
    """Results for a batch of B measurements, images in [-1, 1] on the CPU; a notebook shows them as pictures.

    Each result is an attribute and an item by its name. Of IAGAN: ``csgm``, the latent stage's; ``iagan``, the joint
    stage's; ``csgm_bp`` and ``iagan_bp``, back-projected, or None; ``iagan_mean``, of several views, or None; ``dip``,
    where the callback ``DIPBaseline`` was given, or None. An item by a number is that image alone; ``repr`` is a table
    of the fits.

    Attributes:
        results: images by name, ``(B, C, H, W)`` each.
        objective: misfit and penalty, what was minimised, by fit, ``(B,)`` each.
        misfit: ``|y - A x|^2 / m`` by fit, ``(B,)`` each.
        evaluations: evaluations of the objective by fit, ``(B,)`` each.
        seconds: wall time by fit, and ``total``.
        titles: what results are called where their usual titles would mislead.
        images: what is known of each image.
        views: names of the results of which the mean is one; of one view its result.
    """

    results: dict[str, Tensor]
    objective: dict[str, Tensor]
    misfit: dict[str, Tensor]
    evaluations: dict[str, Tensor]
    seconds: dict[str, float]
    titles: dict[str, str] = field(default_factory=dict)
    images: Sequence[Finished] = ()
    views: Sequence[str] = ()

    @property
    def samples(self) -> Tensor:
        """The pictures of all views, ``(V, B, C, H, W)``: different ones, each of which agrees with y as the others do.

        Their mean is ``iagan_mean``. They differ by less than their errors: ``uncertainty`` has the factor.
        """
        return torch.stack([self.results[name] for name in self.views])

    @property
    def uncertainty(self) -> Tensor | None:
        """Standard deviation of the error of the mean of several views, ``(B, 1, H, W)`` on the [0, 1] scale."""
        own = [image.uncertainty for image in self.images if image.uncertainty is not None]
        return torch.stack(own) if own else None

    @overload
    def __getitem__(self, which: str) -> Tensor: ...
    @overload
    def __getitem__(self, which: int) -> Reconstruction: ...
    def __getitem__(self, which: str | int) -> Tensor | Reconstruction:
        """Return a result by its name, or an image by its number as a reconstruction of its own.

        Raises:
            KeyError, IndexError: where there is none.
        """
        if isinstance(which, str):
            return self.results[which]
        index = range(len(self))[which]

        def one(values: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: value[index : index + 1] for name, value in values.items()}

        return replace(
            self,
            results=one(self.results),
            objective=one(self.objective),
            misfit=one(self.misfit),
            evaluations=one(self.evaluations),
            seconds={fit: seconds / len(self) for fit, seconds in self.seconds.items()},
            images=self.images[index : index + 1],
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(next(iter(self.results.values())))

    def __iter__(self) -> Iterator[Reconstruction]:
        """Return one image after another."""
        return (self[index] for index in range(len(self)))

    def __getattr__(self, name: str) -> Tensor | None:
        results = self.__dict__.get("results", {})
        if name in results:
            image: Tensor = results[name]
            return image
        if results and (name in EXPECTED or (name.endswith("_bp") and name[:-3] in results)):
            return None
        raise AttributeError(f"a reconstruction has no {name!r}; its results are {', '.join(results)}")

    def to(self, device: torch.device | str, **how: Any) -> Reconstruction:
        """Return the same with the results on a device; Lightning calls it for what ``predict`` returns."""
        return replace(self, results={name: image.to(device, **how) for name, image in self.results.items()})

    def comparison(self, rows: int = ROWS) -> Image.Image:
        """Return the methods side by side, a row for each of the first images."""
        each = ({name: x[i] for name, x in self.results.items()} for i in range(min(len(self), rows)))
        return stack_sheets([sheet_of(images, None, None, {}, self.titles) for images in each])

    def save(
        self,
        folder: str | os.PathLike[str],
        names: Sequence[str] | None = None,
        truth: Tensor | np.ndarray | None = None,
        lpips: Backbone = "none",
    ) -> Path:
        """Write what a run writes: a folder for each image, summary.csv and summary.json; ``iagan report`` reads it.

        Args:
            folder: made if need be; further images may be added to those that it holds.
            names: of the images, ``"0"``, ``"1"`` ... by default.
            truth: true images ``(B, C, H, W)`` in [-1, 1], where results are to be compared with them.
            lpips: backbone of the perceptual distance to the truth: ``alex``, ``vgg``, ``squeeze`` or ``none``.

        Returns:
            The folder.

        Raises:
            ValueError: where the folder cannot be written to, or holds an image of such a name; for a truth of another
                shape or scale.
        """
        names = [str(index) for index in range(len(self))] if names is None else list(names)
        if len(names) != len(self) or len(set(names)) != len(names):
            raise ValueError(f"{len(self)} different names are needed; {len(names)} were given: {', '.join(names)}")
        truths = None if truth is None else truths_of(truth, len(self), self.images[0].operator).cpu()
        out = OutputFolder(folder)
        out.prepare()
        out.check_names({name: name for name in names})
        if taken := [name for name in names if out.is_done(name)]:
            raise ValueError(f"{out.root} holds {', '.join(taken)} already: give other names, or another folder")
        for index, (name, image) in enumerate(zip(names, self.images, strict=True)):
            own = None if truths is None else truths[index]
            named = replace(image, name=name, truth=own).with_metrics(lpips)
            named.write(out.make(name))
        out.write_summary()
        return out.root

    def __repr__(self) -> str:
        """Return a table of the fits and the names of the results."""
        shape = " x ".join(map(str, next(iter(self.results.values())).shape[1:]))
        number = f"{len(self)} reconstruction{'s' if len(self) > 1 else ''} of {shape}"
        widths = [max(map(len, column)) for column in zip(*self._rows(), strict=True)]
        rows = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in self._rows())
        lines = [row.rstrip() for row in rows]
        return "\n".join([number, *lines, f"results: {', '.join(self.results)}"])

    def _repr_html_(self) -> str:
        """Show table and pictures in a notebook."""
        picture = base64.b64encode(png_of(self.comparison())).decode("ascii")
        more = f"<p>the first {ROWS} of {len(self)}</p>" if len(self) > ROWS else ""
        named = html.escape(f"reconstructions: {', '.join(self.results)}")
        return f'<pre>{html.escape(repr(self))}</pre><img alt="{named}" src="data:image/png;base64,{picture}">{more}'

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("fit", "evaluations", "objective", "seconds")]
        for fit, objective in self.objective.items():
            spent, values = self.evaluations[fit].tolist(), objective.tolist()
            number = str(spent[0]) if min(spent) == max(spent) else f"{min(spent)} to {max(spent)}"
            value = f"{values[0]:.1e}" if len(values) == 1 else f"{min(values):.1e} to {max(values):.1e}"
            rows.append((fit, number, value, f"{self.seconds.get(fit, 0.0):.1f}"))
        return rows
