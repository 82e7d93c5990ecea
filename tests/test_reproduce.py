"""iagan reproduce: tiny real runs of every table, read back from what they wrote."""

import contextlib
import csv
import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from iagan_lightning.cli import main
from iagan_lightning.data.images import read_image
from iagan_lightning.paper import EXPERIMENTS, published_figures
from iagan_lightning.paper.experiments import CALIBRATED, SIZES, misaligned, rows_of
from iagan_lightning.paper.figures import masks

ROOT = Path(__file__).parent.parent
STEPS = ["--model.latent.steps", 4, "--model.joint.steps", 3, "--dip_settings.steps", 2, "--trainer.accelerator", "cpu"]


def draw(folder):
    folder.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def faces(tmp_path):
    return draw(tmp_path / "faces")


@pytest.fixture
def reproduce(tiny_weights, tmp_path, faces):
    def run(table, *options, limit=2, steps=STEPS):
        common = ["--data.root", faces, "--generator", tiny_weights, "--out", tmp_path / "out", "--limit", limit]
        return main(
            [str(word) for word in ["reproduce", "--table", table, *common, "--lpips", "none", *steps, *options]]
        )

    return run


@pytest.fixture(scope="module")
def made(tiny_weights, tmp_path_factory):
    """Return the folder of a table that is made once, of two images, and what was printed."""
    done, faces = {}, draw(tmp_path_factory.mktemp("made") / "faces")

    def run(table, *options):
        key = (table, *options)
        if key not in done:
            out, printed = tmp_path_factory.mktemp("made"), io.StringIO()
            common = ["--data.root", faces, "--generator", tiny_weights, "--out", out, "--limit", 2, "--lpips", "none"]
            with contextlib.redirect_stdout(printed):
                assert main([str(word) for word in ["reproduce", "--table", table, *common, *STEPS, *options]]) == 0
            name = f"table-{table}" if (out / f"table-{table}").exists() else table
            done[key] = out / name, printed.getvalue()
        return done[key]

    return run


def lines(out):
    return list(csv.DictReader((out / "table.csv").read_text().splitlines()))


@pytest.mark.parametrize(("table", "rows"), [("1", 2), ("1-calibrated", 2), ("2", 2), ("3", 2), ("4", 1)])
def test_tables(made, table, rows):
    out, printed = made(table)
    assert out.name == f"table-{table}"
    written = lines(out)
    methods = EXPERIMENTS[table].methods
    assert len(written) == rows * len(methods)
    published = published_figures(table, "CelebA")
    for line in written:
        folder = out / line["task"] / "images"
        records = [json.loads((folder / name / "metrics.json").read_text()) for name in ("0", "1")]
        values = [record["methods"][line["method"]] for record in records]
        assert line["n"] == "2"
        assert float(line["mean_psnr"]) == pytest.approx(np.mean([v["psnr"] for v in values]))
        mean_mse = np.mean([v["mse"] for v in values])
        assert float(line["psnr_of_mean_mse"]) == pytest.approx(10 * np.log10(1 / mean_mse))
        shown = (float(line["published_psnr"]), float(line["published_lpips_alex"]))
        assert shown == published[line["task"], line["method"]]
        if line["method"] == "iagan":
            seconds = [r["seconds"]["latent"] + r["seconds"]["joint"] for r in records]
            assert float(line["seconds"]) == pytest.approx(np.mean(seconds))
        assert {record["preset"] for record in records} == {"paper"}
    page, latex = (out / "table.md").read_text(), (out / "table.tex").read_text()
    assert page in printed
    for line in written:
        assert f"{float(line['psnr_of_mean_mse']):.2f} (N=2)" in page
        figure = f"{float(line['published_psnr']):.2f} / {float(line['published_lpips_alex']):.3f} (N=100)"
        assert figure in page
        assert figure in latex
    assert "DIP (short)" in page
    assert ("no official settings" in page) == (table[0] in "14")
    assert ("~100" in page) == (table[0] == "1")
    assert ("calibrated on that column alone" in page) == (table == "1-calibrated")
    timed = {line["method"]: float(line["published_seconds"]) for line in written if line["published_seconds"]}
    assert timed == ({"dip": 100.0, "csgm": 30.0, "iagan": 35.0} if table[0] == "1" else {})
    assert (out / "figure5-masks.png").exists() == (table[0] == "1")


