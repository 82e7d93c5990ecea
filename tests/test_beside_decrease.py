"""benchmarks/decrease.py: a real run with a tiny prior, which goes on for as long as it is told to."""

from pathlib import Path

import pytest
import torch

from iagan_lightning.generators import BEGAN, save_generator

ROOT = Path(__file__).parent.parent


@pytest.mark.usefixtures("squeezenet")
def test_a_larger_factor_takes_more_evaluations(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import decrease

    torch.manual_seed(0)
    prior, page = tmp_path / "own.safetensors", tmp_path / "page.md"
    save_generator(BEGAN(32, 4, 4), prior)
    page.write_text("<!-- decrease -->\n<!-- end -->\n")
    words = ["decrease.py", "--faces", str(ROOT / "iagan_lightning/examples"), "--generators", str(prior)]
    words += ["--tasks", "super-resolution x4", "--decrease", "1.5", "1.1", "--first", "0", "--count", "2"]
    monkeypatch.setattr("sys.argv", [*words, "--page", str(page)])
    decrease.main()
    rows = [[cell.strip() for cell in line.split("|")] for line in page.read_text().splitlines() if "x4" in line]
    assert [row[3] for row in rows] == ["1.5", "1.1"]
    longer, shorter = (int(row[6]) for row in rows)
    assert longer > shorter >= 1
    assert capsys.readouterr().out.count("super-resolution x4") == 2
