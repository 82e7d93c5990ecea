"""A prior of one's own: train it on pictures of a kind, then fill a hole in one that it has never seen.

The pictures are drawn here, discs in front of a sky, so that half a minute of training is enough; faces take an hour on
a CPU. The same command with more steps goes on training.
"""

import random
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from iagan_lightning import reconstruct
from iagan_lightning.cli import main as iagan
from iagan_lightning.images import read_image, to_pillow
from iagan_lightning.metrics import evaluate
from iagan_lightning.operators import Inpainting


def disc(seed):
    """Return a picture of 32 x 32 pixels."""
    draw = random.Random(seed)
    top, bottom, colour = (tuple(draw.randrange(256) for _ in range(3)) for _ in range(3))
    sky = Image.new("RGB", (1, 2), top)
    sky.putpixel((0, 1), bottom)
    picture = sky.resize((128, 128), Image.Resampling.BILINEAR)
    x, y, radius = draw.randrange(40, 88), draw.randrange(40, 88), draw.randrange(20, 40)
    ImageDraw.Draw(picture).ellipse([x - radius, y - radius, x + radius, y + radius], colour)
    return picture.resize((32, 32))


def main(steps=200, channels=16, recipe="VAEGANTraining", **settings):
    """Draw, train, reconstruct and print what was gained."""
    Path("discs").mkdir(exist_ok=True)
    for number in range(200):
        disc(number).save(f"discs/{number:03}.png")
    command = f"""train-prior --model {recipe} --model.resolution 32 --model.channels {channels} --model.latent 16
        --data.root discs --data.batch_size 16 --steps {steps} --out discs-prior"""
    quick = "--model.adversarial 0 --model.lr 2e-3 --model.cooldown 100 --model.average 0.98"
    if iagan([*command.split(), *(quick.split() if recipe == "VAEGANTraining" else [])]):
        raise SystemExit("the training failed")

    disc("a new one").save("new.png")
    x = read_image("new.png")[None]
    A = Inpainting((3, 32, 32), box=(12, 12, 10, 10))
    y = A(x)
    result = reconstruct(y, A, "discs-prior/prior.safetensors", **settings)
    for name, image in {"hole": y, **result.results}.items():
        print(f"{name:>8} {evaluate(image, y, A, truth=x)[0]['psnr']:6.2f} dB")
    to_pillow(torch.cat([x, y, *result.results.values()], dim=-1)[0]).save("own_prior.png")
    return result


if __name__ == "__main__":
    main()
