"""Numbers that are none: infinite PSNRs, residuals of nothing; in records, means, tables and reports."""

import csv
import io
import json
import math

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from iagan_lightning.cli import main
from iagan_lightning.paper.experiments import rows_of
from iagan_lightning.paper.tables import cells_of, quality
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.page.collect import collect
from iagan_lightning.results.table import print_summary

STEPS = ["--model.latent.steps", "3", "--model.joint.steps", "2", "--trainer.accelerator", "cpu", "--lpips", "none"]


@pytest.fixture
def run(tiny_weights, tmp_path):
    def run(task, *arguments, out="out"):
        common = [task, "--model.generator", tiny_weights, "--out", tmp_path / out, "--tensorboard", "0", *STEPS]
        return main([str(word) for word in [*common, *arguments]])

    return run


@pytest.fixture
def folder(tmp_path):
    """Two pictures; a black one comes out of y = x without error."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(folder / "black.png")
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "noise.png")
    return folder


def strict(text):
    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_picture_without_error_spoils_no_mean(run, folder, tmp_path, capsys):
    """Denoising without noise: the plain reconstruction is the picture itself, its PSNR infinite."""
    assert run("denoising", "--data.root", folder) == 0
    table = " ".join(capsys.readouterr().out.split())
    out = tmp_path / "out"
    for name in ("black", "noise"):
        naive = strict((out / "images" / name / "metrics.json").read_text())["methods"]["naive"]
        assert (naive["psnr"], naive["mse"]) == (None, 0)
    summary = strict((out / "summary.json").read_text())
    naive, iagan = (summary["methods"][method]["psnr"] for method in ("naive", "iagan"))
    assert naive == {"mean": None, "median": None, "std": None, "left_out": 2}
    assert iagan["left_out"] == 0
    psnrs = [
        json.loads((out / "images" / n / "metrics.json").read_text())["methods"]["iagan"]["psnr"]
        for n in ("black", "noise")
    ]
    assert iagan["mean"] == pytest.approx(np.mean(psnrs))
    assert "PSNR of naive 2 of 2" in table
    assert "nan" not in table
    note, *_ = collect([out], tmp_path / "page.html")["notes"]
    assert "PSNR of naive 2 of 2" in note
    rows = list(csv.DictReader(io.StringIO((out / "summary.csv").read_text())))
    assert {row["psnr"] for row in rows if row["method"] == "naive"} == {""}
    assert run("denoising", "--data.root", folder, "--json", "true") == 0
    assert strict(capsys.readouterr().out)["methods"] == summary["methods"]


@pytest.mark.parametrize("content", ["", '{"image": "no', "[]"])
@pytest.mark.parametrize("name", ["settings.json", "images/noise/metrics.json"])
def test_a_damaged_record_is_named(run, folder, tmp_path, capsys, name, content):
    (tmp_path / "out" / "images" / "noise").mkdir(parents=True)
    (tmp_path / "out" / name).write_text(content)
    assert run("denoising", "--data.root", folder / "noise.png") == 2
    error = capsys.readouterr().err
    assert f"{name} is damaged" in error
    assert "delete it and run the same command again" in error


def test_a_folder_in_ones_home(run, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert run("denoising", "--data.root", folder / "noise.png", "--out=~/x") == 0
    assert (tmp_path / "home" / "x" / "summary.json").is_file()
    assert not (tmp_path / "~").exists()


def test_a_measurement_of_nothing_has_no_relative_residual(run, tmp_path, capsys):
    own = tmp_path / "own"
    own.mkdir()
    np.save(own / "zero.npy", np.zeros((3, 4, 4), np.float32))
    assert run("super-resolution", "--data.measurements", own) == 0
    assert "nan" not in capsys.readouterr().err
    methods = strict((tmp_path / "out" / "images" / "zero" / "metrics.json").read_text())["methods"]
    assert {row["residual"] for row in methods.values()} == {None}


def older(out, name, methods, **others):
    """Write a record as earlier versions did, NaN and Infinity included."""
    folder = out / "images" / name
    folder.mkdir(parents=True)
    record = {"image": name, "seconds": {"total": 1.0}, "noise_std": 0.0, "methods": methods, **others}
    (folder / "metrics.json").write_text(json.dumps(record))


@pytest.fixture
def of_before(tmp_path):
    """A folder of an earlier version: one picture without error, one whose residual was no number, one as usual."""
    out = tmp_path / "before"
    values = {"a": (math.inf, 0.0, 1e-7), "b": (20.0, 0.01, math.nan), "c": (30.0, 0.001, 1e-2)}
    for name, (psnr, mse, residual) in values.items():
        older(
            out,
            name,
            {"naive": {"psnr": 25.0, "mse": 0.003}, "iagan": {"psnr": psnr, "mse": mse, "residual": residual}},
        )
    return out


def test_folders_of_before_are_still_read(of_before, tmp_path):
    summary = OutputFolder(of_before).write_summary()
    iagan = summary["methods"]["iagan"]
    assert iagan["psnr"] == {"mean": 25, "median": 25, "std": pytest.approx(50**0.5), "left_out": 1}
    assert iagan["psnr_of_mean_mse"] == pytest.approx(-10 * math.log10(0.011 / 3))
    assert strict((of_before / "summary.json").read_text()) == summary
    (of_before / "summary.csv").write_text("image,method,psnr,mse\na,iagan,inf,0.0\nb,iagan,nan,0.5\n")
    assert [row.get("psnr") for row in OutputFolder(of_before).rows()] == [None, None]

    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    print_summary(summary, OutputFolder(of_before), console=console)
    printed = console.file.getvalue()
    assert "PSNR of IAGAN 1 of 3, residual" not in printed
    assert "PSNR of IAGAN 1 of 3, Residual of IAGAN 1 of 3" in printed
    assert "\x1b[1m25.00" not in printed, "means over different pictures: none is the best"

    assert main(["report", str(of_before)]) == 0
    data = collect([of_before], tmp_path / "page.html")
    [row] = [row for row in data["summary"] if row["method"] == "iagan"]
    assert row["psnr"] == iagan["psnr"]
    assert {metric["key"]: metric["alike"] for metric in data["metrics"]}["psnr"] is False
    strict((of_before / "report.html").read_text().partition('id="data">')[2].partition("</script>")[0])


def test_tables_of_the_paper_say_what_is_left_out(of_before):
    [row] = rows_of("2", "CelebA", 64)[:1]
    cells = cells_of(row, ("naive", "iagan"), OutputFolder(of_before), "2", "CelebA")
    ours, mean = quality(cells, ("naive", "iagan"), "CelebA")[1:3]
    assert ours[3].endswith("(N=3)")
    assert mean[2:] == ["25.00 (N=3)", "25.00 (N=3, 1 left out)"]


# Runs beside each other -------------------------------------------------------------------------------------------


def test_runs_are_compared_over_the_pictures_that_all_have(tmp_path):
    """The second run did further pictures, and better ones: that makes it no better."""
    first, second = tmp_path / "first", tmp_path / "second"
    for i in range(3):
        older(first, f"p{i}", {"iagan": {"psnr": 20.0 + i}})
        older(second, f"p{i}", {"iagan": {"psnr": 19.0 + 2 * i}})
    for i in range(3, 9):
        older(second, f"p{i}", {"iagan": {"psnr": 40.0}})
    page = tmp_path / "page.html"
    data = collect([first, second], page)
    assert [(row["n"], row["psnr"]["mean"]) for row in data["summary"]] == [(3, 21), (3, 21)]
    assert "Over the 3 pictures that all of these runs have (3 in first, 9 in second)." in data["notes"]
    assert len(data["images"]) == 9
    [row] = data["differences"]
    assert (row["run"], row["method"]) == (1, "iagan")
    assert row["psnr"] == {"n": 3, "mean": 0, "std": 1}

    third = tmp_path / "third"
    older(third, "other", {"iagan": {"psnr": 30.0}})
    data = collect([first, third], page)
    assert "No picture is in all of these runs" in data["notes"][0]
    assert [metric["alike"] for metric in data["metrics"]] == [False]
    assert data["differences"] == []
    assert collect([first], page)["differences"] == collect([first], page)["notes"] == []


def test_a_method_that_is_missing_from_a_picture_is_not_compared(tmp_path):
    out = tmp_path / "out"
    older(out, "a", {"iagan": {"psnr": 20.0, "ssim": 0.5}, "dip": {"psnr": 25.0}})
    older(out, "b", {"iagan": {"psnr": 22.0, "ssim": 0.6}})
    data = collect([out], tmp_path / "page.html")
    assert {metric["key"]: metric["alike"] for metric in data["metrics"]} == {"psnr": False, "ssim": True}
