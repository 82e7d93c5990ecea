"""One fit of a method's plan, and what an evaluation in it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from iagan_lightning.methods.settings import FitSettings

DRAW, MEAN, ENCODER = "draw", "mean", "encoder"  # beginnings that are no earlier fit
Init = Literal["draw", "mean", "encoder"]


def nothing(name: str) -> bool:
    """Let no weight adapt."""
    return False


def everything(name: str) -> bool:
    """Let all weights adapt."""
    return True


@dataclass(frozen=True)
class Fit:
    """One fit: what is searched, where it begins, what its result is called.

    Args:
        name: by which it is told apart: in metrics.json, curves, tables and messages.
        settings: of its optimiser and its end.
        space: the generator's latent space that is searched, ``z`` or another of ``Generator.spaces``; None where
            weights alone are, and the latent stays where it begins.
        adapts: told the name of a weight, says whether it adapts. Weights that the generator came with frozen
            (``requires_grad_(False)``) never do.
        init: where the latent begins: ``draw``, from the prior; ``mean``, in the middle of it; ``encoder``, at what the
            generator's encoder makes of the plain reconstruction (further restarts are drawn); or the name of an
            earlier fit, at its result, with the weights that it ended with.
        result: name of what it ends with among the module's results; None for a probe, which leaves nothing but the
            number of its evaluations.
        view: what is done to the generator's pictures, a name of ``methods.views.VIEWS``.
        radius: how far the latent may go from where it begins, relative to the length of that; None sets no bound.
    """

    name: str
    settings: FitSettings = field(default_factory=FitSettings)
    space: str | None = "z"
    adapts: Callable[[str], bool] = nothing
    init: str = DRAW
    result: str | None = None
    radius: float | None = None
    view: str = "identity"


def space_of(fit: Fit, fits: Sequence[Fit]) -> str:
    """Return the space in which the latent of a fit lies: of one that searches none, that of where it begins.

    Example:
        >>> plan = [Fit("latent", space="w", result="csgm"), Fit("weights", space=None, init="latent", result="mine")]
        >>> space_of(plan[1], plan)
        'w'
    """
    if fit.space is not None:
        return fit.space
    before = next((each for each in fits if each.name == fit.init), None)
    return "z" if before is None else space_of(before, fits)


@dataclass
class Iterate:
    """What one forward pass gave: a consistent set of objective, image, latent and weights for P problems.

    Attributes:
        objective: ``(P,)``, misfit and penalty.
        misfit: ``(P,)``, :math:`|y - A x|^2 / m`.
        image: ``(P, C, H, W)``.
        z: ``(P, *shape)``, the latent in the fit's space; empty, ``(P, 0)``, where there is none.
        weights: ``(P, ...)`` each; empty where none adapts.
    """

    objective: Tensor
    misfit: Tensor
    image: Tensor
    z: Tensor
    weights: list[Tensor]

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, the first axis of each counting problems."""
        return [self.objective, self.misfit, self.image, self.z, *self.weights]

    def map(self, change: Callable[[Tensor], Tensor]) -> Iterate:
        """Return the iterate with every tensor changed."""
        objective, misfit, image, z, *weights = (change(tensor) for tensor in self.tensors)
        return Iterate(objective, misfit, image, z, weights)
