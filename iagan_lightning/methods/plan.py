"""What a plan of fits has to be: in itself, and for the method that is to carry it out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from iagan_lightning.methods.fit import DRAW, ENCODER, MEAN, Fit, nothing
from iagan_lightning.methods.views import IDENTITY

if TYPE_CHECKING:
    from iagan_lightning.generators import Generator
    from iagan_lightning.methods.test_time_module import TestTimeModule

PICTURES = ("truth", "measurement", "mask", "uncertainty", "comparison")  # of an image, beside its results
NAMED = 3  # weights, in a message


def check_plan(fits: Sequence[Fit]) -> None:
    """Raise ValueError for a plan that cannot be carried out: names twice, beginnings that do not come first, ...

    Example:
        >>> check_plan([Fit("latent", result="csgm"), Fit("joint", init="lattent")])
        Traceback (most recent call last):
        ...
        ValueError: fit joint begins with lattent, which is no fit before it: draw, mean, encoder or one of latent
    """
    if not fits:
        raise ValueError("configure_fits returned no fit: a method has one at least")
    for kind, names in (("fits", [fit.name for fit in fits]), ("results", [fit.result for fit in fits if fit.result])):
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two {kind} of a plan have the same name: {', '.join(sorted(twice))}")
    before: list[str] = []
    for fit in fits:
        if fit.init not in (DRAW, MEAN, ENCODER, *before):
            raise ValueError(
                f"fit {fit.name} begins with {fit.init}, which is no fit before it: draw, mean, encoder or one "
                f"of {', '.join(before) or 'none'}"
            )
        if fit.result is not None:
            before.append(fit.name)
    if fits[-1].result is None:
        raise ValueError(f"the last fit, {fits[-1].name}, has no result: name it")
    results = [fit.result for fit in fits if fit.result is not None]
    made = {f"{result}{end}" for result in results for end in ("_bp", "_mean")}
    check_result_names(results, ["naive", *made])
    for number, fit in enumerate(fits):
        if fit.space is None and fit.adapts is nothing:
            raise ValueError(f"fit {fit.name} searches no latent (space) and no weights (adapts): give one of them")
        if fit.settings.restarts > 1 and fit.init not in (DRAW, ENCODER):
            raise ValueError(
                f"fit {fit.name} begins with {fit.init}, of which there is one, and has {fit.settings.restarts} "
                f"restarts: leave them out, or begin with {DRAW} or {ENCODER}"
            )
        if fit.settings.stop == "held-out" and all(earlier.result is not None for earlier in fits[: number + 1]):
            raise ValueError(
                f"fit {fit.name} ends by held-out measurements, and no probe before it tells when: put the same fit "
                "without a result before it, or choose another stop"
            )


def check_result_names(names: Iterable[str], taken: Collection[str] = ()) -> None:
    """Raise ValueError for a name of a result that no file can have, or that is another picture's or taken.

    Example:
        >>> check_result_names(["truth"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: 'truth' is no name of a result: it is a file's name, and naive, truth, measurement, ...
    """
    for name in names:
        if name in (*PICTURES, *taken) or not name or set(name) & set("/\\"):
            raise ValueError(
                f"{name!r} is no name of a result: it is a file's name, and naive, {', '.join(PICTURES)}, RESULT_bp "
                "and RESULT_mean are others' already"
            )


def check_feasible(fits: Sequence[Fit], module: TestTimeModule) -> None:
    """Raise ValueError for a fit that the module's generator, its operator or its noise level do not allow."""
    if module.overrides("forward") and any(fit.view != IDENTITY for fit in fits):
        raise ValueError(f"{type(module).__name__} makes its pictures itself (forward): it has no other views")
    for fit in fits:
        if module.image_shape is not None:
            _check_variables(fit, module)
        if fit.settings.stop == "noise" and module.noise_std is None:
            raise ValueError(
                f"fit {fit.name} ends at the noise level, and that is unknown: give noise_std, or another stop"
            )
        if fit.init == ENCODER and not module.can_encode:
            raise ValueError(
                f"fit {fit.name} begins with encoder, which needs a generator that has one and an operator with a "
                "plain reconstruction: draw or mean"
            )
        if fit.init == ENCODER and fit.space is not None:
            _check_way(fit, module.generator)
        if fit.settings.stop == "held-out" and module.overrides("misfit"):
            raise ValueError(f"{type(module).__name__} has a misfit of its own: held-out measurements cannot be told")


def _check_way(fit: Fit, generator: Generator) -> None:
    """Raise ValueError where no way leads from what the encoder gives to the space that is searched."""
    space = str(fit.space)
    try:
        generator.require_way(generator.code_space, space)
    except ValueError as error:
        raise ValueError(
            f"fit {fit.name} begins with encoder, whose latents lie in {generator.code_space}, and searches {space}: "
            f"{error}"
        ) from error


def _check_variables(fit: Fit, module: TestTimeModule) -> None:
    """Raise ValueError for a fit in a space that the generator has not, or of weights none of which may adapt."""
    if fit.space is not None:
        module.generator.require_space(fit.space)
    names = [name for name, _ in module.generator.named_parameters()]
    wanted = {name for name in names if fit.adapts(name)}
    if fit.adapts is not nothing and not wanted:
        raise ValueError(
            f"fit {fit.name} adapts weights, and says so of none that the generator has: their names are those of "
            f"generator.named_parameters(), {', '.join(names[:NAMED])} and so on"
        )
    if wanted and not module.trainable & wanted:
        raise ValueError(
            f"all weights that fit {fit.name} adapts came frozen (requires_grad is False): unfreeze those that may "
            "adapt, G.requires_grad_(True), or choose a method that searches latents alone, such as CSGM"
        )