LAYOUTS = {  # of one image, as the captions of the paper have it
    ("1", "CelebA"): (3, ["truth naive dip csgm iagan"], ["fourier-0.3", "fourier-0.5"]),
    ("1", "CelebA-HQ"): (4, ["truth naive dip", "csgm iagan"], ["fourier-0.3", "fourier-0.5"]),
    ("2", "CelebA"): (6, ["truth naive dip csgm", "csgm_bp iagan iagan_bp"], ["sr-4"]),
    ("2", "CelebA-HQ"): (8, ["truth naive dip csgm", "iagan csgm_bp iagan_bp"], ["sr-16"]),
    ("3", "CelebA-HQ"): (7, ["truth naive dip", "csgm iagan"], ["sr-8"]),
    ("4", "CelebA-HQ"): (10, ["truth naive dip", "csgm iagan"], ["deblur-uniform-9"]),
    ("misaligned", "CelebA"): (9, ["truth naive csgm iagan"], ["sr-4-misaligned"]),
    ("fig2", "CelebA"): (
        1,
        [
            "gaussian-0.122/truth gaussian-0.122/csgm gaussian-0.122/csgm_bp gaussian-0.61/csgm gaussian-0.61/csgm_bp",
            "- gaussian-0.122/iagan gaussian-0.122/iagan_bp gaussian-0.61/iagan gaussian-0.61/iagan_bp",
        ],
        ["gaussian-0.122/gaussian-0.61"],
    ),
}


@pytest.mark.parametrize(("table", "dataset"), LAYOUTS)
def test_pictures_lie_as_in_the_papers_figures(made, table, dataset):
    number, layout, groups = LAYOUTS[table, dataset]
    ratios = ["--ratios", "0.122,0.61"] if table == "fig2" else []
    out, _ = made(table, *(["--dataset", dataset] if dataset != "CelebA" else []), *ratios)
    assert out.name == (f"table-{table}" if table.isdigit() else table)
    with Image.open(out / f"figure{number}.png") as figure:
        pixels = np.asarray(figure.convert("RGB"))
    height = len(layout) * 232
    assert pixels.shape[:2] == (len(groups) * 2 * height, max(len(line.split()) for line in layout) * 200 + 8)
    for g, group in enumerate(groups):
        for image in range(2):
            for i, line in enumerate(layout):
                for j, cell in enumerate(line.split()):
                    top, left = (2 * g + image) * height + i * 232 + 8, j * 200 + 8
                    shown = pixels[top : top + 192, left : left + 192]
                    row, _, method = cell.rpartition("/")
                    if cell == "-":
                        assert (shown == 255).all()
                    else:
                        file = out / (row or group) / "images" / str(image) / f"{method}.png"
                        assert (shown[6::12, 6::12] == np.asarray(Image.open(file))).all()
    rows = rows_of(table, dataset, 16, (0.122, 0.61))
    others = {f"sheet-{row.name}.png" for row in rows if row.name not in "/".join(groups).split("/")}
    assert {path.name for path in out.glob("sheet*")} == others
    assert f"arranged as Figure {number}." in (out / "table.md").read_text()


