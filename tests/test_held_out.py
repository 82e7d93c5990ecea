"""Pictures that a prior is never trained on: which they are, what is measured on them, what that leaves alone."""

import csv
import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from iagan_lightning import reconstruct
from iagan_lightning.cli import main
from iagan_lightning.generators import load_generator
from iagan_lightning.operators import Identity
from iagan_lightning.results.lpips import lpips_network
from iagan_lightning.training import TrainingPictures, VAEGANTraining
from iagan_lightning.training.pictures import PictureSet

ROOT = Path(__file__).parent.parent
TINY = ["--model.resolution", "16", "--model.channels", "2", "--model.latent", "4"]
VAEGAN = ["--model", "VAEGANTraining", "--model.resolution", "32", "--model.channels", "4", "--model.latent", "8"]


def draw(folder, seeds, pixels=16):
    folder.mkdir(exist_ok=True)
    for seed in seeds:
        small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((pixels, pixels), Image.Resampling.BICUBIC).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def folder(tmp_path):
    """Twenty pictures, of which two are held out when nothing else is said."""
    return draw(tmp_path / "pictures", range(20))


def arguments_of(folder, out, steps, *more, model=TINY):
    return ["train-prior", *model, "--data.root", str(folder), "--out", str(out), "--steps", str(steps),
            "--data.batch_size", "2", "--trainer.accelerator", "cpu", *more]  # fmt: skip


def train(*arguments, **settings):
    return main(arguments_of(*arguments, **settings))


def rows(path):
    with path.open(newline="") as table:
        return list(csv.DictReader(table))


def names(out, table):
    return {row["picture"] for row in rows(out / table)}


def state(out):
    return torch.load(out / "last.ckpt", weights_only=True)["state_dict"]


def same(a, b):
    a, b = state(a), state(b)
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


def refused(capsys, status):
    assert status == 2
    [error] = [line for line in capsys.readouterr().err.splitlines() if "iagan" in line or "Traceback" in line]
    return error


# The curve -------------------------------------------------------------------------------------------------------


def test_the_curve_goes_on_over_a_resume(folder, tmp_path, capsys):
    out, every = tmp_path / "out", ["--held_out_every", "2", "--checkpoint_every", "4"]
    assert train(folder, out, 4, *every) == 0
    assert train(folder, out, 7, *every) == 0
    curve = [{name: float(value) for name, value in row.items()} for row in rows(out / "held_out.csv")]
    assert [row["step"] for row in curve] == [2, 4, 6, 7]  # the last state of a training always
    hours = [row["core_hours"] for row in curve]
    assert 0 < hours[0] < hours[1] < hours[2] < hours[3]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert f"; held out: CSGM {curve[1]['csgm_psnr']:.2f} dB ({hours[1]:.3g} core hours)" in told[0]
    events = EventAccumulator(str(out / "tensorboard"), {"images": 0})
    events.Reload()
    for name in ("csgm_psnr", "core_hours"):
        points = events.Scalars(f"held_out/{name}")
        assert [point.step for point in points] == [2, 4, 6, 7]
        assert [point.value for point in points] == pytest.approx([row[name] for row in curve])
    points = events.Scalars("held_out_by_core_seconds/csgm_psnr")
    assert [point.step for point in points] == [round(3600 * value) for value in hours]
    assert [point.value for point in points] == pytest.approx([row["csgm_psnr"] for row in curve])
    assert [image.step for image in events.Images("held_out")] == [2, 4, 6, 7]
    assert not [name for row in curve for name in row if "lpips" in name]  # 16 pixels are too few for it


