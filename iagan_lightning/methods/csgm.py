"""CSGM: the best image in the generator's range."""

from __future__ import annotations

from typing import Literal

from iagan_lightning.methods.fit import DRAW, MEAN, Fit, Init
from iagan_lightning.methods.presets import BEST_VIEWS, Kind, Preset, resolve, searched_space
from iagan_lightning.methods.settings import FitSettings, Stage, stage_of
from iagan_lightning.methods.test_time_module import GeneratorLike, TestTimeModule


class CSGM(TestTimeModule):
    r"""Compressed sensing with a generative model: minimise :math:`|y - A(G(z))|^2` over z, the generator frozen.

    One fit, ``latent``, with the result ``csgm``.

    Args:
        generator: a Generator, or a prior's name (faces128, began64, ffhq1024: iagan priors), a file of weights
            (.safetensors, a PyTorch state dict, a pickle of NVIDIA's), either of these as weights beside settings
            (label, noise, framing), or a class_path with init_args and, for a class that is no Generator,
            latent_shape, latent_distribution and value_range; weights names its file.
        preset: ``fast``; ``best``, the same in two views, averaged; ``paper``, the published schedule. Fills what
            ``latent`` leaves open.
        latent: settings of the fit.
        space: latent space of the generator that is searched, such as z, w or w+; None for w of style generators with
            ``fast``, z otherwise.
        init: where the search begins: ``draw``, random z; ``mean``, the middle; ``encoder``, near the code of the plain
            reconstruction, where the generator has an encoder. None draws in z, and begins in the middle of other
            spaces, unless ``latent`` has restarts.
        memory_format: ``channels_last`` is faster for convolutions, ``contiguous`` is PyTorch's plain layout.
        compile: let torch.compile translate the generator: for many images on a GPU.
        logged: also hand objective, misfit and residual of every evaluation to Lightning's loggers.

    Source: Bora, Jalal, Price and Dimakis, Compressed Sensing using Generative Models, ICML 2017.
    """

    def __init__(
        self,
        generator: GeneratorLike = "faces128",
        preset: Preset = "fast",
        latent: Stage = Stage(),  # noqa: B008 - frozen dataclass
        space: str | None = None,
        init: Init | None = None,
        memory_format: Literal["channels_last", "contiguous"] = "channels_last",
        compile: bool = False,  # noqa: A002 - PyTorch's name for it
        logged: bool = False,
    ) -> None:
        super().__init__(generator, memory_format, compile, logged)
        self.preset: Preset = preset
        self.preset_views = BEST_VIEWS if preset == "best" else 1
        self.given: dict[Kind, Stage] = {"latent": stage_of(latent)}
        self.space = space or searched_space(self.generator.schedule, preset)
        self.generator.require_space(self.space)
        self.init = init

    def configure_fits(self) -> list[Fit]:
        """Return the search for the latent alone."""
        settings = self.resolve("latent")
        init = self.init or (DRAW if self.space == "z" or settings.restarts > 1 else MEAN)
        return [Fit("latent", settings, self.space, init=init, result="csgm")]

    def resolve(self, kind: Kind) -> FitSettings:
        """Return the settings of a fit of this kind, nothing left open."""
        longer = self.operator is not None and self.operator.compressed_sensing
        schedule, height = self.generator.schedule, self.generator.image_shape[1]
        smaller = self.measured_height < height
        return resolve(kind, self.given[kind], self.preset, self.noise_std, longer, schedule, height, smaller)

    @property
    def measured_height(self) -> int:
        """Height of y where it is the whole picture at some size; the image's where it is not, or not given yet.

        Some rows of a picture, say, are no smaller one: their proportions are others.
        """
        shape: tuple[int, ...] = () if self.operator is None else self.operator.measurement_shape
        _, height, width = self.generator.image_shape
        return int(shape[1]) if len(shape) == 3 and shape[1] * width == shape[2] * height else height
