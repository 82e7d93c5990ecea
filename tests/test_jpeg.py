"""JPEG as an operator: beside Pillow's own files, which it reads, and whose originals lie within what they say."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from iagan_lightning import Stage, reconstruct
from iagan_lightning.cli import main
from iagan_lightning.data.samples import EXAMPLES
from iagan_lightning.generators import BEGAN
from iagan_lightning.operators import JPEG, Composition, LinearOperator
from iagan_lightning.operators.jpeg import read_jpeg, tables_of


def portrait(height, width, grey=False):
    """A part of a portrait, textured, at its own resolution: sizes that blocks do not fill, and ones that they do."""
    picture = Image.open(sorted(EXAMPLES.glob("*.png"))[0]).convert("L" if grey else "RGB")
    return picture.crop((30, 40, 30 + width, 40 + height))


def file_of(picture, **options):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def tensor_of(picture):
    pixels = torch.from_numpy(np.array(picture)).double() / 127.5 - 1
    return pixels[None, None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)[None]


def written(quality, kind, size, **options):
    """The pixels of a part of a portrait, and the file that Pillow makes of them."""
    picture = portrait(*size, grey=kind == "grey")
    sampling = {} if kind == "grey" else {"subsampling": kind}
    return tensor_of(picture), file_of(picture, quality=quality, **sampling, **options)


KINDS = ["4:4:4", "4:2:2", "4:2:0", "grey"]


@pytest.mark.parametrize("size", [(48, 64), (33, 47), (41, 20), (7, 5)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quality", [10, 50, 90])
def test_the_original_lies_within_what_a_file_says(quality, kind, size):
    x, content = written(quality, kind, size)
    A, y = read_jpeg(content)
    assert A.image_shape == tuple(x.shape[1:]) and y.shape == (1, A.num_measurements)
    assert A.within(x, y).item() == 1, "rounding is all that was lost"
    assert A.get_buffer("reach").isfinite().float().mean() > (0.3 if min(size) < 8 else 0.5), "most of it is read"
    moved = A.within(x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)), y).item()
    assert moved < 0.999, "and something else does not"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quality", [10, 50, 90, 97])
def test_forward_is_what_pillow_stores(quality, kind):
    """But for what rounding of the colours throws over the edge of an interval: of steps of a level or two, some."""
    x, content = written(quality, kind, (33, 47))
    A, y = read_jpeg(content)
    other = ((A(x) - y).abs() > 1e-4)[:, A.get_buffer("reach").isfinite()].double().mean().item()
    assert other < (0.12 if quality == 97 else 0.03)
    ours = JPEG(x.shape[1:], quality, "4:2:0" if kind == "grey" else kind)
    assert torch.equal(ours(x), A(x)), "the file's tables are those of its quality"


@pytest.mark.parametrize("options", [{"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}])
def test_files_that_are_stored_otherwise(options):
    x, content = written(60, "4:2:0", (41, 52), **options)
    A, y = read_jpeg(content)
    plain = read_jpeg(written(60, "4:2:0", (41, 52))[1])[1]
    assert torch.equal(y, plain) and A.within(x, y).item() == 1


def test_naive_is_what_a_decoder_shows():
    for kind, apart in (("4:4:4", 0.7), ("grey", 0.4), ("4:2:0", 3.0)):  # of 255; chroma is enlarged otherwise
        _, content = written(50, kind, (33, 47))
        A, y = read_jpeg(content)
        shown = tensor_of(Image.open(io.BytesIO(content)))
        assert ((A.naive(y).clamp(-1, 1) - shown) * 127.5).abs().mean() < apart
        assert torch.equal(A.picture(y[0]), A.naive(y)[0].clamp(-1, 1))


def test_what_is_measured_again_is_the_same():
    A = JPEG((3, 24, 24), 40, "4:4:4")
    y = A(torch.rand(2, 3, 24, 24, dtype=torch.float64) * 2 - 1)
    assert torch.allclose(A(A.naive(y)), y, atol=1e-9)
    assert torch.equal(A.within(A.naive(y), y), torch.ones(2, dtype=torch.float64))


def test_the_derivative_is_that_without_rounding():
    A = JPEG((3, 10, 9), 30)
    x = torch.rand(2, 3, 10, 9, dtype=torch.float64) * 2 - 1
    y = torch.randn(2, A.num_measurements, dtype=torch.float64)
    origin, direction = A.coefficients(0 * x), torch.randn_like(x)
    slope = A.coefficients(direction) - origin  # of an affine map, in a direction
    assert torch.isclose((A.vjp(x, y) * direction).sum(), (slope * y).sum())


def test_the_difference_grows_from_the_edge_of_the_interval():
    A, softer = (JPEG((1, 8, 8), tables=[[20] * 64], inside=inside) for inside in (0, 6))
    x = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    y = A(x)
    cosine = A.get_buffer("cosines")
    wave = torch.outer(cosine[2], cosine[3])[None, None]
    for B, wanted in ((A, (0, 0, 1, 8)), (softer, (3, 5.5, 7, 14))):
        moved = [127.5 * B.difference(x + size / 127.5 * wave, y)[0, 2 * 8 + 3].item() for size in (6, 11, 13, 20)]
        assert moved == pytest.approx(wanted, abs=1e-6)
    assert torch.equal(A.within(x + 11 / 127.5 * wave, y), softer.within(x + 11 / 127.5 * wave, y))


def test_autocast_reaches_neither_coefficients_nor_what_is_made_of_them():
    A = JPEG((3, 16, 16), 30)
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y, z = A(x), (0.5 * x).requires_grad_()
    asked = [A.coefficients, lambda z: A.difference(z, y), lambda z: A.within(z, y)]
    expected = [ask(z) for ask in asked]
    (slope,) = torch.autograd.grad(expected[1].square().sum(), z)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(ask(z), value) for ask, value in zip(asked, expected, strict=True))
        assert torch.equal(A.coefficients(x.bfloat16()), A.coefficients(x.bfloat16().float()))
        objective = A.difference(z, y).square().sum()
    assert torch.equal(torch.autograd.grad(objective, z)[0], slope)


def test_one_table_for_all():
    one, many = JPEG((3, 9, 9), tables=[16] * 64), JPEG((3, 9, 9), tables=[[16] * 64] * 3)
    x = torch.rand(1, 3, 9, 9, dtype=torch.float64) * 2 - 1
    assert torch.equal(one(x), many(x)) and repr(one) == repr(many)


def test_nothing_that_needs_linearity_takes_it(capsys):
    A = JPEG((3, 16, 16), 50)
    assert not isinstance(A, LinearOperator) and not hasattr(A, "adjoint") and not hasattr(A, "back_project")
    assert main(["check-operator", "iagan_lightning.operators.JPEG"]) == 2
    assert "only a LinearOperator can be checked; JPEG is none" in capsys.readouterr().err
    torch.manual_seed(0)
    G, y = BEGAN(16, 4, 8), A(torch.zeros(1, 3, 16, 16))
    result = reconstruct(y, A, G, latent=Stage(steps=5), joint=Stage(steps=5), accelerator="cpu")
    assert result.iagan_bp is None
    with pytest.raises(ValueError, match="linear"):
        reconstruct(y, A, G, latent=Stage(steps=5), joint=Stage(steps=5), back_projection=True, accelerator="cpu")


def test_an_image_that_the_prior_knows_is_found_better_than_decoded():
    torch.manual_seed(0)
    G, A = BEGAN(16, 4, 8), JPEG((3, 16, 16), 20)
    with torch.no_grad():
        x = G(G.sample_latent(1, seed=3))
    y = A(x)
    result = reconstruct(y, A, G, method="csgm", latent=Stage("lbfgs", steps=80, restarts=4), accelerator="cpu")
    assert A.within(result.csgm, y).item() > 0.97
    assert (result.csgm - x).norm() < 0.8 * (A.naive(y) - x).norm()


def test_tables_of_a_quality():
    assert tables_of(100) == [[1] * 64] * 2
    luma, chroma = tables_of(50)
    assert luma[0] == 16 and luma[-1] == chroma[-1] == 99


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quality": 0}, "1 to 100; 0 was given"),
        ({"sampling": "4:1:1"}, "sampling is one of 4:4:4, 4:2:2, 4:2:0; '4:1:1' was given"),
        ({"tables": [[1] * 63]}, "64 rounding steps"),
        ({"tables": [[0] * 64]}, "1 or more"),
        ({"inside": -1}, "0 or more; -1 was given"),
        ({"image_shape": (2, 8, 8)}, "1 or 3 channels; 2 were given"),
    ],
)
def test_bad_settings(settings, said):
    with pytest.raises(ValueError, match=said):
        JPEG(**{"image_shape": (3, 8, 8), **settings})


def test_files_that_are_none_of_it(tmp_path):
    portrait(20, 20).save(tmp_path / "a.png")
    with pytest.raises(OSError, match="PNG"):
        read_jpeg(tmp_path / "a.png")
    with pytest.raises(ValueError, match="other colours"):
        read_jpeg(file_of(portrait(20, 20).convert("CMYK")))
    content = written(50, "4:2:0", (41, 52))[1]
    with pytest.raises(OSError, match=r"."):
        read_jpeg(content[:400])
    (tmp_path / "a.jpg").write_bytes(content)
    assert torch.equal(read_jpeg(tmp_path / "a.jpg")[1], read_jpeg(content)[1])


def test_it_is_no_part_of_a_composition_of_linear_ones():
    with pytest.raises(ValueError, match="linear"):
        Composition((3, 16, 16), [JPEG((3, 16, 16), 50)])


def test_what_cannot_be_read_is_held_against_nothing():
    """Of a block that a decoder has cut off at white the pixels do not tell what is stored."""
    x = portrait(48, 64, grey=True)
    x.paste(255, (0, 0, 13, 13))
    A, y = read_jpeg(file_of(x, quality=10))
    read = A.get_buffer("reach").isfinite()
    assert 0 < read.float().mean() < 1 and A.within(tensor_of(x), y).item() == 1
    away = A.difference(tensor_of(x) + 1, y)
    assert away[:, ~read].count_nonzero() == 0 and away[:, read].count_nonzero() > 0
