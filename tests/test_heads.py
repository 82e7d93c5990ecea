"""MobileStyleGAN at fewer pixels: what the reduced network computes, how its head is fitted, how it is had by name."""

import re

import pytest
import torch
import torch.nn.functional as F
from openvino_wheel import Published, sha256, write_wheel
from safetensors.torch import load_file, save_file

from iagan_lightning import Stage, reconstruct
from iagan_lightning.cli import main
from iagan_lightning.generators import (
    CATALOGUE,
    MobileStyleGAN,
    Prior,
    ReducedMobileStyleGAN,
    WeightsError,
    catalogue,
    load_generator,
    mobile_stylegan,
    save_generator,
)
from iagan_lightning.generators.mobile_stylegan import SeparableConvolution
from iagan_lightning.generators.mobile_stylegan_reduced import average, reduce
from iagan_lightning.methods.stacking import call_stacked
from iagan_lightning.operators import BicubicDownsampling
from iagan_lightning.training import heads
from iagan_lightning.training.heads import fit_head, haar, head_of, pairs

SIZES = {"channels": (16, 16, 16, 8, 4), "latent": 6, "mapping": 2}  # 128 pixels


@pytest.fixture
def whole():
    torch.manual_seed(0)
    G = MobileStyleGAN(**SIZES).eval().requires_grad_(False)
    for module in G.modules():
        if isinstance(module, SeparableConvolution):
            module.noise.normal_()
    G.measure_whitening(500)
    return G


def data(whole, pixels, samples=12, seed=0):
    made = list(pairs(whole, pixels, samples, seed))
    return lambda: iter(made)


def decibels(G, unseen):
    return float(torch.stack([-10 * ((G(v, space="w") - x).square().mean() / 4).log10() for v, x in unseen]).mean())


