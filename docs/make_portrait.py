"""Make the README's picture of a portrait of 1024 x 1024 pixels from the 64 x 64 that were measured of it.

    python docs/make_portrait.py --portraits PORTRAITS --name ron_johnson --out OUT

The run goes on where it stopped; the portraits are works of the government of the United States, in the public domain.
"""

import argparse
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from iagan_lightning.cli import main as iagan

SHOWN = {
    "naive": "bicubic; in its corner what was given, 64 x 64",
    "csgm_bp": "CSGM-BP",
    "iagan_bp": "IAGAN-BP",
    "truth": "truth",
}
LINE, GAP = 26, 6
EYES = (300, 330, 300 + 448, 330 + 300)  # of each picture, shown at full size below


def main() -> None:
    """Reconstruct, and lay the pictures side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--portraits", type=Path, required=True)
    parser.add_argument("--name", default="ron_johnson")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        [portrait] = given.portraits.glob(f"{given.name}.*")
        (Path(folder) / portrait.name).symlink_to(portrait.resolve())
        words = ["super-resolution", "--model.generator", "ffhq1024", "--operator.scale", "16", "--data.root", folder]
        if status := iagan([*words, "--lpips", "none", "--tensorboard", "0", "--out", str(given.out)]):
            raise SystemExit(status)
    sheet(given.out / "images" / given.name).save(Path(__file__).parent / "pictures" / "portrait1024.jpg", quality=88)


def sheet(folder: Path) -> Image.Image:
    """Return the pictures of a result side by side, a part of each at its own size below."""
    width, height = EYES[2] - EYES[0], EYES[3] - EYES[1]
    columns = list(SHOWN)
    page = Image.new("RGB", (len(columns) * (width + GAP) - GAP, LINE + width + GAP + height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(18)
    for column, name in enumerate(columns):
        left = column * (width + GAP)
        draw.text((left, 2), SHOWN[name], "black", font)
        picture = Image.open(folder / f"{name}.png").convert("RGB")
        page.paste(picture.resize((width, width), Image.Resampling.LANCZOS), (left, LINE))
        page.paste(picture.crop(EYES), (left, LINE + width + GAP))
    given = Image.open(folder / "measurement.png").convert("RGB")
    page.paste(given, (4, LINE + 4))  # at its own size, on the bicubic picture
    return page


if __name__ == "__main__":
    main()
