"""Train the encoder of a prior: from plain reconstructions of pictures to latents near which G shows the pictures.

    python docs/make_encoder.py began64 --pictures TRAINING_FACES.tar
    python docs/make_encoder.py faces64 --pictures TRAINING_FACES.tar --perceptual 0.1
    python docs/make_encoder.py faces128 --pictures TRAINING_FACES.tar --training faces128/last.ckpt --minutes 6

The encoder sees pictures blurred, masked, noisy and coarse. Its latent is judged by what G makes of it, beside the
whole picture, in the mean square and, with ``--perceptual``, in LPIPS, without which a coarse picture becomes a blurred
face; and by its length: far out G shows no faces. ``--resume`` goes on from the encoder that is there.

Where the prior's own training had an encoder (a VAEGANTraining's checkpoint), that one, which sees whole pictures, may
teach in place of G: large generators take long. Errors of latents are then weighed as they show in pixels, through the
mean of J^T J, J the derivative of G, and an eighth of the pictures are the prior's own.

First the linear part by least squares, then all of it, ``--minutes`` of processor time on one thread. Writes
encoders/NAME beside the prior, and prints how near G of the latents is to pictures that were left out.
"""

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from iagan_lightning.generators import Encoder, EncoderNetwork, Generator, bundled_priors, load_generator, save_encoder
from iagan_lightning.generators.codes import root_of_covariance
from iagan_lightning.results.lpips import lpips_network
from iagan_lightning.training import VAEGANTraining
from iagan_lightning.training.picture_set import PictureSet

SHOWN, TAUGHT, OWN, LEFT_OUT = 16, 32, 640, 48  # pictures: of a step through G, with a teacher; its own; judged on
DRAWN = 4000  # of the prior's own pictures, that begin the linear part
SIGMAS = (0, 0, 0.02, 0.04, 0.1)
LENGTH = 0.001  # what the mean square of the latent costs beside that of the pixels

Batch = tuple[Tensor, Tensor]  # pictures, and their latents; without a teacher the pictures again
Loss = Callable[[Tensor, Tensor], Tensor]  # of the encoder's latents, and the batch's second half
Lesson = tuple[Callable[[], list[Batch]], Callable[[], Batch], Loss]


