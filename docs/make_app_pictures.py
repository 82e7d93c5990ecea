"""Make the pictures of docs/app.md: ``iagan app`` in a headless Chromium, with a bundled portrait.

``python docs/make_app_pictures.py`` takes a minute or two: what is shown is a whole reconstruction.
"""

import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from iagan_lightning.app.serving import served

PICTURES = Path(__file__).parent / "pictures"


def save(page, name):
    """Store the whole page."""
    page.wait_for_timeout(1000)
    with Image.open(io.BytesIO(page.screenshot(full_page=True))) as shown:  # as JPEG: a fifth of the PNG
        shown.convert("RGB").save(PICTURES / f"{name}.jpg", quality=88, subsampling=0, optimize=True)


def choose(page, example, task):
    """Take an example and choose what to do; the page says nowhere that it has followed."""
    page.get_by_role("button", name=f"Example: {example}").click()
    page.locator("#taken").get_by_text("pixels").wait_for()
    page.get_by_label("What to do").click()
    page.get_by_role("option", name=task).click()
    page.wait_for_timeout(8000)


def make():
    """Write app.jpg, a mask and what fills it, and app_phone.jpg, noise that is being removed."""
    with served("127.0.0.1", 0, "began64") as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(600_000)
        page.goto(address)
        choose(page, "Astronaut", "Fill in missing parts")
        box = page.locator("canvas").first.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for down in (0, 14):
            page.mouse.move(x - 70, y + 30 + down)
            page.mouse.down()
            page.mouse.move(x + 70, y + 36 + down, steps=12)
            page.mouse.up()
        page.wait_for_timeout(2000)
        page.get_by_role("button", name="Reconstruct").click()
        page.get_by_role("button", name="Download the picture").wait_for()
        save(page, "app")
        page = browser.new_page(viewport={"width": 390, "height": 900})
        page.set_default_timeout(600_000)
        page.goto(address)
        choose(page, "Grace Hopper", "Remove noise")
        page.get_by_role("button", name="Reconstruct").click()
        page.get_by_alt_text("The reconstruction as it forms").wait_for()
        save(page, "app_phone")
        browser.close()


if __name__ == "__main__":
    make()