def test_what_is_measured_is_the_prior_that_is_written(tmp_path, shared):
    """PSNR and LPIPS by other hands, of what a user gets from the file."""
    folder, out = draw(tmp_path / "pictures", range(50), 32), tmp_path / "out"
    assert train(folder, out, 3, "--held_out_every", "3", model=VAEGAN) == 0
    [row] = rows(out / "held_out.csv")
    held = [np.asarray(Image.open(folder / entry["picture"])) for entry in rows(out / "held_out_pictures.csv")]
    truth = torch.from_numpy(np.stack(held)).permute(0, 3, 1, 2) / 127.5 - 1
    assert len(truth) == 5
    module = VAEGANTraining(32, 4, 8)
    module.load_state_dict(state(out))
    with torch.no_grad():
        code = module.averaged(module.encoder(truth)[0])
    prior = load_generator(out / "prior.safetensors")
    csgm = reconstruct(truth[:4], Identity((3, 32, 32)), prior, method="csgm", accelerator="cpu").csgm
    distance = lpips_network("squeeze")
    for name, x in (("code", code), ("csgm", csgm)):
        a, b = ((image.numpy().clip(-1, 1) + 1) / 2 for image in (x, truth[: len(x)]))
        psnr = -10 * np.log10(((a - b) ** 2).mean((1, 2, 3)))
        assert float(row[f"{name}_psnr"]) == pytest.approx(psnr.mean(), abs=1e-3)
        with torch.no_grad():
            expected = distance(x.clamp(-1, 1), truth[: len(x)]).mean().item()
        assert float(row[f"{name}_lpips"]) == pytest.approx(expected, abs=1e-4)
    with Image.open(out / "held_out.png") as sheet:  # truth, code and CSGM, one below the other
        assert sheet.size == (4 * 32, 3 * 32)
        shown = np.asarray(sheet).astype(float)
    expected = np.concatenate([np.concatenate(list(x[:4].numpy()), -1) for x in (truth, code, csgm)], 1)
    assert np.abs(shown - ((expected.clip(-1, 1) + 1) * 127.5).transpose(1, 2, 0)).max() < 0.6


