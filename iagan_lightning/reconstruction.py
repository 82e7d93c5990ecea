"""The whole method in one call, for Python users."""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from torch import Tensor

from iagan_lightning.callbacks import BackProjection, BestObjective, StageStopping
from iagan_lightning.generators import Generator
from iagan_lightning.methods import Stage, TestTimeModule, adapt, method_named
from iagan_lightning.methods.presets import Preset
from iagan_lightning.methods.trainer_arguments import check_arguments
from iagan_lightning.methods.trainers import quiet_lightning, quiet_trainer
from iagan_lightning.operators import Operator
from iagan_lightning.results.sheet import sheet_of, stack_sheets

EXPECTED = ("csgm", "csgm_bp", "iagan", "iagan_bp", "dip")  # None where they were not made


@dataclass(frozen=True)
class Reconstruction:
    """Results for a batch of B measurements, images in [-1, 1] on the CPU; a notebook shows them as pictures.

    Each result is an attribute and an item by its name. Of IAGAN: ``csgm``, the latent stage's; ``iagan``, the joint
    stage's; ``csgm_bp`` and ``iagan_bp``, back-projected, or None; ``dip``, where the callback ``DIPBaseline`` was
    given, or None.

    Attributes:
        results: images by name, ``(B, C, H, W)`` each.
        objective: misfit and penalty, what was minimised, by fit, ``(B,)`` each.
        misfit: ``|y - A x|^2 / m`` by fit, ``(B,)`` each.
        evaluations: evaluations of the objective by fit, ``(B,)`` each.
        seconds: wall time by fit, and ``total``.
        titles: what results are called where their usual titles would mislead.
    """

    results: dict[str, Tensor]
    objective: dict[str, Tensor]
    misfit: dict[str, Tensor]
    evaluations: dict[str, Tensor]
    seconds: dict[str, float]
    titles: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        """Return a result by its name."""
        return self.results[name]

    def __getattr__(self, name: str) -> Tensor | None:
        results = self.__dict__.get("results", {})
        if name in results:
            image: Tensor = results[name]
            return image
        if results and (name in EXPECTED or (name.endswith("_bp") and name[:-3] in results)):
            return None
        raise AttributeError(f"a reconstruction has no {name!r}; its results are {', '.join(results)}")

    def comparison(self, rows: int = 8) -> Image.Image:
        """Return the methods side by side, a row for each of the first images."""
        number = len(next(iter(self.results.values())))
        each = ({name: x[i] for name, x in self.results.items()} for i in range(min(number, rows)))
        return stack_sheets([sheet_of(images, None, None, {}, self.titles) for images in each])

    def _repr_png_(self) -> bytes:
        """Show the comparison in a notebook."""
        buffer = io.BytesIO()
        self.comparison().save(buffer, format="PNG")
        return buffer.getvalue()


def reconstruct(
    y: Tensor | np.ndarray,
    A: Operator,
    G: Generator | TestTimeModule | str | os.PathLike[str] | None,
    noise_std: float | None = 0.0,
    preset: Preset = "fast",
    seed: int = 0,
    *,
    method: str | type[TestTimeModule] = "iagan",
    latent: Stage | None = None,
    joint: Stage | None = None,
    back_projection: bool | Literal["discrepancy", "naive"] | None = None,
    quantisation: float = 0.0,
    callbacks: Sequence[pl.Callback] = (),
    **trainer: Any,
) -> Reconstruction:
    r"""Reconstruct images from :math:`y = A x + e` with a generator that adapts itself to each image.

    Args:
        y: measurements ``(B, *A.measurement_shape)`` of images in [-1, 1], a tensor or a NumPy array; no whole numbers.
        A: the operator.
        G: the generator, or the path of its weights; a generator that is given is not changed. Or a method of your own
            with its generator, a ``TestTimeModule``; then ``method``, ``preset``, ``latent`` and ``joint`` are its own
            affair. None for a method without a generator (``method="dip"``).
        noise_std: standard deviation of e on the [0, 1] scale; 0 for exact measurements, None for noise of unknown
            level: then measurements that are held out decide how long to adapt.
        preset: ``fast``, or ``paper`` for the published schedule.
        seed: image i starts from seed + i.
        method: ``iagan``, ``csgm``, ``ilo``, ``dip``, one that another package registers, or a class.
        latent, joint: settings that replace those of the preset.
        back_projection: None adds the ``_bp`` results when noise_std is 0; True always; False never;
            ``"discrepancy"`` always, with noise only as far as the noise allows; ``"naive"`` always, with A's plain
            reconstruction in place of A^+.
        quantisation: standard deviation of the rounding of y on the [0, 1] scale, ``1 / 255 / 12**0.5`` where y was
            read from a picture of 8 bits.
        callbacks: further Lightning callbacks; they see every evaluation of the objective.
        **trainer: arguments of ``pytorch_lightning.Trainer``, for example ``accelerator="cpu"``.

    Raises:
        ValueError: when shapes or settings do not fit together.

    Source: Abu Hussein, Tirer and Giryes, AAAI 2020, Eqs. (2), (3) and (10).

    Example:
        >>> import torch
        >>> from iagan_lightning import Stage, reconstruct
        >>> from iagan_lightning.generators import BEGAN
        >>> from iagan_lightning.operators import BicubicDownsampling
        >>> _ = torch.manual_seed(0)
        >>> A = BicubicDownsampling((3, 16, 16), scale=4)
        >>> y = A(torch.rand(2, 3, 16, 16) * 2 - 1)
        >>> result = reconstruct(y, A, BEGAN(16, 4, 8), latent=Stage(steps=5), joint=Stage(steps=5), accelerator="cpu")
        >>> tuple(result.iagan_bp.shape), bool(torch.allclose(A(result.iagan_bp), y, atol=1e-5))
        ((2, 3, 16, 16), True)
    """
    settings = {"preset": preset, "latent": latent, "joint": joint}
    if isinstance(G, TestTimeModule):
        if given := [name for name, value in settings.items() if value not in (None, "fast")]:
            raise ValueError(f"{', '.join(given)}: {type(G).__name__} is a method already, give it its own settings")
        module = G
    else:
        kind = method_named(method) if isinstance(method, str) else method
        module = _build(kind, G, {name: value for name, value in settings.items() if value is not None})
    check_arguments(trainer)
    module.begin(y, A, noise_std, seed, quantisation=quantisation)
    ours = [BestObjective(), StageStopping(), BackProjection(back_projection)]
    with quiet_lightning():
        adapt(module, quiet_trainer(callbacks=[*ours, *callbacks], **trainer))
    return Reconstruction(
        {name: image.cpu() for name, image in module.results.items()},
        module.objective,
        module.misfits,
        module.evaluations,
        {"total": sum(module.seconds.values()), **module.seconds},
        module.titles,
    )


def _build(kind: type[TestTimeModule], G: Any, settings: dict[str, Any]) -> TestTimeModule:
    """Return a method with those of the settings that it takes; what it does not take is refused, but for defaults."""
    taken = inspect.signature(kind).parameters
    if refused := [name for name, value in settings.items() if name not in taken and value != "fast"]:
        raise ValueError(f"{kind.__name__} has no {', '.join(refused)}; it takes {', '.join(taken)}")
    own = {name: value for name, value in settings.items() if name in taken}
    if "generator" not in taken:
        if G is not None:
            raise ValueError(f"{kind.__name__} has a network of its own: give None in place of a generator")
        return kind(**own)
    if G is None:
        raise ValueError(f"{kind.__name__} needs a generator")
    return kind(os.fspath(G) if isinstance(G, os.PathLike) else G, **own)