def test_sheets_without_dip_and_of_a_failed_one(reproduce, tmp_path, faces):
    """A column left out closes up; a picture that a single image lacks leaves its place empty."""
    out = tmp_path / "out" / "table-4"
    assert reproduce("4", "--dip", "false", limit=1) == 0
    with Image.open(out / "figure10.png") as figure:
        assert figure.size == (2 * 200 + 8, 2 * 232)
    assert reproduce("1", limit=1) == 0
    (tmp_path / "out" / "table-1" / "fourier-0.3" / "images" / "0" / "dip.png").unlink()
    assert reproduce("1", limit=1) == 0
    with Image.open(tmp_path / "out" / "table-1" / "figure3.png") as figure:
        pixels = np.asarray(figure.convert("RGB"))
    assert (pixels[8:232, 408:600] == 255).all()
    assert not (pixels[8:200, 608:800] == 255).all()


def test_a_dip_that_is_short_in_one_row_only_is_marked_there(reproduce, tmp_path):
    """Official steps with noise: 500 for x4, 1000 for x8."""
    assert reproduce("3", steps=[*STEPS[:4], "--dip_settings.steps", 500, "--dip_settings.stop", "noise",
                                 "--trainer.accelerator", "cpu"], limit=1) == 0  # fmt: skip
    out = tmp_path / "out" / "table-3"
    titles = {line["task"]: line["title"] for line in lines(out) if line["method"] == "dip"}
    assert titles == {"sr-4": "DIP", "sr-8": "DIP (short)"}
    page = [line.split("|") for line in (out / "table.md").read_text().splitlines() if line.startswith("|")]
    assert page[0][4].strip() == "DIP"
    assert page[2][4].strip().endswith("(N=1)")
    assert page[5][4].strip().endswith("(N=1, DIP (short))")
    assert "DIP (short) took fewer steps" in (out / "table.md").read_text()


@pytest.mark.parametrize(
    ("precision", "named"), [("bf16-mixed", "preset paper in bf16-mixed."), ("32", "preset paper.")]
)
def test_half_precision_is_named(reproduce, tmp_path, precision, named):
    assert reproduce("4", "--dip", "false", "--trainer.precision", precision, limit=1) == 0
    page = (tmp_path / "out" / "table-4" / "table.md").read_text()
    assert named in page


def test_the_masks_of_figure_5():
    pixels = np.asarray(masks((3, 64, 64)).convert("L"))
    for left, ratio in ((8, 0.3), (208, 0.5)):
        mask = pixels[8:200, left : left + 192] > 127
        assert mask.mean() == pytest.approx(ratio, abs=0.01)
        assert mask[90:102, 90:102].mean() > 0.8, "low frequencies lie in the middle"


def test_misaligned_pictures_are_moved(made, faces):
    out, _ = made("misaligned")
    assert {line["method"]: line["published_psnr"] for line in lines(out)} == {
        "naive": "", "csgm": "19.18", "iagan": "26.73"
    }  # fmt: skip
    truth = read_image(out / "sr-4-misaligned" / "images" / "0" / "truth.png")
    whole = read_image(faces / "0.png")
    assert (truth[:, 1:] == whole[:, :-1]).all()
    assert (truth[:, 0] == whole[:, 0]).all()
    assert misaligned(128).options[-2:] == ("--data.shift", "5")


def test_figure_2(reproduce, tmp_path):
    assert reproduce("fig2", "--ratios", "0.61,0.122") == 0
    out = tmp_path / "out" / "fig2"
    written = lines(out)
    assert [line["task"] for line in written] == ["gaussian-0.122"] * 4 + ["gaussian-0.61"] * 4
    for line in written:
        folder = out / line["task"] / "images"
        mse = [json.loads((folder / n / "metrics.json").read_text())["methods"][line["method"]]["mse"] for n in "01"]
        assert float(line["mse"]) == pytest.approx(np.mean(mse))
    assert f"{float(written[0]['mse']):.2e} (N=2)" in (out / "table.md").read_text()
    points = list(csv.DictReader((out / "figure2.csv").read_text().splitlines()))
    assert [(point["ratio"], point["n"]) for point in points] == [("0.122", "2"), ("0.61", "2")]
    assert float(points[0]["csgm"]) == pytest.approx(float(written[0]["mse"]), rel=1e-5)
    assert float(points[1]["iagan_bp"]) == pytest.approx(float(written[7]["mse"]), rel=1e-5)
    if importlib.util.find_spec("matplotlib"):
        with Image.open(out / "figure2.png") as plot:
            assert plot.width > 400
            assert len(np.unique(np.asarray(plot.convert("RGB")).reshape(-1, 3), axis=0)) > 20


