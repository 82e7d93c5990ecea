"""What is known of an image whose fits have ended, and what its folder holds."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from iagan_lightning.data.images import to_pillow
from iagan_lightning.methods.plan import check_result_names
from iagan_lightning.operators import Operator
from iagan_lightning.results.familiarity import Familiarity
from iagan_lightning.results.files import as_json, write_bytes, write_picture, write_tensors, write_text
from iagan_lightning.results.folder import METRICS_VERSION
from iagan_lightning.results.lpips import Backbone
from iagan_lightning.results.metrics import evaluate_all, outside
from iagan_lightning.results.registry import about_own
from iagan_lightning.results.sheet import sheet_of
from iagan_lightning.results.uncertainty import coverage
from iagan_lightning.terminal import Notice

WHITE = 0.25  # uncertainty or difference that is drawn white, on the [0, 1] scale
OUTSIDE = 0.02  # share of a back-projection's values that may lie far outside [-1, 1]; up to 0.011 do where A is exact


@dataclass(frozen=True)
class Finished:
    """An image, its tensors without a batch axis and on the CPU, but for y, which lies with its operator.

    Attributes:
        name, seed: of the image.
        y, operator: measurements and A.
        noise_std, quantisation: of y, on the [0, 1] scale.
        results: reconstructions by name.
        final: name of the last fit's result.
        seconds, evaluations, objective, misfit: by fit.
        broken: fits whose last evaluation was infinite or no number.
        preset, device: what it was made with, and on.
        space: latent space that was searched first; None where there is none.
        truth: the true image, where it is known.
        metrics: by result.
        uncertainty: standard deviation of the error of the mean of several views, ``(1, H, W)``, on the [0, 1] scale.
        familiarity: how well the prior explains it by itself; None for methods that adapt from the start, and where y
            shows nothing but noise.
        calibrated: whether it was measured for this prior, this kind of measurements and such fits by how much errors
            exceed it.
        titles: what results are called where their usual titles would mislead.
        notes: what else its record is to say.

    Raises:
        ValueError: for a result whose name is another picture's, ``truth`` for example.
    """

    name: str
    seed: int
    y: Tensor
    operator: Operator
    noise_std: float | None
    quantisation: float
    results: dict[str, Tensor]
    final: str
    seconds: dict[str, float]
    evaluations: dict[str, int]
    objective: dict[str, float]
    misfit: dict[str, float]
    broken: list[str] = field(default_factory=list)
    preset: str | None = None
    device: str = "cpu"
    space: str | None = None
    truth: Tensor | None = None
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    uncertainty: Tensor | None = None
    calibrated: bool = False
    familiarity: Familiarity | None = None

    def __post_init__(self) -> None:
        # A callback may add results of its own; the plain reconstruction comes among them with the metrics.
        check_result_names(self.results)

    @property
    def measurement(self) -> Tensor | None:
        """y as a picture, where it is one."""
        return drawable(self.operator.picture(self.y))

    @property
    def shown(self) -> dict[str, Tensor]:
        """The pictures of a sheet: all results, and the uncertainty."""
        unsure = self.uncertainty_picture
        return self.results if unsure is None else {**self.results, "uncertainty": unsure}

    def with_metrics(self, lpips: Backbone = "none") -> Finished:
        """Return the same with the metrics of all results, and of the plain reconstruction ``naive``."""
        own = {name: image[None] for name, image in self.results.items()}
        truth = None if self.truth is None else self.truth[None]
        results, [metrics] = evaluate_all(own, self.y[None], self.operator, truth, self.noise_std, lpips)
        return replace(self, results={name: image[0] for name, image in results.items()}, metrics=metrics)

    @property
    def offered(self) -> str:
        """Name of the result that is offered: back-projected, unless that lies far outside of what can be shown."""
        projected = self.results.get(f"{self.final}_bp")
        within = projected is not None and float(outside(projected[None])) <= OUTSIDE
        return f"{self.final}_bp" if within else self.final

    def record(self) -> dict[str, Any]:
        """Return what metrics.json says."""
        return {
            "version": METRICS_VERSION,
            "image": self.name,
            "seed": self.seed,
            "operator": repr(self.operator),
            "noise_std": self.noise_std,
            "quantisation": self.quantisation,
            "preset": self.preset,
            "space": self.space,
            "result": self.final,
            "offered": self.offered,
            "device": self.device,
            "seconds": {**self.seconds, "total": sum(self.seconds.values())},
            "evaluations": self.evaluations,
            "objective": self.objective,
            "misfit": self.misfit,
            "methods": self.metrics,
            **({"familiarity": self.familiarity.record()} if self.familiarity is not None else {}),
            **({"uncertainty": self.sureness()} if self.uncertainty is not None else {}),
            **({"broken": self.broken} if self.broken else {}),
            **self.notes,
            **({"titles": self.titles} if self.titles else {}),
            **({"about": about} if (about := about_own()) else {}),
        }

    def sureness(self) -> dict[str, Any]:
        """Return what the record says of the uncertainty: its mean, and with the truth what part of it is covered."""
        assert self.uncertainty is not None
        std = self.uncertainty[None]
        known = {"mean": float(std.mean()), "calibrated": self.calibrated}
        if self.truth is not None:
            known["coverage"] = float(coverage(self.results[self.final][None], self.truth[None], std))
        return known

    @property
    def uncertainty_picture(self) -> Tensor | None:
        """The uncertainty as a picture, ``(1, H, W)`` in [-1, 1]: white is a quarter of the range, or more."""
        return None if self.uncertainty is None else (self.uncertainty / WHITE).clamp(max=1) * 2 - 1

    def write(self, folder: Path, weights: bytes | None = None, wanted: Collection[str] | None = None) -> None:
        """Write pictures, measurements and record; metrics.json comes last, its presence means that the image is done.

        Args:
            folder: of the image; it exists.
            weights: content of ``weights.safetensors``.
            wanted: names of the pictures to write, None for all. Those that the image has none of are left out, with a
                warning.
        """
        write_tensors(folder / "measurement.pt", self.y.cpu())
        measurement, mask = self.measurement, mask_picture(getattr(self.operator, "mask", None))
        pictures = {"measurement": measurement, "mask": mask, "truth": self.truth, **self.results}
        pictures["uncertainty"] = self.uncertainty_picture
        names = [*pictures, "comparison"]
        if unknown := [name for name in wanted or () if name not in names]:
            warnings.warn(
                f"pictures: there is no {', '.join(unknown)}; there are {', '.join(names)}", Notice, stacklevel=2
            )
        for name, image in pictures.items():
            if image is not None and (wanted is None or name in wanted):
                write_picture(folder / f"{name}.png", to_pillow(image))
        if wanted is None or "comparison" in wanted:
            sheet = sheet_of(self.shown, self.truth, measurement, self.metrics, self.titles)
            write_picture(folder / "comparison.png", sheet)
        if weights is not None:
            write_bytes(folder / "weights.safetensors", weights)
        # Of attempts that failed or were killed.
        for remnant in (folder / "error.txt", *folder.glob(".*.part")):
            remnant.unlink(missing_ok=True)
        write_text(folder / "metrics.json", as_json(self.record()))


def mask_picture(mask: object) -> Tensor | None:
    """Return a mask as ``(1, H, W)`` in [-1, 1], as it is read again (``--operator.mask mask.png``).

    None where no one picture tells it: channels that differ, values beyond [0, 1], or another kind of mask altogether.

    Example:
        >>> import torch
        >>> mask_picture(torch.tensor([[True, False]])).tolist(), mask_picture(torch.ones(4)) is None
        ([[[1.0, -1.0]]], True)
    """
    if not isinstance(mask, Tensor) or mask.is_complex() or mask.ndim not in (2, 3) or not mask.numel():
        return None
    planes = mask.detach().cpu().float()
    planes = planes if mask.ndim == 3 else planes[None]
    inside = ((planes >= 0) & (planes <= 1)).all()
    return planes[:1] * 2 - 1 if inside and (planes == planes[:1]).all() else None


def drawable(picture: Tensor | None) -> Tensor | None:
    """Return what a user's operator calls a picture if it is one, ``(1 or 3, h, w)``, else None."""
    if picture is None or picture.is_complex() or picture.ndim != 3 or len(picture) not in (1, 3):
        return None
    return picture.float().cpu() if picture.numel() else None