def test_the_best_prior_stays(folder, tmp_path):
    """A step so long that the next one makes the pictures worse: of what CSGM finds by 3 dB."""
    out = tmp_path / "out"
    assert train(folder, out, 2, "--held_out_every", "1", "--model.lr", "0.1", "--model.average", "0") == 0
    psnr = {int(row["step"]): float(row["csgm_psnr"]) for row in rows(out / "held_out.csv")}
    best = max(psnr, key=psnr.get)
    assert best == 1
    with safe_open(out / "best_held_out.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["iagan_lightning"])["training"]["steps"] == best
    held = TrainingPictures(str(folder))
    held.open(16, 0, out)
    truth = held.held / 127.5 - 1
    prior = load_generator(out / "best_held_out.safetensors")
    x = reconstruct(truth, Identity((3, 16, 16)), prior, method="csgm", accelerator="cpu").csgm
    mse = ((x.clamp(-1, 1) - truth) / 2).square().mean((1, 2, 3))
    assert -10 * mse.log10().mean().item() == pytest.approx(psnr[best], abs=1e-3)
    assert not list(out.glob(".*.part"))


# Which pictures --------------------------------------------------------------------------------------------------


def test_a_training_is_one_without_the_held_out_pictures(folder, tmp_path):
    """Nor does measuring leave a trace in its weights, or in the random numbers of the process."""

    def numbers():
        return torch.rand(1).item(), np.random.rand(), random.random()

    seed = ["--seed_everything", "3"]
    assert train(folder, tmp_path / "measured", 3, *seed, "--held_out_every", "1") == 0
    after = numbers()
    held = names(tmp_path / "measured", "held_out_pictures.csv")
    assert len(held) == 2
    assert names(tmp_path / "measured", "pictures.csv") == {f"{i}.png" for i in range(20)} - held
    for name in held:
        (folder / name).unlink()
    assert train(folder, tmp_path / "without", 3, *seed, "--data.held_out", "0") == 0
    assert same(tmp_path / "measured", tmp_path / "without")
    assert after == numbers()
    assert not (tmp_path / "without" / "held_out.csv").exists()


def test_they_are_known_by_what_they_hold(folder, tmp_path, capsys):
    """Copies of a held-out picture are held out too, and a resume knows them all again by other names."""
    pictures, out = PictureSet(str(folder), 16), tmp_path / "out"
    first, second = sorted((pictures.inspect(number)[0] for number in range(20)), key=lambda entry: entry.hash)[:2]
    shutil.copy(folder / first.name, folder / "copy.png")
    assert train(folder, out, 1) == 0
    assert names(out, "pictures.csv") == {f"{i}.png" for i in range(20)} - {first.name, second.name}
    folder.rename(tmp_path / "moved")
    shutil.move(tmp_path / "moved" / second.name, tmp_path / "moved" / "other.png")
    assert train(tmp_path / "moved", out, 2) == 0
    assert [row["step"] for row in rows(out / "held_out.csv")] == ["1", "2"]
    capsys.readouterr()
    assert "held_out was 8, now 0" in refused(capsys, train(tmp_path / "moved", out, 3, "--data.held_out", "0"))
    (tmp_path / "moved" / "other.png").unlink()
    assert "other held-out pictures: 1 gone" in refused(capsys, train(tmp_path / "moved", out, 3))


def draw_bordered(folder, seeds, kind):
    """Pictures that differ in the middle of their files alone: uncompressed, or between long texts of a PNG."""
    folder.mkdir(exist_ok=True)
    text = PngInfo()
    for after in (False, True):
        text.add(b"tEXt", b"Comment\0" + b"." * 5000, after_idat=after)
    for seed in seeds:
        pixels = np.full((100, 60, 3), 255, np.uint8)
        pixels[40:60] = np.random.default_rng(seed).integers(0, 256, (20, 60, 3))
        more = {"compress_level": 0, "pnginfo": text} if kind == "png" else {}
        Image.fromarray(pixels).save(folder / f"{seed}.{kind}", **more)
    return folder


@pytest.mark.parametrize("kind", ["bmp", "ppm", "tif", "png"])
def test_pictures_that_begin_and_end_alike_are_told_apart(tmp_path, capsys, kind):
    """Two of twenty are held out, a copy of a third one's picture is left out and said; one edited is refused."""
    folder, out = draw_bordered(tmp_path / "pictures", range(20), kind), tmp_path / "out"
    others = draw_bordered(tmp_path / "others", [30, 7], kind)
    assert train(folder, tmp_path / "beside", 1, "--data.held_out", str(others)) == 0
    assert f"copies of held-out pictures are left out of {folder}: 1 (7.{kind})" in capsys.readouterr().err
    assert names(tmp_path / "beside", "pictures.csv") == {f"{i}.{kind}" for i in range(20) if i != 7}
    assert train(folder, out, 1) == 0
    held, shown = (names(out, table) for table in ("held_out_pictures.csv", "pictures.csv"))
    assert len(held) == 2
    assert held | shown == {f"{i}.{kind}" for i in range(20)}
    assert train(folder.rename(tmp_path / "moved"), out, 2) == 0
    assert "left out" not in capsys.readouterr().err
    if kind != "png":  # whose ends are all that is kept of it
        edited = min(shown)
        draw_bordered(tmp_path / "moved", [40], kind).joinpath(f"40.{kind}").rename(tmp_path / "moved" / edited)
        capsys.readouterr()
        assert f"1 changed ({edited})" in refused(capsys, train(tmp_path / "moved", out, 3))


def test_a_training_that_took_them_for_copies_goes_on(tmp_path, capsys):
    """An earlier version kept a hash of both ends alone, and left out what shared it with a held-out picture."""
    folder, out = draw_bordered(draw(tmp_path / "pictures", range(5)), range(20), "bmp"), tmp_path / "out"
    others = draw_bordered(tmp_path / "others", [30], "bmp")
    assert train(folder, out, 1, "--data.held_out", str(others)) == 0
    for table, kept in (("pictures.csv", ".png"), ("held_out_pictures.csv", "")):
        lines = [f"{row['picture']},{row['hash'][:32]}\n" for row in rows(out / table) if kept in row["picture"]]
        (out / table).write_text("".join(["picture,hash\n", *lines]))
    settings = json.loads((out / "settings.json").read_text())
    (out / "settings.json").write_text(json.dumps({**settings, "pictures": 5}))
    capsys.readouterr()
    assert train(folder, out, 2, "--data.held_out", str(others)) == 0
    assert "20 pictures that begin and end as held-out ones are left out" in capsys.readouterr().err
    assert names(out, "pictures.csv") == {f"{i}.png" for i in range(5)}
    assert train(folder, out, 3, "--data.held_out", str(others), "--data.accept_changes", "true") == 0
    assert len(names(out, "pictures.csv")) == 25


def test_a_folder_of_others(folder, tmp_path, capsys):
    out, others = tmp_path / "out", draw(tmp_path / "others", [30, 31, 5])
    assert train(folder, out, 1, "--data.held_out", str(others)) == 0
    assert names(out, "held_out_pictures.csv") == {"30.png", "31.png", "5.png"}
    assert names(out, "pictures.csv") == {f"{i}.png" for i in range(20)} - {"5.png"}
    others = others.rename(tmp_path / "elsewhere")
    assert train(folder, out, 2, "--data.held_out", str(others)) == 0
    draw(others, [32])
    capsys.readouterr()
    error = refused(capsys, train(folder, out, 3, "--data.held_out", str(others)))
    assert "other held-out pictures: 1 added (32.png)" in error


def test_a_training_begun_without_goes_on_without(folder, tmp_path, capsys):
    """Those that were shown cannot be held out any more; others can."""
    out = tmp_path / "out"
    assert train(folder, out, 1, "--data.held_out", "0") == 0
    settings = json.loads((out / "settings.json").read_text())
    del settings["held_out"]  # as earlier versions left it
    (out / "settings.json").write_text(json.dumps(settings))
    capsys.readouterr()
    assert train(folder, out, 2) == 0
    assert "was begun without held-out pictures and goes on so" in capsys.readouterr().err
    shown = draw(tmp_path / "shown", [30, 7])
    assert "to be held out now (7.png)" in refused(capsys, train(folder, out, 3, "--data.held_out", str(shown)))
    (shown / "7.png").unlink()
    assert train(folder, out, 3, "--data.held_out", str(shown)) == 0
    assert [row["step"] for row in rows(out / "held_out.csv")] == ["3"]


def test_a_bad_picture_is_not_held_out(folder, tmp_path, capsys):
    """One whose damage shows in decoding alone, and which would be the first to be chosen."""
    pictures, path = PictureSet(str(folder), 16), folder / "3.png"
    number, content = pictures.names.index("3.png"), bytearray(path.read_bytes())
    others = [pictures.inspect(other)[0].hash for other in range(20) if other != number]
    for value in range(256):
        content[200:230] = bytes([value]) * 30
        path.write_bytes(content)
        entry, reason = pictures.inspect(number)
        if entry.hash < min(others):
            break
    assert reason is None
    assert "1 of 20 pictures" in refused(capsys, train(folder, tmp_path / "out", 1))
    assert train(folder, tmp_path / "out", 1, "--data.skip_bad", "true") == 0
    assert names(tmp_path / "out", "bad_pictures.csv") == {"3.png"}
    held, shown = (names(tmp_path / "out", table) for table in ("held_out_pictures.csv", "pictures.csv"))
    assert len(held) == 2
    assert held | shown == {f"{i}.png" for i in range(20)} - {"3.png"}


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ("-1", "data.held_out is a number of pictures, 0 or more, or a folder; -1 was given"),
        ("nowhere", "no such folder or tar file: nowhere"),
        ("FOLDER", "are held out: choose fewer, or others, with --data.held_out"),
    ],
)
def test_bad_input(folder, tmp_path, capsys, held_out, message):
    assert message in refused(
        capsys, train(folder, tmp_path / "out", 1, "--data.held_out", held_out.replace("FOLDER", str(folder)))
    )
    assert not (tmp_path / "out").exists()


