"""The whole method in one call, for Python users."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytorch_lightning as pl
from PIL import Image
from torch import Tensor

from iagan_lightning.callbacks import BackProjection, BestObjective, StageStopping
from iagan_lightning.generators import Generator, load_generator
from iagan_lightning.methods.iagan import IAGAN, adapt
from iagan_lightning.methods.settings import Preset, Stage
from iagan_lightning.methods.trainers import quiet_lightning, quiet_trainer
from iagan_lightning.operators import LinearOperator
from iagan_lightning.results.sheet import sheet_of, stack_sheets


@dataclass(frozen=True)
class Reconstruction:
    """Results for a batch of B measurements, images in [-1, 1] on the CPU; a notebook shows them as pictures.

    Attributes:
        csgm: latent stage, ``(B, C, H, W)``.
        csgm_bp: csgm back-projected, or None.
        iagan: joint stage.
        iagan_bp: iagan back-projected, or None.
        dip: Deep Image Prior, where the callback ``DIPBaseline`` was given.
        objective: ``|y - A x|^2 / m`` by stage, ``(B,)`` each.
        evaluations: evaluations of the objective by stage, ``(B,)`` each.
        seconds: wall time by stage, and ``total``.
    """

    csgm: Tensor
    csgm_bp: Tensor | None
    iagan: Tensor
    iagan_bp: Tensor | None
    objective: dict[str, Tensor]
    evaluations: dict[str, Tensor]
    seconds: dict[str, float]
    dip: Tensor | None = None

    def comparison(self, rows: int = 8) -> Image.Image:
        """Return the methods side by side, a row for each of the first images."""
        methods = {name: getattr(self, name) for name in ("csgm", "csgm_bp", "iagan", "iagan_bp", "dip")}
        images = {name: batch for name, batch in methods.items() if batch is not None}
        sheets = [sheet_of({name: x[i] for name, x in images.items()}, None, None, {}) for i in range(len(self.iagan))]
        return stack_sheets(sheets[:rows])

    def _repr_png_(self) -> bytes:
        """Show the comparison in a notebook."""
        buffer = io.BytesIO()
        self.comparison().save(buffer, format="PNG")
        return buffer.getvalue()


def reconstruct(
    y: Tensor,
    A: LinearOperator,
    G: Generator | str | os.PathLike[str],
    noise_std: float | None = 0.0,
    preset: Preset = "fast",
    seed: int = 0,
    *,
    latent: Stage = Stage(),  # noqa: B008 - frozen dataclass
    joint: Stage = Stage(),  # noqa: B008
    back_projection: bool | Literal["discrepancy", "naive"] | None = None,
    callbacks: Sequence[pl.Callback] = (),
    **trainer: Any,
) -> Reconstruction:
    r"""Reconstruct images from :math:`y = A x + e` with a generator that adapts itself to each image.

    Args:
        y: measurements ``(B, *A.measurement_shape)`` of images in [-1, 1].
        A: the operator.
        G: the generator, or the path of its weights; a generator that is given is not changed.
        noise_std: standard deviation of e on the [0, 1] scale; 0 for exact measurements, None for noise of unknown
            level: then measurements that are held out decide how long to adapt.
        preset: ``fast``, or ``paper`` for the published schedule.
        seed: image i starts from seed + i.
        latent, joint: settings that replace those of the preset.
        back_projection: None adds the ``_bp`` results when noise_std is 0; True always; False never;
            ``"discrepancy"`` always, with noise only as far as the noise allows; ``"naive"`` always, with A's plain
            reconstruction in place of A^+.
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
    module = IAGAN(G if isinstance(G, Generator) else load_generator(G), preset, latent, joint)
    module.begin(y, A, noise_std, seed)
    ours = [BestObjective(), StageStopping(), BackProjection(back_projection)]
    with quiet_lightning():
        adapt(module, quiet_trainer(callbacks=[*ours, *callbacks], **trainer))
    results = {name: image.cpu() for name, image in module.results.items()}
    seconds = {"total": sum(module.seconds.values()), **module.seconds}
    return Reconstruction(
        results["csgm"], results.get("csgm_bp"), results["iagan"], results.get("iagan_bp"),
        module.objective, module.evaluations, seconds, results.get("dip"),
    )  # fmt: skip
