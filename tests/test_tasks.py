"""The commands of all tasks: truths and measurements of one's own, masks, kinds, bad input, check-operator."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import user_operator
from PIL import Image

from iagan_lightning.cli import TASKS as NAMES
from iagan_lightning.cli import main
from iagan_lightning.commands.shorthand import KINDS
from iagan_lightning.commands.tasks import TASKS
from iagan_lightning.data.images import read_image
from iagan_lightning.operators import Blur, FourierSensing, GaussianSensing, Grayscale, Inpainting

STEPS = ["--model.latent.steps", "4", "--model.joint.steps", "3", "--trainer.accelerator", "cpu", "--lpips", "none"]


@pytest.fixture
def run(tiny_weights, tmp_path):
    def run(task, *arguments, out="out"):
        common = [task, "--model.generator", tiny_weights, "--out", tmp_path / out, *STEPS]
        return main([str(word) for word in [*common, *arguments]])

    return run


def record(out, name="0"):
    return json.loads((out / "images" / name / "metrics.json").read_text())


def test_the_commands_are_the_tasks():
    assert set(NAMES) == set(TASKS)


OPERATORS = {
    "compressed-sensing": ([], "GaussianSensing(image_shape=(3, 16, 16), ratio=0.3, seed=0, design='dense')"),
    "super-resolution": ([], "BicubicDownsampling(image_shape=(3, 16, 16), scale=4, padding='renormalise')"),
    "deblurring": ([], "Blur(image_shape=(3, 16, 16), kernel='uniform', size=9, padding='circular')"),
    "inpainting": ([], "Inpainting(image_shape=(3, 16, 16), ratio=0.5, seed=0)"),
    "denoising": (["--noise_std", "10/255"], "Identity(image_shape=(3, 16, 16))"),
}


@pytest.mark.parametrize("task", OPERATORS)
def test_every_task_runs_without_settings(run, folder, tmp_path, task):
    more, operator = OPERATORS[task]
    assert run(task, "--data.root", folder, *more) == 0
    content = record(tmp_path / "out")
    assert content["operator"] == operator
    exact = {"csgm_bp", "iagan_bp"} if not more else set()
    assert set(content["methods"]) == {"naive", "csgm", "iagan"} | exact
    for method in exact:
        limit = 0.1 if task == "deblurring" else 1e-5  # a blur's inverse is truncated
        assert content["methods"][method]["residual"] < limit
    for values in content["methods"].values():
        total = values["row_space_mse"] + values["null_space_mse"]
        assert total >= values["mse"] * 0.999  # the parts of the unclamped error, and clamping only helps
    made = {path.name for path in (tmp_path / "out" / "images" / "0").iterdir()}
    assert ("measurement.png" in made) == (task != "compressed-sensing")
    assert ("mask.png" in made) == (task == "inpainting")


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_name_operators(run, folder, tmp_path, kind):
    more = {"gaussian": [], "blur": ["--operator.size", "3"]}.get(kind, [])
    task = "super-resolution" if kind == "bicubic" else "compressed-sensing"
    if kind in ("inpainting", "fourier"):
        more = ["--operator.ratio", "0.4"]
    assert run(task, "--data.root", folder, "--data.limit", "1", f"--operator.kind={kind}", *more) == 0
    assert record(tmp_path / "out")["operator"].startswith(KINDS[kind])


def measured(A, folder, name="0"):
    """y of a truth's picture."""
    return A(read_image(folder / f"{name}.png")[None])[0]


@pytest.mark.parametrize("suffix", [".pt", ".npy"])
@pytest.mark.parametrize(
    ("task", "settings", "make"),
    [
        (
            "compressed-sensing",
            ["--operator.ratio", "0.3", "--operator.seed", "0", "--operator.design", "dense"],
            lambda s: GaussianSensing(s, ratio=0.3),
        ),
        (
            "compressed-sensing",
            ["--operator.kind", "fourier", "--operator", "{ratio: 0.5, seed: 4, design: hermitian}"],
            lambda s: FourierSensing(s, ratio=0.5, seed=4),
        ),
    ],
)
def test_measured_arrays_give_what_the_operator_gives(run, folder, tmp_path, task, settings, make, suffix):
    """Matrix and k-space measurements of one's own: the same result as from the truth itself."""
    mine = tmp_path / "mine"
    mine.mkdir()
    y = measured(make((3, 16, 16)), folder)
    torch.save(y, mine / "0.pt") if suffix == ".pt" else np.save(mine / "0.npy", y.numpy())
    assert run(task, "--data.measurements", mine, *settings) == 0
    assert run(task, "--data.root", folder, "--data.limit", "1", *settings, out="truth") == 0
    assert torch.equal(torch.load(tmp_path / "out" / "images" / "0" / "measurement.pt"), y)
    assert record(tmp_path / "out")["methods"]["iagan_bp"]["residual"] < 1e-5
    assert ("measurement.png" in {p.name for p in (tmp_path / "out" / "images" / "0").iterdir()}) == y.is_complex()


