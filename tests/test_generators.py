import io
import json
import os
import pickle
import re
import struct

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from iagan_lightning import Stage, reconstruct
from iagan_lightning.cli import main
from iagan_lightning.generators import (
    BEGAN,
    PGGAN,
    MobileStyleGAN,
    ModuleGenerator,
    Pyramid,
    ReducedMobileStyleGAN,
    StyleGAN2,
    WeightsError,
    full_resolution_weights,
    load_generator,
    save_generator,
)
from iagan_lightning.generators.elu import elu
from iagan_lightning.operators import BicubicDownsampling
from iagan_lightning.terminal import Notice


def test_public_weights_load_by_their_path(public):
    assert public.architecture() == {
        "resolution": 64, "channels": 64, "latent": 64, "skip": False, "latent_distribution": "uniform",
    }  # fmt: skip
    with torch.no_grad():
        image = public(public.sample_latent(1, seed=0))
    assert image.shape == (1, 3, 64, 64)
    assert image.abs().max() <= 1
    # The original network, written down once more from its description.
    state = public.state_dict()
    with torch.no_grad():
        x = nn.functional.linear(public.sample_latent(1, seed=0), state["l0.weight"], state["l0.bias"])
        x = x.view(1, 64, 8, 8)
        for layer in range(1, 9):
            x = nn.functional.elu(
                nn.functional.conv2d(x, state[f"l{layer}.weight"], state[f"l{layer}.bias"], padding=1)
            )
            if layer in (2, 4, 6):
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = torch.tanh(nn.functional.conv2d(x, state["l9.weight"], state["l9.bias"], padding=1))
    assert torch.allclose(image, x, atol=1e-5)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(("resolution", "channels", "latent"), [(64, 3, 5), (128, 2, 64), (8, 1, 1)])
@pytest.mark.parametrize("kind", ["safetensors", "state dict", "wrapped"])
def test_round_trip(tmp_path, resolution, channels, latent, skip, kind):
    G = BEGAN(resolution, channels, latent, skip)
    path = tmp_path / "weights"
    if kind == "safetensors":
        save_generator(G, path)
    else:
        state = {f"module.{key}": value.half() for key, value in G.state_dict().items()}
        torch.save({"state_dict": state, "epoch": 3} if kind == "wrapped" else state, path)
        G = G.half().float()
    loaded = load_generator(path)
    z = G.sample_latent(2, seed=0)
    with torch.no_grad():
        assert torch.equal(loaded(z), G(z))
    if resolution > 8:  # a single block has no skip to recognise
        assert loaded.architecture() == G.architecture()
    assert not loaded.training


def test_number_of_convolutions():
    convolutions = [sum(isinstance(m, nn.Conv2d) for m in BEGAN(r, 2, 2).modules()) for r in (64, 128)]
    assert convolutions == [9, 11]


def test_latents_may_be_normal(tmp_path):
    save_generator(BEGAN(8, 1, 4, latent_distribution="normal"), tmp_path / "normal.safetensors")
    G = load_generator(tmp_path / "normal.safetensors")
    assert G.sample_latent(5000, seed=0).std().item() == pytest.approx(1, rel=0.05)
    with pytest.raises(ValueError, match="latent_distribution is one of uniform, normal; 'cauchy' was given"):
        BEGAN(8, 1, 4, latent_distribution="cauchy")


def test_latents_are_uniform_and_reproducible():
    z = BEGAN(8, 1, 64).sample_latent(500, seed=3)
    assert z.min() >= -1
    assert z.max() <= 1
    assert z.std().item() == pytest.approx(3**-0.5, rel=0.02)
    assert torch.equal(z[:5], BEGAN(8, 1, 64).sample_latent(5, seed=3))
    assert not torch.equal(z[:5], BEGAN(8, 1, 64).sample_latent(5, seed=4))


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_a_seed_means_the_same_in_any_default_precision(distribution):
    G = BEGAN(8, 1, 64)
    G.latent_distribution = distribution
    z = G.sample_latent(3, seed=1)
    for kind in (torch.float64, torch.bfloat16):
        torch.set_default_dtype(kind)
        try:
            other = G.sample_latent(3, seed=1)
        finally:
            torch.set_default_dtype(torch.float32)
        assert other.dtype == kind and torch.equal(other, z.to(kind))
    with torch.device("meta"):
        assert torch.equal(G.sample_latent(3, seed=1), z)