def test_what_stands_in_for_a_dense_matrix_is_said(reproduce, tmp_path):
    page = tmp_path / "out" / "fig2" / "table.md"
    assert reproduce("fig2", "--ratios", "0.122") == 0
    assert "StructuredSensing" not in page.read_text()
    options = ["--ratios", "0.122,0.61", "--operator.design", "dct", "--out", tmp_path / "structured"]
    assert reproduce("fig2", *options) == 0
    page = tmp_path / "structured" / "fig2" / "table.md"
    assert "structured random projections (StructuredSensing): m/n 0.122, m/n 0.61." in page.read_text()


def test_the_same_command_goes_on(reproduce, tmp_path, capsys):
    options = ["--dip", "false"]
    assert reproduce("4", *options, limit=1) == 0
    out = tmp_path / "out" / "table-4"
    first = out / "deblur-uniform-9" / "images" / "0" / "metrics.json"
    before = first.stat().st_mtime_ns
    capsys.readouterr()
    assert reproduce("4", *options, limit=3) == 0
    assert "1 of 3 images are done already" in capsys.readouterr().err
    assert first.stat().st_mtime_ns == before
    assert {line["n"] for line in lines(out)} == {"3"}
    assert (
        "are of CelebA and a BEGAN, ours of this generator and the images of faces:" in (out / "table.md").read_text()
    )
    assert "dip" not in {line["method"] for line in lines(out)}
    assert reproduce("4", *options, "--seed_everything", 5) == 2
    assert "holds results of other settings (seed_everything was 0, now 5)" in capsys.readouterr().err


def test_a_table_is_of_the_images_of_its_command(reproduce, faces, tmp_path):
    """Others in its run folders, of another folder or a higher limit, are neither in its means nor on its sheets."""
    out, options = tmp_path / "out" / "table-4", ["--dip", "false"]
    assert reproduce("4", *options, limit=3) == 0
    others = tmp_path / "others"
    others.mkdir()
    (faces / "1.png").rename(others / "other.png")
    for more, limit, names in ((["--data.root", others], 9, ["other"]), ([], 9, ["0", "2"]), ([], 1, ["0"])):
        assert reproduce("4", *options, *more, limit=limit) == 0
        records = [out / "deblur-uniform-9" / "images" / name / "metrics.json" for name in names]
        for line in lines(out):
            assert line["n"] == str(len(names))
            values = [json.loads(record.read_text())["methods"][line["method"]]["psnr"] for record in records]
            assert float(line["mean_psnr"]) == pytest.approx(np.mean(values))
        with Image.open(out / "figure10.png") as figure:
            assert figure.height == len(names) * 2 * 232
    assert len(list((out / "deblur-uniform-9" / "images").iterdir())) == 4


def test_a_row_of_other_settings_is_not_in_the_table(reproduce, tmp_path, capsys):
    """One row of two lies there with another seed: the table does not show it, nor does its sheet stay."""
    out, options = tmp_path / "out" / "table-2", ["--dip", "false"]
    assert reproduce("2", *options) == 0
    assert (out / "sheet-sr-8.png").exists()
    settings = json.loads((out / "sr-8" / "settings.json").read_text())
    (out / "sr-8" / "settings.json").write_text(json.dumps({**settings, "seed_everything": 7}))
    assert reproduce("2", *options) == 1
    assert "SR x8 is left out" in capsys.readouterr().err
    assert {(line["task"], line["n"]) for line in lines(out)} == {("sr-4", "2"), ("sr-8", "0")}
    assert "| not run" in (out / "table.md").read_text()
    assert not (out / "sheet-sr-8.png").exists()