@pytest.mark.parametrize(
    ("task", "settings", "make"),
    [
        ("deblurring", ["--operator.size", "3"], lambda s: Blur(s, size=3)),
        (
            "deblurring",
            ["--operator.size=3", "--operator.padding=zero"],
            lambda s: Blur(s, size=3, padding="zero"),
        ),
        ("inpainting", ["--operator.box", "[2,3,4,5]"], lambda s: Inpainting(s, box=(2, 3, 4, 5))),
        ("super-resolution", ["--operator.kind", "grayscale"], Grayscale),
    ],
)
def test_measured_pictures_are_on_the_unit_scale(run, folder, tmp_path, task, settings, make):
    """A picture p of one's own is A applied to an image in [0, 1]: y = 2 p - A(1)."""
    A = make((3, 16, 16))
    unit = A((read_image(folder / "0.png")[None] + 1) / 2)[0]
    mine = tmp_path / "mine"
    mine.mkdir()
    pixels = (unit.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0]).save(mine / "0.png")
    assert run(task, "--data.measurements", mine, *settings) == 0
    y = torch.load(tmp_path / "out" / "images" / "0" / "measurement.pt")
    expected = measured(A, folder)
    assert y.shape == expected.shape
    assert torch.allclose(y, expected, atol=1.01 / 255)
    # The picture that was written back is the one that was given.
    with Image.open(tmp_path / "out" / "images" / "0" / "measurement.png") as written:
        shown = np.asarray(written, float)
    unmeasured = 255 * (A(torch.ones(1, 3, 16, 16))[0] == 0).permute(1, 2, 0).numpy() / 2
    if "--operator.padding=zero" not in settings:
        assert np.abs(shown - pixels.squeeze().astype(float) - unmeasured.squeeze()).max() <= 1


def test_masks_written_can_be_read_again(run, folder, tmp_path):
    assert run("inpainting", "--data.root", folder, "--operator.seed", "3") == 0
    mask = tmp_path / "out" / "images" / "0" / "mask.png"
    assert run("inpainting", "--data.root", folder, "--operator.mask", mask, out="again") == 0
    a, b = (torch.load(tmp_path / out / "images" / "0" / "measurement.pt") for out in ("out", "again"))
    assert torch.equal(a, b)


def test_noise_falls_on_measured_pixels_only(run, folder, tmp_path):
    assert run("inpainting", "--data.root", folder, "--noise_std", "0.1") == 0
    y = torch.load(tmp_path / "out" / "images" / "0" / "measurement.pt")
    assert (y == 0).float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_back_projection_up_to_the_noise(run, folder, tmp_path):
    settings = ["--data.root", folder, "--noise_std", "0.1", "--back_projection", "discrepancy"]
    assert run("super-resolution", *settings) == 0
    methods = record(tmp_path / "out")["methods"]
    assert methods["csgm"]["residual_sigma"] > 1
    assert methods["csgm_bp"]["residual_sigma"] == pytest.approx(1, abs=1e-3)


