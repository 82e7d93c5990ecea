"""The mean of a method's views."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from iagan_lightning.callbacks.back_projection import BackProjection
from torch import Tensor

from iagan_lightning.methods.phases import require_method
from iagan_lightning.methods.test_time_module import TestTimeModule
from iagan_lightning.methods.views import IDENTITY, VIEWS, averaged
from iagan_lightning.operators import LinearOperator
from iagan_lightning.results.finished import OUTSIDE
from iagan_lightning.results.metrics import outside
from iagan_lightning.results.sheet import TITLES
from iagan_lightning.results.uncertainty import TYPICAL, factor_of, kind_of, spread

ROUNDING = 1e-5  # relative residual that is none but rounding's


class ViewMean(pl.Callback):
    r"""Add the mean of all views, ``iagan_mean``, when the last fit has ended; nothing where there is one view only.

    Its details are those of upright views (``methods.views.averaged``). It is the mean of back-projected results where
    there are any, and back-projected again, so that without noise :math:`A \bar x = y` as for each of them. Where
    back-projection has led far out of [-1, 1], as with an A^+ that amplifies errors of y, of the results themselves.
    Of views other than the upright one as it is (the first, where that is not among them) only what is averaged stays
    among the results. How much the views differ becomes the module's
    ``uncertainty``, by the factor that was measured where fits and back-projection are those with which it was, else by
    one that stands in. It acts after ``BackProjection``, wherever that is given.
    """

    phase, follows = "make", BackProjection

    @torch.no_grad()
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Average after the last fit."""
        module = require_method(pl_module, self)
        if not module.is_last or len(module.views) == 1:
            return
        results, names = module.results, module.outcomes
        views = torch.stack([results[name] for name in names])
        projected = [f"{name}_bp" for name in names]
        if exact := all(name in results for name in projected):
            inside = torch.stack([outside(results[name]) <= OUTSIDE for name in projected]).all(0)  # each image's own
            exact_views = torch.stack([results[name] for name in projected])
            views = torch.where(inside[:, None, None, None], exact_views, views)
        mean = averaged(views, module.views)
        results[f"{module.outcome}_mean"] = _agreeing(mean, views.mean(0), module) if exact else mean
        factor = _measured_factor(trainer, module, exact)
        module.calibrated = factor is not None
        module.uncertainty = factor_of(factor or TYPICAL, len(views)) * spread(views)
        title = TITLES.get(module.outcome, module.outcome)
        module.titles[f"{module.outcome}_mean"] = f"{title}, {len(names)} views"
        ends = projected if exact else names
        whole = IDENTITY if IDENTITY in module.views else module.views[0]  # the view of which all results stay
        for fit in module.fits:
            if fit.view != whole:
                for name in {f"{fit.result}", f"{fit.result}_bp"} - set(ends):
                    results.pop(name, None)
        plain = f"{module.outcome}_bp" if exact else module.outcome
        for view, name in zip(module.views, ends, strict=True):
            if view != IDENTITY:
                module.titles[name] = f"{TITLES.get(plain, plain)}, {VIEWS[view].title}"


def _measured_factor(trainer: pl.Trainer, module: TestTimeModule, exact: bool) -> float | None:
    """Return the factor that was measured for the prior, the kind of measurements and what was done, or None.

    What was done are the fits of ``fast``, and back-projection as it is by default.
    """
    A, noise_std = module.operator, module.noise_std
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning, untyped
    plainly = any(isinstance(callback, BackProjection) and callback.enabled == "naive" for callback in callbacks)
    usual = exact == (BackProjection().wanted(noise_std) and isinstance(A, LinearOperator)) and not plainly
    if not usual or not module.is_calibrated("latent", "joint"):
        return None
    return module.generator.calibration.factors.get(kind_of(A, noise_std))


def _agreeing(mean: Tensor, plain: Tensor, module: TestTimeModule) -> Tensor:
    """Return the mean of pictures that agree with y so that it does, too; as it is where the plain mean does not."""
    A, y = module.operator, module.y
    left = (A(plain) - y).flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    if not bool((left < ROUNDING).any()) or (torch.equal(mean, plain) and not bool((left > 0).any())):
        return mean
    try:
        nearer = A.back_project(mean, y)
    except RuntimeError:  # conjugate gradients that come no further
        return torch.where((left < ROUNDING)[:, None, None, None], plain, mean)
    return torch.where((left < ROUNDING)[:, None, None, None], nearer, mean)