def state():
    return BEGAN(16, 2, 3).state_dict()


def without(key):
    return {k: v for k, v in state().items() if k != key}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (without("l3.bias"), "missing l3.bias"),
        ({**state(), "l9.extra": torch.zeros(1)}, "surplus l9.extra"),
        ({**state(), "l2.weight": torch.zeros(2, 2, 5, 5)}, r"l2.weight has shape \(2, 2, 5, 5\)"),
        ({**state(), "l2.bias": torch.full((2,), torch.nan)}, "not finite"),
        (nn.Sequential(nn.Linear(2, 2)).state_dict(), "another network"),
        ([1, 2, 3], "holds a list"),
        ({"weights": 3}, "holds a dictionary with weights"),
        ({}, "nothing"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=message) as error:
        load_generator(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


class Bomb:
    def __reduce__(self):
        return (print, ("executed",))


class Shell:
    def __reduce__(self):
        return (os.system, ("echo executed",))


@pytest.mark.parametrize("save", [torch.save, lambda content, file: pickle.dump(content, file)])
@pytest.mark.parametrize(("bomb", "name"), [(Bomb, r"\bprint"), (Shell, r"\w+\.system")])
def test_loading_executes_nothing_and_names_what_it_refuses(tmp_path, capfd, save, bomb, name):
    buffer = io.BytesIO()
    save({**state(), "l0.weight": bomb()}, buffer)
    path = tmp_path / "bomb.pth"
    path.write_bytes(buffer.getvalue())
    # a plain pickle of tensors is refused for the first of them already
    with pytest.raises(WeightsError, match=f"wants to build {name if save is torch.save else ''}"):
        load_generator(path)
    assert "executed" not in capfd.readouterr().out


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("part", [0, 0.01, 0.5, 0.99])
def test_truncated_files(tmp_path, kind, part):
    path = tmp_path / "weights"
    if kind == "safetensors":
        save_generator(BEGAN(16, 2, 3), path)
    else:
        torch.save(state(), path, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(path.read_bytes()[: int(len(path.read_bytes()) * part)])
    with pytest.raises(WeightsError, match="weights"):
        load_generator(path)


def test_missing_file(tmp_path):
    with pytest.raises(WeightsError, match=r"no generator weights at .*nowhere\.pth"):
        load_generator(tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    "header",
    ["{}", "[", '{"architecture": "Unknown", "arguments": {}}', '{"architecture": "BEGAN", "arguments": {"depth": 3}}'],
)
def test_unknown_headers(tmp_path, header):
    path = tmp_path / "weights.safetensors"
    save_file(state(), path, metadata={"iagan_lightning": header})
    with pytest.raises(WeightsError, match="header"):
        load_generator(path)


NETWORKS = (
    BEGAN(16, 4, 3),
    PGGAN(16, (4, 4, 4), 5),
    Pyramid((4, 4), 3, 2),
    MobileStyleGAN((8, 4), 6, 2),
    ReducedMobileStyleGAN((8, 8, 4), 6, 2, 16),
    StyleGAN2(16, (4, 4, 4), 6, (6, 6), classes=2, label=0),
)


@pytest.mark.parametrize("G", NETWORKS, ids=lambda G: type(G).__name__)
def test_numbers_of_a_header_that_are_no_whole_ones(tmp_path, G):
    """Whatever JSON may hold in their place: one line with what was given, and nothing of Python's own words."""
    path = tmp_path / "weights.safetensors"
    arguments = json.loads(json.dumps(G.architecture()))
    wrong = {}
    for name, value in arguments.items():
        if type(value) is int:
            wrong[name] = [float(value), value + 0.5, str(value), [value], {}, -1] + [None] * (name != "embedding")
        elif isinstance(value, list):
            wrong[name] = [list(map(float, value)), list(map(str, value)), [None] * len(value), [True] * len(value)]
            wrong[name] += [value[0], "abc", {"a": 1}]
    assert len(wrong) >= 3
    for name, values in wrong.items():
        for value in values:
            if (name, value) == ("label", None):
                continue
            header = json.dumps({"architecture": type(G).__name__, "arguments": {**arguments, name: value}})
            save_file(dict(G.state_dict()), path, metadata={"iagan_lightning": header})
            with pytest.raises(WeightsError) as error:
                load_generator(path)
            said = str(error.value)
            assert "describes no known generator" in said
            assert "given" in said
            assert repr(list(value) if value == "abc" else value) in said or value in ("abc", {"a": 1})
            for words in ("not supported", "object", "argument", "invalid"):
                assert words not in said


def test_a_hostile_header_allocates_nothing(tmp_path):
    path = tmp_path / "huge.safetensors"
    header = '{"architecture": "BEGAN", "arguments": {"resolution": 64, "channels": 1000000, "latent": 1000000}}'
    save_file(state(), path, metadata={"iagan_lightning": header})
    with pytest.raises(WeightsError, match="shape"):
        load_generator(path)
    path.write_bytes(struct.pack("<Q", 2**60) + b"{" + b" " * 100)
    with pytest.raises(WeightsError, match="damaged"):
        load_generator(path)


@pytest.mark.parametrize(("arguments", "message"), [((48,), "resolution is 8, 16"), ((64, 0), "channels is at least")])
def test_bad_architectures(arguments, message):
    with pytest.raises(ValueError, match=message):
        BEGAN(*arguments)


class Plain(nn.Module):
    """A network as users bring them: images in [0, 1], batch normalisation, no idea of latents."""

    def __init__(self, width: int = 5):
        super().__init__()
        self.layer, self.norm = nn.Linear(width, 3 * 16 * 16), nn.BatchNorm2d(3)

    def forward(self, z):
        return torch.sigmoid(self.norm(self.layer(z).view(-1, 3, 16, 16)))


class Noisy(Plain):
    def forward(self, z):
        return super().forward(z) + 0.1 * torch.rand(len(z), 1, 1, 1)


class Mixing(Plain):
    def forward(self, z):
        return super().forward(z - z.mean(0))


class Grey(Plain):
    def forward(self, z):
        return super().forward(z)[:, :1]


class Vector(Plain):
    def forward(self, z):
        return super().forward(z).flatten(1)


PLAIN = {"class_path": f"{__name__}.Plain", "latent_shape": [5], "value_range": [0, 1]}


def test_any_module_by_its_class_path(tmp_path):
    network = Plain(7)
    torch.save(network.state_dict(), tmp_path / "plain.pth")
    G = load_generator(
        {**PLAIN, "init_args": {"width": 7}, "latent_shape": [7], "weights": str(tmp_path / "plain.pth")}
    )
    z = G.sample_latent(3, seed=0)
    assert G.latent_distribution == "normal"
    assert G.image_shape == (3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(G(z), network.eval()(z) * 2 - 1, atol=1e-6)
    uniform = load_generator({**PLAIN, "latent_distribution": "uniform"})
    assert uniform.sample_latent(99, seed=0).abs().max() <= 1
    assert load_generator({**PLAIN, "class_path": f"{__name__}.Grey"}).image_shape == (1, 16, 16)


def test_a_generator_class_declares_itself():
    G = load_generator(
        {"class_path": "iagan_lightning.generators.BEGAN", "init_args": {"resolution": 8, "channels": 2}}
    )
    assert G.image_shape == (3, 8, 8)
    assert not G.training


MODULE = """
import torch
from iagan_lightning.generators import Generator

class Mine(Generator):
    latent_shape, image_shape = (3,), (3, 8, 8)
    def __init__(self, level=0.25):
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(level))
    def forward(self, z):
        return self.level.expand(len(z), 3, 8, 8)

class Bare(torch.nn.Module):
    pass

def Function():
    pass
"""


def test_a_class_as_plain_text(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_networks.py").write_text(MODULE)
    (tmp_path / "own_weights.py").write_text("raise SystemExit('run')")
    (tmp_path / "own_faulty.py").write_text("import no_such_module")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_generator("own_networks.Mine").level == 0.25
    G = load_generator({"weights": "own_networks.Mine", "framing": "tight"})
    assert (type(G).__name__, G.framing) == ("Mine", "tight")
    for text, message in (
        (
            "own_networks.Bare",
            "own_networks.Bare is no Generator: declare latent_shape, such as latent_shape: [128], b",
        ),
        ("own_networks.Function", "no generator weights at own_networks.Function: give the path of a .safetensors or"),
        ("own_networks.Nothing", "no generator weights at own_networks.Nothing"),
        ("own_weights.pth", "no generator weights at own_weights.pth"),  # a file that is not there: nothing is run
        ("no_such_package.Mine", "no generator weights at no_such_package.Mine"),
        ("own_faulty.Mine", "no generator class own_faulty.Mine: No module named 'no_such_module'"),
    ):
        assert main(["super-resolution", "--model.generator", text]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
    (tmp_path / "own_networks.Mine").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="is damaged"):  # a file of that name comes first
        load_generator("own_networks.Mine")
    with pytest.raises(ValueError, match="would run code"):
        load_generator({"class_path": "own_networks.Mine"}, classes=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_path": "Plain"}, "needs a class_path such as"),
        ({"class_path": None}, "needs a class_path such as"),
        ({"class_path": f"{__name__}.Nothing"}, "no generator class"),
        ({"class_path": "no_such_module.Nothing"}, "no generator class"),
        ({"class_path": "math.sqrt", "init_args": {"x": 2}}, "cannot be built"),
        ({"class_path": "fractions.Fraction"}, "an nn.Module is needed"),
        ({"init_args": {"depth": 3}}, "cannot be built"),
        ({"latent_shape": None}, "declare latent_shape"),
        ({"latent_shape": [4]}, "does not take latents"),
        ({"latent_distribution": "cauchy"}, "uniform, normal"),
        ({"value_range": [1, 0]}, "black and white"),
        ({"value_range": [0, 0.1]}, "far outside the declared range"),
        ({"latents": 3}, "latents was given"),
        ({"class_path": f"{__name__}.Noisy"}, "another image each time"),
        ({"class_path": f"{__name__}.Mixing"}, "mixes the images"),
        ({"class_path": f"{__name__}.Vector"}, r"\(2, 1 or 3, height, width\) is needed"),
        ({"class_path": "iagan_lightning.generators.BEGAN"}, "declares latent_shape, value_range itself"),
        ({"weights": "nowhere.pth"}, "no generator weights at nowhere.pth"),
    ],
)
def test_declarations_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        load_generator({**PLAIN, **change})


def drawn(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 3 * 16 * 16), *layers, nn.Unflatten(1, (3, 16, 16)))


class Times(nn.Module):
    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return self.factor * x


@pytest.mark.parametrize(
    ("layers", "value_range", "meant"),
    [
        ([nn.Tanh()], (0, 1), r"\[-0\.\d+, 0\.\d+\] where value_range is \[0, 1\]: declare value_range \[-1, 1\]"),
        ([nn.Sigmoid(), Times(255.0)], (0, 1), r"declare value_range \[0, 255\]"),
        ([nn.Sigmoid(), Times(255.0)], (-1, 1), r"declare value_range \[0, 255\]"),
        ([nn.Tanh(), Times(100.0)], (-1, 1), "declare value_range its own black and white"),
    ],
)
def test_a_range_that_is_not_the_networks_is_refused(layers, value_range, meant):
    with pytest.raises(ValueError, match=rf"^Sequential gives values far outside the declared range, .*{meant}$"):
        ModuleGenerator(drawn(*layers), [8], value_range=value_range)


@pytest.mark.parametrize(
    ("layers", "value_range", "said"),
    [
        ([nn.Sigmoid()], (-1, 1), r"mid-grey or brighter: is value_range \[0, 1\] meant\?"),
        ([nn.Sigmoid()], (0, 255), r"all but black: is value_range \[0, 1\] meant\?"),
        ([nn.Tanh()], (0, 255), r"all but black: is value_range \[-1, 1\] meant\?"),
        ([nn.Tanh()], (-1, 1), None),
        ([nn.Sigmoid()], (0, 1), None),
        ([nn.Sigmoid(), Times(255.0)], (0, 255), None),
        ([Times(0.7)], (-1, 1), None),  # without tanh, which some pixels overshoot
    ],
)
def test_a_range_that_images_speak_against_is_told_of(recwarn, layers, value_range, said):
    G = ModuleGenerator(drawn(*layers), [8], value_range=value_range)
    assert G(G.sample_latent(2)).isfinite().all()
    told = [str(warning.message) for warning in recwarn if warning.category is Notice]
    assert len(told) == (said is not None) and all(re.search(said, each) for each in told)


class Bright(nn.Module):
    """Far too bright until its weights are read, as networks without tanh may be; or random from then on."""

    def __init__(self, factor=1e3, noise=0.0):
        super().__init__()
        self.network = drawn(nn.Tanh(), Times(factor))
        self.noise = nn.Parameter(torch.tensor(noise))

    def forward(self, z):
        return self.network(z) + self.noise * torch.rand(len(z), 1, 1, 1)


def test_a_network_is_tried_with_the_weights_that_it_is_given(tmp_path):
    described = {"class_path": f"{__name__}.Bright", "latent_shape": [8], "weights": str(tmp_path / "weights.pth")}
    torch.save(Bright(1.0).state_dict(), tmp_path / "weights.pth")
    G = load_generator(described)
    assert G(G.sample_latent(2)).abs().max() <= 1
    torch.save(Bright(1.0, noise=0.5).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="another image each time"):
        load_generator(described)
    torch.save(Bright().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="far outside the declared range"):
        load_generator({**described, "init_args": {"factor": 1.0}})


def test_weights_of_another_class_are_named(tmp_path):
    torch.save(Plain(6).state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"layer\.weight has shape"):
        load_generator({**PLAIN, "weights": str(tmp_path / "other.pth")})


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-14), (torch.float32, 2e-7), (torch.bfloat16, 1e-2)])
def test_elu_is_that_of_pytorch(dtype, atol):
    x = torch.cat([torch.linspace(-20, 20, 401, dtype=torch.float64), torch.tensor([0.0, -1e-5, 1e-5])]).to(dtype)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    assert torch.allclose(elu(ours), F.elu(theirs), rtol=0, atol=atol)
    weights = torch.linspace(1, 2, len(x)).to(dtype)
    (elu(ours) * weights).sum().backward()
    (F.elu(theirs) * weights).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, rtol=0, atol=2 * atol)
    assert elu(torch.tensor([torch.nan, -torch.inf, torch.inf])).isnan().tolist() == [True, False, False]


