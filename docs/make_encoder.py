"""Train a bundled encoder from pairs of pictures and latents, where it would take long to ask the generator itself.

    python docs/make_encoder.py ffhq128 --store pairs.pt
    python docs/make_encoder.py faces128 --pictures TRAINING_FACES.tar --training faces128/last.ckpt --minutes 6

``iagan train-prior --model EncoderTraining`` trains one through its generator; an earlier form of it made those of
64 pixels. Here errors of latents are weighed as they show in pixels.

- ``ffhq128``: pictures of the network itself, at 64 pixels, and their whitened w, of .3 to 1 of their length. They are
  kept in --store, to go on after an interruption. How much a direction of w shows is told by a linear map from w to
  pictures of 32 x 32 pixels.
- ``faces128``: pictures of a folder or tar file, and what the encoder of the prior's own training, which sees them
  whole, makes of them; of a few the prior's own. There it is the mean of J^T J, J the derivative of the prior.

First the linear part by least squares, then all of it, ``--minutes`` of processor time on one thread. Writes
priors/encoders/NAME.safetensors, and prints how near it comes to latents or pictures that were left out.
"""

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from iagan_lightning.generators import Encoder, EncoderNetwork, Generator, load_generator, save_encoder
from iagan_lightning.generators.catalogue import BUNDLED
from iagan_lightning.generators.codes import root_of_covariance
from iagan_lightning.training import VAEGANTraining
from iagan_lightning.training.degraded import degraded
from iagan_lightning.training.encoder import begin_linear
from iagan_lightning.training.picture_set import PictureSet

TAUGHT, OWN, LEFT_OUT = 32, 640, 200  # pictures: of a step; the prior's own; judged on
SEED, AT_ONCE = 1_000_000, 4  # of the first pictures of ffhq128, and how many are made at once
SMALL = 32  # pixels by which directions of w are weighed

Pair = tuple[Tensor, Tensor]  # pictures and their latents
Draw = Callable[[], Pair]


def main() -> None:
    """Train, judge and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["ffhq128", "faces128"])
    parser.add_argument("--store", type=Path, help="of ffhq128: file of its pictures and their w")
    parser.add_argument("--samples", type=int, default=14_400, help="of ffhq128: how many")
    parser.add_argument("--pictures", help="of faces128: folder or tar file")
    parser.add_argument("--training", help="of faces128: last.ckpt of its training")
    parser.add_argument("--minutes", type=float, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    G = load_generator(given.name).requires_grad_(False)
    if given.name == "ffhq128":
        pairs = own_pairs(G, given.store, given.samples)
        draw, metric, judged, decay = styled(*pairs)
    else:
        draw, metric, judged, decay = taught(G, given.pictures, given.training)
    network = EncoderNetwork(len(metric))
    begin_linear(network, ((seen(x), z) for x, z in batches(draw)))
    print(f"the linear part: {judge(network, metric, judged)}", flush=True)
    network = fit(network, draw, metric, given.minutes, decay)
    print(f"all of it: {judge(network, metric, judged)}")
    about = {"processor minutes": given.minutes, "pairs": given.name}
    space = "w" if given.name == "ffhq128" else "z"
    print(save_encoder(Encoder(network, space=space), G, BUNDLED / f"{given.name}.safetensors", about))


def own_pairs(G: Generator, store: Path, count: int) -> Pair:
    """Return pictures of a style generator at 64 pixels, as bytes, and their whitened w."""
    pictures, latents = torch.load(store) if store.exists() else (torch.empty(0, 3, 64, 64).byte(), torch.empty(0, 512))
    while len(latents) < count:
        draw = torch.Generator().manual_seed(SEED + len(latents))
        with torch.no_grad():
            v = G(torch.randn(AT_ONCE, 512, generator=draw), to="w")
            v = v * (0.3 + 0.8 * torch.rand(AT_ONCE, 1, generator=draw)).clamp(max=1)
            with torch.autocast("cpu", torch.bfloat16):
                x = G(v, space="w")
        small = F.avg_pool2d(x.float().clamp(-1, 1), x.shape[-1] // 64)
        pictures, latents = torch.cat([pictures, ((small + 1) * 127.5).round().byte()]), torch.cat([latents, v])
        if len(latents) % 400 == 0 or len(latents) >= count:
            torch.save((pictures, latents), store)
            print(f"{len(latents)} pictures", flush=True)
    return pictures[:count], latents[:count]


def styled(pictures: Tensor, latents: Tensor) -> tuple[Draw, Tensor, Pair, float]:
    """Return what draws pairs, how errors of w are weighed, pairs to judge by, and how fast weights decay."""
    data, z = pictures[:-LEFT_OUT], latents[:-LEFT_OUT]
    shown = torch.cat([F.adaptive_avg_pool2d(in_floats(part), SMALL).flatten(1) for part in data.split(500)]).double()
    given = F.pad(z, (0, 1), value=1.0).double()
    shows = torch.linalg.solve(given.T @ given + 30 * torch.eye(given.shape[1]), given.T @ shown)[:-1]

    def draw() -> Pair:
        place = torch.randint(len(data), (TAUGHT,))
        return in_floats(data[place]), z[place]

    return draw, weighed((shows @ shows.T).float()), (in_floats(pictures[-LEFT_OUT:]), latents[-LEFT_OUT:]), 1e-2


def taught(G: Generator, source: str, training: str) -> tuple[Draw, Tensor, Pair, float]:
    """Return the same where the encoder of a training tells the latents of pictures."""
    found = PictureSet(source, G.image_shape[-1])
    data = torch.stack([found[number, False] for number in range(len(found))])
    codes = torch.stack([codes_of(data, training, mirrored) for mirrored in (False, True)])
    judged = in_floats(data[-LEFT_OUT:]), codes[0, -LEFT_OUT:]
    data, codes = data[:-LEFT_OUT], codes[:, :-LEFT_OUT]
    own = codes[0].mean(0) + torch.randn(OWN, codes.shape[-1]) * codes.std((0, 1)) * (0.5 + 0.5 * torch.rand(OWN, 1))
    with torch.no_grad():
        made = torch.cat([G(part).clamp(-1, 1) for part in own.split(16)])

    def draw() -> Pair:
        few = TAUGHT // 8
        place, flip, ours = (
            torch.randint(n, (size,)) for n, size in ((len(data), TAUGHT - few), (2, TAUGHT - few), (OWN, few))
        )
        x = in_floats(data[place])
        x = torch.where(flip[:, None, None, None] > 0, x.flip(-1), x)
        return torch.cat([x, made[ours]]), torch.cat([codes[flip, place], own[ours]])

    return draw, weighed(seen_in_pixels(G, codes[0])), judged, 1e-3


@torch.no_grad()
def codes_of(data: Tensor, training: str, mirrored: bool) -> Tensor:
    """Return the standard normal latents that the training's encoder gives pictures, ``(n, latent)``."""
    module = VAEGANTraining.load_from_checkpoint(training, map_location="cpu").eval()
    inverse = torch.linalg.pinv(root_of_covariance(module.code_mean, module.code_square), rtol=1e-6)
    rows = []
    for part in data.split(64):
        x = in_floats(part)
        mean, _ = module.encoder(x.flip(-1) if mirrored else x)
        rows.append(((mean - module.code_mean).double() @ inverse.T).float())
    return torch.cat(rows)


