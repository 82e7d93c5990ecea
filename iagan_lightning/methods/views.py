r"""Views: the same prior seen in a mirror, shifted or turned, each of which errs in a way of its own.

A view is a fit with the generator :math:`T \circ G`; A and y are what they were. The prior knows a face and its mirror
image equally well, but errs otherwise in each: their mean has less of the errors, and where they differ much was
guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from iagan_lightning.checks import check_choice
from iagan_lightning.methods.fit import Fit

ANGLE = 4.0  # degrees; a face that is turned further is none that priors of levelled faces know
# Of the height: what is finer is taken from upright views alone, and from the first one alone; see ``averaged``.
DETAIL, TEXTURE = 1.0 / 64, 1.0 / 512


@dataclass(frozen=True)
class View:
    """A transform of pictures ``(n, C, H, W)``.

    Attributes:
        apply: T.
        undo: its inverse, up to what left the picture.
        title: what a result of it is called, after the method.
        upright: whether pixels come to lie on pixels; others are interpolated, which takes of their details.
    """

    apply: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor], Tensor]
    title: str
    upright: bool = True


def mirrored(x: Tensor) -> Tensor:
    """Return pictures with left and right exchanged."""
    return x.flip(-1)


def turned(x: Tensor, degrees: float) -> Tensor:
    """Return pictures turned about their middle, clockwise, by bicubic interpolation; the border is continued."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    aspect = x.shape[-2] / x.shape[-1]
    rows = [[cos, sin * aspect, 0.0], [-sin / aspect, cos, 0.0]]
    grid = functional.affine_grid(torch.tensor([rows]).to(x), [1, *x.shape[1:]], align_corners=False)
    grid = grid.expand(len(x), -1, -1, -1)
    return functional.grid_sample(x, grid, mode="bicubic", padding_mode="border", align_corners=False)


def _turn(degrees: float, title: str) -> View:
    return View(partial(turned, degrees=degrees), partial(turned, degrees=-degrees), title, upright=False)


def _mirrored(view: View, title: str) -> View:
    """Return the view of which pictures are the mirror images of those of another one."""
    return View(lambda x: mirrored(view.apply(x)), lambda x: view.undo(mirrored(x)), title, view.upright)


IDENTITY = "identity"
# In the order in which they are taken. The mirror gains most, and no sharpness is lost; each further view brings the
# mean nearer to the truth, and makes it softer (docs/views.md). Shifts gain no more than turns, and what they push over
# the border is missing.
VIEWS: dict[str, View] = {IDENTITY: View(lambda x: x, lambda x: x, "as it is")}
VIEWS["mirror"] = View(mirrored, mirrored, "mirrored")
for _name, _degrees, _title in (
    ("turn", ANGLE, "turned"), ("turn_back", -ANGLE, "turned back"), ("turn_half", ANGLE / 2, "turned by half as much"),
):  # fmt: skip
    VIEWS[_name] = _turn(_degrees, _title)
    VIEWS[f"mirror_{_name}"] = _mirrored(VIEWS[_name], f"mirrored and {_title}")


def seen(fits: Sequence[Fit], views: Sequence[str]) -> list[Fit]:
    """Return a plan carried out in each of several views, one after another; those after the first have other names.

    Raises:
        ValueError: for several views of a plan that has views of its own, and for a view that there is not.

    Example:
        >>> plan = [Fit("latent", result="csgm"), Fit("joint", init="latent", result="iagan")]
        >>> for fit in seen(plan, ["identity", "mirror"])[2:]:
        ...     print(fit.name, fit.init, fit.result, fit.view)
        latent-mirror draw csgm_mirror mirror
        joint-mirror latent-mirror iagan_mirror mirror
    """
    for fit in fits:
        check_choice(f"view of fit {fit.name}", fit.view, VIEWS)
    if len(views) > 1 and any(fit.view != IDENTITY for fit in fits):
        raise ValueError("fits that have views of their own are made in one view: leave views out")
    names = {fit.name for fit in fits}

    def as_seen(fit: Fit, view: str) -> Fit:
        if view == IDENTITY:
            return fit
        init = f"{fit.init}-{view}" if fit.init in names else fit.init
        result = None if fit.result is None else f"{fit.result}_{view}"
        return replace(fit, name=f"{fit.name}-{view}", init=init, result=result, view=view)

    return [as_seen(fit, view) for view in views for fit in fits]


def averaged(pictures: Tensor, views: Sequence[str]) -> Tensor:
    r"""Return the mean of pictures in several views, the details those of upright ones, ``(B, C, H, W)``.

    .. math:: \bar x = u + g * (m - u),

    m the mean of all, u that of the upright ones, g a Gaussian window with a standard deviation of 1 pixel at 64.
    The mean of many guesses at a detail is none of them: where all are averaged, each further view brings the picture
    nearer to the truth, and makes it softer. From 512 pixels on, what is finer than 1 pixel of 512 is the first
    view's alone, in the same way: hair and pores lie elsewhere in each.

    Args:
        pictures: ``(V, B, C, H, W)``.
        views: their names.

    Example:
        >>> x = torch.randn(4, 1, 3, 64, 64)
        >>> names = views_of(4)
        >>> torch.equal(averaged(x[:2], names[:2]), x[:2].mean(0)), torch.equal(averaged(x, names), x.mean(0))
        (True, False)
    """
    mean, height = pictures.mean(0), pictures.shape[-2]
    upright = [VIEWS[view].upright for view in views]
    if any(upright) and not all(upright):
        detailed = pictures[upright].mean(0)
        mean = detailed + smoothed(mean - detailed, DETAIL * height)
    if len(views) > 1 and upright[0] and TEXTURE * height >= 1:
        mean = pictures[0] + smoothed(mean - pictures[0], TEXTURE * height)
    return mean


def smoothed(x: Tensor, std: float) -> Tensor:
    """Return pictures ``(B, C, H, W)`` under a Gaussian window, the border reflected.

    Example:
        >>> smoothed(torch.ones(1, 1, 8, 8), 1.5).allclose(torch.ones(1, 1, 8, 8))
        True
    """
    reach = min(math.ceil(3 * std), min(x.shape[-2:]) - 1)
    window = torch.exp(-(torch.arange(-reach, reach + 1, dtype=torch.float64) ** 2) / (2 * std**2))
    window = (window / window.sum()).to(x)
    channels = x.shape[1]
    x = functional.pad(x, (reach, reach, reach, reach), mode="reflect")
    down = window[None, None, :, None].expand(channels, -1, -1, -1)
    across = window[None, None, None, :].expand(channels, -1, -1, -1)
    return functional.conv2d(functional.conv2d(x, down, groups=channels), across, groups=channels)


def views_of(views: int | Sequence[str]) -> tuple[str, ...]:
    """Return the names of views: those given, or the first so many.

    Raises:
        ValueError: for numbers and names that there are not, and for a name twice.

    Example:
        >>> views_of(2)
        ('identity', 'mirror')
    """
    if isinstance(views, int | np.integer) and not isinstance(views, bool):
        if not 1 <= views <= len(VIEWS):
            raise ValueError(f"views is a number from 1 to {len(VIEWS)}; {views} was given")
        return tuple(VIEWS)[: int(views)]
    names = [] if isinstance(views, str) or not isinstance(views, Iterable) else list(views)
    if not names or any(names.count(name) > 1 or name not in list(VIEWS) for name in names):
        raise ValueError(f"views are a whole number or different ones of {', '.join(VIEWS)}; {views!r} was given")
    return tuple(names)