def test_an_operator_without_inverse_loses_no_results(run, folder, tmp_path):
    """Where A^+ is out of reach there are warnings, no back-projection, and everything else."""
    with pytest.warns(UserWarning, match="no (csgm|iagan)_bp: conjugate gradients"):
        assert (
            run("deblurring", "--data.root", folder, "--data.limit", "1", "--operator", "user_operator.NoInverse") == 0
        )
    methods = record(tmp_path / "out")["methods"]
    assert set(methods) == {"naive", "csgm", "iagan"}
    assert "row_space_mse" not in methods["iagan"]
    assert "psnr" in methods["iagan"]


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("compressed-sensing", ["--operator.ratio", "1.5"], "ratio lies in (0, 1]"),
        ("compressed-sensing", ["--operator.kind", "radon"], "operator.kind is one of gaussian, fourier"),
        ("compressed-sensing", ["--operator.kind"], "operator.kind is one of gaussian, fourier"),
        ("compressed-sensing", ["--operator.matrix", "nowhere.pt"], "nowhere.pt cannot be read"),
        (
            "compressed-sensing",
            ["--data.measurements", "PICTURES", "--operator={ratio: 0.3, seed: 0, design: auto}"],
            "no pictures: give arrays of shape (230,)",
        ),
        ("deblurring", ["--operator.size", "17"], "kernel of 17 x 17 pixels is larger than the image of 16 x 16"),
        ("deblurring", ["--data.measurements", "SMALL"], "measurements of shape (3, 5, 7) were given"),
        ("inpainting", ["--operator.mask", "SMALL_PICTURE"], "mask has shape (16, 16)"),
        ("inpainting", ["--operator.mask", "nowhere.png"], "nowhere.png cannot be read"),
        ("inpainting", ["--operator", "user_operator.Nothing"], "user_operator.Nothing"),
        ("inpainting", ["--operator", "user_operator.NotLinear"], "NotLinear is not linear"),
        ("inpainting", ["--operator", "user_operator.WrongAdjoint"], "the adjoint of WrongAdjoint is wrong"),
        ("denoising", ["--noise_std", "-1"], "noise_std is on the [0, 1] scale"),
        ("denoising", ["--noise_std", "25"], "25 was given: 25/255 is meant?"),
        ("denoising", ["--noise_std", "ten"], "such as 0.04 or 10/255, or unknown; 'ten' was given"),
    ],
)
def test_bad_input(run, folder, tmp_path, capsys, task, arguments, message):
    small = tmp_path / "small"
    small.mkdir()
    Image.fromarray(np.zeros((5, 7, 3), np.uint8)).save(small / "s.png")
    places = {"PICTURES": folder, "SMALL": small, "SMALL_PICTURE": small / "s.png"}
    arguments = [places.get(word, word) for word in arguments]
    root = [] if "--data.measurements" in arguments else ["--data.root", folder]
    assert run(task, *root, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out" / "images").exists()


# check-operator ----------------------------------------------------------------------------------------------------


def test_check_operator(capsys, tmp_path):
    assert main(["check-operator", "FourierSensing", "--operator.ratio", "0.4", "--image_shape", "[3,12,10]"]) == 0
    printed = capsys.readouterr().out
    assert "FourierSensing(image_shape=(3, 12, 10), ratio=0.4" in printed
    assert "FAIL" not in printed
    assert "all checks hold" in printed
    config = tmp_path / "config.yaml"
    config.write_text("operator:\n  class_path: Blur\n  init_args:\n    size: 3\n")
    assert main(["check-operator", str(config)]) == 0
    assert "size=3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "failing"),
    [
        ("user_operator.NotLinear", "linear"),
        ("user_operator.WrongAdjoint", "adjoint (dot test)"),
        ("user_operator.Noisy", "same again"),
        ("user_operator.MixesBatch", "batch = one by one"),
        ("user_operator.Raises", "shapes"),
    ],
)
def test_check_operator_finds_mistakes(capsys, target, failing):
    assert main(["check-operator", target, "--image_shape", "[1,8,8]"]) == 1
    assert f"FAIL  {failing}: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "first", "where", "hint", "unclear"),
    [
        ("WrongAdjoint", "adjoint (dot test)", "WrongAdjoint.adjoint", "leave adjoint out", 5),
        ("Twice", "adjoint (dot test)", "Twice.adjoint", "yours is 2 times what", 5),
        ("NotLinear", "linear", "NotLinear.forward", "no offset", 5),
        ("Noisy", "same again", "Noisy.forward", "drawn once, in __init__", 10),
        ("MixesBatch", "batch = one by one", "MixesBatch.forward", "axis 0", 0),
        ("NoInverse", "A A+ A = A", 'raise RuntimeError("conjugate gradients would', "", 3),
        ("Raises", "shapes", 'raise IndexError("out of range")', "", 0),
    ],
)
def test_check_operator_names_the_cause_once(capsys, target, first, where, hint, unclear):
    """What follows from it is no verdict of its own, the place is the user's, and the example call can be made."""
    assert main(["check-operator", f"user_operator.{target}", "--image_shape", "[1,8,8]"]) == 1
    printed = capsys.readouterr().out
    assert [line[6:].partition(": ")[0] for line in printed.splitlines() if line.startswith("FAIL")] == [first]
    assert f"mend{' first' * bool(unclear)}: {first}\n" in printed
    place = re.search(r"  where: (.*), line (\d+): (.*)", printed)
    assert place[1].endswith("user_operator.py") and where in place[3]
    source = (Path(__file__).parent / "user_operator.py").read_text().splitlines()[int(place[2]) - 1]
    assert where.rpartition(".")[2] in source
    assert hint in printed
    listed = re.search(r"not to be judged before .* holds: (.*)", printed)
    assert len(listed[1].replace("-projection, float32", "").split(", ")) == unclear if unclear else listed is None
    assert printed.endswith("1 check failed\n")
    call = [line.strip() for line in printed.splitlines() if line.startswith("  A = ")]
    made = {"torch": torch, target: getattr(user_operator, target)}
    exec(call[0], made)
    assert made["x"].shape == (2, 1, 8, 16)