def seen_in_pixels(G: Generator, codes: Tensor, samples: int = 1500) -> Tensor:
    """Return the mean of J^T J over codes, up to a factor."""
    total = torch.zeros(codes.shape[1], codes.shape[1])
    for _ in range(samples // 10):
        z = codes[torch.randint(len(codes), (10,))].requires_grad_()
        image = G(z)
        (gradient,) = torch.autograd.grad((image * torch.randn_like(image)).sum(), z)
        total += gradient.T @ gradient
    return total


def weighed(metric: Tensor) -> Tensor:
    """Return a metric of latents, a fifth of it the identity, its diagonal 1 on average."""
    return 0.8 * metric / metric.diagonal().mean() + 0.2 * torch.eye(len(metric))


def error(z: Tensor, wanted: Tensor, metric: Tensor) -> Tensor:
    """Return the mean square of errors of latents, weighed by a metric."""
    away = z - wanted
    return ((away @ metric) * away).sum(1).mean() / len(metric)


def fit(network: EncoderNetwork, draw: Draw, metric: Tensor, minutes: float, decay: float) -> EncoderNetwork:
    """Return the moving average of an encoder that was trained so long."""
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=decay, fused=True)
    began, step = time.process_time(), 0
    while (left := 1 - (time.process_time() - began) / (60 * minutes)) > 0:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * max(0.02, min(1, 2 * left))
        x, wanted = draw()
        loss = error(network(seen(x)), wanted, metric)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(weight, 1 - min(0.998, (1 + step) / (10 + step)))
        if step % 500 == 0:
            print(f"step {step}, {100 * (1 - left):.0f} %: {loss.detach():.4f}", flush=True)
    return average


def batches(draw: Draw, pictures: int = 16_000) -> Iterator[Pair]:
    """Yield pairs for the linear part."""
    for _ in range(pictures // TAUGHT):
        yield draw()


def seen(x: Tensor) -> Tensor:
    """Return what a plain reconstruction of pictures looks like."""
    return degraded(x, torch.default_generator)


@torch.no_grad()
def judge(network: EncoderNetwork, metric: Tensor, judged: Pair) -> str:
    """Return how far latents of whole and of coarse pictures that were left out are, beside the mean latent."""
    x, z = judged
    coarse = F.interpolate(F.avg_pool2d(x, 4), scale_factor=4, mode="bicubic")
    values = [error(found, z, metric) for found in (network(x), network(coarse), torch.zeros_like(z))]
    return "whole {:.4f}, a quarter of the pixels each way {:.4f}; the mean {:.4f}".format(*values)


def in_floats(pixels: Tensor) -> Tensor:
    """Return pictures in [-1, 1] of bytes."""
    return pixels.float() / 127.5 - 1


if __name__ == "__main__":
    main()
