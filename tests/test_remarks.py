"""Finished, and yet to be looked at: rounded measurements, results that are worse than nothing, fits that broke."""

import json
import math

import numpy as np
import pytest
import torch
from iagan_lightning.callbacks import BackProjection, BestObjective, StageStopping
from PIL import Image

from iagan_lightning import IAGAN, Stage, adapt
from iagan_lightning.cli import main
from iagan_lightning.data import ImageData
from iagan_lightning.data.images import opaque, to_8bit, to_pillow
from iagan_lightning.methods.trainers import quiet_trainer
from iagan_lightning.operators import BicubicDownsampling, Blur, Identity
from iagan_lightning.results.page.collect import collect
from iagan_lightning.results.remarks import Remarks
from iagan_lightning.runs.run import verdict

EIGHT_BITS = 1 / 255 / math.sqrt(12)
STEPS = ["--model.latent.steps", "3", "--model.joint.steps", "2", "--trainer.accelerator", "cpu", "--lpips", "none"]


@pytest.fixture
def run(tiny_weights, tmp_path, capsys):
    """Run a task with tiny settings; returns what it printed to standard output and error."""

    def run(task, *arguments, status=0):
        common = [task, "--model.generator", tiny_weights, "--out", tmp_path / "out", "--tensorboard", "0", *STEPS]
        assert main([str(word) for word in [*common, *arguments]]) == status
        printed = capsys.readouterr()
        return " ".join(printed.out.split()), printed.err

    return run


@pytest.fixture
def noise(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    return folder


def record(tmp_path, name="a"):
    return json.loads((tmp_path / "out" / "images" / name / "metrics.json").read_text())


def notes(tmp_path):
    return " ".join(collect([tmp_path / "out"], tmp_path / "page.html")["notes"])


# Rounding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"padding": "reflect"},
        {"size": 3},
        {"kernel": "gaussian", "std": 2.0},
        {"kernel": "motion", "padding": "zero"},
    ],
)
def test_rounding_is_not_amplified(portraits, settings):
    """What back-projection gains from a picture of 8 bits, for an estimate about as far from the truth as IAGAN's."""
    A = Blur((3, 64, 64), **settings)
    y = to_8bit(A(portraits)).float() / 127.5 - 1
    x = portraits + 0.2 * torch.randn(portraits.shape, generator=torch.Generator().manual_seed(0))

    def psnr(image):
        return -10 * ((image.clamp(-1, 1) - portraits) / 2).square().mean((1, 2, 3)).log10()

    plain, rounded = psnr(A.back_project(x, y)), psnr(A.back_project_rounded(x, y, EIGHT_BITS))
    assert (rounded > psnr(x)).all()
    assert (rounded > plain).all(), (rounded, plain)
    alone = torch.cat([A.back_project_rounded(x[i : i + 1], y[i : i + 1], EIGHT_BITS) for i in range(2)])
    assert torch.allclose(alone, A.back_project_rounded(x, y, EIGHT_BITS), atol=1e-5)


def test_rounding_is_known_from_the_file(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (16, 16))
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "eight.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    np.save(tmp_path / "array.npy", np.zeros((3, 16, 16), np.float32))
    data = ImageData(measurements=str(tmp_path))
    samples = {sample.name: sample for sample in data.samples(0, (3, 16, 16))}
    read = {name: data.read(sample, (3, 16, 16), Identity, 0.0).quantisation for name, sample in samples.items()}
    assert read == {"eight": pytest.approx(EIGHT_BITS), "sixteen": pytest.approx(EIGHT_BITS / 257), "array": 0.0}


def test_a_poor_estimate_amplifies_no_rounding_either(portraits):
    """Its errors are coarse ones, and say nothing of the fine ones that a blur has all but removed."""
    A = Blur((3, 64, 64))
    y = to_8bit(A(portraits)).float() / 127.5 - 1
    plain, rounded = A.back_project(0 * portraits, y), A.back_project_rounded(0 * portraits, y, EIGHT_BITS)
    errors = [(image.clamp(-1, 1) - portraits).square().mean((1, 2, 3)) for image in (rounded, plain)]
    assert (errors[0] < 0.9 * errors[1]).all()


