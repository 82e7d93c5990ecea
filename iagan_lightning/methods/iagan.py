"""IAGAN: the latent, then the latent and the weights of the generator, for each image."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

from iagan_lightning.generators import finer_weights, full_resolution_weights
from iagan_lightning.methods.csgm import CSGM
from iagan_lightning.methods.fit import ENCODER, Fit, Init, everything, nothing
from iagan_lightning.methods.presets import BEFORE_WEIGHTS, Kind, Preset, searched_space
from iagan_lightning.methods.settings import Frozen, Stage, stage_of
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
        preset: ``fast``; ``best``, the same in two views, averaged; ``paper``, the published schedule. Fills what
            ``latent`` and ``joint`` leave open.
        latent, joint: settings of the two stages.
        space: latent space of the generator that is searched, such as z, w or w+; None for w of style generators with
            ``fast``, z otherwise.
        init: where the search begins: ``draw``, random z; ``mean``, the middle; ``encoder``, near the code of the plain
            reconstruction, where the generator has an encoder. None is ``encoder`` with ``fast`` where there is one,
            and the search that short then; otherwise it draws in z, and begins in the middle of other spaces. With
            restarts in ``latent`` it draws.
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
        space: str | None = None,
        init: Init | None = None,
        memory_format: Literal["channels_last", "contiguous"] = "channels_last",
        compile: bool = False,  # noqa: A002 - PyTorch's name for it
        logged: bool = False,
    ) -> None:
        super().__init__(generator, preset, latent, space, init, memory_format, compile, logged)
        self.given["joint"] = stage_of(joint)
        self._left: dict[int, frozenset[str]] = {}  # weights that keep their values, by the finest features that adapt

    def configure_fits(self) -> list[Fit]:
        """Return the search for z, then that for z and weights, with a probe before it where a rule wants one."""
        [latent] = super().configure_fits()
        return [self._followed(latent), *self.joint_fits("latent", self.space)]

    def is_calibrated(self, *kinds: Kind) -> bool:
        """Tell whether fits of these kinds are those of ``fast``, for noise of known level: so priors are measured."""
        usual = self.init is None and self.space == searched_space(self.generator.schedule, "fast")
        known = type(self) is IAGAN and self.preset != "paper" and self.noise_std is not None
        return usual and known and all(self.given[kind] == Stage() for kind in kinds)

    def _followed(self, latent: Fit) -> Fit:
        """Return the search for the latent as ``fast`` has it where the weights follow: shorter, where it begins well.

        That is with an encoder's code, where the generator has one for this space; in w of style generators without
        one in the middle.
        """
        if self.preset == "paper" or latent.settings.restarts > 1:
            return latent
        init = latent.init
        if self.space == self.generator.code_space and self.init in (None, ENCODER) and self.can_encode:
            init = ENCODER
        if (self.space, init) not in BEFORE_WEIGHTS:
            return latent
        steps = self.given["latent"].steps or BEFORE_WEIGHTS[self.space, init]
        return replace(latent, init=init, settings=replace(latent.settings, steps=steps))

    def joint_fits(self, init: str, space: str = "z") -> list[Fit]:
        """Return the joint fit that begins where an earlier one ended, and the probe that its rule may want."""
        settings = self.resolve("joint")
        adapts = everything if settings.frozen == "none" else partial(self._adapts, self._finest(settings.frozen))
        if not any(adapts(name) for name, _ in self.generator.named_parameters()):
            adapts = nothing  # of a y of one pixel, say, all layers are finer
        joint = Fit("joint", settings, space, adapts, init, "iagan")
        return [Fit("probe", settings, space, adapts, init), joint] if settings.stop == "held-out" else [joint]

    def _finest(self, frozen: Frozen) -> int:
        """Return the height of the finest features whose layers may adapt, which is the image's where all may."""
        image = self.generator.image_shape[1]
        return min(2 * self.measured_height, image) if frozen == "finer" else image

    def _adapts(self, finest: int, name: str) -> bool:
        """Tell whether a weight is not among those that keep their values."""
        if finest not in self._left:
            G = self.generator
            self._left[finest] = finer_weights(G, finest) if finest < G.image_shape[1] else full_resolution_weights(G)
        return name not in self._left[finest]