@pytest.mark.parametrize("option", ["--config", "-c", "--config=", "-c="])
def test_a_configuration_does_not_override_what_a_row_is(reproduce, tmp_path, option):
    (tmp_path / "own.yaml").write_text("noise_std: 0.25\nmodel: {joint: {steps: 2}}\n")
    given = [option + str(tmp_path / "own.yaml")] if option.endswith("=") else [option, tmp_path / "own.yaml"]
    assert reproduce("4", "--dip", "false", *given, limit=1, steps=STEPS[:2] + STEPS[4:]) == 0
    settings = json.loads((tmp_path / "out" / "table-4" / "deblur-uniform-9" / "settings.json").read_text())
    assert (settings["noise_std"], settings["fits"]["joint"]["steps"]) == (10 / 255, 2)


def test_a_row_that_cannot_run_leaves_the_others(reproduce, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("iagan_lightning.operators.memory.free_memory", lambda: 1_000_000)
    assert reproduce("fig2", "--ratios", "0.05,0.9") == 1
    assert "m/n 0.9 is left out" in capsys.readouterr().err
    page = (tmp_path / "out" / "fig2" / "table.md").read_text()
    assert "not run" in page
    assert "(N=2)" in page


def test_a_failed_image_shows_in_the_exit_status(reproduce, faces, tmp_path):
    (faces / "1.png").write_bytes(b"no picture")
    assert reproduce("4", "--dip", "false") == 1
    assert {line["n"] for line in lines(tmp_path / "out" / "table-4")} == {"1"}


def test_a_folder_without_pictures_is_one_line(reproduce, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert reproduce("2", "--data.root", tmp_path / "empty") == 2
    error = capsys.readouterr().err
    assert error.startswith("iagan: error: no pictures in")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ("5", [], "table is one of 1, 1-calibrated, 2, 3, 4, fig2, misaligned; '5' was given"),
        ("2", ["--preset", "slow"], "preset is one of fast, paper, best; 'slow' was given"),
        ("2", ["--limit", 0], "limit is at least 1; 0 was given"),
        ("2", ["--limit", "few"], "argument --limit: invalid int value: 'few'"),
        ("2", ["--dataset", "FFHQ"], "dataset is one of CelebA, CelebA-HQ; 'FFHQ' was given"),
        ("2", ["--dip", "maybe"], "dip is one of true, false; 'maybe' was given"),
        ("fig2", ["--ratios", "0.1,2"], "ratios are numbers in (0, 1]"),
        ("2", ["--data.root", "/nowhere"], "no such folder or file: /nowhere"),
        ("2", ["--generator", "no-such-prior"], "no-such-prior"),
        ("2", ["--no_such_option", "1"], "no_such_option"),
    ],
)
def test_bad_options_are_one_line(reproduce, capsys, tmp_path, table, options, message):
    assert reproduce(table, *options) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert sum("iagan: error:" in line for line in printed.splitlines()) == 1
    assert "Traceback" not in printed


def test_a_missing_table_is_one_line(capsys):
    assert main(["reproduce"]) == 2
    assert "--table, --data.root" in capsys.readouterr().err


def test_every_published_figure_has_its_row():
    for table, experiment in EXPERIMENTS.items():
        for dataset in ("CelebA", "CelebA-HQ"):
            rows = rows_of(table, dataset, 128)
            published = published_figures(table, dataset)
            assert {name for name, _ in published} <= {row.name for row in rows}
            assert {method for _, method in published} <= set(experiment.methods)
    assert sum(len(published_figures(t, d)) for t in {*EXPERIMENTS} - {CALIBRATED} for d in SIZES) == 66
    assert published_figures(CALIBRATED, "CelebA") == published_figures("1", "CelebA")


