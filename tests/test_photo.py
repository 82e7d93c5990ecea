"""Photographs in, the same photographs out: found faces restored, every pixel agreed with, and the files' own kept."""

import io
import json
import struct
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms

from iagan_lightning import Stage
from iagan_lightning.cli import main
from iagan_lightning.data import faces
from iagan_lightning.data.folders import list_pictures
from iagan_lightning.data.framing import Frame
from iagan_lightning.data.samples import EXAMPLES
from iagan_lightning.generators import BEGAN, load_generator, save_generator
from iagan_lightning.photo import restoring
from iagan_lightning.photo.blur import blur_width, blurred
from iagan_lightning.photo.compressed import as_stored, share_within
from iagan_lightning.photo.enlarging import agreeing, enlarged, reduced
from iagan_lightning.photo.face import enlarged_frame, operators
from iagan_lightning.photo.level import jpeg_level, jpeg_quality, noise_level
from iagan_lightning.photo.pasting import feathered, pasted
from iagan_lightning.photo.picture import as_png, know_heic, read_photograph
from iagan_lightning.photo.record import lines
from iagan_lightning.photo.restoring import restore
from iagan_lightning.photo.sheet import how_unsure
from iagan_lightning.photo.sight import see
from iagan_lightning.photo.sixteen import deep_png, read_deep
from iagan_lightning.safety import picture_suffixes

pytest.importorskip("facenet_pytorch", reason="needs facenet-pytorch: pip install '.[align]'")


def portrait(which=0):
    return Image.open(sorted(EXAMPLES.glob("*.png"))[which]).convert("RGB")


def clouds(height, width, seed=1):
    """A background without a face, with detail everywhere."""
    random = torch.Generator().manual_seed(seed)
    layers = [torch.randn(1, 3, n, n, generator=random) for n in (4, 16, 64)]
    grown = [F.interpolate(layer, (height, width), mode="bicubic") for layer in layers]
    return (0.45 + 0.1 * grown[0] + 0.04 * grown[1] + 0.01 * grown[2])[0].clamp(0.05, 0.95)


def scene(*faces_at, size=(200, 200), wide=40):
    """Portraits, faded out before their border, on a background: (which, left, top) each, and how wide."""
    picture = clouds(*size)
    steps = (torch.arange(wide) + 0.5) / wide * 2 - 1
    radius = (steps[:, None] ** 2 + steps**2).sqrt()
    fade = ((0.95 - radius) / 0.2).clamp(0, 1)
    for which, left, top in faces_at:
        face = portrait(which % 2).resize((wide, wide), Image.Resampling.BOX)
        pixels = torch.from_numpy(np.array(face)).permute(2, 0, 1) / 255
        pixels = pixels.flip(2) if which > 1 else pixels
        part = picture[:, top : top + wide, left : left + wide]
        part.copy_(fade * pixels + (1 - fade) * part)
    return picture


def image_of(pixels):
    return Image.fromarray((255 * pixels).round().byte().permute(1, 2, 0).numpy())


def pixels_of(path):
    with Image.open(path) as picture:
        values = torch.from_numpy(np.array(picture)) / 255
    return values.permute(2, 0, 1) if values.ndim == 3 else values[None]


def read_back(pixels):
    """The photograph that a file of these pixels is."""
    return read_photograph(file_of(image_of(pixels), "PNG"))