def main() -> None:
    """Train, judge and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", help="name or file")
    parser.add_argument("--pictures", required=True, help="folder or tar file")
    parser.add_argument("--training", help="last.ckpt of the prior's training, to be taught by its encoder")
    parser.add_argument(
        "--perceptual", type=float, default=0.0, help="weight of LPIPS (SqueezeNet) beside the mean square"
    )
    parser.add_argument("--resume", action="store_true", help="begin with the encoder that is there")
    parser.add_argument("--minutes", type=float, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    G = load_generator(given.prior).requires_grad_(False).to(memory_format=torch.channels_last)
    pictures = PictureSet(given.pictures, G.image_shape[-1])
    data = torch.stack([pictures[number, False] for number in range(len(pictures))])
    data, last = data[:-LEFT_OUT], data[-LEFT_OUT:].float() / 127.5 - 1
    if given.training is None:
        begin, batch, loss = through_generator(G, data, given.perceptual)
    else:
        begin, batch, loss = taught(G, data, given.training)
    if given.resume:
        if not isinstance(G.encoder, Encoder):
            parser.error(f"{given.prior} has no encoder to go on from: leave --resume out")
        network = copy.deepcopy(G.encoder.network).requires_grad_()
    else:
        network = EncoderNetwork(G.latent_shape[0])
        begin_linear(network, begin())
    network = fit(network, batch, loss, given.minutes)
    for name, plain in plain_pictures(last).items():
        with torch.no_grad():
            error = ((G(network(plain)).clamp(-1, 1) - last) / 2).square().flatten(1).mean(1)
        print(f"{name}: {(-10 * error.log10()).mean():.2f} dB", flush=True)
    path = bundled_priors().get(given.prior, Path(given.prior))
    about = {"processor minutes": given.minutes, "perceptual": given.perceptual, "resumed": given.resume}
    print(save_encoder(Encoder(network), G, path, about))


def through_generator(G: Generator, data: Tensor, perceptual: float) -> Lesson:
    """Return what makes the batches that begin the linear part, what makes all others, and the loss that G tells."""
    distance = lpips_network("squeeze") if perceptual else None

    def make(z: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return G(z).float()

    def batch() -> Batch:
        x = data[torch.randint(len(data), (SHOWN,))].float() / 127.5 - 1
        x = torch.where(torch.rand(SHOWN, 1, 1, 1) < 0.5, x.flip(-1), x)
        return x, x

    def loss(z: Tensor, x: Tensor) -> Tensor:
        made = make(z)
        error = (made - x).square().mean() + LENGTH * z.square().mean()
        return error if distance is None else error + perceptual * distance(made.clamp(-1.2, 1.2), x).mean()

    def begin() -> list[Batch]:
        z = G.sample_latent(DRAWN, seed=1)
        z[DRAWN // 4 :] *= 0.6  # nearer to the middle, as those of pictures are
        with torch.no_grad():
            made = torch.cat([make(part).clamp(-1, 1) for part in z.split(16)])
        orders = (torch.randperm(DRAWN).split(TAUGHT) for _ in range(2))
        return [(made[part], z[part]) for order in orders for part in order]

    return begin, batch, loss


def taught(G: Generator, data: Tensor, training: str) -> Lesson:
    """Return the same where the encoder of a training tells the latents of pictures."""
    codes = torch.stack([codes_of(data, training, mirrored) for mirrored in (False, True)])
    latent = codes.shape[-1]
    metric = seen_in_pixels(G, codes[0])
    own = codes[0].mean(0) + torch.randn(OWN, latent) * codes.std((0, 1)) * (0.5 + 0.5 * torch.rand(OWN, 1))
    with torch.no_grad():
        made = torch.cat([G(part).clamp(-1, 1) for part in own.split(16)])

    def batch() -> Batch:
        few = TAUGHT // 8
        place, flip, ours = (
            torch.randint(n, (size,)) for n, size in ((len(data), TAUGHT - few), (2, TAUGHT - few), (OWN, few))
        )
        x = data[place].float() / 127.5 - 1
        x = torch.where(flip[:, None, None, None] > 0, x.flip(-1), x)
        return torch.cat([x, made[ours]]), torch.cat([codes[flip, place], own[ours]])

    def loss(z: Tensor, wanted: Tensor) -> Tensor:
        error = z - wanted
        return ((error @ metric) * error).sum(1).mean() / latent

    return lambda: [batch() for _ in range(6000 // TAUGHT)], batch, loss


@torch.no_grad()
def codes_of(data: Tensor, training: str, mirrored: bool) -> Tensor:
    """Return the standard normal latents that the training's encoder gives pictures, ``(n, latent)``."""
    module = VAEGANTraining.load_from_checkpoint(training, map_location="cpu").eval()
    inverse = torch.linalg.pinv(root_of_covariance(module.code_mean, module.code_square), rtol=1e-6)
    rows = []
    for part in data.split(64):
        x = part.float() / 127.5 - 1
        mean, _ = module.encoder(x.flip(-1) if mirrored else x)
        rows.append(((mean - module.code_mean).double() @ inverse.T).float())
    return torch.cat(rows)