@torch.no_grad()
@pytest.mark.parametrize("pixels", [8, 16, 32, 64])
def test_without_a_nonlinearity_the_levels_that_do_not_grow_make_exact_means(whole, pixels, monkeypatch):
    monkeypatch.setattr(mobile_stylegan, "SLOPE", 1.0)
    for level in whole.layers:
        for part in (level["conv1"], level["conv2"]):
            part.depthwise.zero_()[:, :, 1, 1] = 1.0  # no border either
    G = reduce(whole, pixels)
    seen = {}
    handle = whole.layers[-1]["conv2"].register_forward_hook(lambda module, given, output: seen.update(last=output))
    v = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    whole(v, space="w")
    handle.remove()
    _, last = G.features(G.styles(v))
    wanted = F.adaptive_avg_pool2d(seen["last"], pixels // 2)
    assert last.shape == wanted.shape
    assert torch.allclose(last, wanted, rtol=1e-4, atol=1e-4)


def test_a_head_is_fitted_to_pictures_that_it_has_not_seen(whole):
    for pixels in (16, 64):
        G = reduce(whole, pixels).requires_grad_(False)
        unseen = list(pairs(whole, pixels, 6, seed=9, mixed=False))
        mean = torch.stack([x for _, x in pairs(whole, pixels, 12)]).mean()
        constant = float(torch.stack([-10 * ((mean - x).square().mean() / 4).log10() for _, x in unseen]).mean())
        fit_head(G, data(whole, pixels))
        assert decibels(G, unseen) > constant + 4


def test_no_other_head_is_nearer_to_what_it_was_fitted_to(whole):
    G, made = reduce(whole, 16).requires_grad_(False), data(whole, 16)
    fit_head(G, made)

    def error():
        return float(torch.stack([(G(v, space="w") - x).double().square().mean() for v, x in made()]).mean())

    least = error()
    for name in ("filter", "offset"):  # of which the pictures are linear
        weight = G.to_img.get_parameter(name)
        before = weight.clone()
        for sign in (-1, 1):
            weight.copy_(before + sign * 0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
            assert error() > least
        weight.copy_(before)


def test_flat_parts_have_no_grid(whole):
    """Errors that are the same all over a block are kept small, at the price of a little in the mean square."""
    with_weight, without = (reduce(whole, 64).requires_grad_(False) for _ in range(2))
    made = data(whole, 64)
    fit_head(with_weight, made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "WEIGHT", 0.0)
        fit_head(without, made)

    def even(G):
        errors = [haar(G(v, space="w") - x) for v, x in made()]
        return float(torch.cat([F.avg_pool2d(error, 8) for error in errors]).square().mean())

    assert even(with_weight) < 0.7 * even(without)
    assert decibels(with_weight, list(made())) > decibels(without, list(made())) - 0.5


def test_it_is_a_generator_like_the_others(whole, tmp_path):
    G = reduce(whole, 32).requires_grad_(False)
    fit_head(G, data(whole, 32))
    save_generator(G, tmp_path / "small.safetensors")
    again = load_generator(tmp_path / "small.safetensors")
    z = G.sample_latent(3, seed=1)
    with torch.no_grad():
        assert torch.equal(again(z), G(z))
        v = G(z, to="w+")
        assert torch.allclose(G(v, space="w+"), G(z), atol=1e-5)
        names = [name for name, p in again.named_parameters() if p.requires_grad]
        stacked = {name: torch.stack([again.get_parameter(name).detach()] * 3) for name in names}
        assert torch.allclose(call_stacked(again, stacked, z), G(z), atol=1e-4)
    A = BicubicDownsampling((3, 32, 32), scale=4)
    result = reconstruct(A(G(z[:1])), A, again, latent=Stage(steps=20), joint=Stage(steps=10), accelerator="cpu")
    assert torch.allclose(A(result.iagan_bp), A(G(z[:1])), atol=1e-4)


def test_what_does_not_grow_comes_frozen(whole, tmp_path):
    save_generator(reduce(MobileStyleGAN(**SIZES), 32), tmp_path / "small.safetensors")
    adapts = {name for name, p in load_generator(tmp_path / "small.safetensors").named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in adapts} == {"input", "conv1", "layers"}
    assert {name.split(".")[1] for name in adapts if name.startswith("layers.")} == {"0", "1"}


@pytest.mark.parametrize(
    ("pixels", "averaged"), [(4, 1), (24, 1), (128, 1), (256, 1), (16.0, 1), (True, 1), (16, 3), (16, 2.0), (32, 4)]
)
def test_sizes_that_cannot_be_are_refused(pixels, averaged):
    message = f"are among 8, 16, 32, 64 for a network of 128; {pixels} and {averaged} were given"
    with pytest.raises(ValueError, match=message):
        ReducedMobileStyleGAN(**SIZES, pixels=pixels, averaged=averaged)


def test_means_of_blocks_of_a_reduced_network(whole, tmp_path):
    G = reduce(whole, 64)
    G.to_img.requires_grad_(False).across.normal_()
    small = average(G, 16)
    save_generator(small, tmp_path / "small.safetensors")
    z = G.sample_latent(2, seed=0)
    for again in (small, average(average(G, 32), 16), load_generator(tmp_path / "small.safetensors")):
        assert again.image_shape == (3, 16, 16)
        assert torch.allclose(again(z), F.avg_pool2d(G(z), 4), atol=1e-6)
        adapts = [{n for n, p in network.named_parameters() if p.requires_grad} for network in (again, G)]
        assert adapts[0] == adapts[1] - {n for n in adapts[1] if n.startswith("to_img")}


def test_a_head_of_another_network_is_refused(whole):
    with pytest.raises(WeightsError, match="the head for 16 pixels belongs to another network"):
        reduce(whole, 16, dict(reduce(whole, 32).to_img.named_parameters(recurse=False)))


# By name ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def priors(tmp_path, monkeypatch):
    """A prior ``tiny`` that is fetched from a folder, and ``small`` that is made from it."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    wheel = write_wheel(mirror / "tiny-1.0-py3-none-any.whl", Published().files())
    size, digest = wheel.stat().st_size, sha256(wheel)
    monkeypatch.setitem(CATALOGUE, "tiny", Prior("tiny", 32, "ffhq", "none", "tests", size, wheel.name, digest))
    monkeypatch.setitem(CATALOGUE, "small", Prior("small", 16, "ffhq", "none", "tiny, reduced", 1, whole="tiny"))
    monkeypatch.setitem(CATALOGUE, "least", Prior("least", 8, "ffhq", "none", "small, reduced", 1, whole="small"))
    monkeypatch.setenv("IAGAN_PRIORS", str(mirror))
    monkeypatch.setenv("IAGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(catalogue, "BUNDLED", tmp_path / "bundled")
    (tmp_path / "bundled" / "heads").mkdir(parents=True)
    whole = load_generator(wheel)
    G = reduce(whole, 16).requires_grad_(False)
    fit_head(G, data(whole.requires_grad_(False), 16))
    save_file(head_of(G), CATALOGUE["small"].head)
    return G


def test_a_reduced_prior_is_made_from_the_one_that_is_fetched(priors, capsys):
    z = priors.sample_latent(2, seed=0)
    G = load_generator("small")
    assert torch.allclose(G(z), priors(z), atol=1e-5)
    assert G.framing == "ffhq"
    said = capsys.readouterr().err.splitlines()
    assert [re.match(r"iagan: (\w+ \w+) ", line)[1] for line in said] == ["making small", "fetching tiny"]
    assert torch.equal(load_generator("small")(z), G(z))
    assert not capsys.readouterr().err, "it is kept"
    assert main(["priors", "get", "small"]) == 0


def test_a_prior_may_average_one_that_is_reduced(priors, capsys):
    z = priors.sample_latent(2, seed=0)
    assert torch.allclose(load_generator("least")(z), F.avg_pool2d(priors(z), 2), atol=1e-5)
    said = capsys.readouterr().err.splitlines()
    assert [re.match(r"iagan: (\w+ \w+) ", line)[1] for line in said] == [
        "making least",
        "making small",
        "fetching tiny",
    ]
    head = load_file(CATALOGUE["small"].head)
    save_file({**head, "offset": head["offset"] + 0.5}, CATALOGUE["small"].head)
    assert torch.allclose(load_generator("least")(z), F.avg_pool2d(priors(z), 2) + 0.5, atol=1e-5), "made anew"


def test_another_head_makes_it_anew(priors, capsys):
    load_generator("small")
    head = load_file(CATALOGUE["small"].head)
    save_file({**head, "offset": head["offset"] + 0.5}, CATALOGUE["small"].head)
    capsys.readouterr()
    z = priors.sample_latent(2, seed=0)
    assert torch.allclose(load_generator("small")(z), priors(z) + 0.5, atol=1e-5)
    assert "was made from another file" in capsys.readouterr().err


@pytest.mark.parametrize("pixels", [256, 512])
def test_the_heads_that_are_bundled_fit_the_published_network(pixels):
    path = CATALOGUE[f"ffhq{pixels}"].head
    assert path.stat().st_size < 100_000
    head = load_file(path)
    with torch.device("meta"):
        own = ReducedMobileStyleGAN(pixels=pixels).state_dict()
    assert {f"to_img.{name}" for name in head} == {
        name for name in own if name.startswith("to_img.") and ".modulation." not in name
    }
    for name, value in head.items():
        assert value.isfinite().all()
        assert value.shape == own[f"to_img.{name}"].shape
