"""Real runs of the command, through the same ``main`` that users call."""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from iagan_lightning.callbacks import RunProgress
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from iagan_lightning.cli import main
from iagan_lightning.data.images import read_image, to_pillow
from iagan_lightning.generators import load_generator
from iagan_lightning.operators import BicubicDownsampling
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.table import print_summary

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "iagan_lightning" / "examples"
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml"))
STEPS = ["--model.latent.steps", "6", "--model.joint.steps", "4", "--trainer.accelerator", "cpu"]


@pytest.fixture
def pictures(tmp_path):
    """Three pictures, one of them in a folder below."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b.jpg", "below/c.png")):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture
def command(tiny_weights, tmp_path):
    """Run super-resolution with tiny settings; returns the exit status."""

    def run(*arguments, out=None, steps=STEPS):
        out = tmp_path / "out" if out is None else out
        common = ["super-resolution", "--model.generator", str(tiny_weights), "--lpips", "none", "--out", str(out)]
        return main([*common, *steps, *map(str, arguments)])

    return run


def record(out, name):
    return json.loads((out / "images" / name / "metrics.json").read_text())


def test_files_on_disk(command, pictures, tmp_path, capsys):
    assert command("--data.root", pictures, "--operator.scale", "4") == 0
    out = tmp_path / "out"
    for name in ("a", "b", "below/c"):
        folder = out / "images" / name
        files = {path.name for path in folder.iterdir()}
        pictured = {"truth", "measurement", "naive", "csgm", "csgm_bp", "iagan", "iagan_bp", "comparison"}
        assert files == {f"{picture}.png" for picture in pictured} | {"measurement.pt", "metrics.json", "curves.csv"}
        with Image.open(folder / "iagan_bp.png") as picture:
            assert picture.size == (16, 16)
        content = record(out, name)
        assert (content["version"], content["result"]) == (2, "iagan")
        assert set(content) == {
            "version", "result", "offered", "misfit", "space",
            "image", "seed", "operator", "noise_std", "quantisation", "preset", "device", "seconds", "evaluations",
            "objective", "methods", "familiarity", "inputs",
        }  # fmt: skip
        (file,) = pictures.glob(f"{name}.*")
        assert content["inputs"] == {"truth": hashlib.sha256(file.read_bytes()).hexdigest()}
        assert content["image"] == name
        assert content["evaluations"] == {"latent": 6, "joint": 4}
        assert set(content["seconds"]) == {"latent", "joint", "total"}
        assert set(content["methods"]) == {"naive", "csgm", "csgm_bp", "iagan", "iagan_bp"}
        assert set(content["methods"]["iagan"]) == {
            "mse", "psnr", "ssim", "residual", "residual_8bit", "row_space_mse", "null_space_mse"
        }  # fmt: skip
        assert content["methods"]["iagan_bp"]["residual"] < 1e-5
    assert yaml.safe_load((out / "config.yaml").read_text())["model"]["init_args"]["preset"] == "fast"
    printed = capsys.readouterr()
    assert "IAGAN-BP" in printed.out
    assert str(out / "images") in printed.out
    assert [line for line in printed.err.splitlines() if "[3/3]" in line], "a plain line per image"


def test_metrics_are_those_of_the_files(command, pictures, tmp_path):
    command("--data.root", pictures, "--save", "weights", "--tensorboard", "0")
    out = tmp_path / "out"
    folder, content = out / "images" / "a", record(out, "a")
    truth, iagan = (read_image(folder / f"{name}.png") for name in ("truth", "iagan"))
    mse = ((truth - iagan) / 2).square().mean().item()
    assert content["methods"]["iagan"]["mse"] == pytest.approx(mse, rel=0.01)
    assert content["methods"]["iagan"]["psnr"] == pytest.approx(-10 * np.log10(mse), abs=0.05)
    A = BicubicDownsampling((3, 16, 16), scale=4)
    y = torch.load(folder / "measurement.pt")
    assert torch.allclose(A(truth[None])[0], y, atol=0.01)
    methods = content["methods"]["csgm"]
    error_energy = methods["row_space_mse"] + methods["null_space_mse"]
    assert error_energy == pytest.approx(methods["mse"], rel=0.01)
    assert content["methods"]["csgm_bp"]["null_space_mse"] == pytest.approx(methods["null_space_mse"], rel=1e-3)
    assert content["methods"]["csgm_bp"]["row_space_mse"] < 1e-10
    assert not (out / "tensorboard").exists()


def test_pictures_called_as_those_that_were_given(command, pictures, tmp_path):
    command("--data.root", pictures, "--save", "pictures")
    out = tmp_path / "out"
    written = {str(path.relative_to(out / "pictures")) for path in (out / "pictures").rglob("*") if path.is_file()}
    assert written == {"a.png", "b.png", "below/c.png"}
    for name in ("a", "b", "below/c"):
        folder = out / "images" / name
        offered = folder / f"{record(out, name)['offered']}.png"
        assert (out / "pictures" / f"{name}.png").read_bytes() == offered.read_bytes()


def test_summary_is_rebuilt_from_the_images(command, pictures, tmp_path):
    command("--data.root", pictures)
    out = tmp_path / "out"
    rows = list(csv.DictReader((out / "summary.csv").read_text().splitlines()))
    assert len(rows) == 15
    psnrs = [record(out, name)["methods"]["iagan"]["psnr"] for name in ("a", "b", "below/c")]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["images"] == 3
    assert summary["methods"]["iagan"]["psnr"]["mean"] == pytest.approx(np.mean(psnrs))
    assert summary["methods"]["iagan"]["n"] == 3


def test_a_saved_configuration_runs_again_with_the_same_result(command, pictures, tmp_path):
    out, again = tmp_path / "out", tmp_path / "again"
    command("--data.root", pictures, "--seed_everything", "3", "--noise_std", "10/255")
    assert main(["super-resolution", "--config", str(out / "config.yaml"), "--out", str(again)]) == 0
    for name in ("a", "b", "below/c"):
        one, two = record(out, name), record(again, name)
        assert one.pop("seconds")
        assert two.pop("seconds")
        assert one == two
        assert (out / "images" / name / "iagan.png").read_bytes() == (
            again / "images" / name / "iagan.png"
        ).read_bytes()


def test_results_do_not_depend_on_order_limit_or_companions(command, pictures, tmp_path):
    command("--data.root", pictures)
    alone, together = tmp_path / "alone", tmp_path / "together"
    shutil.rmtree(pictures / "below")
    (pictures / "a.png").unlink()
    command("--data.root", pictures, out=alone)
    assert record(alone, "b")["methods"] == record(tmp_path / "out", "b")["methods"]
    assert record(alone, "b")["seed"] == record(tmp_path / "out", "b")["seed"]
    shutil.copy(pictures / "b.jpg", pictures / "z.jpg")
    command("--data.root", pictures, "--data.images_per_fit", "2", out=together)
    psnr = record(together, "b")["methods"]["iagan_bp"]["psnr"]
    assert psnr == pytest.approx(record(alone, "b")["methods"]["iagan_bp"]["psnr"], abs=0.05)
    assert record(together, "z")["seed"] != record(together, "b")["seed"]


def test_noise_leaves_back_projection_out_unless_asked(command, pictures, tmp_path):
    command("--data.root", pictures, "--noise_std", "10/255", "--data.limit", "1")
    content = record(tmp_path / "out", "a")
    assert set(content["methods"]) == {"naive", "csgm", "iagan"}
    assert content["noise_std"] == pytest.approx(10 / 255)
    assert content["methods"]["iagan"]["residual_sigma"] > 0
    with pytest.warns(UserWarning, match="amplifies"):
        command("--data.root", pictures, "--noise_std", "0.04", "--data.limit", "1", "--back_projection", "true",
                out=tmp_path / "asked")  # fmt: skip
    assert "iagan_bp" in record(tmp_path / "asked", "a")["methods"]


def test_noise_of_unknown_level(command, pictures, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(small / "a.png")
    unknown = ["--data.measurements", small, "--noise_std", "unknown"]
    assert command(*unknown, "--model.joint.patience", "1") == 0
    content = record(tmp_path / "out", "a")
    assert content["noise_std"] is None
    assert set(content["methods"]) == {"naive", "csgm", "iagan"}, "no back-projection of noise"
    assert 1 <= content["evaluations"]["joint"] <= content["evaluations"]["probe"] <= 4
    assert set(content["objective"]) == {"latent", "joint"}
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard" / "a"))
    events.Reload()
    stages = [event.value for event in events.Scalars("curve/stage")]
    assert stages == sorted(stages)
    assert set(stages) == {0.0, 0.5, 1.0}


@pytest.mark.filterwarnings("error")
def test_unknown_noise_is_for_measurements_alone(command, pictures, capsys):
    assert command("--data.root", pictures, "--noise_std", "unknown") == 2
    assert "noise_std unknown is for measurements of your own" in capsys.readouterr().err


def test_tensorboard_holds_both_stages(command, pictures, tmp_path):
    """TensorBoard's own reader finds every tag for every image, both stages on one axis."""
    command("--data.root", pictures)
    runs = tmp_path / "out" / "tensorboard"
    names = sorted(path.parent.relative_to(runs).as_posix() for path in runs.rglob("events*"))
    assert names == ["a", "b", "below/c"], "one run per image"
    for name in names:
        events = EventAccumulator(str(runs / name))
        events.Reload()
        content = record(tmp_path / "out", name)
        methods, offered = content["methods"], content["methods"][content["offered"]]
        final = {f"final/{method}/{key}": value for method, row in methods.items() for key, value in row.items()}
        final |= {f"result/{key}": offered[key] for key in ("psnr", "ssim", "residual")}
        final |= {"result/evaluations": 10, "result/seconds": content["seconds"]["total"]}
        assert {"final/iagan_bp/psnr", "final/naive/residual"} <= set(final)
        curves = {f"curve/{tag}" for tag in ("objective", "residual", "psnr", "stage")}
        ends = {f"stage/{fit}/{tag}" for fit in ("latent", "joint") for tag in ("objective", "residual", "psnr")}
        assert set(events.Tags()["scalars"]) == {*curves, *ends, *final}
        assert set(events.Tags()["images"]) == {"image/csgm", "image/iagan", "final/comparison"}
        stages = [(event.step, event.value) for event in events.Scalars("curve/stage")]
        points = [0, 1, 2, 3, 5, 6, 7, 8, 9]
        assert stages == [(step, float(step >= 6)) for step in points]
        for tag in ("objective", "residual", "psnr"):
            curve = {event.step: event.value for event in events.Scalars(f"curve/{tag}")}
            assert list(curve) == points
            for fit, end in (("latent", 5), ("joint", 9)):
                marks = [(event.step, event.value) for event in events.Scalars(f"stage/{fit}/{tag}")]
                assert marks == [(end, curve[end])], "one dot on the curve, where the stage ends"
        assert {tag: events.Scalars(tag)[-1].value for tag in final} == pytest.approx(final, rel=1e-5)
        for tag, steps, size in (
            ("image/csgm", [0, 5], (16, 16)),  # pictures on the way, with every fourth point
            ("image/iagan", [6], (16, 16)),
            ("final/comparison", [10], None),
        ):
            shown = events.Images(tag)
            assert [event.step for event in shown] == steps
            for event in shown:
                with Image.open(io.BytesIO(event.encoded_image_string)) as picture:
                    picture.load()
                    assert picture.size == (event.width, event.height)
                    assert size in (None, picture.size)


