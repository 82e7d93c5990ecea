"""The whole method in one call, for Python users."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from torch import Tensor

from iagan_lightning.callbacks import BackProjection, BestObjective, StageStopping, TimeLimit, ViewMean
from iagan_lightning.callbacks.back_projection import Projection
from iagan_lightning.callbacks.notebook_progress import NotebookProgress, in_notebook
from iagan_lightning.callbacks.result_writer import finished
from iagan_lightning.checks import in_words
from iagan_lightning.data.measured import read_measurement
from iagan_lightning.generators import Generator
from iagan_lightning.methods import Stage, TestTimeModule, method_named
from iagan_lightning.methods.adaptation import adapt_alone
from iagan_lightning.methods.inputs import require_operator
from iagan_lightning.methods.presets import Preset
from iagan_lightning.methods.trainer_arguments import check_arguments
from iagan_lightning.methods.trainers import quiet_lightning
from iagan_lightning.operators import Operator
from iagan_lightning.results.reconstruction import Reconstruction


def reconstruct(
    y: Tensor | np.ndarray | Image.Image | str | os.PathLike[str],
    A: Operator,
    G: Generator | TestTimeModule | str | os.PathLike[str] | None,
    noise_std: float | None = 0.0,
    preset: Preset = "fast",
    seed: int | Sequence[int] = 0,
    *,
    method: str | type[TestTimeModule] = "iagan",
    latent: Stage | None = None,
    joint: Stage | None = None,
    back_projection: Projection = None,
    quantisation: float | None = None,
    views: int | Sequence[str] | None = None,
    time: float | None = None,
    callbacks: Sequence[pl.Callback] | pl.Callback = (),
    progress: bool = True,
    **trainer: Any,
) -> Reconstruction:
    r"""Reconstruct images from :math:`y = A x + e` with a generator that adapts itself to each image.

    Args:
        y: measurements ``(B, *A.measurement_shape)`` of images in [-1, 1], a tensor or a NumPy array; no whole numbers.
            What stands where A measures nothing, as behind an inpainting's mask, is left out of account.
            Or, where A's measurements are pictures, one picture: an image of Pillow's or the path of a file.
        A: the operator.
        G: the generator, or the path of its weights; a generator that is given is not changed. Or a method of your own
            with its generator, a ``TestTimeModule``; then ``method``, ``preset``, ``latent`` and ``joint`` are its own
            affair. None for a method without a generator (``method="dip"``).
        noise_std: standard deviation of e on the [0, 1] scale; 0 for exact measurements, None for noise of unknown
            level: then measurements that are held out decide how long to adapt.
        preset: ``fast``; ``best``, the same in two views, averaged; ``paper``, the published schedule.
        seed: image i starts from seed + i; or one for each image.
        method: ``iagan``, ``csgm``, ``ilo``, ``dip``, one that another package registers, or a class.
        latent, joint: settings that replace those of the preset.
        back_projection: None adds the ``_bp`` results when noise_std is 0; True always; False never;
            ``"discrepancy"`` always, with noise only as far as the noise allows; ``"naive"`` always, with A's plain
            reconstruction in place of A^+.
        quantisation: standard deviation of the rounding of y on the [0, 1] scale, ``1 / 255 / 12**0.5`` for 8 bits;
            by default that of the picture, where y is one, and 0 otherwise.
        views: how many reconstructions with the generator seen otherwise (mirrored, ...) are made, or the names of the
            views; ``iagan_mean`` is the mean of them, exact where they are. None for as many as the preset has.
        time: seconds for all fits, in which as much is done as can be; None sets no limit.
        callbacks: further Lightning callbacks, or one; they see every evaluation of the objective.
        progress: in a notebook, show a line that tells how far it is.
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
        kind: Any = method_named(method) if isinstance(method, str) else method
        if not (isinstance(kind, type) and issubclass(kind, TestTimeModule)):
            raise ValueError(
                f"method is a name or a class of methods; {in_words(method)} was given: a method with its generator is "
                "given in the place of G"
            )
        module = _build(kind, G, {name: value for name, value in settings.items() if value is not None})
    check_arguments(trainer)
    others = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    if wrong := [each for each in others if not isinstance(each, pl.Callback)]:
        raise ValueError(f"callbacks are Lightning callbacks; {in_words(wrong[0])} was given")
    rounding = 0.0
    if isinstance(y, str | os.PathLike | Image.Image):
        y, rounding = read_measurement(y, require_operator(A))
    module.begin(y, A, noise_std, seed, quantisation=rounding if quantisation is None else quantisation, views=views)
    ours: list[pl.Callback] = [BestObjective(), StageStopping(), BackProjection(back_projection), ViewMean()]
    if time is not None:
        ours.append(TimeLimit(time))
    if progress and in_notebook():
        ours.append(NotebookProgress())
    with quiet_lightning():
        adapt_alone(module, callbacks=[*ours, *others], **trainer)
    projected = [f"{name}_bp" for name in module.outcomes]
    return Reconstruction(
        {name: image.cpu() for name, image in module.results.items()},
        module.objective,
        module.misfits,
        module.evaluations,
        {"total": sum(module.seconds.values()), **module.seconds},
        module.titles,
        [finished(module, index) for index in range(len(module.names))],
        projected if module.results.keys() >= set(projected) else module.outcomes,
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