def test_check_operator_judges_apart_what_is_apart(capsys):
    """A pseudo-inverse of one's own that has nothing to do with the adjoint is judged whatever that is."""
    assert main(["check-operator", "user_operator.WrongTwice", "--image_shape", "[1,8,8]"]) == 1
    printed = capsys.readouterr().out
    assert "FAIL  adjoint (dot test): " in printed and "FAIL  A A+ A = A: " in printed
    assert "mend first: adjoint (dot test)" in printed and printed.endswith("2 checks failed\n")


def test_check_operator_tells_of_rectangular_images(capsys):
    """An operator that is right on square images may take no others, and that is told, not held against it."""
    assert main(["check-operator", "Identity"]) == 0
    assert "ok    rectangular: shapes, linearity and dot test hold for images of (3, 32, 64)" in capsys.readouterr().out
    assert main(["check-operator", "user_operator.Masked", "--operator.kind_of_mask", "row"]) == 0
    printed = capsys.readouterr().out
    assert "      rectangular: square images only" in printed and "y = x * self.mask" in printed
    assert printed.endswith("all checks hold\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "target"),
        (["Nothing"], "Nothing"),
        (["nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["GaussianSensing"], "ratio lies in (0, 1]"),
        (["Identity", "--image_shape", "[3,0,8]"], "image_shape is (channels, height, width)"),
    ],
)
def test_check_operator_bad_input(capsys, arguments, message):
    assert main(["check-operator", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (["user_operator.Untyped"], None),
        (["user_operator.Untyped", "--operator.step", "4"], None),
        (["user_operator.UntypedAndNeeded"], "UntypedAndNeeded.__init__ does not say of what type step is"),
        (["user_operator.Broken"], "no operator for images of (3, 16, 16): AttributeError: "),
        (["user_operator.Elsewhere"], "no operator for images of (3, 16, 16): Elsewhere takes those of (3, 5, 5)"),
    ],
)
def test_check_operator_builds_as_a_task_does(run, folder, capsys, operator, message):
    status = main(["check-operator", *operator, "--image_shape", "[3,16,16]"])
    checked = capsys.readouterr()
    assert run("inpainting", "--data.root", folder, "--data.limit", "1", "--operator", *operator) == status
    if message is None:
        assert status == 0
    else:
        assert status == 2
        error = capsys.readouterr().err
        assert error == checked.err and message in error and error.count("\n") == 1


@pytest.mark.parametrize(("kind", "drawn"), [("row", False), ("batch", False), ("complex", False), ("colours", False),
                                             ("weights", False), ("planes", True)])  # fmt: skip
def test_a_mask_that_cannot_be_drawn_is_left_out(run, folder, tmp_path, kind, drawn):
    """After all the work for an image nothing may fail, and no picture may show another mask than there is."""
    operator = ["user_operator.Masked", "--operator.kind_of_mask", kind]
    assert main(["check-operator", *operator, "--image_shape", "[3,16,16]"]) == 0
    assert run("inpainting", "--data.root", folder, "--data.limit", "1", "--operator", *operator) == 0
    image = tmp_path / "out" / "images" / "0"
    assert (image / "metrics.json").is_file()
    assert (image / "mask.png").is_file() == drawn


def test_check_operator_wants_a_linear_one(capsys):
    assert main(["check-operator", "iagan_lightning.operators.PhaseRetrieval"]) == 2
    assert "only a LinearOperator can be checked; PhaseRetrieval is none" in capsys.readouterr().err


def test_shipped_operators_pass_from_the_command_line(capsys):
    for config in sorted((Path(__file__).parent.parent / "configs").rglob("*.yaml")):
        assert main(["check-operator", str(config), "--image_shape", "[3,16,16]"]) == 0, config
        capsys.readouterr()
