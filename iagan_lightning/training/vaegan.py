"""A variational auto-encoder with a learned similarity and a projected discriminator: a prior for little computing.

BEGAN's auto-encoder is its discriminator and costs twice the generator. Here a small encoder tells the generator
which picture to make, so that it learns from every pixel from the first step on, and the discriminator looks at
features of a fixed network, which costs next to nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from iagan_lightning.checks import check_choice
from iagan_lightning.generators import BEGAN, Pyramid
from iagan_lightning.generators.began import blocks_of
from iagan_lightning.generators.codes import root_of_covariance, take_standard_normal
from iagan_lightning.safety import check_archive
from iagan_lightning.training.base import PriorTraining, check_settings, mean_over_processes
from iagan_lightning.training.record import some
from iagan_lightning.training.similarity import similarity_of

Architecture = Literal["began", "pyramid"]


class Encoder(nn.Module):
    """Mean and logarithm of the variance of the code of each picture, from a small version of it.

    Shapes: images ``(B, 3, N, N)`` -> two ``(B, latent)``.
    """

    def __init__(self, latent: int, size: int = 32, channels: int = 32, widest: int = 256) -> None:
        super().__init__()
        self.size = size
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.ELU()]
        width = channels
        for _ in range((size // 4).bit_length() - 1):  # down to 4 x 4
            incoming, width = width, min(widest, 2 * width)
            layers += [nn.Conv2d(incoming, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.ELU()]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.ELU()]
        self.layers = nn.Sequential(*layers)
        self.code = nn.Linear(16 * width, 2 * latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance."""
        small = F.adaptive_avg_pool2d(x, self.size)
        mean, log_variance = self.code(self.layers(small).flatten(1)).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-10, 4)