def test_published_figures_are_those_of_the_paper(shared):
    ours, theirs = ROOT / "iagan_lightning" / "paper" / "published.csv", shared / "paper" / "published.csv"
    assert ours.read_text(encoding="utf-8") == theirs.read_text(encoding="utf-8")


@pytest.mark.parametrize("dataset", ["CelebA", "CelebA-HQ"])
def test_configs_say_what_reproduce_runs(dataset):
    folder = ROOT / "configs" / "paper"
    configs = [yaml.safe_load(path.read_text()) for path in folder.glob("*.yaml") if path.stem != "public_code"]
    for table in {*EXPERIMENTS} - {CALIBRATED}:  # the others are the paper's
        if dataset == "CelebA-HQ" and not table.isdigit():
            continue  # run with BEGAN only
        for row in rows_of(table, dataset, 128, ratios=(0.122, 0.61)):
            words = row.options
            options = dict(zip(words[::2], words[1::2], strict=True))
            wanted = {
                "class": "iagan_lightning.operators." + options.pop("--operator"),
                "noise": options.pop("--noise_std"),
                "shift": options.pop("--data.shift", "0"),
                **{key: float(value) if key.startswith("--model") else value for key, value in options.items()},
            }
            assert wanted in [_described(config) for config in configs], (table, row.name)


def test_the_public_codes_deviations_are_one_config(tiny_weights, faces, tmp_path):
    config = ROOT / "configs" / "paper" / "public_code.yaml"
    expected = {
        "super-resolution": ("BicubicDownsampling", {"scale": 4, "padding": "zero"}),
        "compressed-sensing": ("FourierSensing", {"ratio": 0.3, "design": "quadrant"}),
    }
    for task, (operator, settings) in expected.items():
        out = tmp_path / task
        options = ["--data.root", faces, "--model.generator", tiny_weights, "--lpips", "none", "--out", out]
        steps = [*STEPS[:4], "--trainer.accelerator", "cpu"]
        assert main([str(word) for word in [task, "--config", config, *options, "--data.limit", 1, *steps]]) == 0
        recorded = json.loads((out / "settings.json").read_text())
        assert recorded["operator"]["class_path"].endswith(operator)
        assert settings.items() <= recorded["operator"]["init_args"].items()
        assert recorded["noise_std"] == 5 / 255
        assert recorded["back_projection"] == "naive"
        assert recorded["preset"] == "paper"
        latent, joint = recorded["fits"]["latent"], recorded["fits"]["joint"]
        assert (latent["restarts"], latent["keep"], joint["keep"]) == (5, "last", "last")
        record = json.loads((out / "images" / "0" / "metrics.json").read_text())
        assert record["methods"]["iagan_bp"]["residual"] > 1e-4, "not the exact A^+"


def test_the_public_codes_deviations_go_through_reproduce(reproduce, tmp_path):
    config = ROOT / "configs" / "paper" / "public_code.yaml"
    assert reproduce("3", "--config", config, "--noise_std", "5/255", "--dip", "false", limit=1) == 0
    for row, scale in (("sr-4", 4), ("sr-8", 8)):
        recorded = json.loads((tmp_path / "out" / "table-3" / row / "settings.json").read_text())
        assert recorded["operator"]["init_args"] == {"scale": scale, "size": None, "padding": "zero"}
        assert (recorded["noise_std"], recorded["back_projection"]) == (5 / 255, "naive")
        assert recorded["fits"]["latent"]["restarts"] == 5


def _described(config):
    model = config["model"]
    stages = {stage: model.get(stage, {}) for stage in ("latent", "joint")}
    assert model["preset"] == "paper"
    noise = str(config["noise_std"])
    return {
        "class": config["operator"]["class_path"],
        "noise": "0" if noise == "0.0" else noise,
        "shift": str(config.get("data", {}).get("shift", 0)),
        **{f"--operator.{key}": str(value) for key, value in config["operator"].get("init_args", {}).items()},
        **{f"--model.{stage}.{key}": float(value) for stage, given in stages.items() for key, value in given.items()},
    }
