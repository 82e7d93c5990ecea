"""benchmarks/views.py: a real run with a tiny prior, whose calibration covers what it was measured on."""

import json
import re
from pathlib import Path

import pytest
import torch

from iagan_lightning.generators import BEGAN, load_generator, save_generator

ROOT = Path(__file__).parent.parent
TASKS = ["super-resolution x4", "denoising, noise 25/255"]


@pytest.mark.usefixtures("squeezenet")
def test_a_calibration_covers_what_it_was_measured_on(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import views

    torch.manual_seed(0)
    prior, page = tmp_path / "own.safetensors", tmp_path / "page.md"
    save_generator(BEGAN(64, 2, 4), prior)
    page.write_text("<!-- views -->\n<!-- end -->\n")
    words = ["views.py", "--faces", str(ROOT / "iagan_lightning/examples"), "--generators", str(prior), "--first", "0"]
    words += ["--count", "1", "--out", str(tmp_path / "out"), "--tasks", *TASKS]
    monkeypatch.setattr("sys.argv", [*words, "--calibrate"])
    views.main()
    assert set(load_generator(prior).calibration.factors) == {"BicubicDownsampling", "Identity, noise"}
    stored = json.loads((tmp_path / "calibration/own.json").read_text())
    assert stored["about"]["factors"]["Identity, noise"]["views"] == 2
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert len(made) == 2
    monkeypatch.setattr("sys.argv", [*words, "--page", str(page), "--plot", str(tmp_path / "plot.png")])
    views.main()
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}  # nothing was made again
    rows = [line for line in page.read_text().splitlines() if line.startswith(("| super", "| denoising"))]
    covered = [float(re.search(r"([\d.]+)% \|$", row)[1]) for row in rows]
    assert covered == pytest.approx([90, 90], abs=0.5)
    assert re.search(r"\| \d\.\d\d \| \de-0[78] \|", rows[0])  # exact as each view is
    assert (tmp_path / "plot.png").stat().st_size > 1000
    capsys.readouterr()