def test_a_blurred_picture_of_ones_own(run, portraits, tmp_path):
    """Its rounding is recorded, is no noise, and regularises the back-projection of a blur; an array has none."""
    A = Blur((3, 16, 16), size=3)
    sharp = torch.nn.functional.avg_pool2d(portraits[:1], 4)
    to_pillow(A(sharp)[0]).save(tmp_path / "a.png")
    errors = {}
    for name in ("a.png", "a.npy"):
        run("deblurring", "--data.measurements", tmp_path / name, "--operator.size", "3", "--out", tmp_path / name[2:])
        images = tmp_path / name[2:] / "images" / "a"
        content = json.loads((images / "metrics.json").read_text())
        assert content["noise_std"] == 0
        assert content["quantisation"] == (pytest.approx(EIGHT_BITS) if name == "a.png" else 0)
        np.save(tmp_path / "a.npy", torch.load(images / "measurement.pt").numpy())
        with Image.open(images / "iagan_bp.png") as picture:
            shown = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1
        errors[name] = (shown - sharp).square().mean().item()
    assert errors["a.png"] < 0.95 * errors["a.npy"]


def test_well_conditioned_operators_stay_exact(run, noise, tmp_path):
    run("super-resolution", "--data.measurements", noise, "--operator.kind", "identity")
    content = record(tmp_path)
    assert content["quantisation"] == pytest.approx(EIGHT_BITS)
    assert content["methods"]["iagan_bp"]["residual"] < 1e-6


def fitted(tiny, quantisation, **joint):
    A = BicubicDownsampling((3, 16, 16), scale=2)
    with torch.no_grad():
        y = A(tiny(tiny.sample_latent(1, seed=3)))
    module = IAGAN(tiny, latent=Stage(steps=3), joint=Stage(steps=30, decrease=1e6, **joint))
    module.begin(y, A, seeds=[0], quantisation=quantisation)
    callbacks = [BestObjective(), StageStopping(), BackProjection()]
    return adapt(module, quiet_trainer(accelerator="cpu", callbacks=callbacks))


def test_nothing_is_fitted_more_closely_than_it_was_rounded(tiny):
    closely = fitted(tiny, 0.0)
    level = 1.2 * closely.misfits["joint"].item()
    coarsely = fitted(tiny, math.sqrt(level) / 2)
    assert coarsely.evaluations["joint"] < closely.evaluations["joint"] == 30
    assert closely.misfits["joint"] < coarsely.misfits["joint"] <= level
    assert torch.allclose(coarsely.operator(coarsely.results["iagan_bp"]), coarsely.y, atol=1e-5)
    asked = fitted(tiny, math.sqrt(level) / 2, stop="never")
    assert asked.evaluations["joint"] == 30, "a fixed number of steps is one"


def test_a_back_projection_far_out_of_range_is_not_offered(run, tmp_path):
    """Undeclared noise, and a blur whose inverse amplifies it a thousand times."""
    A = Blur((3, 16, 16), size=5, padding="zero")
    y = A(torch.zeros(1, 3, 16, 16)) + 0.1 * torch.randn(1, 3, 16, 16)
    np.save(tmp_path / "a.npy", y[0].numpy())
    own = ["--data.measurements", tmp_path / "a.npy", "--operator.padding", "zero", "--operator.size", "5"]
    table, said = run("deblurring", *own, "--operator.truncation", "1e-4")
    content = record(tmp_path)
    assert content["offered"] == "iagan"
    assert f"residual {content['methods']['iagan']['residual']:.1e}" in said
    for text in (table, notes(tmp_path)):
        assert "1 of 1 pictures lie far outside [-1, 1] when they are back-projected" in text
    assert collect([tmp_path / "out"], tmp_path / "page.html")["offered"] == "iagan"


# Worse than nothing, and broken -----------------------------------------------------------------------------------


