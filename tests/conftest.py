"""Fixtures shared by all tests: a tiny generator for plumbing, the public weights and real faces for claims."""

import multiprocessing
import os
import shutil
from pathlib import Path

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):  # they share the cores, and PyTorch asks on import
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // workers, 1)))

import numpy as np
import pytest
import torch
from PIL import Image

from iagan_lightning.data.images import fit_image, read_image
from iagan_lightning.generators import BEGAN, load_generator, save_generator
from iagan_lightning.results.lpips import lpips_network

SHARED = Path(__file__).parent.parent.parent / "shared"
EXAMPLES = Path(__file__).parent.parent / "iagan_lightning" / "examples"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """LPIPS from the shared cache where there is one; nothing from the user's home; as many threads as before.

    A command on several processes leaves its part of the cores to the one it began in, and sums of a fit on other
    threads differ in their last bits from those of a process started anew.
    """
    if (SHARED / "torch_home").is_dir():
        monkeypatch.setenv("TORCH_HOME", str(SHARED / "torch_home"))
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def prior(tmp_path):
    """A file of weights of one's own, of 16 x 16 pixels."""
    torch.manual_seed(0)
    save_generator(BEGAN(16, 4, 8), tmp_path / "own.safetensors")
    return tmp_path / "own.safetensors"


@pytest.fixture(scope="session")
def processes():
    """Start processes in milliseconds: copies of one that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["iagan_lightning.commands.tasks", "iagan_lightning.commands.train_prior"])
    return context


@pytest.fixture(scope="session")
def shared():
    """The folder with public weights and test faces."""
    if not SHARED.is_dir():
        pytest.skip("needs the public weights and test faces, which are no part of the package")
    return SHARED


@pytest.fixture(scope="session")
def squeezenet():
    """LPIPS of SqueezeNet, which torch fetches where its cache has no weights."""
    with pytest.MonkeyPatch.context() as patch:
        if (SHARED / "torch_home").is_dir():
            patch.setenv("TORCH_HOME", str(SHARED / "torch_home"))
        try:
            return lpips_network("squeeze")
        except OSError as error:  # there is no network; any other fault is one
            pytest.skip(f"needs the weights of SqueezeNet in $TORCH_HOME/hub/checkpoints: {error}")


@pytest.fixture(scope="session")
def tiny():
    """A generator of 16 x 16 images with random weights: fast, and enough wherever faces do not matter."""
    torch.manual_seed(1)
    return BEGAN(resolution=16, channels=4, latent=8).eval()


@pytest.fixture(scope="session")
def tiny_weights(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_generator(tiny, path)
    return path


@pytest.fixture(scope="session")
def public(shared):
    """The public 64 x 64 BEGAN."""
    return load_generator(shared / "weights" / "began64-celeba.pth")


@pytest.fixture(scope="session")
def portraits():
    """The bundled portraits at 64 x 64, (2, 3, 64, 64)."""
    return torch.stack([fit_image(read_image(path), (64, 64)) for path in sorted(EXAMPLES.glob("*.png"))])


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium of the system."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install '.[test]'")
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        pytest.skip("needs a Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def folder(tmp_path):
    """Two pictures of noise, as large as the images of ``tiny``."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder
