"""Measurements of one's own that are of another kind, shape or order than A makes, and files of several frames."""

import numpy as np
import pytest
import torch
from PIL import Image

from iagan_lightning import Stage, reconstruct
from iagan_lightning.cli import main
from iagan_lightning.data.images import read_image
from iagan_lightning.data.samples import measurement_of, read_array
from iagan_lightning.operators import (
    BicubicDownsampling,
    Blur,
    FourierSensing,
    GaussianSensing,
    Grayscale,
    Identity,
    Inpainting,
    LinearOperator,
)
from iagan_lightning.operators.files import read_kernel, read_picture, read_tensor
from iagan_lightning.operators.measurements import as_measurement, likely_matter

IMAGE = (3, 16, 16)
STEPS = ["--model.latent.steps", "3", "--model.joint.steps", "2", "--trainer.accelerator", "cpu", "--lpips", "none",
         "--tensorboard", "0"]  # fmt: skip


@pytest.fixture(scope="module")
def truth():
    return torch.rand(1, *IMAGE, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def run(tiny_weights, tmp_path, capsys):
    """Reconstruct the file own/a.npy; return status and what was said."""

    def run(task, array, *arguments, suffix=".npy"):
        own = tmp_path / "own"
        own.mkdir(exist_ok=True)
        if suffix == ".npy":
            np.save(own / "a.npy", np.asarray(array))
        else:
            torch.save(array, own / "a.pt")
        words = [task, "--data.measurements", own, "--model.generator", tiny_weights, "--out", tmp_path / "out", *STEPS]
        status = main([str(word) for word in [*words, *arguments]])
        return status, capsys.readouterr().err

    return run


FOURIER = ["--operator.kind=fourier", "--operator.ratio=0.5", "--operator.seed=0", "--operator.design=hermitian"]


# Kind ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [torch.real, torch.abs, lambda y: torch.imag(y).clone()])
def test_parts_of_complex_measurements_are_refused(run, truth, tiny, part):
    y = FourierSensing(IMAGE, ratio=0.5)(truth)
    status, said = run("compressed-sensing", part(y[0]), *FOURIER)
    assert status == 2
    assert said.count("\n") == 1
    assert "a.npy: FourierSensing makes complex measurements; real numbers were given" in said
    assert "pairs on a last axis of 2" in said
    with pytest.raises(ValueError, match="y: FourierSensing makes complex measurements"):
        reconstruct(part(y), FourierSensing(IMAGE, ratio=0.5), tiny)


def test_stated_pairs_are_the_complex_numbers(run, truth, tmp_path, tiny):
    A = FourierSensing(IMAGE, ratio=0.5)
    y = A(truth)
    pairs = torch.view_as_real(y)
    assert torch.equal(as_measurement(pairs[0], A), y[0])
    results = []
    for given in (y, pairs):
        assert run("compressed-sensing", given[0], *FOURIER)[0] == 0
        results.append((tmp_path / "out" / "images" / "a" / "iagan.png").read_bytes())
        (tmp_path / "out").rename(tmp_path / f"out{len(results)}")
    assert results[0] == results[1]
    settings = {"latent": Stage(steps=2), "joint": Stage(steps=2), "accelerator": "cpu"}
    both = [reconstruct(given, A, tiny, **settings).iagan for given in (y, pairs)]
    assert torch.equal(*both)


def test_complex_numbers_for_a_real_operator(run, truth, tiny):
    status, said = run("super-resolution", BicubicDownsampling(IMAGE, scale=4)(truth)[0] + 0j)
    assert status == 2
    assert "a.npy: BicubicDownsampling makes real measurements; complex numbers were given" in said
    with pytest.raises(ValueError, match="y: Identity makes real measurements; complex numbers were given"):
        reconstruct(truth + 0j, Identity(IMAGE), tiny)


def test_whole_numbers_are_no_measurements(tmp_path):
    np.save(tmp_path / "a.npy", np.full((3, 4, 4), 200, np.uint8))
    with pytest.raises(ValueError, match=r"a\.npy holds whole numbers \(uint8\); .* give a picture file"):
        read_array(tmp_path / "a.npy")


def test_a_complex_kernel_is_refused(tmp_path):
    np.save(tmp_path / "k.npy", np.ones((3, 3), complex))
    with pytest.raises(ValueError, match=r"a kernel is real; .*k\.npy holds complex numbers"):
        read_kernel(tmp_path / "k.npy")


@pytest.mark.parametrize(
    ("A", "is_complex"),
    [(FourierSensing(IMAGE, ratio=0.5), True), (Blur(IMAGE), False), (GaussianSensing((1, 4, 4), ratio=0.5), False)],
)
def test_an_operator_knows_whether_it_is_complex(A, is_complex):
    assert A.complex_valued is is_complex
    assert A(torch.zeros(1, *A.image_shape)).is_complex() is is_complex


# Shape --------------------------------------------------------------------------------------------------------------

SUPER = ["--operator.scale", "4"]


@pytest.mark.parametrize(
    ("task", "change", "arguments", "message"),
    [
        ("super-resolution", lambda y: y[None], [], "(1, 3, 4, 4) were given, the operator makes (3, height, width): a "
         "batch axis is in front, give y[0]"),
        ("super-resolution", lambda y: np.moveaxis(y, 0, -1), [], "(4, 4, 3) were given, the operator makes (3, "
         "height, width): the channels come last, give np.moveaxis(y, -1, 0)"),
        ("super-resolution", lambda y: np.moveaxis(y, 0, -1)[None], [], "a batch axis is in front (y[0] is without), "
         "and the channels come last, give np.moveaxis(y, -1, 0)"),
        ("super-resolution", lambda y: y[0], [], "(4, 4) were given, the operator makes (3, height, width): these are "
         "grey, and 3 channels are measured"),
        ("super-resolution", lambda y: np.stack([y] * 5), SUPER, "a batch of 5 is in front, give the measurements of "
         "each picture by themselves"),
        ("super-resolution", lambda y: y.ravel(), SUPER, "(48,) were given, the operator makes (3, height, width)"),
        ("deblurring", lambda y: np.moveaxis(np.tile(y, (1, 4, 4)), 0, -1), [], "(16, 16, 3) were given, the operator "
         "makes (3, 16, 16): the channels come last"),
        ("deblurring", lambda y: np.tile(y, (1, 4, 3)), [], "(3, 16, 12) were given, the operator makes (3, 16, 16)\n"),
        ("deblurring", lambda y: np.tile(y, (1, 4, 4)).reshape(3, -1), [], "as many numbers in other axes"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit(run, task, change, arguments, message):
    y = np.random.default_rng(0).random((3, 4, 4), np.float32)
    status, said = run(task, change(y), *arguments)
    assert status == 2
    assert said.count("\n") == 1
    assert "own/a.npy: measurements of shape " in said
    assert message in said


def test_what_looks_to_be_the_matter():
    """What is advised makes the shape that is wanted."""
    y = np.zeros((3, 5, 7))
    advised = [
        (y[None], (3, 5, 7), lambda y: y[0]),
        (np.moveaxis(y, 0, -1), (3, 5, 7), lambda y: np.moveaxis(y, -1, 0)),
        (np.swapaxes(y, 1, 2), (3, 5, 7), lambda y: np.swapaxes(y, -2, -1)),
        (y[0], (1, 5, 7), lambda y: np.expand_dims(y, 0)),
    ]
    for given, wanted, advice in advised:
        assert "give" in likely_matter(given.shape, wanted)
        assert advice(given).shape == wanted
    assert "two parts are in front" in likely_matter((2, 3, 128), (3, 128))
    assert likely_matter((3, 5, 6), (3, 5, 7)) == ""


def test_shapes_in_python(truth, tiny):
    A = Identity(IMAGE)
    for y, message in (
        (truth[0], r"for one image add a batch axis: y\[None\]"),
        (truth[None], r"a batch axis is in front, give y\[0\]"),
        (truth.movedim(1, -1), r"the channels come last, give np.moveaxis\(y, -1, 1\)"),
        (truth[:0], "for one image add a batch axis"),
    ):
        with pytest.raises(ValueError, match=r"y must have shape \(batch, 3, 16, 16\); .* was given.*") as error:
            reconstruct(y, A, tiny)
        error.match(message)


class Coils(LinearOperator):
    """An operator of one's own whose measurements are larger than the image, and no picture."""

    def forward(self, x):
        return torch.cat([x, 2 * x], -1)


@pytest.mark.parametrize("painted", [1.0, -0.3])
def test_what_stands_where_nothing_is_measured_is_no_measurement(tmp_path, truth, tiny, painted):
    """A damage painted white: the same picture, and the same is said of it, as where it is black."""
    A = Inpainting(IMAGE, box=[4, 4, 8, 8])
    y = A(truth)
    own = torch.where(A(torch.ones_like(truth)) == 0, painted, y)
    expected, found = (
        reconstruct(each, A, tiny, latent=Stage(steps=3), joint=Stage(steps=2), accelerator="cpu") for each in (y, own)
    )
    assert torch.equal(found.iagan_bp, expected.iagan_bp)
    assert found.images[0].familiarity == expected.images[0].familiarity
    np.save(tmp_path / "y.npy", own[0].numpy())
    read, _ = measurement_of(tmp_path / "y.npy", IMAGE, lambda shape: A)
    assert torch.equal(read, y)


def test_measurements_larger_than_the_image_are_no_pictures_here(tmp_path, truth):
    torch.save(Coils(IMAGE)(truth)[0], tmp_path / "a.pt")
    with pytest.raises(ValueError, match="larger than the generator's image"):
        measurement_of(tmp_path / "a.pt", IMAGE, BicubicDownsampling)
    y, A = measurement_of(tmp_path / "a.pt", IMAGE, Coils)
    assert torch.equal(y, A(truth))


# Order of bytes and axes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">c8", ">c16", "<f2", ">f2", ">i2", ">u4"])
@pytest.mark.parametrize("order", ["C", "F", "reversed", "read-only"])
def test_arrays_of_any_order(tmp_path, dtype, order):
    values = np.arange(24).reshape(2, 3, 4)
    array = values.astype(dtype, order="F" if order == "F" else "C")
    array = array[::-1] if order == "reversed" else array
    array.flags.writeable = order != "read-only"
    np.save(tmp_path / "a.npy", array)
    expected = torch.from_numpy(values[::-1].copy() if order == "reversed" else values)
    for source in (tmp_path / "a.npy", array):
        tensor = read_tensor(source)
        assert tensor.is_contiguous()
        assert torch.equal(tensor.to(torch.complex128).real.long(), expected)


def test_a_run_from_big_endian_fortran_arrays_is_that_from_the_plain_one(run, truth, tmp_path):
    y = BicubicDownsampling(IMAGE, scale=4)(truth)[0].numpy()
    results = []
    for given in (y, np.asfortranarray(y.astype(">f4"))):
        assert run("super-resolution", given)[0] == 0
        results.append((tmp_path / "out" / "images" / "a" / "iagan.png").read_bytes())
        (tmp_path / "out").rename(tmp_path / f"out{len(results)}")
    assert results[0] == results[1]


@pytest.mark.parametrize("order", ["<", ">"])
def test_matrices_and_masks_of_any_order(tmp_path, order):
    matrix = np.random.default_rng(0).standard_normal((5, 48))
    np.save(tmp_path / "m.npy", np.asfortranarray(matrix.astype(f"{order}f8")))
    x = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    y = GaussianSensing((3, 4, 4), matrix=str(tmp_path / "m.npy"))(x)
    assert np.allclose(y[0].numpy(), matrix @ x.flatten().numpy())
    mask = np.random.default_rng(1).random((4, 4)) > 0.5
    np.save(tmp_path / "mask.npy", np.asfortranarray(mask))
    A = Inpainting((3, 4, 4), mask=str(tmp_path / "mask.npy"))
    assert torch.equal(A(x) != 0, torch.from_numpy(mask).expand(1, 3, 4, 4))


# Frames -----------------------------------------------------------------------------------------------------------


def frames(number):
    return [Image.fromarray(np.full((6, 5, 3), 40 * i + 10, np.uint8)) for i in range(number)]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_several_frames_are_refused_and_one_is_read(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    first, *others = frames(3)
    first.save(path, save_all=True, append_images=others, **({"lossless": True} if suffix == "webp" else {}))
    for read in (read_image, read_picture, read_kernel):
        with pytest.raises(
            ValueError, match="it holds 3 frames or pages, and one picture is needed: save the right one"
        ):
            read(path)
    first.save(path, save_all=True, **({"lossless": True} if suffix == "webp" else {}))
    assert torch.allclose(read_image(path), torch.full((3, 6, 5), 10 / 127.5 - 1), atol=1e-6)


def test_what_is_no_further_picture(tmp_path):
    """Smaller versions of a TIFF's first page, and what lies behind a camera's JPEG."""
    first, second = frames(2)
    reduced = second.resize((2, 3))
    reduced.encoderinfo = {"tiffinfo": {254: 1}}
    first.save(tmp_path / "a.tif", save_all=True, append_images=[reduced])
    with Image.open(tmp_path / "a.tif") as file:
        file.seek(1)
        assert file.tag_v2[254] == 1
    assert torch.allclose(read_image(tmp_path / "a.tif"), torch.full((3, 6, 5), 10 / 127.5 - 1), atol=1e-6)
    first.save(tmp_path / "b.jpg", format="MPO", save_all=True, append_images=[second], quality=100)
    with Image.open(tmp_path / "b.jpg") as file:
        assert file.n_frames == 2
    assert torch.allclose(read_image(tmp_path / "b.jpg"), torch.full((3, 6, 5), 10 / 127.5 - 1), atol=0.02)


def test_a_first_page_that_is_a_smaller_version_is_not_taken(tmp_path):
    first, second = frames(2)
    first.encoderinfo = {"tiffinfo": {254: 0}}
    second.save(tmp_path / "a.tif", save_all=True, append_images=[first], tiffinfo={254: 1})
    with Image.open(tmp_path / "a.tif") as file:
        assert [page_is_reduced(file, page) for page in range(2)] == [True, False]
    with pytest.raises(ValueError, match="2 frames or pages"):
        read_image(tmp_path / "a.tif")


def page_is_reduced(file, page):
    file.seek(page)
    return bool(file.tag_v2.get(254, 0) & 1)


def test_a_measured_animation_fails_by_name(run, tiny_weights, tmp_path, capsys):
    own = tmp_path / "own"
    own.mkdir()
    first, *others = frames(3)
    first.resize((4, 4)).save(own / "b.gif", save_all=True, append_images=[other.resize((4, 4)) for other in others])
    words = [
        "super-resolution",
        "--data.measurements",
        own,
        "--model.generator",
        tiny_weights,
        "--out",
        tmp_path / "out",
    ]
    assert main([str(word) for word in [*words, *STEPS]]) == 1
    assert "it holds 3 frames or pages" in (tmp_path / "out" / "images" / "b" / "error.txt").read_text()


def test_grey_measurements_of_colour_operators(tmp_path, truth):
    """A grey operator's own measurements have one channel; without the axis it is said."""
    y = Grayscale(IMAGE)(truth)[0]
    torch.save(y[0], tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"the channel axis is missing, give np.expand_dims\(y, 0\)"):
        measurement_of(tmp_path / "a.pt", IMAGE, Grayscale)
