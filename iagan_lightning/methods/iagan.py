"""IAGAN: the latent, then the latent and the weights of the generator, for each image."""

from __future__ import annotations

from typing import Literal

from iagan_lightning.generators import full_resolution_weights
from iagan_lightning.methods.csgm import CSGM
from iagan_lightning.methods.fit import Fit, everything
from iagan_lightning.methods.presets import Preset
from iagan_lightning.methods.settings import Stage, stage_of
from iagan_lightning.methods.test_time_module import GeneratorLike


class IAGAN(CSGM):
    r"""Image-adaptive reconstruction of images from :math:`y = A x + e`.

    Latent stage (CSGM, Eq. 2): minimise :math:`|y - A G(z)|^2` over z, the generator frozen. Joint stage (IAGAN,
    Eq. 3): minimise :math:`|y - A G_\theta(z)|^2` over z and all weights, from the best z, with a fresh optimiser.
    Where the noise level is unknown, a ``probe`` between them, a joint stage on a part of the measurements, finds out
    how many evaluations explain the held-out rest best.

    Use ``reconstruct`` for the whole method, or bring a Trainer and callbacks::

        module = IAGAN(generator, preset="fast")
        module.begin(y, A, noise_std=0.0, seeds=[0])
        adapt(module, trainer)
        module.results["iagan"]  # (B, C, H, W)

    Args:
        generator: a Generator, or a prior's name (faces128, began64, ffhq1024: iagan priors), a file of weights
            (.safetensors, a PyTorch state dict, a pickle of NVIDIA's), either of these as weights beside settings
            (label, noise, framing), or a class_path with init_args and, for a class that is no Generator,
            latent_shape, latent_distribution and value_range; weights names its file. It is copied, never changed.
        preset: ``fast``, or ``paper`` for the published schedule. Fills what ``latent`` and ``joint`` leave open.
        latent, joint: settings of the two stages.
        memory_format: ``channels_last`` is faster for convolutions, ``contiguous`` is PyTorch's plain layout.
        compile: let ``torch.compile`` translate the generator before the first evaluation of each stage. That takes
            longer than an image with the fast preset, and is meant for many images on a GPU; on a CPU it gains nothing.
        logged: also hand objective, misfit and residual of every evaluation to Lightning's loggers.

    Source: Abu Hussein, Tirer and Giryes, Image-Adaptive GAN based Reconstruction, AAAI 2020.
    """

    def __init__(
        self,
        generator: GeneratorLike = "faces128",
        preset: Preset = "fast",
        latent: Stage = Stage(),  # noqa: B008 - frozen dataclass
        joint: Stage = Stage(),  # noqa: B008
        memory_format: Literal["channels_last", "contiguous"] = "channels_last",
        compile: bool = False,  # noqa: A002 - PyTorch's name for it
        logged: bool = False,
    ) -> None:
        super().__init__(generator, preset, latent, memory_format, compile, logged)
        self.given["joint"] = stage_of(joint)
        self._full_resolution: frozenset[str] | None = None

    def configure_fits(self) -> list[Fit]:
        """Return the search for z, then that for z and weights, with a probe before it where a rule wants one."""
        return [*super().configure_fits(), *self.joint_fits("latent")]

    def joint_fits(self, init: str, space: str = "z") -> list[Fit]:
        """Return the joint fit that begins where an earlier one ended, and the probe that its rule may want."""
        settings = self.resolve("joint")
        adapts = everything if settings.frozen == "none" else self._adapts
        joint = Fit("joint", settings, space, adapts, init, "iagan")
        return [Fit("probe", settings, space, adapts, init), joint] if settings.stop == "held-out" else [joint]

    def _adapts(self, name: str) -> bool:
        """Tell whether a weight belongs to no hidden layer at full resolution."""
        if self._full_resolution is None:
            self._full_resolution = full_resolution_weights(self.generator)
        return name not in self._full_resolution