# Ending ----------------------------------------------------------------------------------------------------------


ENDED_WITHIN_A_SEARCH = """
import os, signal, sys
from iagan_lightning import signals
signals.catch()
from iagan_lightning.cli import main
from iagan_lightning.training import held_out

search, searches, seen = held_out.csgm, [], []

def look(*_):
    seen.append(len(searches))
    if seen.count(2) == 3:  # the third picture made in the second search
        os.kill(os.getpid(), signal.SIGTERM)

def csgm(prior, *others):
    searches.append(prior.register_forward_hook(look))
    return search(prior, *others)

held_out.csgm = csgm
sys.exit(main())
"""


@pytest.mark.slow
def test_a_training_that_is_measuring_ends_when_it_is_asked_to(folder, tmp_path):
    """The search ends at once and counts for nothing; the step before it is kept, whole."""
    out = tmp_path / "out"
    more = ["--held_out_every", "2", "--checkpoint_every", "100"]
    done = subprocess.run(
        [sys.executable, "-c", ENDED_WITHIN_A_SEARCH, *arguments_of(folder, out, 10, *more)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert "4 of 10 steps are done and kept" in done.stderr
    assert [row["step"] for row in rows(out / "held_out.csv")] == ["2"]
    assert not list(out.glob(".*.part"))
    assert train(folder, tmp_path / "whole", 4, "--held_out_every", "1000") == 0
    assert same(out, tmp_path / "whole")
