"""The encoder of a generator that is there already: where a search for a picture begins, from its plain reconstruction.

The generator itself is the teacher. What an encoder sees are pictures as plain reconstructions show them, and what it
is judged by is the picture that the generator makes of its latent, beside the whole one.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iagan_lightning.generators import (
    Encoder,
    EncoderNetwork,
    Generator,
    load_generator,
    save_encoder,
    save_generator,
)
from iagan_lightning.generators.base import fingerprint
from iagan_lightning.generators.encoder import COARSE
from iagan_lightning.generators.files import ARCHITECTURES
from iagan_lightning.methods.presets import searched_space
from iagan_lightning.methods.test_time_module import GeneratorLike
from iagan_lightning.training.base import PriorTraining, check_settings
from iagan_lightning.training.degraded import degraded, enlarged
from iagan_lightning.training.similarity import similarity_of

CLIP = 1.0  # largest norm of the gradient
RIDGE = 20.0  # of the linear part's equations
NEARER = 0.6  # latents of pictures lie nearer to the middle than draws do
PART = 16  # pictures at once


class EncoderTraining(PriorTraining):
    r"""Train an encoder E for a generator G, which stays as it is.

    With plain reconstructions p(x) of pictures x, for measurements drawn at random (``training.degraded``), a step
    minimises

    .. math:: |\hat x - x|^2 + \lambda_p \mathrm{LPIPS}(\hat x, x) + \lambda_z |z|^2,
        \qquad z = E(p(x)), \quad \hat x = G(z),

    all squares as means: far out G shows no pictures of its kind. With style generators z stands for whitened w. The
    linear part of E begins at the least squares of pictures that G itself makes.

    The folder of the training then holds G and, in the folder ``encoders`` beside it, E: ``IAGAN`` with ``fast`` begins
    with it (``Generator.encode``).

    Args:
        generator: name of a prior or file of weights, or either of these as weights beside settings.
        widths: channels of the encoder at 32, 16 and 8 pixels, multiples of 8 from the second on.
        last: channels at 8 x 8 that its second linear layer sees.
        space: latent space of the generator that the encoder leads to; None for w of style generators, z otherwise.
        perceptual: weight of LPIPS (SqueezeNet, whose weights are fetched unless this is 0); .1 keeps what coarse
            pictures become from being blurred.
        length: weight of the latent's mean square.
        samples: pictures of G's own that begin the linear part; 0 for none.
        lr: learning rate of Adam.
        cooldown: last steps, over which the learning rate falls to 0.
        average: decay of the exponential moving average of E, which is what is stored; 0 stores E itself.

    Raises:
        ValueError: for a generator that cannot be stored, is not of square pictures in colour, or for settings that are
            not allowed.
    """

    method = "encoder"

    def __init__(
        self,
        generator: GeneratorLike = "faces128",
        widths: tuple[int, int, int] = (32, 64, 80),
        last: int = 8,
        space: str | None = None,
        perceptual: float = 0.0,
        length: float = 1e-3,
        samples: int = 4000,
        lr: float = 1e-3,
        cooldown: int = 2000,
        average: float = 0.998,
    ) -> None:
        G = copy.deepcopy(generator) if isinstance(generator, Generator) else load_generator(generator)
        self.space = space or searched_space(G.schedule, "fast")
        _check(G, self.space)
        network = EncoderNetwork(G.spaces[self.space][0], widths, last)
        super().__init__(G.requires_grad_(False), average, network)
        check_settings(lr, cooldown, perceptual=perceptual, length=length, samples=samples)
        self.save_hyperparameters(ignore=["generator"], logger=False)
        self.hparams["generator"] = fingerprint(G)  # wherever its file lies: another one is another training
        self.encoder = network
        self._similarity: list[nn.Module] = []  # in a list: no part of the state

    @property
    def network(self) -> nn.Module:
        """The encoder."""
        return self.encoder

    def on_fit_start(self) -> None:
        """Load the network whose features are compared, where the loss compares them."""
        if self.hparams["perceptual"]:
            self._similarity = [similarity_of(self, "--model.perceptual 0").to(self.device)]

    def on_train_start(self) -> None:
        """Begin the linear part, unless a training goes on."""
        self.generator.eval()
        if self.global_step == 0 and self.hparams["samples"]:
            if self.trainer.is_global_zero:
                count = self.hparams["samples"]
                print(f"iagan: begins with {count:,} of the generator's own pictures", file=sys.stderr, flush=True)
            with torch.no_grad():
                begin_linear(self.encoder, self._own(self.hparams["samples"]))
            self.averaged.load_state_dict(self.encoder.state_dict())

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        """Make one step of the encoder."""
        settings, optimizer = self.hparams, self.optimizers()
        assert not isinstance(optimizer, list)
        rate = self.cool(optimizer)
        x = batch.to(self.first_bad.device, torch.float32) / 127.5 - 1
        z = self.encoder(self.plain(x))
        made = self._picture(z)
        squares, length = F.mse_loss(made.float(), x), z.float().square().mean()
        loss = squares + settings["length"] * length
        logged = {"MSE": squares, "length": length, "lr": torch.tensor(rate)}
        if self._similarity:
            logged["LPIPS"] = self._similarity[0](made.clamp(-1.2, 1.2), x).mean()
            loss = loss + settings["perceptual"] * logged["LPIPS"]
        optimizer.zero_grad()
        self.manual_backward(loss)
        nn.utils.clip_grad_norm_(self.encoder.parameters(), CLIP)
        optimizer.step()
        self.update_average()
        return {name: value.detach() for name, value in logged.items()}

    def plain(self, x: Tensor) -> Tensor:
        """Return what this step's plain reconstructions of pictures look like."""
        return degraded(x, self.draw("plain"), self.share)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam for the encoder."""
        return torch.optim.AdamW(
            self.encoder.parameters(), lr=self.hparams["lr"], betas=(0.9, 0.99), weight_decay=1e-3, fused=True
        )

    @torch.no_grad()
    def decoded(self, x: Tensor) -> Tensor:
        """Return what the generator makes of the encoder's latents of images at a quarter of their size, with noise."""
        draw = torch.Generator().manual_seed(0)
        plain = enlarged(x, 4, 10 / 255, torch.randn(x.shape, generator=draw, dtype=torch.float32))
        like = next(self.generator.parameters())
        z = self.averaged(plain.to(like))
        return torch.cat([self._picture(part).float().cpu() for part in z.split(PART)])

    def prior(self) -> Generator:
        """Return the generator, which stays as it is."""
        return self.generator

    def save(self, path: str | Path, data: str, half: bool = True) -> None:
        """Write the generator, as it is, unless that is there already, and its encoder in the folder beside it."""
        G, path = self.prior(), Path(path)
        if not path.exists():
            save_generator(G, path)
        save_encoder(Encoder(copy.deepcopy(self.averaged).cpu(), space=self.space), G, path, self.note(data))

    def _picture(self, z: Tensor) -> Tensor:
        """Return the pictures of latents."""
        image: Tensor = self.generator(z) if self.space == "z" else self.generator(z, space=self.space)
        return image

    def _own(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield plain reconstructions of pictures that the generator makes, and their latents."""
        like = next(self.generator.parameters())
        latents = self.generator.sample_latent(count, seed=1).to(like)
        if self.space != "z":
            latents = torch.cat([self.generator(part, to=self.space) for part in latents.split(PART)])
        latents[count // 4 :] *= NEARER
        draw = torch.Generator().manual_seed(2)
        for z in latents.split(PART):
            x = self._picture(z).clamp(-1, 1)
            yield degraded(x, draw), z


@torch.no_grad()
def begin_linear(network: EncoderNetwork, seen: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Give the linear part of an encoder its least squares, and let the rest begin small.

    Args:
        network: whose weights change.
        seen: pictures ``(n, C, H, W)`` as the network sees them, and the latents that are wanted.

    Example:
        >>> network = EncoderNetwork(latent=2, widths=(2, 8, 8), last=2)
        >>> x = torch.randn(3000, 3, 16, 16)
        >>> begin_linear(network, [(x, 0.1 * x[:, :2].flatten(2).sum(2))])
        >>> bool((network.coarse.weight[0, :256] - 0.1).abs().max() < 0.01)
        True
    """
    coarse = network.coarse
    size = coarse.in_features + 1
    left, right = torch.zeros(size, size).double(), torch.zeros(size, coarse.out_features).double()
    for x, wanted in seen:
        row = F.pad(F.adaptive_avg_pool2d(x, COARSE).flatten(1), (0, 1), value=1.0).double().cpu()
        left += row.T @ row
        right += row.T @ wanted.double().cpu()
    weights = torch.linalg.solve(left + RIDGE * torch.eye(size), right).to(coarse.weight)
    coarse.weight.copy_(weights[:-1].T)
    coarse.bias.copy_(weights[-1])
    final = network.layers[-1]
    assert isinstance(final, nn.Linear)
    final.weight.mul_(0.1)
    final.bias.zero_()


def _check(G: Generator, space: str) -> None:
    """Raise ValueError for a generator that an encoder cannot be trained for, or not be stored beside."""
    G.require_space(space)
    (colours, height, width), shape = G.image_shape, G.spaces[space]
    if colours != 3 or height != width or len(shape) != 1 or space not in G.centred:
        raise ValueError(
            "EncoderTraining takes a generator of square pictures in colour, from z or w, of one dimension; this one "
            f"makes {colours} x {height} x {width} of {tuple(shape)} in {space}"
        )
    if type(G) not in ARCHITECTURES.values():
        raise ValueError(
            f"{type(G).__name__} cannot be stored, and an encoder lies beside its generator's file: known are "
            f"{', '.join(ARCHITECTURES)}"
        )