def test_a_result_that_is_worse_than_the_plain_one_is_told(run, noise, tmp_path):
    table, _ = run("denoising", "--data.root", noise, "--noise_std", "0.01")
    methods = record(tmp_path)["methods"]
    assert methods["iagan"]["psnr"] < methods["naive"]["psnr"]
    for text in (table, notes(tmp_path)):
        assert "1 of 1 pictures came out worse than the plain reconstruction, by their PSNR (a)." in text
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["remarks"]


def test_a_fit_that_broke_is_told(run, noise, tmp_path):
    """Steps without measure: the weights become infinite, and what was found before is the result."""
    table, _ = run("super-resolution", "--data.root", noise, "--model.joint.lr_weights", "1e30")
    assert record(tmp_path)["broken"] == ["joint"]
    assert math.isfinite(record(tmp_path)["objective"]["joint"])
    for text in (table, notes(tmp_path)):
        assert "1 of 1 pictures had a fit that ended in infinity or in no number" in text


def test_a_cut_around_no_face_is_told():
    """A score between what pictures without a face reach and what faces have."""
    remarks = Remarks()
    for name, about in (("a", {"face_score": 0.93}), ("b", {"face_score": 0.99}), ("c", {"face_seen": 2})):
        remarks.add({"image": name, "methods": {}, **about})
    assert remarks.lines() == [
        "2 of 3 pictures were cut out around what may be no face: the detector was hardly sure of it (a, c). Look at "
        "what was cut out, or crop by hand."
    ]


def test_an_ordinary_run_is_not_remarked_on(run, tiny, tmp_path):
    folder = tmp_path / "known"
    folder.mkdir()
    with torch.no_grad():
        pixels = to_8bit(tiny(tiny.sample_latent(1, seed=5))[0]).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(folder / "a.png")
    run("super-resolution", "--data.root", folder, "--model.latent.steps", "200")
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["remarks"] == []
    assert record(tmp_path)["offered"] == "iagan_bp"
    assert "broken" not in record(tmp_path)


# A damaged picture of one's own ----------------------------------------------------------------------------------


def test_damage_is_not_guessed_at(run, noise, tmp_path):
    own = ["--data.measurements", noise]
    _, error = run("inpainting", *own, status=2)
    assert "where is the damage" in error
    assert "--operator.mask FILE" in error
    assert error.count("\n") == 1
    mask = np.full((16, 16), 255, np.uint8)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    _, error = run("inpainting", *own, "--operator.mask", tmp_path / "mask.png", status=2)
    assert "the mask is white everywhere" in error
    mask[:4] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    _, said = run("inpainting", *own, "--operator.mask", tmp_path / "mask.png")
    assert "mask: 75.0% of the picture is measured, 25.0% is filled in" in said
    assert (torch.load(tmp_path / "out" / "images" / "a" / "measurement.pt")[:, :4] == 0).all()


def erased(folder, name, rows, values=None):
    """Save a picture of noise that is transparent in its first rows, black under it."""
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    pixels[:rows] = 0
    pixels[rows:, :, :3] = pixels[rows:, :, :3] if values is None else values
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return torch.from_numpy(pixels[..., :3].copy()).permute(2, 0, 1) / 127.5 - 1