def test_elu_side_by_side():
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.equal(torch.func.vmap(elu)(x), elu(x))
    assert torch.autograd.gradcheck(elu, x)
    assert torch.autograd.gradcheck(torch.func.vmap(elu), x)


def test_pyramid_by_its_equation():
    torch.manual_seed(0)
    G, z = Pyramid([3, 2], latent=4, start=2).double(), torch.randn(2, 4, dtype=torch.float64)
    with torch.no_grad():
        x = (z @ G.linear.weight.T + G.linear.bias).view(2, 2, 8, 8)
        for block, repeat in zip(G.blocks, (1, 2), strict=True):
            s1, t1, s2, t2 = block.style(z)[..., None, None].chunk(4, dim=1)
            enlarged = x.repeat_interleave(repeat, 2).repeat_interleave(repeat, 3)
            shortcut = torch.einsum("oi,bihw->bohw", block.shortcut.weight[:, :, 0, 0], enlarged)
            inner = block.conv1(nn.functional.elu(enlarged)) * (1 + s1) + t1
            x = shortcut + block.conv2(nn.functional.elu(inner)) * (1 + s2) + t2
        expected = torch.tanh(G.image(nn.functional.elu(x)))
        assert torch.allclose(G(z), expected, atol=1e-12)
        assert torch.allclose(G(z)[1:], G(z[1:]), atol=1e-12)