def test_tensorboard_shows_curves_first(command, pictures, tmp_path):
    """TensorBoard sorts groups by name and opens the first two; stages are marked on their curves."""
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    command("--data.root", pictures)
    layouts = set()
    for name in ("a", "b", "below/c"):
        events = EventAccumulator(str(tmp_path / "out" / "tensorboard" / name)).Reload()
        tags = [*events.Tags()["scalars"], *events.Tags()["images"]]
        assert sorted({tag.partition("/")[0] for tag in tags})[:2] == ["curve", "final"]
        layouts.update(tensor.tensor_proto.string_val[0] for tensor in events.Tensors("custom_scalars__config__"))
    (layout,) = map(Layout.FromString, layouts)  # one for all runs, or each would add charts of its own
    drawn = {chart.title: chart.multiline.tag for category in layout.category for chart in category.chart}
    assert set(drawn) == {"objective", "psnr", "residual"}
    for title, patterns in drawn.items():
        shown = {tag for tag in tags if any(re.match(pattern, tag) for pattern in patterns)}
        assert shown == {f"curve/{title}", f"stage/latent/{title}", f"stage/joint/{title}"}


def test_captions_are_legible_in_a_card_of_tensorboard(command, pictures, tmp_path):
    """A card is some 280 pixels wide, and shrinks what is wider: capitals stay seven pixels high."""
    command("--data.root", pictures, "--data.limit", "1")
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard" / "a")).Reload()
    with Image.open(io.BytesIO(events.Images("final/comparison")[0].encoded_image_string)) as sheet:
        dark = np.asarray(sheet.convert("L")) < 100
        below = dark[136:, :][: sheet.height // 2 - 136]  # under the first row of pictures
        rows = np.flatnonzero(below[:, : sheet.width // 4].any(1))
        assert sheet.width <= 560
    letters = np.diff(rows, prepend=rows[0] - 2) > 1
    heights = np.diff([*np.flatnonzero(letters), len(rows)])
    assert heights.max() * 280 / sheet.width >= 7


def test_tensorboard_runs_only_for_the_first_images(command, pictures, tmp_path):
    command("--data.root", pictures, "--tensorboard", "2")
    assert sorted(path.name for path in (tmp_path / "out" / "tensorboard").iterdir()) == ["a", "b"]


def test_tensorboard_compares_settings_and_final_metrics(command, pictures, tmp_path):
    """What TensorBoard's own HPARAMS tab gets from the files of two runs that do not have all columns in common."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    command("--data.root", pictures, "--data.limit", "1", out=tmp_path / "runs" / "one")
    command("--data.root", pictures, "--data.limit", "1", "--noise_std", "0.1", out=tmp_path / "runs" / "two")
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "runs"))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(tmp_path / "runs"))
    context = backend_context.Context(TBContext(data_provider=provider))
    request = api_pb2.ListSessionGroupsRequest(slice_size=10, allowed_statuses=[api_pb2.STATUS_SUCCESS])
    shown = list_session_groups.Handler(RequestContext(), context, "", request).run().session_groups
    rows = {row.name: row for row in shown}
    levels = {name: row.hparams["noise_std"].number_value for name, row in rows.items()}
    assert levels == {"one/tensorboard/a": 0.0, "two/tensorboard/a": pytest.approx(0.1)}
    for name, row in rows.items():
        assert row.hparams["latent/steps"].number_value == 6
        assert (row.hparams["steps"].string_value, row.hparams["preset"].string_value) == ("6, 4", "fast")
        metrics = {value.name.tag: value.value for value in row.metric_values}
        content = record(tmp_path / "runs" / name.split("/")[0], "a")
        offered = content["methods"][content["offered"]]
        for key in {"psnr", "ssim", "residual", "residual_sigma"} & offered.keys():
            assert metrics[f"result/{key}"] == pytest.approx(offered[key], rel=1e-5)
        assert metrics["result/evaluations"] == 10
    methods = {name: row.hparams["method"].string_value for name, row in rows.items()}
    assert methods == {"one/tensorboard/a": "IAGAN-BP", "two/tensorboard/a": "IAGAN"}
    assert "residual_sigma" not in record(tmp_path / "runs" / "one", "a")["methods"]["iagan_bp"]
    assert "result/residual_sigma" in {value.name.tag for value in rows["two/tensorboard/a"].metric_values}
    # The columns: a dozen or so, whatever else the events hold.
    found = context.experiment_from_metadata(
        RequestContext(), "", True, context.hparams_metadata(RequestContext(), ""), []
    )
    columns = [info.name for info in found.hparam_infos]
    assert columns == ["lr", "method", "noise_std", "operator", "optimizer", "preset", "steps", "stop"]
    results = [info.name.tag.removeprefix("result/") for info in found.metric_infos]
    assert results == ["psnr", "ssim", "residual", "residual_sigma", "evaluations", "seconds"]


def test_a_hint_where_the_prior_cannot_show_a_picture(command, pictures, tiny, tmp_path, capsys):
    assert command("--data.root", pictures) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "3 of 3 pictures are none that the prior can show" in printed
    assert "--data.align true" in printed
    own = tmp_path / "own"  # pictures that the generator made itself
    own.mkdir()
    with torch.no_grad():
        made = tiny(tiny.sample_latent(2, seed=5))
    for i, x in enumerate(made):
        to_pillow(x).save(own / f"{i}.png")
    steps = ["--model.latent.steps", "200", "--model.joint.steps", "2", "--trainer.accelerator", "cpu"]
    assert command("--data.root", own, out=tmp_path / "known", steps=steps) == 0
    assert "none that the prior can show" not in " ".join(capsys.readouterr().out.split())


def test_the_main_job_needs_no_options(tmp_path, monkeypatch, capsys):
    """Bundled prior, bundled pictures, results below the present folder; only the steps are fewer here."""
    monkeypatch.chdir(tmp_path)
    assert main(["super-resolution", "--lpips", "none", *STEPS]) == 0
    [out] = (tmp_path / "runs").iterdir()
    assert out.name.startswith("super-resolution-")
    assert sorted(path.name for path in (out / "images").iterdir()) == ["astronaut", "grace_hopper"]
    content = record(out, "astronaut")
    assert content["operator"] == "BicubicDownsampling(image_shape=(3, 128, 128), scale=4, padding='renormalise')"
    printed = capsys.readouterr().out
    assert "IAGAN-BP" in printed
    assert str(Path("runs") / out.name / "images") in printed


def test_quiet_says_only_what_went_wrong(command, pictures, tmp_path, capfd):
    assert command("--data.root", pictures, "--data.limit", "1", "--quiet") == 0
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    (pictures / "a.png").write_text("no picture")
    assert command("--data.root", pictures, "--quiet", out=tmp_path / "again") == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "a: failed: UnidentifiedImageError" in printed.err
    assert printed.err.count("\n") == 1


def test_json_is_all_that_standard_output_gets(command, pictures, tmp_path, capfd):
    (pictures / "b.jpg").write_text("no picture")
    assert command("--data.root", pictures, "--json") == 1
    printed = capfd.readouterr()
    summary = json.loads(printed.out)
    assert summary["out"] == str(tmp_path / "out")
    assert summary["images"] == 2
    assert set(summary["failed"]) == {"b"}
    assert summary["methods"] == json.loads((tmp_path / "out" / "summary.json").read_text())["methods"]
    assert "[3/3]" in printed.err


def test_what_to_open_is_printed_in_plain_text(command, pictures, tmp_path, capsys):
    command("--data.root", pictures, "--data.limit", "1", "--tensorboard", "0", out=tmp_path / "my out")
    printed = capsys.readouterr()
    assert f"iagan report '{tmp_path / 'my out'}'" in printed.out
    assert "tensorboard" not in printed.out, "there is nothing that it could show"
    command("--data.root", pictures, "--data.limit", "1")
    printed = capsys.readouterr()
    assert f"tensorboard --logdir {tmp_path / 'out' / 'tensorboard'}" in printed.out
    assert "\x1b" not in printed.out + printed.err, "colours are for terminals"


def test_the_table_at_the_end(tmp_path):
    """Best in bold; residuals of rounding are alike, and none is the best of noisy measurements."""
    rows = {
        "naive": {"psnr": 20.0, "lpips_alex": 0.3, "residual": 8e-2},
        "csgm_bp": {"psnr": 21.0, "lpips_alex": 0.1, "residual": 2e-7},
        "iagan_bp": {"psnr": 22.0, "lpips_alex": 0.2, "residual": 1e-7},
    }
    methods = {name: {key: {"mean": value} for key, value in row.items()} for name, row in rows.items()}
    summary = {"images": 2, "methods": methods, "titles": {}, "failed": {"c": "OSError: [red] no"}}

    (tmp_path / "summary.csv").write_text("image,method\n")

    def printed(noisy, **settings):
        console = Console(file=io.StringIO(), width=100, **settings)
        print_summary(summary, OutputFolder(tmp_path), noisy, console)
        return console.file.getvalue()

    for noisy, residuals in ((False, {"2.0e-07", "1.0e-07"}), (True, set())):
        bold = set(re.findall(r"\x1b\[1m([\d.e-]+)\x1b", printed(noisy, force_terminal=True)))
        assert bold == {"22.00", "0.1000"} | residuals
    plain = printed(False)
    assert "\x1b" not in plain
    assert "failed: c: OSError: [red] no\n" in plain
    assert f"pictures: {tmp_path}/images" in plain and "error.txt" not in plain
    summary |= {"images": 0, "methods": {}}
    nothing = printed(False)
    assert f"error.txt of each image in {tmp_path}/images\n" in nothing and "pictures:" not in nothing


@pytest.mark.parametrize("wanted", [True, False])
def test_colours_can_be_declined(monkeypatch, wanted):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "" if wanted else "1")
    console = Console(file=io.StringIO(), force_terminal=True)
    RunProgress(1, console).finish("a", "no picture", failed=True)
    assert ("\x1b[31m" in console.file.getvalue()) == wanted


# Measurements of one's own ---------------------------------------------------------------------------------------


def small_picture(path, size, seed=0):
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("padding", ["renormalise", "zero"])
def test_low_resolution_pictures_of_any_size(command, tmp_path, padding):
    folder = tmp_path / "mine"
    given = {"a": small_picture(folder / "a.png", (4, 4)), "b": small_picture(folder / "b.png", (7, 11))}
    assert command("--data.measurements", folder, "--operator.padding", padding) == 0
    for name, picture in given.items():
        content = record(tmp_path / "out", name)
        assert set(content["methods"]["iagan_bp"]) == {"residual", "residual_8bit"}, "no truth, no distance to it"
        assert not (tmp_path / "out" / "images" / name / "truth.png").exists()
        y = torch.load(tmp_path / "out" / "images" / name / "measurement.pt")
        A = BicubicDownsampling((3, 16, 16), size=tuple(picture.shape[1:]), padding=padding)
        # Downsampling the result on [0, 1], with black beyond the border where padding is zero, gives the picture.
        iagan_bp = A.back_project(read_image(tmp_path / "out" / "images" / name / "iagan_bp.png")[None], y[None])
        assert torch.allclose(A((iagan_bp + 1) / 2)[0], picture, atol=1e-5)


def test_pairs_have_a_truth_for_given_measurements(command, pictures, tmp_path):
    folder = tmp_path / "mine"
    (folder / "below").mkdir(parents=True)
    for name in ("a", "b", "below/c"):
        small_picture(folder / f"{name}.png", (8, 8))
    assert command("--data.root", pictures, "--data.measurements", folder) == 0
    content = record(tmp_path / "out", "below/c")
    assert "size=(8, 8)" in content["operator"]
    assert "psnr" in content["methods"]["iagan"]
    (folder / "b.png").unlink()
    assert command("--data.root", pictures, "--data.measurements", folder, out=tmp_path / "other") == 2


@pytest.mark.parametrize("suffix", [".pt", ".npy"])
def test_measurements_as_arrays(command, pictures, tmp_path, suffix):
    assert command("--data.root", pictures, "--data.limit", "1") == 0
    y = torch.load(tmp_path / "out" / "images" / "a" / "measurement.pt")
    folder = tmp_path / "mine"
    folder.mkdir()
    torch.save(y, folder / "a.pt") if suffix == ".pt" else np.save(folder / "a.npy", y.numpy())
    again = tmp_path / "again"
    assert command("--data.measurements", folder, out=again) == 0
    given = torch.load(again / "images" / "a" / "measurement.pt")
    assert torch.equal(y, given)


# Resuming --------------------------------------------------------------------------------------------------------


def test_finished_images_are_skipped_and_failed_ones_tried_again(command, pictures, tmp_path, capsys):
    good = (pictures / "b.jpg").read_bytes()
    (pictures / "b.jpg").write_bytes(good[: len(good) // 3])
    assert command("--data.root", pictures) == 1
    out = tmp_path / "out"
    error = capsys.readouterr().err
    assert "b: failed: OSError" in error
    assert "Truncated" in (out / "images" / "b" / "error.txt").read_text()
    assert not (out / "images" / "b" / "metrics.json").exists()
    assert json.loads((out / "summary.json").read_text())["failed"]["b"].startswith("OSError")
    times = {name: (out / "images" / name / "metrics.json").stat().st_mtime_ns for name in ("a", "below/c")}

    (pictures / "b.jpg").write_bytes(good)
    assert command("--data.root", pictures) == 0
    assert "2 of 3 images are done already" in capsys.readouterr().err
    assert {n: (out / "images" / n / "metrics.json").stat().st_mtime_ns for n in ("a", "below/c")} == times
    assert (out / "images" / "b" / "metrics.json").exists()
    assert not (out / "images" / "b" / "error.txt").exists()
    assert json.loads((out / "summary.json").read_text())["images"] == 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--operator.scale", "2"], "operator.init_args.scale was 4, now 2"),
        (["--noise_std", "0.1"], "noise_std was 0.0, now 0.1"),
        (["--seed_everything", "5"], "seed_everything was 0, now 5"),
        (["--model.joint.steps", "5"], "fits.joint.steps was 4, now 5"),
        (["--data.fit", "resize"], "data.fit was 'crop', now 'resize'"),
    ],
)
def test_changed_settings_are_refused_by_name(command, pictures, tmp_path, capsys, change, named):
    arguments = ["--data.root", pictures, "--operator.scale", "4", "--data.limit", "1"]
    command(*arguments)
    before = record(tmp_path / "out", "a")
    assert command(*arguments, *change) == 2
    assert named in capsys.readouterr().err
    assert record(tmp_path / "out", "a") == before
    # What does not determine results may change: where the pictures are, how many of them, where it runs.
    moved = shutil.move(str(pictures), str(tmp_path / "moved"))
    assert command(*[moved if a is pictures else a for a in arguments[:-2]]) == 0
    assert record(tmp_path / "out", "a") == before


def test_other_weights_are_refused(command, pictures, tmp_path, capsys):
    command("--data.root", pictures, "--data.limit", "1")
    generator = load_generator(next(tmp_path.parent.parent.rglob("tiny.safetensors")))
    with torch.no_grad():
        generator.l1.bias += 1
    torch.save(generator.state_dict(), tmp_path / "other.pth")
    assert command("--data.root", pictures, "--model.generator", tmp_path / "other.pth") == 2
    assert "weights" in capsys.readouterr().err


@pytest.fixture
def long_run(tiny_weights, tmp_path):
    """Arguments of a run over four pictures, and a function that waits until some of them are done."""
    folder = tmp_path / "pictures"
    for i in range(4):
        small_picture(folder / f"{i}.png", (16, 16), seed=i)
    arguments = ["super-resolution", "--data.root", folder, "--model.generator", tiny_weights, "--lpips", "none",
                 *STEPS, "--model.joint.steps", "100", "--out", tmp_path / "out"]  # fmt: skip
    arguments = [str(argument) for argument in arguments]

    def wait(wanted, ended):
        deadline = time.monotonic() + 120
        while len(list((tmp_path / "out").rglob("metrics.json"))) < wanted and not ended():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    return arguments, wait


def test_a_killed_run_is_completed(long_run, processes, tmp_path):
    """Kill -9 twice: whatever is called done is whole, and the same command finishes the rest."""
    arguments, wait = long_run
    out, reference = tmp_path / "out", tmp_path / "reference"
    assert main([*arguments, "--out", str(reference)]) == 0
    for wanted in (1, 3):
        process = processes.Process(target=main, args=(arguments,))
        process.start()
        wait(wanted, lambda process=process: not process.is_alive())
        process.kill()
        process.join()
        for path in out.rglob("metrics.json"):
            json.loads(path.read_text())
            with Image.open(path.parent / "iagan_bp.png") as picture:
                picture.load()
    assert main(arguments) == 0
    for i in range(4):
        assert record(out, str(i))["methods"] == record(reference, str(i))["methods"]
    assert json.loads((out / "summary.json").read_text())["images"] == 4


def test_control_c_ends_with_one_line_and_a_summary(long_run, tmp_path):
    arguments, wait = long_run
    process = subprocess.Popen(
        [sys.executable, "-m", "iagan_lightning", *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL,
        # Whoever runs the tests in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    wait(1, lambda: process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    done = json.loads((tmp_path / "out" / "summary.json").read_text())["images"]
    assert 1 <= done < 4
    how = f"interrupted, {done} of 4 images are done"
    assert error.splitlines()[-1] == f"iagan: {how}; the same command goes on where this one stopped"
    assert "Traceback" not in error
    assert main(arguments) == 0


# Bad input: one line, status 2 -----------------------------------------------------------------------------------


def refused(capsys, status):
    error = capsys.readouterr().err
    assert status == 2
    assert error.startswith("iagan: error: ")
    assert error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.root", "nowhere"], "no such folder or file: nowhere"),
        (["--data.root", "EMPTY"], "no pictures in"),
        (["--data.root", "PICTURES", "--data.size", "32"], "data.size 32 is not the generator's 16 x 16"),
        (["--data.root", "SMALL"], "10 x 8 pixels is smaller than the generator's 16 x 16"),
        (["--operator.scale", "3"], "scale 3 does not divide the image height 16: choose 2, 4, 8, 16"),
        (["--operator.scale", "x"], "--operator.scale is a whole number or null; 'x' was given"),
        (
            ["--operator", "Blur", "--operator.size", "[1.5,3]"],
            "--operator.size is a whole number; '[1.5, 3]' was given",
        ),
        (
            ["--operator", "Inpainting", "--operator.box", "[1,2,3.5,4]"],
            "each of --operator.box is a whole number; '3.5' was given",
        ),
        (
            ["--operator.padding", "wrap"],
            "padding is one of renormalise, zero, reflect, replicate, circular; 'wrap' was given",
        ),
        (["--operator", "Unknown"], "--operator is a class, by name or as package.module.Class; 'Unknown'"),
        (["--noise_std", "loud"], "such as 0.04 or 10/255, or unknown; 'loud' was given"),
        (["--noise_std", "-1"], "noise_std"),
        (["--nonsense", "1"], "nonsense"),
        (["--model.preset", "quick"], "--model.preset is one of fast, paper, best; 'quick' was given"),
        (["--model.latent.steps", "0"], "steps of a stage is at least 1"),
        (["--model.generator", "nowhere.pth"], "no generator weights at nowhere.pth"),
        (["--model.generator", "EMPTY/notes.txt"], "no weight file"),
        (["--data.measurements", "PICTURES"], "a measurement of 24 x 20 pixels is larger than the generator's"),
        (["--data.measurements", "SMALL", "--operator.scale", "4"], "size 8 x 10 contradicts scale 4"),
        (["--out", "PICTURES/a.png"], "cannot write to"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--lpips", "resnet"], "--lpips is one of alex, vgg, squeeze, none; 'resnet' was given"),
        (["--back_projection", "maybe"], "is one of discrepancy, naive, true, false or null; 'maybe' was given"),
        (["--trainer.devices", "none"], "devices"),
        (["--trainer.devices", "0"], "devices=0"),
        (["--trainer.strategy", "ddp"], "an image is adapted on one device"),
        (["--trainer.precision", "bf16-true"], "precision"),
        (["--data.limit", "0"], "data.limit is at least 1"),
    ],
)
def test_bad_input(command, pictures, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no picture")
    small_picture(tmp_path / "small" / "a.png", (8, 10))
    places = {"PICTURES": pictures, "EMPTY": tmp_path / "empty", "SMALL": tmp_path / "small"}
    for name, place in places.items():
        arguments = [argument.replace(name, str(place)) for argument in arguments]
    if "--data.root" not in arguments and "--data.measurements" not in arguments:
        arguments = ["--data.root", str(pictures), *arguments]
    assert message in refused(capsys, command(*arguments))
    assert not (tmp_path / "out").exists(), "nothing is left behind"


def test_weights_of_another_network(command, shared, capsys):
    other = shared / "torch_home" / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    error = refused(capsys, command("--model.generator", other))
    assert "holds another network" in error
    assert "Subtypes" not in error and "Namespace" not in error, "only what the file's reader says"


def test_enlarging_small_pictures_when_asked(command, tmp_path):
    small_picture(tmp_path / "small" / "a.png", (8, 10))
    for fit in ("resize", "pad"):
        assert command("--data.root", tmp_path / "small", "--data.fit", fit, out=tmp_path / fit) == 0


def test_top_level_words(capsys):
    assert main(["--help"]) == 0
    assert "super-resolution" in capsys.readouterr().out
    assert main([]) == 2
    capsys.readouterr()
    assert "unknown task 'super'" in refused(capsys, main(["super"]))
    assert main(["--version"]) == 0


def test_help_and_print_config_exit_with_zero(capsys, tiny_weights):
    words = ["super-resolution", "--model.generator", str(tiny_weights)]
    assert main([*words, "--help"]) == 0
    assert main([*words, "--help", "all"]) == 0
    with pytest.raises(SystemExit) as stop:
        main([*words, "--print_config"])
    assert stop.value.code == 0
    assert "noise_std: 0.0" in capsys.readouterr().out


# Doors and configurations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", [["cli.py"], ["-m", "iagan_lightning"]])
def test_doors_of_a_checkout(door):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *door, "--help"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert "iagan TASK" in done.stdout
    assert done.stderr == ""


def test_a_users_own_callback_joins_in(command, pictures, tmp_path):
    own = ["--trainer.callbacks+=user_callback.CountEvaluations", f"--trainer.callbacks.path={tmp_path / 'seen'}"]
    assert command("--data.root", pictures, "--data.limit", "2", *own) == 0
    assert (tmp_path / "seen").read_text().split() == [
        "a",
        "latent",
        "6",
        "a",
        "joint",
        "4",
        "b",
        "latent",
        "6",
        "b",
        "joint",
        "4",
    ]


@pytest.mark.parametrize("config", CONFIGS)
def test_shipped_configs_run(config, tmp_path, tiny_weights):
    tasks = re.findall(r"# iagan (\S+) --config", (ROOT / config).read_text())
    assert tasks
    for task in tasks:
        out = tmp_path / task
        arguments = ["--data.root", EXAMPLES, "--model.generator", tiny_weights, "--lpips", "none", "--out", out]
        assert main([task, "--config", str(ROOT / config), *map(str, arguments), *STEPS]) == 0
        assert json.loads((out / "summary.json").read_text())["images"] == 2


def test_a_config_with_a_section_per_task(command, pictures, tmp_path, capsys):
    shared, own = tmp_path / "shared.yaml", tmp_path / "own.yaml"
    shared.write_text("denoising: {noise_std: 0.1}\nsuper-resolution: {noise_std: 0.2, operator: {class_path: "
                      "BicubicDownsampling, init_args: {scale: 2}}}")  # fmt: skip
    own.write_text("noise_std: 0.3")
    for i, (words, noise_std) in enumerate(
        [
            (["--config", shared], 0.2),
            ([f"--config={shared}", "--noise_std", 0.4], 0.4),
            (["-c", own, "--config", shared], 0.3),  # the task's own goes before
        ]
    ):
        assert command("--data.root", pictures, "--data.limit", 1, *words, out=tmp_path / str(i)) == 0
        settings = json.loads((tmp_path / str(i) / "settings.json").read_text())
        assert settings["noise_std"] == noise_std
        assert settings["operator"]["init_args"]["scale"] == 2
    shared.write_text("denoising: {noise_std: 0.1}")
    capsys.readouterr()
    assert "has sections for denoising, but none for super-resolution" in refused(capsys, command("--config", shared))


def test_lpips_is_left_out_with_one_warning_where_it_cannot_be_loaded(command, pictures, tmp_path, monkeypatch):
    from iagan_lightning.results.lpips import load_lpips

    load_lpips.cache_clear()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing"))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *_, **__: (_ for _ in ()).throw(OSError("offline")))
    with pytest.warns(UserWarning, match=r"LPIPS \(vgg\) is left out.*offline") as caught:
        assert command("--data.root", pictures, "--lpips", "vgg") == 0
    assert len([warning for warning in caught if "LPIPS" in str(warning.message)]) == 1, "others' do not count"
    load_lpips.cache_clear()
    assert not any("lpips" in key for key in record(tmp_path / "out", "a")["methods"]["iagan"])


def test_lpips_squeeze_from_a_cache(shared, portraits):
    from iagan_lightning.results.metrics import evaluate

    A = BicubicDownsampling((3, 64, 64), scale=4)
    naive = A.naive(A(portraits))
    both = evaluate(naive, A(portraits), A, portraits, lpips="squeeze")
    assert all(0.05 < row["lpips_squeeze"] < 0.8 for row in both)
    alone = evaluate(naive[1:], A(portraits[1:]), A, portraits[1:], lpips="squeeze")
    assert alone[0]["lpips_squeeze"] == both[1]["lpips_squeeze"]
    assert evaluate(portraits, A(portraits), A, portraits, lpips="squeeze")[0]["lpips_squeeze"] == 0


def test_lpips_of_tiny_pictures_is_left_out(command, pictures, shared, tmp_path):
    with pytest.warns(UserWarning, match="LPIPS needs pictures of at least 32 x 32"):
        assert command("--data.root", pictures, "--lpips", "squeeze", "--data.limit", "1") == 0
    assert "lpips_squeeze" not in record(tmp_path / "out", "a")["methods"]["iagan"]
