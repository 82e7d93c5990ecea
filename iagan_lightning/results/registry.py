"""What is shown of a result: the metrics, how each is called and judged, and those of one's own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from torch import Tensor

from iagan_lightning.plugins import load, registered

Better = Literal["high", "low"] | None
Function = TypeVar("Function", bound=Callable[..., Tensor])
KNOWN = ("x", "y", "operator", "truth", "noise_std")  # what a metric may ask for


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
        title: its name in tables.
        better: ``high`` or ``low``; None where neither is.
        unit: after the title.
        format: digits after the point, or ``e`` for powers of ten.
    """

    title: str
    better: Better
    unit: str = ""
    format: str = "4"


METRICS: dict[str, Metric] = {
    "psnr": Metric("PSNR", "high", "dB", "2"),
    "ssim": Metric("SSIM", "high"),
    "lpips_alex": Metric("LPIPS alex", "low"),
    "lpips_vgg": Metric("LPIPS vgg", "low"),
    "lpips_squeeze": Metric("LPIPS squeeze", "low"),
    "residual": Metric("Residual", "low", "|Ax - y| / |y|", "e"),
    "residual_sigma": Metric("Residual / noise", None, "1 = truth", "2"),
}
# Figures that are not shown, and what else stands beside figures in metrics.json, summaries, tables, shards and pages.
RESERVED = frozenset(
    ["mse", "residual_8bit", "row_space_mse", "null_space_mse", "psnr_of_mean_mse", "n", "image", "method", "result",
     "title", "run", "evaluations", "seconds"]
)  # fmt: skip
OWN: dict[str, Callable[..., Tensor]] = {}  # functions of metrics that are not ours, by name


def metric(
    name: str | None = None,
    *,
    title: str | None = None,
    better: Better = None,
    unit: str = "",
    format: str = "4",  # noqa: A002
) -> Callable[[Function], Function]:
    """Register a function as a metric: it appears in metrics.json, the tables and the report.

    The function names what it needs as its parameters: ``x``, images ``(B, C, H, W)`` in [-1, 1], not clamped;
    ``truth``, ``y``, ``operator``, ``noise_std``. It returns ``(B,)`` numbers. One that needs the truth or the
    level of the noise is left out where that is unknown.

    Args:
        name: its key in metrics.json; the function's by default.
        title, better, unit, format: see ``Metric``.

    Raises:
        ValueError: for a name that is taken, or a parameter that no metric gets.

    Example:
        >>> import torch
        >>> @metric(title="Largest error", better="low")
        ... def largest_error(x, truth):
        ...     return (x - truth).abs().flatten(1).amax(1) / 2
        >>> own_metrics(torch.zeros(1, 3, 4, 4), truth=torch.ones(1, 3, 4, 4))["largest_error"].tolist()
        [0.5]
        >>> del METRICS["largest_error"], OWN["largest_error"]
    """

    def register(function: Function) -> Function:
        key = name or function.__name__
        if key in RESERVED or (key in METRICS and key not in OWN):  # one's own may be defined anew, as in a notebook
            raise ValueError(f"there is a metric {key} already: give yours another name")
        if surplus := set(inspect.signature(function).parameters) - set(KNOWN):
            raise ValueError(f"a metric may ask for {', '.join(KNOWN)}; {key} asks for {', '.join(sorted(surplus))}")
        METRICS[key], OWN[key] = Metric(title or key, better, unit, format), function
        return function

    return register


def own_metrics(x: Tensor, **given: Any) -> dict[str, Tensor]:
    """Return the registered metrics of a batch of images, ``(B,)`` each.

    Args:
        x: images.
        **given: what else metrics may ask for; one that needs something that is absent or None is left out.

    Raises:
        ValueError: for a metric that does not return one number per image.
    """
    _load_registered()
    values = {"x": x, **{name: value for name, value in given.items() if value is not None}}
    found = {}
    for name, function in OWN.items():
        wanted = inspect.signature(function).parameters
        if all(parameter in values for parameter in wanted):
            numbers = function(**{parameter: values[parameter] for parameter in wanted})
            if not isinstance(numbers, Tensor) or tuple(numbers.shape) != (len(x),):
                got = tuple(numbers.shape) if isinstance(numbers, Tensor) else f"a {type(numbers).__name__}"
                raise ValueError(f"metric {name} returns a tensor of one number per image, ({len(x)},); got {got}")
            found[name] = numbers
    return found


def about_own() -> dict[str, dict[str, Any]]:
    """Return how metrics that are not ours are shown, for files that are read elsewhere."""
    return {name: asdict(METRICS[name]) for name in OWN}


def shown(about: Mapping[str, Mapping[str, Any]]) -> dict[str, Metric]:
    """Return all metrics that can be shown: ours, and those that files tell about.

    Example:
        >>> list(shown({"mae": {"title": "MAE", "better": "low"}}))[-1]
        'mae'
    """
    fields = ("title", "better", "unit", "format")
    others = {name: Metric(**{key: row[key] for key in fields if key in row}) for name, row in about.items()}
    return {**METRICS, **others}


@functools.cache
def _load_registered() -> None:
    for name in registered("metrics"):
        function = load("metrics", name)
        if function not in OWN.values():
            metric(name)(function)
