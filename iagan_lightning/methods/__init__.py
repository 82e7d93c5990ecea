"""What is optimised, in which order: methods as plans of fits over a generator's latents and weights."""

from iagan_lightning.methods.adaptation import adapt
from iagan_lightning.methods.csgm import CSGM
from iagan_lightning.methods.dip import DIP, DIPSettings
from iagan_lightning.methods.fit import Fit, Iterate
from iagan_lightning.methods.iagan import IAGAN
from iagan_lightning.methods.ilo import ILO
from iagan_lightning.methods.presets import Preset
from iagan_lightning.methods.settings import FitSettings, Stage
from iagan_lightning.methods.test_time_module import TestTimeModule
from iagan_lightning.plugins import load, registered

METHODS: dict[str, type[TestTimeModule]] = {"iagan": IAGAN, "csgm": CSGM, "ilo": ILO, "dip": DIP}


def method_named(name: str) -> type[TestTimeModule]:
    """Return a method's class by its name: one of ``METHODS``, or one that another package registers.

    Example:
        >>> method_named("CSGM").__name__
        'CSGM'

    Raises:
        ValueError: for a name that nobody has registered.
    """
    if name.lower() in METHODS:
        return METHODS[name.lower()]
    if name not in (others := registered("methods")):
        raise ValueError(f"method is one of {', '.join([*METHODS, *others])}; {name!r} was given")
    kind: type[TestTimeModule] = load("methods", name)
    return kind


__all__ = [
    "CSGM",
    "DIP",
    "IAGAN",
    "ILO",
    "METHODS",
    "DIPSettings",
    "Fit",
    "FitSettings",
    "Iterate",
    "Preset",
    "Stage",
    "TestTimeModule",
    "adapt",
    "method_named",
]
