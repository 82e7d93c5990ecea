"""Where a generator is searched, and which of its layers adapt."""

import json
import re

import pytest
import torch

from iagan_lightning import CSGM, IAGAN, ILO, Stage, reconstruct
from iagan_lightning.cli import main
from iagan_lightning.data.images import read_image
from iagan_lightning.generators import BEGAN, PGGAN, MobileStyleGAN, Pyramid, StyleGAN2, save_generator
from iagan_lightning.generators.layers import layer_outputs
from iagan_lightning.operators import BicubicDownsampling, Blur, Identity, Inpainting

SHORT = {"latent": Stage(steps=6), "joint": Stage(steps=6)}


@pytest.fixture(scope="module")
def G():
    torch.manual_seed(0)
    G = MobileStyleGAN(channels=(8, 8, 4), latent=6, mapping=2)  # images of 32 pixels
    G.measure_whitening(400)
    return G


def plan(module, noise_std=0.0):
    return [(fit.space, fit.init) for fit in module.plan(noise_std, Identity(module.image_shape))]


def test_the_generator_and_the_preset_say_which_space_is_searched(G):
    stylegan2 = StyleGAN2(16, (8, 8, 4), 6, (6, 6))
    for style in (G, stylegan2):
        assert plan(IAGAN(style)) == [("w", "mean"), ("w", "latent")]
        assert plan(IAGAN(style), noise_std=None) == [("w", "mean"), ("w", "latent"), ("w", "latent")]
        assert plan(CSGM(style)) == [("w", "mean")]
        assert plan(IAGAN(style, "paper")) == [("z", "draw"), ("z", "latent")]
        assert plan(IAGAN(style, space="w+")) == [("w+", "mean"), ("w+", "latent")]
        assert plan(CSGM(style, latent=Stage(restarts=2))) == [("w", "draw")]
        assert plan(CSGM(style, init="draw")) == [("w", "draw")]
        with pytest.raises(ValueError, match="encoder"):
            plan(CSGM(style, init="encoder"))
    assert plan(ILO(stylegan2, depth=4)) == [("w", "mean"), ("features-4", "latent"), ("features-4", "features")]
    for plain in (BEGAN(16, 4, 8), PGGAN(resolution=16, channels=(8, 8, 8))):
        for preset in ("fast", "paper"):
            assert plan(IAGAN(plain, preset)) == [("z", "draw"), ("z", "latent")]
    assert plan(IAGAN("faces128", init="encoder")) == [("z", "encoder"), ("z", "latent")]
    assert plan(ILO(BEGAN(16, 4, 8), init="mean", depth=8))[0] == ("z", "mean")
    with pytest.raises(ValueError, match=r"BEGAN has the latent spaces z, features-8; 'w' was given"):
        CSGM(BEGAN(16, 4, 8), space="w")


@pytest.mark.parametrize(
    "make",
    [
        lambda: BEGAN(32, 4, 8),
        lambda: BEGAN(32, 4, 8, skip=True),
        lambda: PGGAN(resolution=16, channels=(8, 8, 8), latent=8),
        lambda: Pyramid([4, 3, 2], latent=3, start=2),
        lambda: StyleGAN2(16, (8, 8, 4), 6, (6, 6)),
        lambda: MobileStyleGAN(channels=(8, 8, 4), latent=6, mapping=2),
    ],
)
@torch.no_grad()
def test_a_generator_ends_where_it_is_told_or_refuses(make):
    G = make()
    spaces = [*G.spaces, "image"]
    z = G.sample_latent(2, seed=0)
    for number, space in enumerate(spaces[:-1]):
        inner = G(z, to=space)
        assert inner.shape == (2, *G.spaces[space])
        for to in (*spaces[:number], "features-99", f"features-{G.image_shape[1]}", "x"):
            said = rf"^from {re.escape(space)} one comes to .*, image; '{re.escape(to)}' was given$"
            with pytest.raises(ValueError, match=said):
                G(inner, space=space, to=to)
        assert torch.equal(G(inner, space=space, to=space), inner)
        assert G(inner, space=space).shape == (2, *G.image_shape)


def test_the_search_in_w_is_short_where_the_weights_follow(G):
    def steps(method, **settings):
        return method(G, **settings).plan(0.0, Identity(G.image_shape))[0].settings.steps

    assert (steps(IAGAN), steps(CSGM)) == (25, 50)
    assert steps(IAGAN, latent=Stage(steps=30)) == 30
    assert steps(IAGAN, latent=Stage(restarts=2)) == steps(IAGAN, init="draw") == steps(IAGAN, space="w+") == 50
    assert steps(IAGAN, preset="paper", space="w") == 1800


