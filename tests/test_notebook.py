"""Results in a notebook, and the example notebook itself."""

import base64
import html
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iagan_lightning import Stage, reconstruct
from iagan_lightning.cli import main
from iagan_lightning.data.images import read_image, to_pillow
from iagan_lightning.operators import BicubicDownsampling, GaussianSensing, Operator
from iagan_lightning.results.sheet import CELL, MARGIN

NOTEBOOK = Path(__file__).parent.parent / "docs" / "reconstruct.ipynb"


@pytest.mark.parametrize(("noise_std", "methods"), [(0.0, 4), (0.1, 2)])
def test_a_result_shows_itself(tiny, noise_std, methods):
    A = BicubicDownsampling((3, 16, 16), scale=4)
    y = A(torch.rand(2, 3, 16, 16) * 2 - 1)
    stage = Stage(steps=2)
    result = reconstruct(y, A, tiny, noise_std, latent=stage, joint=stage, accelerator="cpu")
    table, picture = re.fullmatch(
        r'<pre>(.*)</pre><img alt=".*" src="data:image/png;base64,(.*)">', result._repr_html_(), re.S
    ).groups()
    assert html.unescape(table) == repr(result)
    with Image.open(io.BytesIO(base64.b64decode(picture))) as shown:
        assert shown.width == methods * (CELL + MARGIN) + MARGIN
        row = shown.height // 2
        middle = [shown.getpixel((MARGIN + CELL // 2 + 3, top + MARGIN + CELL // 2 + 3)) for top in (0, row)]
    for pixel, image in zip(middle, result.csgm, strict=True):  # that of row and column 8
        assert pixel == pytest.approx((image[:, 8, 8].clamp(-1, 1) + 1).mul(127.5).tolist(), abs=1)


@pytest.fixture
def problem(tiny):
    """Two pictures, their measurements and a result of few steps."""
    A = BicubicDownsampling((3, 16, 16), scale=4, padding="zero")
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return x, A, reconstruct(A(x), A, tiny, **STEPS)


STEPS = {"latent": Stage(steps=3), "joint": Stage(steps=2), "accelerator": "cpu"}


def test_the_table_says_what_was_spent(problem):
    _, _, result = problem
    head, columns, latent, joint, names = repr(result).splitlines()
    assert head == "2 reconstructions of 3 x 16 x 16"
    assert columns.split() == ["fit", "evaluations", "objective", "seconds"]
    low, high = sorted(result.objective["latent"].tolist())
    assert latent.split() == ["latent", "3", f"{low:.1e}", "to", f"{high:.1e}", f"{result.seconds['latent']:.1f}"]
    assert joint.split()[:2] == ["joint", "2"]
    assert names == "results: csgm, csgm_bp, iagan, iagan_bp"
    assert repr(result[0]).startswith("1 reconstruction of")


def test_an_image_of_a_result_is_a_result(problem):
    _, _, result = problem
    assert len(result) == 2
    for index, one in enumerate(result):
        assert len(one) == 1
        assert torch.equal(one.iagan_bp, result.iagan_bp[index : index + 1])
        assert one.objective["joint"].tolist() == [result.objective["joint"][index].item()]
    assert torch.equal(result[-1]["csgm"], result["csgm"][1:])
    with pytest.raises(IndexError):
        result[2]
    with pytest.raises(KeyError):
        result["ilo"]


def test_a_result_is_saved_as_a_run_saves_it(problem, tiny_weights, tmp_path, capsys):
    x, A, result = problem
    assert result.save(tmp_path / "saved", ["a", "below/b"], truth=x) == tmp_path / "saved"
    (tmp_path / "pictures" / "below").mkdir(parents=True)
    for name, y in zip(("a", "below/b"), A(x), strict=True):
        torch.save(y, tmp_path / "pictures" / f"{name}.pt")
    command = f"super-resolution --model.generator {tiny_weights} --data.measurements {tmp_path / 'pictures'}"
    options = "--operator.padding zero --model.latent.steps 3 --model.joint.steps 2 --trainer.accelerator cpu"
    rest = ["--out", str(tmp_path / "run"), "--tensorboard", "0"]
    assert main([*command.split(), *options.split(), *rest]) == 0
    for name in ("a", "below/b"):
        own, run = (tmp_path / folder / "images" / name for folder in ("saved", "run"))
        written = {path.name for path in run.iterdir() if path.is_file()} - {"curves.csv"}
        assert {path.name for path in own.iterdir() if path.is_file()} == written | {"truth.png"}
        record, other = (json.loads((folder / "metrics.json").read_text()) for folder in (own, run))
        assert record.keys() | {"inputs"} == other.keys()  # these are files
        assert record["operator"] == other["operator"]
        assert record["methods"].keys() == other["methods"].keys()
        assert torch.equal(torch.load(own / "measurement.pt"), torch.load(run / "measurement.pt"))
        index = ["a", "below/b"].index(name)
        expected = ((result.iagan[index].clamp(-1, 1) - x[index]) / 2).square().mean()
        assert record["methods"]["iagan"]["mse"] == pytest.approx(float(expected), rel=1e-4)
        assert np.array_equal(np.asarray(Image.open(own / "iagan.png")), np.asarray(to_pillow(result.iagan[index])))
    assert main(["report", str(tmp_path / "saved")]) == 0
    assert (tmp_path / "saved" / "report.html").exists() or "html" in capsys.readouterr().out
    with pytest.raises(ValueError, match="holds a already"):
        result.save(tmp_path / "saved", ["a", "c"])
    with pytest.raises(ValueError, match="2 different names are needed"):
        result.save(tmp_path / "other", ["a", "a"])
    wrong = [((x + 1) * 127.5, "images are in"), (x.repeat(2, 1, 1, 1), "truth must have"), (x[0], "truth must have")]
    for truth, said in wrong:
        with pytest.raises(ValueError, match=said):
            result.save(tmp_path / "none", truth=truth)
    assert not (tmp_path / "none").exists()
    result.save(tmp_path / "saved", truth=x.numpy())
    assert json.loads((tmp_path / "saved" / "summary.json").read_text())["images"] == 4


def test_a_picture_is_taken_as_y(tiny, tmp_path):
    A = BicubicDownsampling((3, 16, 16), scale=4, padding="zero")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    path = tmp_path / "small.png"
    Image.fromarray(pixels).save(path)
    y = torch.from_numpy(pixels).float().permute(2, 0, 1)[None] / 127.5 - A(torch.ones(1, 3, 16, 16))
    expected = reconstruct(y, A, tiny, quantisation=1 / 255 / 12**0.5, **STEPS)
    with Image.open(path) as picture:
        for given in (path, str(path), picture):
            result = reconstruct(given, A, tiny, **STEPS)
            assert torch.allclose(result.images[0].y, y[0], atol=1e-6)
            assert result.images[0].quantisation == pytest.approx(1 / 255 / 12**0.5)
            assert torch.allclose(result.iagan, expected.iagan, atol=1e-3)
        assert reconstruct(picture, A, tiny, quantisation=0.0, **STEPS).images[0].quantisation == 0
        assert read_image(picture).shape == (3, 4, 4), "still open"


class Saturated(Operator):
    measurement_shape = (3, 4, 4)

    def forward(self, x):
        return x.clamp(-0.5, 0.5)


@pytest.mark.parametrize(
    ("operator", "said"),
    [
        (GaussianSensing((3, 16, 16), ratio=0.1), "the measurements of GaussianSensing are no pictures"),
        (BicubicDownsampling((3, 16, 16), scale=2), "4 x 4 pixels was given as y, and BicubicDownsampling makes 8 x 8"),
        (Saturated((3, 4, 4)), "for a linear operator only, and Saturated is none"),
    ],
)
def test_a_picture_that_is_no_measurement_is_refused(tiny, tmp_path, operator, said):
    Image.new("RGB", (4, 4)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match=said):
        reconstruct(tmp_path / "small.png", operator, tiny, **STEPS)


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
    assert sum("image/png" in data for data in shown) == 2
    assert sum("base64" in data.get("text/html", "") for data in shown) == 1
    lines = [
        output.data["text/plain"] for cell in cells for output in cell.outputs if output.output_type == "display_data"
    ]
    assert len(lines) == 1, "one line that changes in place"
    assert re.fullmatch(r"joint, evaluation \d+ of at most \d+, objective \S+, \S+ s", lines[0])
    assert "iagan_bp  PSNR" in cells[-1].outputs[0].text