class Critic(nn.Module):
    """Discriminator heads, one for each of the first feature maps of a fixed network.

    Shapes: list of ``(B, C_i, h_i, w_i)`` -> ``(B, sum of h_i w_i)``, positive for what looks real.

    Source: Sauer et al., Projected GANs Converge Faster, NeurIPS 2021.
    """

    def __init__(self, channels: tuple[int, ...] = (64, 128, 256, 384), width: int = 32) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(c, width, 1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, width, 3, padding=1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, 1, 1)),
            )
            for c in channels
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return the scores of all places."""
        scores = [head(f).flatten(1) for head, f in zip(self.heads, features, strict=False)]
        return torch.cat([score.mean(1, keepdim=True) for score in scores], dim=1)


class VAEGANTraining(PriorTraining):
    r"""Train a generator as decoder of a variational auto-encoder, sharpened by a discriminator of features.

    The encoder gives a normal distribution of codes c for each picture. Mean and covariance of all codes are followed
    as training goes, so that random codes are drawn as the encoder would give them; folded into the layers that z
    enters they make the stored generator one of standard normal latents. With :math:`\hat x = G(c)` of encoded
    pictures, :math:`\tilde x = G(c)` of random codes and the heads D of the discriminator, a step minimises

    .. math::

        2 |\hat x - x|^2 + \lambda_p \mathrm{LPIPS}(\hat x, x) + \beta \mathrm{KL}
        - \lambda_a \mathrm{mean} (D(\hat x) + D(\tilde x)) / 2

    (the squares as a mean over pixels, KL as a sum over codes), and D the hinge loss. The squares are what CSGM
    measures a prior by; more than a little of the other terms costs it decibels, none of them makes blurred pictures.

    Args:
        resolution: height and width of the images, 64 or 128 (8 times a power of two).
        architecture: ``began``, or ``pyramid``, a generator that narrows as its pictures grow (``Pyramid``).
        channels: channels n of all layers of the generator; those at the highest resolution of a pyramid, which has
            twice as many with each halving, up to six times.
        latent: length of z.
        skip: skip connections in the generator (BEGAN's).
        encoded: height and width that the encoder sees, 32 or another power of two.
        augment: also show pictures moved by up to two pixels and in a little more or less light (their [0, 1] values
            times e to the power of N(0, .06), and of N(0, .03) for each channel): neither needs resampling, which
            would teach blur.
        perceptual: weight of LPIPS (SqueezeNet, whose weights are fetched unless this and ``adversarial`` are 0).
        adversarial: weight of the discriminator, which sees SqueezeNet's features; 0 trains without one, and faster.
        beta: weight of the Kullback-Leibler divergence.
        clip: largest norm of the gradient of G and encoder together; 0 leaves all as they are.
        lr: learning rate of all Adams.
        cooldown: last steps, over which the learning rate falls to 0.
        random: random codes per encoded picture, for the discriminator.
        average: decay of the exponential moving average of G, which is what is stored; 0 stores G itself.
        start: ``last.ckpt`` of a run at half the resolution (or the same): the new layers begin by passing on what they
            get, so that the first pictures are its pictures enlarged.

    Source: Larsen et al., Autoencoding beyond pixels using a learned similarity metric, ICML 2016; Sauer et al.,
    Projected GANs Converge Faster, NeurIPS 2021; density of the codes estimated from them: Ghosh et al., From
    Variational to Deterministic Autoencoders, ICLR 2020.
    """

    method = "VAE-GAN"
    calming = ", or cut gradients with --model.clip 1"

    code_mean: Tensor
    code_square: Tensor

    def __init__(
        self,
        resolution: int = 64,
        channels: int = 64,
        latent: int = 64,
        skip: bool = False,
        architecture: Architecture = "began",
        encoded: int = 32,
        augment: bool = False,
        perceptual: float = 0.05,
        adversarial: float = 0.005,
        beta: float = 1e-5,
        clip: float = 0.0,
        lr: float = 5e-4,
        cooldown: int = 2000,
        random: float = 0.25,
        average: float = 0.999,
        start: str | None = None,
    ) -> None:
        check_choice("model.architecture", architecture, Architecture)
        if architecture == "pyramid" and skip:
            raise ValueError("model.skip is a BEGAN's; a pyramid has shortcuts of its own")
        if encoded < 8 or encoded.bit_count() != 1:
            raise ValueError(f"model.encoded is 8, 16, 32, 64 ...; {encoded} was given")
        if resolution < max(32, encoded):
            raise ValueError(
                f"model.resolution is at least {max(32, encoded)} for VAEGANTraining; {resolution} was given"
            )
        pyramid = architecture == "pyramid"
        super().__init__(
            narrowing(resolution, channels, latent) if pyramid else BEGAN(resolution, channels, latent, skip, "normal"),
            average,
        )
        check_settings(
            lr, cooldown, perceptual=perceptual, adversarial=adversarial, beta=beta, random=random, clip=clip
        )
        self.save_hyperparameters(logger=False)
        for layer in self.generator.modules():
            if isinstance(layer, nn.Conv2d):  # PyTorch's own start shrinks the signal from layer to layer
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu" if layer.out_channels > 3 else "linear")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        if isinstance(self.generator, Pyramid):
            for layer in self.generator.latent_layers[1:]:  # begins as if z entered at the bottom alone
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
        self.encoder = Encoder(latent, encoded)
        self.critic = Critic()
        self.register_buffer("code_mean", torch.zeros(latent))
        self.register_buffer("code_square", torch.eye(latent))
        if start is not None:
            self._take(start)
        self.averaged.load_state_dict(self.generator.state_dict())
        self._similarity: list[nn.Module] = []  # in a list: no part of the state

    def on_fit_start(self) -> None:
        """Load the network whose features are compared, where a term of the loss compares them."""
        if not (self.hparams["perceptual"] or self.hparams["adversarial"]):
            return
        network = similarity_of(self, "--model.perceptual 0 --model.adversarial 0")
        self._similarity = [network.to(self.device)]

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps of images, of unit length at each place, as in LPIPS."""
        network: Any = self._similarity[0]
        return [F.normalize(f, dim=1, eps=1e-8) for f in network.net(network.scaling_layer(x))]

    def perceptual_distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Return the mean LPIPS of images with these features."""
        network: Any = self._similarity[0]
        return sum(lin((u - v) ** 2).mean() for lin, u, v in zip(network.lins, a, b, strict=True))

    def criticise(self, features: list[Tensor]) -> Tensor:
        """Return the discriminator's scores for feature maps, brought to a mean square of 1."""
        return self.critic([f * f.shape[1] ** 0.5 for f in features])

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        """Make one step of G and the encoder, and one of the discriminator."""
        settings = self.hparams
        optimizers: Any = self.optimizers()
        optimizer_g, optimizer_d = optimizers
        rate = self.cool(optimizer_g, optimizer_d)
        x = batch.to(self.code_mean) / 127.5 - 1
        if settings["augment"]:
            x = self._varied(x)

        mean, log_variance = self.encoder(x)
        draw, width = self.draw("code"), mean.shape[1]
        noise = self.share(lambda count: torch.randn(count, width, generator=draw, dtype=torch.float32), len(x))
        code = mean + noise.to(mean) * (log_variance / 2).exp()
        self._follow(code.detach())
        random = round(len(x) * settings["random"]) if settings["adversarial"] else 0
        drawn = self.code_mean + self.latents(random) @ self._root().to(mean).T
        made = self.generator(torch.cat([code, drawn]))

        squares = F.mse_loss(made[: len(x)], x)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
        loss = 2 * squares + settings["beta"] * kl
        logged = {"MSE": squares, "KL": kl, "lr": torch.tensor(rate)}
        if self._similarity:
            # The network looks at every second pixel: what it sees of fine patterns depends on where they lie.
            top, left = torch.randint(2, (2,), generator=self.draw("shift")).tolist()
            with torch.no_grad():
                features = self.features(x[..., top:, left:])
            features_made = self.features(made[..., top:, left:])
            logged["LPIPS"] = self.perceptual_distance([f[: len(x)] for f in features_made], features)
            loss = loss + settings["perceptual"] * logged["LPIPS"]
        if settings["adversarial"]:
            self.critic.requires_grad_(False)
            logged["adversarial"] = -self.criticise(features_made).mean()
            self.critic.requires_grad_(True)
            loss = loss + settings["adversarial"] * logged["adversarial"]
        optimizer_g.zero_grad()
        self.manual_backward(loss)
        if settings["clip"]:
            nn.utils.clip_grad_norm_([*self.generator.parameters(), *self.encoder.parameters()], settings["clip"])
        optimizer_g.step()

        if settings["adversarial"]:
            real, fake = self.criticise(features), self.criticise([f.detach() for f in features_made])
            logged["critic"] = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
            optimizer_d.optimizer.zero_grad()
            self.manual_backward(logged["critic"])
            optimizer_d.optimizer.step()
        self.update_average()
        return {name: value.detach() for name, value in logged.items()}

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return Adam for G with the encoder, and for the discriminator."""
        made = [*self.generator.parameters(), *self.encoder.parameters()]
        return [
            torch.optim.Adam(made, lr=self.hparams["lr"], betas=(0.9, 0.99), fused=True),
            torch.optim.Adam(self.critic.parameters(), lr=self.hparams["lr"], betas=(0.5, 0.99), fused=True),
        ]

    @torch.no_grad()
    def decoded(self, x: Tensor) -> Tensor:
        """Return what the averaged generator makes of the encoder's codes of images."""
        codes, _ = self.encoder(x.to(next(self.encoder.parameters())))
        return self.averaged(codes.to(next(self.averaged.parameters()))).float().cpu()

    @torch.no_grad()
    def prior(self) -> BEGAN | Pyramid:
        """Return the averaged generator for standard normal z: the layers that z enters get ``code_mean + root z``."""
        averaged = super().prior()
        assert isinstance(averaged, BEGAN | Pyramid)
        return take_standard_normal(averaged, self.code_mean, self.code_square)

    def _varied(self, x: Tensor) -> Tensor:
        """Return pictures in [-1, 1], all moved by up to two pixels, each in its own light."""
        down, right = torch.randint(5, (2,), generator=self.draw("move")).tolist()
        x = F.pad(x, (2, 2, 2, 2), mode="reflect")[..., down : down + x.shape[-2], right : right + x.shape[-1]]
        light = self.draw("light")
        gains = self.share(lambda count: torch.randn(count, 4, 1, 1, generator=light, dtype=torch.float32), len(x))
        return ((x + 1) * (0.06 * gains[:, :1] + 0.03 * gains[:, 1:]).exp() - 1).clamp(-1, 1)

    def _follow(self, code: Tensor) -> None:
        """Move mean and second moment of the codes towards this batch's, faster in the first steps."""
        rate, code = max(0.002, 1 / (1 + self.global_step)), code.float()
        with torch.autocast(code.device.type, enabled=False):  # half precision would round the moments
            self.code_mean.lerp_(mean_over_processes(code.mean(0)), rate)
            self.code_square.lerp_(mean_over_processes(code.T @ code / len(code)), rate)

    def _root(self) -> Tensor:
        """Return a square root of the codes' covariance."""
        try:
            return root_of_covariance(self.code_mean, self.code_square)
        except torch.linalg.LinAlgError as error:
            raise self.diverged("the covariance of its codes has no root", self.global_step + 1) from error

    def _take(self, start: str) -> None:
        """Take over what fits of another training's checkpoint, and say what did not.

        Raises:
            ValueError: for a file that is no checkpoint, or of which no tensor of the generator fits.
        """
        try:
            check_archive(Path(start))
            stored = torch.load(start, map_location="cpu", weights_only=True)
            state, settings = dict(stored["state_dict"]), dict(stored.get("hyper_parameters", {}))
            if not all(isinstance(value, Tensor) for value in state.values()):
                raise ValueError("it holds more than tensors")
        except Exception as error:  # torch raises a different kind for each way in which a file can be broken
            raise ValueError(f"model.start is a last.ckpt of train-prior; {start} cannot be read: {error}") from error
        for key, value in state.items():
            if bool(value.isnan().any()):
                raise ValueError(f"model.start is of a training that diverged: {key} in {start} is not a number")
        if isinstance(self.generator, BEGAN):
            self._grow(self.generator, state)
        own = self.state_dict()
        fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
        if not any(key.startswith("generator.") and value.dim() > 1 for key, value in fitting.items()):
            # A bias of three colours fits always.
            names = ("architecture", "resolution", "channels", "latent", "skip")
            theirs = ", ".join(f"{name} {settings[name]}" for name in names if name in settings)
            wanted = ", ".join(f"{name} {self.hparams[name]}" for name in names)
            if isinstance(self.generator, BEGAN):
                wanted += f", or resolution {self.hparams['resolution'] // 2}"
            raise ValueError(
                f"model.start: not one weight tensor of the generator fits in {start}, which holds "
                f"{theirs or some(list(state)[:3]) or 'nothing'}; expected is a last.ckpt of VAEGANTraining with "
                f"{wanted}"
            )
        if (left := [key for key in own if key not in fitting]) and getattr(rank_zero_only, "rank", 0) == 0:
            print(
                f"iagan: model.start: {len(fitting)} of {len(own)} tensors are taken from {start}; as new begin "
                + some(left),
                file=sys.stderr,
            )
        self.load_state_dict(fitting, strict=False)

    def _grow(self, generator: BEGAN, state: dict[str, Tensor]) -> None:
        """Let a state of half the resolution go on in this generator."""
        pair, last = 2 * generator.blocks - 1, 2 * generator.blocks + 1
        for kind in ("weight", "bias"):
            image = state.get(f"generator.l{pair}.{kind}")
            if image is not None and len(image) == 3:  # of half the resolution: what gave its image gives ours
                state[f"generator.l{last}.{kind}"] = state.pop(f"generator.l{pair}.{kind}")
                for layer in (generator.get_submodule(f"l{pair}"), generator.get_submodule(f"l{pair + 1}")):
                    assert isinstance(layer, nn.Conv2d)
                    nn.init.dirac_(layer.weight)  # the new pair begins by passing on what it gets


def narrowing(resolution: int, channels: int, latent: int) -> Pyramid:
    """Return a pyramid with so many channels at its highest resolution.

    Example:
        >>> narrowing(128, 32, 256).widths
        (192, 192, 128, 64, 32)
    """
    widths = [min(6 * channels, channels << halvings) for halvings in reversed(range(blocks_of(resolution)))]
    return Pyramid(widths, latent, start=2 * channels)
