"""BEGAN training (Berthelot, Schumm and Metz 2017, arXiv:1703.10717)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iagan_lightning.generators import BEGAN
from iagan_lightning.generators.began import blocks_of
from iagan_lightning.training.base import PriorTraining, check_settings, mean_over_processes


class Encoder(nn.Module):
    """Encoder half of the BEGAN discriminator: pairs of convolutions, channels growing by n at each halving.

    Shapes: images ``(B, 3, resolution, resolution)`` -> codes ``(B, code)``.
    """

    def __init__(self, resolution: int, channels: int, code: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.ELU()]
        width = channels
        for block in range(blocks_of(resolution)):
            if block:
                layers += [nn.Conv2d(width, width + channels, 3, stride=2, padding=1), nn.ELU()]
                width += channels
            for _ in range(2):
                layers += [nn.Conv2d(width, width, 3, padding=1), nn.ELU()]
        self.layers = nn.Sequential(*layers)
        self.code = nn.Linear(64 * width, code)

    def forward(self, x: Tensor) -> Tensor:
        """Return the codes of images."""
        return self.code(self.layers(x).flatten(1))


class BEGANTraining(PriorTraining):
    r"""Train a BEGAN: an auto-encoder D as discriminator, L1 losses, and an equilibrium held by k.

    With :math:`L(v) = |v - D(v)|_1` (mean over pixels), a step minimises

    .. math:: L_D = L(x) - k_t L(G(z)), \qquad L_G = L(G(z)),

    and updates :math:`k_{t+1} = k_t + \lambda_k (\gamma L(x) - L(G(z)))`, kept in [0, 1]. Convergence is measured by
    :math:`M = L(x) + |\gamma L(x) - L(G(z))|`.

    Args:
        resolution: height and width of the images, 64 or 128 (8 times a power of two).
        channels: channels n of all layers.
        latent: length of z, and of the discriminator's code.
        skip: skip connections in both decoders (Section 3.5.1 of the paper).
        gamma: wanted ratio L(G(z)) / L(x): less gives sharper and less varied images.
        lambda_k: rate of k.
        lr: learning rate of both Adams.
        average: decay of the exponential moving average of G, which is what is stored; 0 stores G itself.
        patience: steps without a lower (smoothed) M after which the learning rate is halved; 0 never.

    Source: Berthelot, Schumm and Metz, BEGAN: Boundary Equilibrium Generative Adversarial Networks, 2017.
    """

    method = "BEGAN"

    k: Tensor
    smooth_m: Tensor
    best_m: Tensor
    best_step: Tensor
    rate: Tensor

    def __init__(
        self,
        resolution: int = 64,
        channels: int = 64,
        latent: int = 64,
        skip: bool = False,
        gamma: float = 0.7,
        lambda_k: float = 1e-3,
        lr: float = 1e-4,
        average: float = 0.999,
        patience: int = 10_000,
    ) -> None:
        super().__init__(BEGAN(resolution, channels, latent, skip), average)
        if not 0 < gamma <= 1:
            raise ValueError(f"model.gamma lies in (0, 1]; {gamma} was given")
        check_settings(lr)
        self.save_hyperparameters(logger=False)
        self.encoder = Encoder(resolution, channels, latent)
        self.decoder = BEGAN(resolution, channels, latent, skip)
        for name, value in (("k", 0.0), ("smooth_m", 0.0), ("best_m", torch.inf), ("best_step", 0.0), ("rate", 1.0)):
            self.register_buffer(name, torch.tensor(value))

    def reconstruct(self, v: Tensor) -> Tensor:
        """Return D(v), the auto-encoder's version of images."""
        return self.decoder(self.encoder(v))

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        """Make one step of D, one of G, and one of k."""
        settings = self.hparams
        optimizers: Any = self.optimizers()
        optimizer_g, optimizer_d = optimizers[0], optimizers[1]
        real = batch.to(self.k) / 127.5 - 1
        fake = self.generator(self.latents(len(real)))

        both = torch.cat([real, fake.detach()])
        loss_real, loss_fake = (self.reconstruct(both) - both).abs().flatten(1).mean(1).chunk(2)
        optimizer_d.optimizer.zero_grad()
        self.manual_backward(loss_real.mean() - self.k * loss_fake.mean())
        optimizer_d.optimizer.step()  # the plain optimiser: only G's counts as a step of the Trainer

        discriminator = [*self.encoder.parameters(), *self.decoder.parameters()]
        for p in discriminator:
            p.requires_grad_(False)
        loss_g = F.l1_loss(self.reconstruct(fake), fake)
        optimizer_g.zero_grad()
        self.manual_backward(loss_g)
        optimizer_g.step()
        for p in discriminator:
            p.requires_grad_(True)

        with torch.no_grad():
            x, g = mean_over_processes(torch.stack([loss_real.mean().detach().float(), loss_g.detach().float()]))
            balance = settings["gamma"] * x - g
            self.k.add_(settings["lambda_k"] * balance).clamp_(0, 1)
            m = x + balance.abs()
            self.update_average()
            self._lower_rate(m, optimizer_g.optimizer, optimizer_d.optimizer)
        return {"loss_real": x, "loss_fake": g, "k": self.k, "M": m, "lr": settings["lr"] * self.rate}

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return Adam for G and for D, with the paper's settings."""
        discriminator = [*self.encoder.parameters(), *self.decoder.parameters()]
        return [
            torch.optim.Adam(list(parameters), lr=self.hparams["lr"], betas=(0.5, 0.999))
            for parameters in (self.generator.parameters(), discriminator)
        ]

    def _lower_rate(self, m: Tensor, *optimizers: torch.optim.Optimizer) -> None:
        """Halve the learning rate when the smoothed M has not fallen for ``patience`` steps."""
        if not self.hparams["patience"]:
            return
        step = self.global_step
        self.smooth_m.copy_(m if step <= 1 else torch.lerp(self.smooth_m, m, 0.001 if step > 1000 else 1 / step))
        if step % 100:
            return
        if float(self.smooth_m) < float(self.best_m):
            self.best_m.copy_(self.smooth_m)
            self.best_step.fill_(step)
        elif step - float(self.best_step) >= self.hparams["patience"]:
            self.rate.mul_(0.5)
            self.best_step.fill_(step)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.hparams["lr"] * float(self.rate)