def fit(network: EncoderNetwork, batch: Callable[[], Batch], loss_of: Loss, minutes: float) -> EncoderNetwork:
    """Return the moving average of an encoder that was trained so long."""
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    began, step = time.process_time(), 0
    while (left := 1 - (time.process_time() - began) / (60 * minutes)) > 0:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * max(0.02, min(1, 2 * left))
        x, wanted = batch()
        loss = loss_of(network(degraded(x)), wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(weight, 1 - min(0.998, (1 + step) / (10 + step)))
        if step % 200 == 0:
            print(f"step {step}, {100 * (1 - left):.0f} %: {loss.detach():.4f}", flush=True)
    return average


@torch.no_grad()
def begin_linear(network: EncoderNetwork, batches: list[tuple[Tensor, Tensor]]) -> None:
    """Give the linear part its least squares, and let the rest begin small."""
    coarse = network.coarse
    size = coarse.in_features + 1
    left, right = torch.zeros(size, size).double(), torch.zeros(size, coarse.out_features).double()
    for x, wanted in batches:
        seen = F.pad(F.adaptive_avg_pool2d(degraded(x), 16).flatten(1), (0, 1), value=1.0).double()
        left += seen.T @ seen
        right += seen.T @ wanted.double()
    weights = torch.linalg.solve(left + 20 * torch.eye(size), right).float()
    coarse.weight.copy_(weights[:-1].T)
    coarse.bias.copy_(weights[-1])
    final = network.layers[-1]
    assert isinstance(final, torch.nn.Linear)
    final.weight.mul_(0.1)
    final.bias.zero_()


def seen_in_pixels(G: Generator, codes: Tensor, samples: int = 1500) -> Tensor:
    """Return the mean of J^T J over codes, a fifth of it the identity, its diagonal 1 on average."""
    total = torch.zeros(codes.shape[1], codes.shape[1])
    for _ in range(samples // 10):
        z = codes[torch.randint(len(codes), (10,))].requires_grad_()
        image = G(z)
        (gradient,) = torch.autograd.grad((image * torch.randn_like(image)).sum(), z)
        total += gradient.T @ gradient
    return 0.8 * total / total.diagonal().mean() + 0.2 * torch.eye(len(total))


def degraded(x: Tensor) -> Tensor:
    """Return what a plain reconstruction of pictures looks like, for a measurement drawn at random."""
    kind, sigma = int(torch.randint(8, ())), SIGMAS[int(torch.randint(len(SIGMAS), ()))]
    size, strength = x.shape[-1], float(torch.rand(()))
    if kind == 0:
        return x
    if kind == 1:  # some pixels
        return noisy(x, sigma) * (torch.rand(len(x), 1, size, size) < 0.1 + 0.6 * strength)
    if kind == 2:
        return noisy(x, 0.25 * strength)
    if kind == 3:
        width = (5, 9, 13)[int(torch.randint(3, ()))]
        return noisy(F.avg_pool2d(F.pad(x, [width // 2] * 4, mode="circular"), width, 1), sigma)
    if kind == 4:  # random projections
        return projected(x, (0.122, 0.3, 0.61)[int(torch.randint(3, ()))])
    if kind == 5:  # frequencies, mostly low ones
        down, across = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
        likely = torch.exp(-(down**2 + across**2).sqrt() / (0.05 + 0.25 * strength)) + 0.02
        return noisy(torch.fft.irfft2(torch.fft.rfft2(x) * (torch.rand_like(likely) < likely), s=(size, size)), sigma)
    return enlarged(x, (2, 4, 4, 4, 8, 8)[int(torch.randint(6, ()))], sigma)


def noisy(x: Tensor, sigma: float) -> Tensor:
    """Return pictures with noise, its standard deviation on the [0, 1] scale."""
    return x + 2 * sigma * torch.randn_like(x)


def projected(x: Tensor, ratio: float) -> Tensor:
    """Return pictures as random projections of so many numbers per pixel show them, by their mean and variance."""
    power = x.square().flatten(1).mean(1)[:, None, None, None]
    return ratio * x + (ratio * (1 - ratio) * power).sqrt() * torch.randn_like(x)


def enlarged(x: Tensor, factor: int, sigma: float) -> Tensor:
    """Return pictures made smaller and larger again, noise between."""
    small = F.interpolate(x, scale_factor=1 / factor, mode="bicubic", antialias=True)
    return F.interpolate(noisy(small, sigma), size=x.shape[-2:], mode="bicubic")


def plain_pictures(x: Tensor) -> dict[str, Tensor]:
    """Return plain reconstructions to judge by."""
    return {
        "whole": x,
        "x4": enlarged(x, 4, 0.0),
        "x4, noise 10/255": enlarged(x, 4, 10 / 255),
        "x8": enlarged(x, 8, 0.0),
        "half of the pixels": x * (torch.rand_like(x[:, :1]) < 0.5),
        "noise 25/255": noisy(x, 25 / 255),
        "Gaussian .122": projected(x, 0.122),
    }


if __name__ == "__main__":
    main()
