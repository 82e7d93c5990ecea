"""ILO: between the latent and the weights, the features behind the first layers."""

from __future__ import annotations

from typing import Literal

from iagan_lightning.methods.csgm import CSGM
from iagan_lightning.methods.fit import Fit, Init
from iagan_lightning.methods.iagan import IAGAN
from iagan_lightning.methods.presets import Preset
from iagan_lightning.methods.settings import Stage, stage_of
from iagan_lightning.methods.test_time_module import GeneratorLike


class ILO(IAGAN):
    r"""Intermediate layer optimisation: search the latent, then the features behind the first layers, then the weights.

    The features stay within a ball around where they began, :math:`|f - f_0| \le r |f_0|`: the further they go, the
    less they are those of a picture that the generator knows. Three fits: ``latent`` (result ``csgm``), ``features``
    (``ilo``) and ``joint`` (``iagan``), in which the layers behind the features adapt.

    Args:
        generator: as for ``IAGAN``; it needs the latent space ``features-depth``.
        preset: ``fast``, ``best`` or ``paper``.
        latent, features, joint: settings of the three fits.
        space, init: what the latent stage searches, and where it begins, as for ``CSGM``.
        depth: height and width of the features; None takes those at an eighth of the image's height.
        radius: r.
        memory_format, compile, logged: as for ``IAGAN``.

    Raises:
        ValueError: for a depth that the generator does not have, or a radius that is not above 0.

    Source: Daras, Dean, Jalal and Dimakis, Intermediate Layer Optimization for Inverse Problems using Deep Generative
    Models, ICML 2021 (there the ball is that of :math:`\ell_1`, and weights do not adapt).
    """

    def __init__(
        self,
        generator: GeneratorLike = "faces128",
        preset: Preset = "fast",
        latent: Stage = Stage(),  # noqa: B008 - frozen dataclass
        features: Stage = Stage(),  # noqa: B008
        joint: Stage = Stage(),  # noqa: B008
        space: str | None = None,
        init: Init | None = None,
        depth: int | None = None,
        radius: float = 0.1,
        memory_format: Literal["channels_last", "contiguous"] = "channels_last",
        compile: bool = False,  # noqa: A002 - PyTorch's name for it
        logged: bool = False,
    ) -> None:
        super().__init__(generator, preset, latent, joint, space, init, memory_format, compile, logged)
        if not radius > 0:
            raise ValueError(f"radius is above 0; {radius} was given")
        self.given["features"] = stage_of(features)
        self.behind, self.radius = f"features-{depth or self.generator.image_shape[1] // 8}", radius
        self.generator.require_space(self.behind)

    def configure_fits(self) -> list[Fit]:
        """Return the searches for z and for the features, then that for features and weights."""
        features = Fit(
            "features", self.resolve("features"), self.behind, init="latent", result="ilo", radius=self.radius
        )
        return [*CSGM.configure_fits(self), features, *self.joint_fits("features", self.behind)]