def file_of(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


# A group -----------------------------------------------------------------------------------------------------------

GROUP = ((0, 15, 20), (1, 80, 60), (3, 145, 110))


@pytest.fixture(scope="module")
def group():
    """Three faces, and what becomes of them."""
    photograph = read_back(scene(*GROUP))
    return photograph.pixels, restore(
        photograph, 2, "faces64", latent=Stage(steps=30), joint=Stage(steps=12), accelerator="cpu"
    )


def test_every_face_of_a_group_is_restored(group):
    record = group[1].record
    assert [face["done"] for face in record["faces"]] == [True] * 3
    found = sorted(tuple(np.mean(face["eyes"], 0).round()) for face in record["faces"])
    for (x, y), (_, left, top) in zip(found, GROUP, strict=True):
        assert left + 15 < x < left + 25 and top + 10 < y < top + 20
    assert all(0 < face["residual"] < face["prior_residual"] < 0.35 for face in record["faces"])
    said = lines({**record, "image": "group.png", "output": "group_iagan.png"})
    assert "3 of 3 faces restored" in said[0] and len(said) == 4


def test_the_result_reduced_is_the_photograph(group):
    p, done = group
    written = torch.from_numpy(np.array(Image.open(io.BytesIO(as_png(done.photograph))))).permute(2, 0, 1) / 255
    assert written.shape == (3, 400, 400)
    assert float((F.avg_pool2d(written, 2) - p).abs().max()) < 1 / 255
    assert done.record["agreement"] < 1


def test_faces_come_out_nearer_to_the_truth_than_the_enlargement(group):
    p, done = group
    plain = agreeing(enlarged(p, 2), p, 2)
    for which, left, top in GROUP:
        truth = portrait(which % 2).resize((80, 80), Image.Resampling.BOX)
        truth = torch.from_numpy(np.array(truth)).permute(2, 0, 1) / 255
        truth = (truth.flip(2) if which > 1 else truth)[:, 20:60, 20:60]
        part = (slice(None), slice(2 * top + 20, 2 * top + 60), slice(2 * left + 20, 2 * left + 60))
        errors = [float((X[part] - truth).square().mean()) for X in (done.photograph.pixels, plain)]
        assert errors[0] < errors[1]


def gradient(X):
    down, across = X[:, 1:, :-1] - X[:, :-1, :-1], X[:, :-1, 1:] - X[:, :-1, :-1]
    return (down.square() + across.square()).sum(0).sqrt()


def test_there_is_no_seam(group):
    """The gradient where a face begins to count is at most 1.1 times its neighbourhood's, as in the enlargement."""
    p, done = group
    after, plain = done.photograph.pixels, enlarged(p, 2)
    for face in done.record["faces"]:
        x, y, side, angle = (face["frame"][key] for key in ("x", "y", "side", "angle"))
        frames = [Frame(2 * x + 0.5, 2 * y + 0.5, 2 * side + more, angle) for more in (-20, -4, 4, 20)]
        inner, begin, end, outer = (feathered(f, after.shape[1:])[:-1, :-1] > 0 for f in frames)
        border, near = end & ~begin, (outer & ~inner) & ~(end & ~begin)
        louder = [float(gradient(X)[border].mean() / gradient(X)[near].mean()) for X in (after, plain)]
        assert louder[0] < 1.1 * max(louder[1], 1.0)


# A folder ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A portrait, a landscape and a broken file, restored by one command; with what it printed."""
    place = tmp_path_factory.mktemp("photographs")
    image_of(scene((0, 20, 16), size=(70, 80), wide=36)).save(place / "portrait.png")
    image_of(clouds(40, 60)).save(place / "landscape.png")
    (place / "broken.jpg").write_bytes(b"\xff\xd8\xff but no more")
    said, wrong = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", said)
        patch.setattr(sys, "stderr", wrong)
        status = main(["photo", str(place), "--prior", "faces64", "--sheet", "--map"])
    return place, status, said.getvalue(), wrong.getvalue()


def test_one_bad_file_does_not_keep_the_others(folder):
    _, status, said, wrong = folder
    assert status == 1
    assert [line for line in wrong.splitlines() if "broken.jpg" in line] and "Traceback" not in wrong
    assert "1 of 3 photographs failed" in wrong
    assert "1 of 1 face restored" in said and "restored with faces64, residual" in said
    assert "landscape.png: 60 x 40 to 120 x 80 pixels" in said and "no face was found" in said


def test_what_is_written(folder):
    place = folder[0]
    assert {path.name for path in place.iterdir()} == {
        "broken.jpg", "portrait.png", "portrait_iagan.png", "portrait.iagan.json", "portrait_iagan_sheet.png",
        "portrait_iagan_map.png", "landscape.png", "landscape_iagan.png", "landscape.iagan.json",
        "landscape_iagan_map.png",
    }  # fmt: skip
    record = json.loads((place / "portrait.iagan.json").read_text())
    assert record["agreement"] < 1 and record["scale"] == 2 and record["faces"][0]["prior"] == "faces64"
    for name in ("portrait", "landscape"):
        before, after = (pixels_of(place / f"{name}{end}.png") for end in ("", "_iagan"))
        assert float((F.avg_pool2d(after, 2) - before).abs().max()) < 1 / 255
    with Image.open(place / "portrait_iagan_sheet.png") as sheet:
        assert sheet.size[0] > 4 * 384 and sheet.size[1] > 384
    added = pixels_of(place / "portrait_iagan_map.png")
    assert added.shape == (1, 140, 160) and added.max() > 0.1 and added[:, :8].max() == 0
    assert pixels_of(place / "landscape_iagan_map.png").max() == 0


def test_nothing_is_overwritten_and_results_are_no_input(folder, capsys):
    place = folder[0]
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    assert main(["photo", str(place)]) == 1
    said = capsys.readouterr().err
    assert said.count("is there already, and stays") == 2 and "3 of 3 photographs failed" in said
    assert main(["photo", str(place / "landscape.png"), "--out", str(place / "landscape.png")]) == 1
    assert "is there already" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


def test_photographs_of_one_name_have_a_result_each(tmp_path, capsys):
    """Three folders, and a fourth photograph whose own name is that of the second one's result."""
    given = []
    for number, name in enumerate(("x/a.jpg", "y/a.jpg", "z/a.jpg", "z/a.jpg.png", "z/a-2.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 20), (0, 0, 50 * number)).save(tmp_path / name)
        given.append(str(tmp_path / name))
    out = tmp_path / "out"
    assert main(["photo", *given, "--out", str(out)]) == 0
    blue = {path.name: pixels_of(path)[2].mean().item() * 255 for path in out.glob("*_iagan.png")}
    assert blue == pytest.approx(
        {
            "a_iagan.png": 0, "a.jpg_iagan.png": 50, "a-2_iagan.png": 100, "a.jpg.png_iagan.png": 150,
            "a-2.png_iagan.png": 200,
        },
        abs=2,
    )  # fmt: skip
    records = [json.loads(path.read_text()) for path in out.glob("*.iagan.json")]
    assert {record["image"]: record["output"] for record in records}.keys() == set(given)
    assert len({record["output"] for record in records}) == 5


def test_what_is_left_out_of_a_folder_is_said(tmp_path, capsys, monkeypatch):
    """HEIC too, where its reader is missing, in a folder and by itself."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    know_heic.cache_clear()
    suffixes = picture_suffixes() - {".heic"}  # a test before this one may have found the reader
    monkeypatch.setattr("iagan_lightning.data.folders.picture_suffixes", lambda: suffixes)
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "b.HEIC").write_bytes(b"read by nothing here")
    assert main(["photo", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"iagan: left out of {tmp_path}: ") and said.count("\n") == 1
    assert "1 without the ending of a picture (notes.txt)" in said
    assert "1 in HEIC, which iagan photo reads (pip install 'iagan-lightning[heic]') (b.HEIC)" in said
    assert main(["photo", str(tmp_path / "b.HEIC")]) == 1
    know_heic.cache_clear()
    told = f"iagan: {tmp_path}/b.HEIC: a photograph in HEIC is read with pip install 'iagan-lightning[heic]'\n"
    assert capsys.readouterr().err == told


# One photograph ----------------------------------------------------------------------------------------------------


def test_a_noisy_face_is_restored_in_place(monkeypatch):
    """At scale 1 the face comes nearer to the truth, differs by the noise, and nothing else changes."""
    monkeypatch.setattr(restoring, "SLOW", 64)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    told: list[str] = []
    truth = scene((0, 20, 16), size=(80, 90), wide=52)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(2))
    noisy = (truth + 12 / 255 * noise).clamp(0, 1)
    photograph = read_back(noisy)
    done = restore(photograph, 1, "faces64", tell=told.append, joint=Stage(steps=30), accelerator="cpu")
    assert told == ["face 1 of 1, by faces64, which takes minutes without a GPU"]
    assert done.record["noise_std"] == pytest.approx(12 / 255, rel=0.15)
    [face] = done.record["faces"]
    assert face["done"] and 0.8 < face["sigmas"] < 1.2
    inside = feathered(Frame(**face["frame"]), (80, 90)) > 0.99
    result, p = done.photograph.pixels, photograph.pixels
    errors = [float((x - truth)[:, inside].square().mean()) for x in (result, p)]
    assert errors[0] < 0.5 * errors[1]
    assert float((result - p)[:, inside].square().mean().sqrt()) == pytest.approx(12 / 255, rel=0.25)
    outside = feathered(Frame(**face["frame"]), (80, 90)) == 0
    assert torch.equal(result[:, outside], p[:, outside])


def test_two_views_are_one_face_and_tell_how_sure_it_is():
    """Their mean agrees with the photograph; where it is wrong, they tend to differ."""
    truth = scene((0, 40, 32), size=(160, 180), wide=104)
    photograph = read_back(reduced(truth, 2))
    short = {"joint": Stage(steps=10), "accelerator": "cpu"}
    done = restore(photograph, 2, "faces64", views=2, **short)
    face = only(done.record)
    assert done.record["views"] == 2 and done.record["agreement"] < 1
    assert set(face["evaluations"]) == {"latent", "joint", "latent-mirror", "joint-mirror"}
    assert 0.005 < face["uncertainty"]["mean"] < 0.2 and not face["uncertainty"]["calibrated"]
    unsure = torch.from_numpy(np.array(how_unsure(done))).float() / 255
    assert unsure.shape == (160, 180)
    inside = feathered(enlarged_frame(Frame(**face["frame"]), 2), (160, 180)) > 0.99
    assert unsure[inside].min() > 0 and unsure[:, :8].max() == 0
    written = pixels_of(io.BytesIO(as_png(done.photograph)))
    assert float((reduced(written, 2) - photograph.pixels).abs().max()) < 1 / 255, "and so does the mean of both"
    error = (done.photograph.pixels - truth).abs().mean(0)
    blocks = [F.avg_pool2d((x * inside)[None], 8).flatten() for x in (error, unsure)]
    assert torch.corrcoef(torch.stack(blocks))[0, 1] > 0.2
    with pytest.raises(ValueError, match="--views 2"):
        how_unsure(replace(done, patches=[replace(done.patches[0], unsure=None)]))


@pytest.fixture(scope="module")
def ignorant(tmp_path_factory):
    """A prior that knows nothing."""
    torch.manual_seed(0)
    generator = BEGAN(64, 4, 8)
    generator.framing = "tight"
    path = tmp_path_factory.mktemp("prior") / "ignorant.safetensors"
    save_generator(generator, path)
    return str(path)


def only(record):
    [face] = record["faces"]
    return face


def test_faces_that_are_left_alone(ignorant):
    """Unknown to the prior, larger than it, or clean at scale 1: the plain enlargement, and the reason."""
    photograph = read_back(scene((1, 20, 20), size=(80, 90)))
    p = photograph.pixels
    done = restore(photograph, 2, ignorant, latent=Stage(steps=5), joint=Stage(steps=1), accelerator="cpu")
    assert "does not know" in only(done.record)["why"] and not done.patches
    assert set(only(done.record)["evaluations"]) == {"latent"}, "no joint stage was paid for"
    assert torch.equal(done.photograph.pixels, agreeing(enlarged(p, 2), p, 2))
    done = restore(photograph, 1)
    assert "clean photograph at scale 1" in only(done.record)["why"]
    assert torch.equal(done.photograph.pixels, p)
    large = read_back(scene((1, 5, 5), size=(100, 100), wide=90))
    assert "more than the 64 of faces64" in only(restore(large, 2, "faces64").record)["why"]


def test_a_face_larger_than_the_priors_that_are_here(monkeypatch, tmp_path):
    """It is left alone, and the prior that would do is named."""
    monkeypatch.setenv("IAGAN_CACHE", str(tmp_path))
    large = read_back(scene((1, 5, 5), size=(150, 150), wide=130))
    assert only(restore(large, 2).record)["why"] == "larger than any prior that is here: iagan priors get ffhq512"


def test_a_lying_photograph_is_turned_to_be_seen():
    upright = scene((1, 20, 15), (0, 75, 40), size=(90, 140))
    assert see(upright).quarters == 0
    for quarters in (1, 2):
        sight = see(upright.rot90(quarters, (1, 2)))
        assert (sight.quarters + quarters) % 4 == 0 and len(sight.faces) == 2


def test_a_lying_photograph_comes_out_lying(ignorant):
    photograph = read_back(scene((1, 20, 20), size=(80, 90)).rot90(1, (1, 2)))
    done = restore(photograph, 2, ignorant, latent=Stage(steps=5), joint=Stage(steps=1), accelerator="cpu")
    assert done.photograph.size == (180, 160) and done.record["turned"] == 270
    assert float((reduced(done.photograph.pixels, 2) - photograph.pixels).abs().max()) < 1e-3


# Blur --------------------------------------------------------------------------------------------------------------


def test_a_blurred_photograph_is_the_mean_of_a_blurred_picture():
    """As SciPy blurs the picture where it lies in the photograph, on a grid that is eight times as fine."""
    ndimage = pytest.importorskip("scipy.ndimage", reason="an independent filter")
    x = F.interpolate(torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)), (48, 48), mode="bicubic")
    frame = Frame(19.3, 20.1, 30.0, 12.0)
    A, T = operators(frame, (40, 40), (3, 48, 48), 8)
    for width in (0.7, 1.5):
        fine = T(x)[0].numpy()
        wanted = reduced(torch.from_numpy(ndimage.gaussian_filter(fine, (0, 8 * width, 8 * width))), 8)
        inside = A.mask & (F.avg_pool2d(A.mask[None].float(), 13, 1, 6)[0] > 0.9999)
        assert inside.sum() > 100
        assert torch.allclose(blurred(A, width)(x)[0, :, inside], wanted[:, inside], atol=2e-3)


def test_a_blurred_photograph_has_adjoint_and_pseudo_inverse():
    B = blurred(operators(Frame(9.0, 9.5, 14.0, 5.0), (18, 20), (3, 24, 24), 1)[0], 0.5)
    x, y = (torch.randn(2, *shape, dtype=torch.float64) for shape in (B.image_shape, B.measurement_shape))
    assert torch.isclose((B(x) * y).sum(), (x * B.adjoint(y)).sum())
    y = B(x)
    assert torch.allclose(B(B.pseudo_inverse(y)), y, atol=1e-6)
    assert torch.equal(B.measured(torch.ones_like(y)), B.operators[-1].measured(torch.ones_like(y)))


def test_a_known_blur_is_undone():
    """What is sharp after all comes nearer to the truth than without being told; the rest stays as it is."""
    truth = scene((0, 20, 16), size=(80, 90), wide=52)
    width = 1.5
    line = torch.exp(-((torch.arange(11) - 5.0) ** 2) / (2 * width**2))
    kernel = torch.outer(line, line)[None, None] / line.sum() ** 2
    photograph = read_back(F.conv2d(F.pad(truth[:, None], (5, 5, 5, 5), mode="replicate"), kernel)[:, 0])
    short = {"joint": Stage(steps=25), "accelerator": "cpu"}
    told, untold = (restore(photograph, 1, "faces64", 1e-3, blur=blur, **short) for blur in (width, 0.0))
    face = only(told.record)
    assert face["done"] and face["blur"] == width and told.record["blur"] == width
    inside = feathered(Frame(**face["frame"]), (80, 90)) > 0.99
    errors = [float((x.pixels - truth)[:, inside].square().mean()) for x in (told.photograph, untold.photograph)]
    assert errors[0] < 0.7 * errors[1]
    outside = feathered(Frame(**face["frame"]), (80, 90)) == 0
    assert torch.equal(told.photograph.pixels[:, outside], photograph.pixels[:, outside])
    said = lines({**told.record, "image": "a.png", "output": "b.png"})
    assert "blurred faces" in said[0] and "with faces64, blur 1.5 pixels, residual" in said[1]


@pytest.mark.slow
def test_an_unknown_blur_is_estimated():
    """More blur reads as more, and not as far more than it is."""
    prior = load_generator("faces64")
    picture = torch.from_numpy(np.array(portrait(0).resize((64, 64), Image.Resampling.BOX))).permute(2, 0, 1)
    x, A = picture[None] / 127.5 - 1, operators(Frame(15.5, 15.5, 32.0, 0.0), (32, 32), (3, 64, 64), 1)[0]
    read = [blur_width(blurred(A, width)(x), A, prior, 0.0, seed=0, accelerator="cpu") for width in (0.0, 2.0)]
    assert read[0] < 1 < read[1] < 3


# Enlarging and pasting ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (5, 130), (250, 7)])
def test_enlargements_agree_with_what_they_enlarge(scale, size):
    p = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    X = enlarged(p, scale)
    assert reduced(X, scale).allclose(p, atol=1e-5)
    Y = agreeing(X, p, scale)
    assert float(Y.min()) >= 0 and float(Y.max()) <= 1
    assert reduced(Y, scale).allclose(p, atol=1.1e-4)


def test_enlarging_in_bands_is_enlarging_at_once():
    """Bands overlap by as much as matters."""
    p = torch.rand(1, 230, 3, generator=torch.Generator().manual_seed(0))
    parts = torch.cat([enlarged(p[:, :150], 2)[:, :200], enlarged(p[:, 60:], 2)[:, 80:]], 1)
    assert enlarged(p, 2).allclose(parts, atol=1e-5)


def test_an_enlargement_is_smooth():
    """A ramp becomes a ramp, where repeated pixels would become stairs."""
    X = enlarged(torch.linspace(0.2, 0.8, 32).expand(1, 16, 32), 2)[:, :, 8:-8]
    steps = X.diff(dim=2)
    assert steps.min() > 0.9 * steps.mean() and steps.max() < 1.1 * steps.mean()


def test_only_what_the_photograph_does_not_see_is_pasted():
    random = torch.Generator().manual_seed(0)
    X, face = (torch.rand(3, 32, 40, generator=random) for _ in range(2))
    weight = feathered(Frame(20, 16, 24, 15), (32, 40))
    result = pasted(X, face, weight, 2)
    assert reduced(result, 2).allclose(reduced(X, 2), atol=1e-5)
    assert not result.allclose(X, atol=0.1)
    seen = reduced(pasted(X, face, weight, 2, noise_std=0.05) - X, 2)[:, reduced(weight[None], 2)[0] > 0.99]
    assert float(seen.square().mean().sqrt()) == pytest.approx(0.05, rel=0.05)
    quiet = X + 0.01 * (face - 0.5)
    assert pasted(X, quiet, torch.ones(32, 40), 2, noise_std=0.05).allclose(quiet, atol=1e-6), "within the noise"


# Noise and compression ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 5, 10, 25])
def test_noise_is_estimated(levels):
    clean = scene((0, 20, 20), (1, 100, 90), wide=80)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
    noisy = (255 * (clean + levels / 255 * noise)).round().clamp(0, 255) / 255
    assert 255 * noise_level(noisy) == pytest.approx(levels, rel=0.1, abs=0.4)
    assert noise_level((255 * clean).round() / 255) == 0


@pytest.mark.parametrize("quality", [30, 50, 75, 90, 95])
def test_compression_is_told_by_the_tables(quality):
    truth = scene((0, 20, 20), (1, 100, 90), wide=80)
    photograph = read_photograph(file_of(image_of(truth), "JPEG", quality=quality))
    assert abs(jpeg_quality(photograph.tables) - quality) <= 1
    changed = float((photograph.pixels - truth).square().mean().sqrt())
    assert jpeg_level(photograph.tables) == pytest.approx(changed, rel=0.6)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_agreement_with_a_compressed_photograph(orientation):
    """The photograph's own pixels lie within its file's intervals, however it is stored; others do not."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = image_of(clouds(48, 40))
    photograph = read_photograph(file_of(picture, "JPEG", exif=exif, quality=60))
    assert photograph.orientation == orientation
    own = share_within(photograph.pixels, photograph)
    assert own > 0.99 and share_within(photograph.pixels.flip(2), photograph) < own - 0.01
    stored = as_stored(photograph.pixels, orientation).permute(1, 2, 0).numpy()
    assert np.abs(stored - np.array(picture) / 255).mean() < 0.03
    assert share_within(photograph.pixels, read_back(photograph.pixels)) is None, "no JPEG"


def test_a_compressed_photograph_without_a_face_agrees_with_its_file():
    done = restore(read_photograph(file_of(image_of(clouds(48, 40)), "JPEG", quality=60)), 2)
    assert done.record["jpeg_within"] > 0.99 and done.record["agreement"] < 1


# Files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_followed_and_stays_right(orientation):
    upright = image_of(clouds(24, 40))
    stored = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what is stored: the opposite of what a viewer is to do
    lying = upright if orientation == 1 else upright.transpose(Image.Transpose(stored[orientation]))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "a camera"
    compressed = read_photograph(file_of(lying, "JPEG", exif=exif, quality=95, subsampling=0))
    assert np.abs(compressed.pixels.permute(1, 2, 0).numpy() - np.array(upright) / 255).mean() < 0.01
    assert Image.open(io.BytesIO(as_png(compressed))).getexif().get(0x0112, 1) == 1
    photograph = read_photograph(file_of(lying, "PNG", exif=exif))
    assert np.array_equal(np.array(upright), np.array(Image.open(io.BytesIO(as_png(photograph)))))
    after = Image.open(io.BytesIO(as_png(photograph))).getexif()
    assert after.get(0x0112, 1) == 1 and after[0x010F] == "a camera"


def test_colours_of_a_profile_are_kept_and_not_converted():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    adobe = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = image_of(clouds(16, 16))
    photograph = read_photograph(file_of(picture, "PNG", icc_profile=adobe))
    after = Image.open(io.BytesIO(as_png(photograph)))
    assert after.info["icc_profile"] == adobe and np.array_equal(np.array(after), np.array(picture))
    photograph = read_photograph(file_of(picture, "PNG", icc_profile=profile))
    assert photograph.profile is None and "and left out" in photograph.remarks[0]


def test_sixteen_bits_stay_sixteen(tmp_path):
    values = (np.random.default_rng(0).random((20, 30)) * 65535).astype(np.uint16)
    photograph = read_photograph(file_of(Image.fromarray(values), "PNG"))
    done = restore(photograph, 2)
    after = np.array(Image.open(io.BytesIO(as_png(done.photograph))))
    assert after.dtype == np.uint16 and after.shape == (40, 60)
    means = after.reshape(20, 2, 30, 2).mean((1, 3))
    assert np.abs(means - values).max() <= 65535 / 2550 + 0.5


def deep(height=20, width=30, channels=3):
    return (np.random.default_rng(0).random((height, width, channels)) * 65535).astype(np.uint16)


def test_colours_of_sixteen_bits_stay_sixteen(tmp_path):
    """Of PNG and TIFF, as other programs write them, with profile and EXIF data."""
    cv2 = pytest.importorskip("cv2", reason="an independent reader and writer of 16 bits")
    values = deep()
    for name in ("a.png", "a.tif"):
        assert cv2.imwrite(str(tmp_path / name), values[..., ::-1])
        photograph = read_photograph(tmp_path / name)
        assert photograph.levels == 65536 and not photograph.remarks
        assert np.array_equal((photograph.pixels.permute(1, 2, 0).double().numpy() * 65535).round(), values)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    (tmp_path / "b.png").write_bytes(as_png(replace(photograph, profile=profile, exif=exif.tobytes())))
    assert np.array_equal(cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED)[..., ::-1], values)
    with Image.open(tmp_path / "b.png") as after:
        assert after.info["icc_profile"] == profile and after.getexif()[0x010F] == "a camera"


def test_transparency_and_orientation_of_sixteen_bits(tmp_path):
    cv2 = pytest.importorskip("cv2", reason="an independent writer of 16 bits")
    values = deep(channels=4)
    assert cv2.imwrite(str(tmp_path / "a.png"), values[..., [2, 1, 0, 3]])
    opacity = values[..., 3:] / 65535
    wanted = values[..., :3] / 65535 * opacity + 1 - opacity
    photograph = read_photograph(tmp_path / "a.png")
    assert np.abs(photograph.pixels.permute(1, 2, 0).numpy() - wanted).max() < 1e-6
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = deep_png(deep(), exif=exif.tobytes())
    assert read_photograph(io.BytesIO(lying)).pixels.shape == (3, 30, 20)


def test_sixteen_bits_and_a_face(tmp_path):
    """The mean of 2 x 2 pixels of the result is the photograph's, in 16 bits."""
    values = np.round(65535 * scene((0, 20, 16), size=(70, 80), wide=36).permute(1, 2, 0).numpy()).astype(np.uint16)
    photograph = read_photograph(io.BytesIO(deep_png(values)))
    done = restore(photograph, 2, "faces64", joint=Stage(steps=3), accelerator="cpu")
    after = read_deep(io.BytesIO(as_png(done.photograph))) * 65535
    assert only(done.record)["done"]
    assert np.abs(after.reshape(70, 2, 80, 2, 3).mean((1, 3)) - values).max() <= 0.1 * 257


def tiff(pages, bits=16, photometric=1, floats=False):
    """A TIFF of grey pages ``(H, W)``, or of one in planes ``(3, H, W)``, put together as its specification says."""
    head, data, ends = 8 + len(pages) * 200, b"", []
    for pixels in pages:
        planes = pixels if pixels.ndim == 3 else pixels[None]
        packed = np.ascontiguousarray(planes, dtype="<f4" if floats else "<u2" if bits == 16 else ">u2")
        if bits == 12:
            each = np.unpackbits(packed.view(np.uint8).reshape(*planes.shape, 2), axis=-1)[..., 4:]
            packed = np.packbits(each.reshape(*planes.shape[:2], -1), axis=-1)
        place, each = head + len(data), packed.nbytes // len(planes)
        data += packed.tobytes()
        ends.append([
            (256, 4, planes.shape[2]), (257, 4, planes.shape[1]), (258, 3, [bits] * len(planes)), (259, 3, 1),
            (262, 3, 2 if len(planes) == 3 else photometric), (273, 4, [place + i * each for i in range(len(planes))]),
            (277, 3, len(planes)), (278, 4, planes.shape[1]), (279, 4, [each] * len(planes)),
            (284, 3, 2 if len(planes) == 3 else 1), (339, 3, [3 if floats else 1] * len(planes)),
        ])  # fmt: skip
    content = b"II*\0" + struct.pack("<I", 8)
    for number, tags in enumerate(ends):
        entries, beyond = b"", b""
        for tag, kind, value in tags:
            values = value if isinstance(value, list) else [value]
            body = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
            if len(body) > 4:
                body, beyond = struct.pack("<I", len(content) + 6 + 12 * len(tags) + len(beyond)), beyond + body
            entries += struct.pack("<HHI", tag, kind, len(values)) + body.ljust(4, b"\0")
        after = 8 + (number + 1) * 200 if number + 1 < len(ends) else 0
        content += struct.pack("<H", len(tags)) + entries + struct.pack("<I", after) + beyond
        content = content.ljust(8 + (number + 1) * 200, b"\0")
    return content + data


@pytest.mark.parametrize("pages", [1, 2])
@pytest.mark.parametrize(("bits", "photometric"), [(16, 0), (16, 1), (12, 1)])
def test_the_first_of_several_deep_pages_is_as_one_alone(bits, photometric, pages):
    """Which value is white, and whether 0 is, holds for the first of several pages too; no level is lost."""
    values = np.random.default_rng(0).integers(0, 2**bits, (20, 30))
    photograph = read_photograph(io.BytesIO(tiff([values, values[::-1]][:pages], bits, photometric)))
    wanted = values / (2**bits - 1)
    assert np.abs(photograph.pixels[0].numpy() - (wanted if photometric else 1 - wanted)).max() < 1e-6
    assert photograph.remarks == ("the first of 2 frames",) * (pages - 1)
    written = np.array(Image.open(io.BytesIO(as_png(photograph)))) / 65535
    assert np.abs(written - (wanted if photometric else 1 - wanted)).max() <= 0.5 / 65535


def test_what_is_written_with_fewer_levels_is_said():
    """Planes and PPM of 16 bits, of which the upper 8 are read, and floats, which are written with 16 bits."""
    values = deep()
    ppm = b"P6 30 20 65535\n" + values.astype(">u2").tobytes()
    for content in (tiff([values.transpose(2, 0, 1)]), ppm):
        photograph = read_photograph(io.BytesIO(content))
        assert photograph.remarks == ("of more than 8 bits per colour the upper 8 are read, and written",)
        assert photograph.levels == 256
        assert np.abs(photograph.pixels.permute(1, 2, 0).numpy() - values / 65535).max() < 1 / 255
    floats = values[..., 0] / 65535
    photograph = read_photograph(io.BytesIO(tiff([floats], 32, floats=True)))
    assert photograph.remarks == ("its floats are written with 16 bits",)
    assert np.abs(np.array(Image.open(io.BytesIO(as_png(photograph)))) / 65535 - floats).max() < 1e-6
    plain = read_photograph(io.BytesIO(b"P1 2 1 0 1"))
    assert plain.remarks == () and plain.pixels.flatten().tolist() == [1, 0]


@pytest.mark.parametrize(
    ("kind", "options", "mode"),
    [
        ("JPEG", {"quality": 95}, "RGB"),
        ("JPEG", {"quality": 95}, "CMYK"),
        ("WEBP", {"lossless": True}, "RGB"),
        ("AVIF", {"quality": 95}, "RGB"),
        ("GIF", {"save_all": True, "append_images": [Image.new("P", (40, 24))]}, "P"),
        ("TIFF", {"save_all": True, "append_images": [Image.new("RGB", (40, 24))]}, "RGB"),
        ("PNG", {}, "L"),
    ],
)
def test_formats(kind, options, mode):
    picture = image_of(clouds(24, 40)).convert(mode)
    try:
        stream = file_of(picture, kind, **options)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow does not write {kind}")
    photograph = read_photograph(stream)
    assert photograph.kind == kind and photograph.pixels.shape == (1 if mode == "L" else 3, 24, 40)
    wanted = np.array(picture.convert("RGB")) / 255
    assert np.abs(photograph.pixels.permute(1, 2, 0).numpy() - wanted).mean() < 0.02
    assert ("the first of 2 frames" in photograph.remarks) == (kind in ("GIF", "TIFF"))


def test_every_format_through_the_command(tmp_path, capsys):
    """One line for each photograph, one for each file that is none, and status 1 for those."""
    picture, formats = image_of(clouds(32, 40)), {"a.webp": "WEBP", "b.gif": "GIF", "c.tif": "TIFF", "d.bmp": "BMP"}
    for name, kind in formats.items():
        picture.save(tmp_path / name, kind)
    picture.convert("CMYK").save(tmp_path / "e.jpg")
    (tmp_path / "f.png").write_bytes(deep_png(deep(32, 40)))
    (tmp_path / "g.jpg").write_bytes((tmp_path / "e.jpg").read_bytes()[:700])
    (tmp_path / "h.png").write_text("no picture")
    assert main(["photo", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr()
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == [f"{c}_iagan.png" for c in "abcdef"]
    assert told.out.count("no face was found, so it is the plain enlargement") == 6
    assert [name in line for name, line in zip(("g.jpg", "h.png", "2 of 8"), told.err.splitlines(), strict=True)] == [
        True
    ] * 3
    for letter in "abcdef":
        record = json.loads((tmp_path / "out" / f"{letter}.iagan.json").read_text())
        assert record["agreement"] < 1 and record["faces"] == []


def test_heic_where_its_reader_is_installed(tmp_path):
    pytest.importorskip("pillow_heif", reason="needs pillow-heif: pip install '.[heic]'")
    assert know_heic()
    picture = image_of(clouds(64, 80))
    (tmp_path / "a.heic").write_bytes(file_of(picture, "HEIF", quality=95).getvalue())
    photograph = read_photograph(tmp_path / "a.heic")
    assert photograph.kind == "HEIF"
    assert np.abs(photograph.pixels.permute(1, 2, 0).numpy() - np.array(picture) / 255).mean() < 0.02
    assert list_pictures(tmp_path).files


def test_what_is_no_picture(tmp_path):
    for content in (b"", b"text", file_of(image_of(clouds(24, 40)), "PNG").getvalue()[:900]):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(OSError, match=r"."):
            read_photograph(tmp_path / "a.png")


# The command line --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scale", "0"], "scale is a whole number, 1 or more"),
        (["--scale", "half"], "scale"),
        (["--noise_std", "25"], "25/255 is meant"),
        (["--noise_std", "loud"], "such as 0.04 or 10/255"),
        (["--prior", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--prior", "stylegan2-cifar10"], "label"),
        (["--out", "a.jpg"], "ending in .png, which keeps every pixel"),
        (["--blur", "much"], "a width in pixels of the photograph, such as 1.5, or auto; 'much' was given"),
        (["--blur", "-1"], "from 0 to 20, or auto; -1 was given"),
        (["--seed", str(2**64)], "seed is a whole number of at most 64 bits; 18446744073709551616 was given"),
        (["--views", "99"], "views is a number from 1 to"),
        (["--priors", "faces64"], "did you mean --prior?"),
    ],
)
def test_bad_arguments(options, said, tmp_path, capsys):
    image_of(clouds(24, 40)).save(tmp_path / "a.png")
    assert main(["photo", str(tmp_path / "a.png"), *options]) == 2
    wrong = capsys.readouterr().err
    assert said in wrong and wrong.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_several_photographs_do_not_go_into_one_file(tmp_path, capsys):
    for name in "ab":
        image_of(clouds(24, 40)).save(tmp_path / f"{name}.png")
    out = str(tmp_path / "c.png")
    assert main(["photo", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--out", out]) == 2
    assert "2 photographs were given: name a folder" in capsys.readouterr().err
    assert main(["photo", str(tmp_path / "a.png"), "--out", str(tmp_path / "new")]) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.iagan.json", "a_iagan.png"]
    image_of(clouds(24, 40)).save(tmp_path / "b.bmp")
    assert main(["photo", str(tmp_path / "b.bmp"), str(tmp_path / "b.png"), "--out", str(tmp_path / "both")]) == 0
    written = {"b.iagan.json", "b_iagan.png", "b.png.iagan.json", "b.png_iagan.png"}
    assert {path.name for path in (tmp_path / "both").iterdir()} == written


def test_a_result_too_large_to_be_read_again(tmp_path, capsys):
    Image.new("L", (5000, 4000)).save(tmp_path / "a.png")
    assert main(["photo", str(tmp_path / "a.png")]) == 1
    assert "choose a smaller --scale" in capsys.readouterr().err


def test_without_the_detector(monkeypatch, capsys, tmp_path):
    image_of(clouds(24, 40)).save(tmp_path / "a.png")
    faces._detector.cache_clear()
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    assert main(["photo", str(tmp_path / "a.png")]) == 2
    wrong = capsys.readouterr().err
    assert "iagan photo needs facenet-pytorch: pip install 'iagan-lightning[align]'" in wrong
    assert wrong.count("\n") == 1
    monkeypatch.undo()
    faces._detector.cache_clear()
