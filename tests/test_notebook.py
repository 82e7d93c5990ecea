"""Results in a notebook, and the example notebook itself."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from iagan_lightning import Stage, reconstruct
from iagan_lightning.operators import BicubicDownsampling
from iagan_lightning.results.sheet import CELL, MARGIN

NOTEBOOK = Path(__file__).parent.parent / "docs" / "reconstruct.ipynb"


@pytest.mark.parametrize(("noise_std", "methods"), [(0.0, 4), (0.1, 2)])
def test_a_result_shows_itself(tiny, noise_std, methods):
    A = BicubicDownsampling((3, 16, 16), scale=4)
    y = A(torch.rand(2, 3, 16, 16) * 2 - 1)
    stage = Stage(steps=2)
    result = reconstruct(y, A, tiny, noise_std, latent=stage, joint=stage, accelerator="cpu")
    with Image.open(io.BytesIO(result._repr_png_())) as shown:
        assert shown.width == methods * (CELL + MARGIN) + MARGIN
        row = shown.height // 2
        middle = [shown.getpixel((MARGIN + CELL // 2 + 3, top + MARGIN + CELL // 2 + 3)) for top in (0, row)]
    for pixel, image in zip(middle, result.csgm, strict=True):  # that of row and column 8
        assert pixel == pytest.approx((image[:, 8, 8].clamp(-1, 1) + 1).mul(127.5).tolist(), abs=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the notebook libraries among themselves
def test_the_example_notebook_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parent.parent))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells), "stored without outputs"
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [output.data for cell in cells for output in cell.outputs if output.output_type == "execute_result"]
    assert sum("image/png" in data for data in shown) == 3
    assert "iagan_bp  PSNR" in cells[-1].outputs[0].text