def test_weights_of_megapixel_generators_follow_curvature():
    """Where y is a smaller picture; whatever else is measured says more than so few evaluations take up."""

    def joint(G, A=None, **stage):
        A = A or BicubicDownsampling(G.image_shape, scale=16)
        given = IAGAN(G, joint=Stage(**stage)).plan(0.0, A)[-1].settings
        return given.optimizer, given.history, given.steps, given.decrease, given.frozen

    channels = (1,) * 9
    large, small = (StyleGAN2(size, channels[:n], 2, (2,)) for size, n in ((1024, 9), (512, 8)))
    assert joint(large) == ("lbfgs", 10, 60, 15.0, "finer")
    assert joint(large, optimizer="adam", steps=30) == ("adam", 10, 30, 15.0, "finer")
    for G, A in ((small, None), (large, Identity(large.image_shape)), (large, Blur(large.image_shape))):
        assert joint(G, A)[::2] == ("adam", 250, "finer")


def test_rates_of_weights_follow_the_way_they_are_stored(G):
    """Adam moves each weight by its rate: PGGAN's is for weights of deviation 1, BEGAN's for those used as they are."""
    stylegan2 = StyleGAN2(16, (8, 8, 4), 6, (6, 6))
    assert 0.9 < stylegan2.blocks[1].conv0.weight.std() < 1.1
    assert MobileStyleGAN((64, 64), 6, 2).layers[0].conv2.pointwise.std() < 0.2
    for rate, style in ((1e-3, stylegan2), (1e-4, G)):
        for preset in ("fast", "paper"):
            assert IAGAN(style, preset).plan(0.0, Identity(style.image_shape))[-1].settings.lr_weights == rate


def adapted(G, A, **joint):
    module = IAGAN(G, latent=Stage(steps=1), joint=Stage(steps=1, **joint))
    reconstruct(A(torch.zeros(1, *A.image_shape)), A, module, accelerator="cpu")
    return set(module.adapted)


def test_layers_finer_than_twice_y_keep_their_weights(G):
    """8 x 8 measured pixels of 32: what paints at 4 to 16 adapts, the last level and the colours do not."""
    every = {name for name, p in G.named_parameters() if p.requires_grad}
    coarse = {name for name in every if name.startswith(("input", "conv1", "layers.0.", "layers.1."))}
    assert 0 < len(coarse) < len(every)
    assert adapted(G, BicubicDownsampling(G.image_shape, scale=4)) == coarse  # the default
    assert adapted(G, BicubicDownsampling(G.image_shape, scale=4), frozen="none") == every
    colours = {name for name in every if name.startswith("to_img")}
    full = {name for name in every - colours if "layers.2." in name and "modulation" not in name}
    assert adapted(G, Inpainting(G.image_shape, ratio=0.5)) == every - full
    plain = BEGAN(32, 4, 8)  # the other generators understand it too
    assert adapted(plain, BicubicDownsampling(plain.image_shape, scale=4), frozen="finer") == {
        name for name, _ in plain.named_parameters() if name.startswith(("fc", "l0", "l1", "l2", "l3", "l4"))
    }


def test_a_layer_is_what_paints_around_a_weight(G):
    """The linear map that modulates a convolution belongs to it; layers from z to w and constants to none."""
    outputs = layer_outputs(G)
    assert outputs["layers.1.conv2.modulation.weight"] == outputs["layers.1.conv2.pointwise"] == [4, 16, 16]
    assert outputs["mapping.0.weight"] == outputs["input"] == []
    assert layer_outputs(G, modulating=False)["layers.1.conv2.modulation.weight"] == []
    assert outputs["to_img.bias"] == outputs["to_img.modulation.bias"] == [3, 32, 32]


@pytest.mark.parametrize("space", ["w", "w+"])
def test_a_run_in_w_is_saved_rebuilt_and_gone_on_with(G, tmp_path, capsys, space):
    save_generator(G, tmp_path / "prior.safetensors")
    out = tmp_path / "out"
    words = ["super-resolution", "--model.generator", str(tmp_path / "prior.safetensors"), "--model.space", space]
    words += ["--model.latent.steps", "6", "--model.joint.steps", "4", "--save", "weights", "--lpips", "none"]
    words += ["--out", str(out), "--trainer.accelerator", "cpu", "--tensorboard", "0"]
    assert main([*words, "--data.limit", "1"]) == 0
    [metrics] = out.rglob("metrics.json")
    assert json.loads(metrics.read_text())["evaluations"]["latent"] == 6
    assert main(["rebuild", str(metrics.parent)]) == 0
    assert (read_image(metrics.parent / "rebuilt.png") - read_image(metrics.parent / "iagan.png")).abs().max() < 0.02
    before = metrics.stat().st_mtime_ns
    assert main([*words, "--data.limit", "2"]) == 0
    assert metrics.stat().st_mtime_ns == before
    assert len(list(out.rglob("metrics.json"))) == 2
    capsys.readouterr()
    assert main(["z" if word == space else word for word in words]) == 2
    assert "space" in capsys.readouterr().err
    assert main(["v" if word == space else word for word in words]) == 2
    assert "latent spaces z, w, w+; 'v' was given" in capsys.readouterr().err