def test_pyramid_is_stored_and_adapts_like_any_other(tmp_path):
    torch.manual_seed(0)
    G = Pyramid([4, 4, 2], latent=5, start=2)
    save_generator(G, tmp_path / "pyramid.safetensors")
    loaded = load_generator(tmp_path / "pyramid.safetensors")
    assert loaded.architecture() == {"widths": [4, 4, 2], "latent": 5, "start": 2}
    assert loaded.image_shape == (3, 32, 32)
    z = G.sample_latent(2, seed=0)
    with torch.no_grad():
        assert torch.equal(loaded(z), G(z))
    assert {name.split(".")[1] for name in full_resolution_weights(G)} == {"2"}  # of the last block, not of the image
    A = BicubicDownsampling(G.image_shape, scale=4)
    y = A(torch.rand(2, 3, 32, 32) * 2 - 1)
    settings = {"latent": Stage(steps=5), "joint": Stage(steps=5), "accelerator": "cpu"}
    both = reconstruct(y, A, G, seed=3, **settings)
    alone = reconstruct(y[1:], A, G, seed=4, **settings)
    assert torch.allclose(both.iagan[1:], alone.iagan, atol=1e-4)
    assert bool((both.objective["joint"] < both.objective["latent"]).all())


@pytest.mark.parametrize("arguments", [([], 4), ([4, 0], 4), ([4], 0), ([4], 4, 0)])
def test_pyramids_that_cannot_be(arguments):
    with pytest.raises(ValueError, match="widths, latent and start are numbers from 1 on"):
        Pyramid(*arguments)