def test_each_picture_is_filled_in_where_it_is_transparent(run, tmp_path):
    folder = tmp_path / "cut"
    seen = {name: (rows, erased(folder, f"{name}.png", rows)) for name, rows in (("a", 4), ("b", 8))}
    erased(folder, "c.png", 0)
    alpha = ["--data.measurements", folder, "--data.alpha", "mask"]
    run("inpainting", *alpha, "--data.images_per_fit", "3", status=1)
    for name, (rows, pixels) in seen.items():
        assert record(tmp_path, name)["share"] == 1 - rows / 16
        y = torch.load(tmp_path / "out" / "images" / name / "measurement.pt")
        assert (y[:, :rows] == 0).all()
        assert torch.allclose(y[:, rows:], pixels[:, rows:], atol=1e-6)
        exact = np.asarray(Image.open(tmp_path / "out" / "images" / name / "iagan_bp.png"))[rows:]
        assert np.array_equal(exact, np.asarray(Image.open(folder / f"{name}.png"))[rows:, :, :3])
    assert "nothing in the picture is transparent" in (tmp_path / "out" / "images" / "c" / "error.txt").read_text()
    # The same as with the mask as a file of its own.
    y = torch.load(tmp_path / "out" / "images" / "a" / "measurement.pt")
    first = Image.open(tmp_path / "out" / "images" / "a" / "iagan.png").tobytes()
    Image.open(folder / "a.png").getchannel("A").save(tmp_path / "mask.png")
    own = ["--operator.mask", tmp_path / "mask.png", "--out", tmp_path / "again"]
    run("inpainting", "--data.measurements", folder / "a.png", *own)
    assert torch.equal(torch.load(tmp_path / "again" / "images" / "a" / "measurement.pt"), y)
    assert Image.open(tmp_path / "again" / "images" / "a" / "iagan.png").tobytes() == first


def test_erased_pictures_beside_the_true_ones(run, noise, tmp_path):
    """Pairs: what was measured is told, and the picture is compared; records of earlier versions lack the share."""
    erased(tmp_path / "cut", "a.png", 4)
    pairs = ["--data.root", noise, "--data.measurements", tmp_path / "cut" / "a.png", "--data.alpha", "mask"]
    _, said = run("inpainting", *pairs)
    assert "75.0% of it measured" in said
    found = record(tmp_path, "a")
    assert found["share"] == 0.75
    assert "psnr" in found["methods"]["iagan"]
    assert verdict({key: value for key, value in found.items() if key != "share"}, masked=True).startswith("PSNR")


@pytest.mark.parametrize(
    ("task", "arguments", "said"),
    [
        ("super-resolution", ["--data.measurements"], "says what is missing for Inpainting; BicubicDownsampling was"),
        ("inpainting", ["--operator.ratio", "0.5", "--data.measurements"], "exactly one of ratio, box and mask"),
        ("inpainting", ["--data.root"], "from the transparency of data.measurements"),
        ("inpainting", ["--data.align", "true", "--data.measurements"], "align them beforehand"),
    ],
)
def test_transparency_that_cannot_be_the_mask_is_refused(run, tmp_path, task, arguments, said):
    erased(tmp_path / "cut", "a.png", 4)
    _, error = run(task, "--data.alpha", "mask", *arguments, tmp_path / "cut", status=2)
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_rim_of_what_was_erased_is_not_measured(tmp_path):
    pixels = np.full((1, 4, 4), 255, np.uint8)
    pixels[0, :, 3] = [0, 128, 254, 255]
    Image.fromarray(pixels).save(tmp_path / "rim.png")
    assert opaque(tmp_path / "rim.png").tolist() == [[False, False, True, True]]
    grey = Image.fromarray(np.array([[7, 9]], np.uint16))
    grey.save(tmp_path / "grey.png", transparency=9)
    assert opaque(tmp_path / "grey.png").tolist() == [[True, False]]
    Image.fromarray(pixels).rotate(180).save(tmp_path / "turned.png", exif=turned_by(180))
    assert opaque(tmp_path / "turned.png").tolist() == [[False, False, True, True]]
    for value, said in ((0, "transparent everywhere"), (255, "nothing in the picture is transparent")):
        pixels[..., 3] = value
        Image.fromarray(pixels).save(tmp_path / "all.png")
        with pytest.raises(ValueError, match=said):
            opaque(tmp_path / "all.png")


def turned_by(degrees):
    exif = Image.Exif()
    exif[0x0112] = {180: 3}[degrees]
    return exif


def test_what_the_prior_cannot_show_depends_on_where_it_was_searched():
    def named(residual, **record):
        remarks = Remarks()
        remarks.add({"image": "a", "methods": {"csgm": {"residual": residual}}, **record})
        return any("none that the prior can show" in line for line in remarks.lines())

    assert named(0.5) and named(0.5, space="z") and not named(0.3, space="z")
    assert named(0.8, space="w") and not named(0.5, space="w") and not named(0.5, space="w+")
