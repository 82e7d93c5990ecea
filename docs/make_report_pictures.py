"""Make the pictures of docs/report.md: ``iagan report`` and TensorBoard, in a headless Chromium.

``python docs/make_report_pictures.py RUN`` takes the folder of ``iagan super-resolution --lpips squeeze --out RUN``.
The pictures show its name: give it as a relative path.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from tensorboard.program import TensorBoard

from iagan_lightning.cli import main

PICTURES = Path(__file__).parent / "pictures"


def save(page, name):
    """Store what the window shows."""
    page.evaluate("document.querySelectorAll('img').forEach(e => { e.loading = 'eager'; })")
    page.wait_for_timeout(1000)
    with Image.open(io.BytesIO(page.screenshot())) as shown:  # as JPEG: a fifth of the PNG
        shown.convert("RGB").save(PICTURES / f"{name}.jpg", quality=88, subsampling=0, optimize=True)


def make(run):
    """Write report.jpg, report_image.jpg (dark), report_phone.jpg, and tensorboard.jpg."""
    main(["report", run])
    url = (Path(run) / "report.html").resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(url)
        height = page.evaluate("document.getElementById('settings').offsetTop")
        page.set_viewport_size({"width": 1280, "height": height})
        save(page, "report")
        page = browser.new_page(viewport={"width": 1280, "height": 1180}, color_scheme="dark")
        page.goto(url)
        page.locator("article figure button").last.click()
        save(page, "report_image")
        page = browser.new_page(viewport={"width": 390, "height": 1180})
        page.goto(url)
        save(page, "report_phone")
        server = TensorBoard()
        server.configure(argv=["", "--logdir", str(Path(run) / "tensorboard"), "--port", "0"])
        url = server.launch()
        page = browser.new_page(viewport={"width": 1280, "height": 1310})
        page.goto(f"{url}?tagFilter=%5E(curve/.*%7Cfinal/comparison)%24#timeseries")
        page.wait_for_timeout(8000)  # the page says nowhere that it is complete
        page.get_by_label("Close side pane").click()
        page.wait_for_timeout(8000)
        save(page, "tensorboard")
        browser.close()


if __name__ == "__main__":
    make(sys.argv[1])
