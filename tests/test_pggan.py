"""PGGAN against references written from the definition of each layout of weights in circulation."""

import io
import math
import pickle
import sys
import types
from collections import OrderedDict
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from iagan_lightning import Stage, reconstruct
from iagan_lightning.cli import main
from iagan_lightning.generators import PGGAN, WeightsError, full_resolution_weights, load_generator, save_generator
from iagan_lightning.operators import BicubicDownsampling

LATENT, CHANNELS = 6, (8, 8, 4, 3)  # of 32 x 32 pixels


def norm(x):
    return x / (x.pow(2).mean(1, keepdim=True) + 1e-8).sqrt()


def enlarge(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def draw(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator)


# Each layout as (weights, images of z): the first from names and shapes, the second by that layout's own arithmetic.


def features_layout():
    random, state = draw(), {}
    sizes = [(LATENT, CHANNELS[0], 4), (CHANNELS[0], CHANNELS[0], 3)]
    for before, after in pairwise(CHANNELS):
        sizes += [(before, after, 3), (after, after, 3)]
    for n, (inputs, outputs, kernel) in enumerate(sizes):
        state[f"features.{n}.conv.weight"] = random(outputs, inputs, kernel, kernel)
        state[f"features.{n}.wscale.scale"] = random(1).abs() / math.sqrt(inputs)
        state[f"features.{n}.wscale.b"] = random(outputs) * 0.2
    state["output.conv.weight"], state["output.wscale.scale"] = random(3, CHANNELS[-1], 1, 1), random(1)
    state["output.wscale.b"] = random(3)

    def image(z):
        x = z.view(len(z), -1, 1, 1)
        for n in range(len(sizes)):
            x = norm(x)
            if n in (2, 4, 6):
                x = enlarge(x)
            x = F.conv2d(x, state[f"features.{n}.conv.weight"], padding=3 if n == 0 else 1)
            x = x * state[f"features.{n}.wscale.scale"] + state[f"features.{n}.wscale.b"].view(1, -1, 1, 1)
            x = F.leaky_relu(x, 0.2)
        x = F.conv2d(norm(x), state["output.conv.weight"])
        return x * state["output.wscale.scale"] + state["output.wscale.b"].view(1, -1, 1, 1)

    return state, image


def zoo_layout():
    random, state = draw(), {}

    def layer(name, *shape):
        state[f"{name}.module.weight"], state[f"{name}.module.bias"] = random(*shape), random(shape[0])

    layer("formatLayer", 16 * CHANNELS[0], LATENT)
    layer("groupScale0.0", CHANNELS[0], CHANNELS[0], 3, 3)
    for n, (before, after) in enumerate(pairwise(CHANNELS)):
        layer(f"scaleLayers.{n}.0", after, before, 3, 3)
        layer(f"scaleLayers.{n}.1", after, after, 3, 3)
    for n, channels in enumerate(CHANNELS):
        layer(f"toRGBLayers.{n}", 3, channels, 1, 1)

    def equalised(name, x):
        weight, bias = state[f"{name}.module.weight"], state[f"{name}.module.bias"]
        y = F.linear(x, weight, bias) if weight.ndim == 2 else F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        return y * math.sqrt(2 / math.prod(weight.shape[1:]))

    def image(z):
        x = F.leaky_relu(equalised("formatLayer", norm(z)), 0.2)
        x = norm(x.view(len(z), -1, 4, 4))
        x = norm(F.leaky_relu(equalised("groupScale0.0", x), 0.2))
        for n in range(len(CHANNELS) - 1):
            x = enlarge(x)
            for m in (0, 1):
                x = norm(F.leaky_relu(equalised(f"scaleLayers.{n}.{m}", x), 0.2))
        return equalised(f"toRGBLayers.{len(CHANNELS) - 1}", x)

    return state, image


def tensorflow_layout(fused=True):
    """Variables as TensorFlow names and shapes them, and what its operations do with them, in numpy's own order."""
    random, state = draw(), {"lod": torch.tensor(0.0)}

    def layer(name, *shape, bias):
        state[f"{name}/weight"], state[f"{name}/bias"] = random(*shape), random(bias) * 0.3

    layer("4x4/Dense", LATENT, 16 * CHANNELS[0], bias=CHANNELS[0])
    layer("4x4/Conv", 3, 3, CHANNELS[0], CHANNELS[0], bias=CHANNELS[0])
    for n, (before, after) in enumerate(pairwise(CHANNELS)):
        size = f"{8 << n}x{8 << n}"
        layer(
            f"{size}/Conv0_up" if fused else f"{size}/Conv0",
            3,
            3,
            *((after, before) if fused else (before, after)),
            bias=after,
        )
        layer(f"{size}/Conv1", 3, 3, after, after, bias=after)
        layer(f"ToRGB_lod{len(CHANNELS) - 2 - n}", 1, 1, after, 3, bias=3)

    def biased(name, x):
        return x + state[f"{name}/bias"].view(1, -1, 1, 1)

    def convolve(name, x, gain=2**0.5):
        w = state[f"{name}/weight"]
        w = w * (gain / math.sqrt(math.prod(w.shape[:3])))
        return biased(name, F.conv2d(x, w.permute(3, 2, 0, 1), padding=w.shape[0] // 2))

    def enlarge_and_convolve(name, x):
        if not fused:
            return convolve(name.replace("_up", ""), enlarge(x))
        w = state[f"{name}/weight"]
        w = w * (math.sqrt(2) / math.sqrt(9 * w.shape[3]))
        w = F.pad(w.permute(2, 3, 0, 1), (1, 1, 1, 1))
        w = w[..., 1:, 1:] + w[..., :-1, 1:] + w[..., 1:, :-1] + w[..., :-1, :-1]
        return biased(name, F.conv_transpose2d(x, w.transpose(0, 1), stride=2, padding=1))

    def image(z):
        x = norm(z) @ (state["4x4/Dense/weight"] * (math.sqrt(2) / 4 / math.sqrt(LATENT)))
        x = norm(F.leaky_relu(biased("4x4/Dense", x.view(len(z), -1, 4, 4)), 0.2))
        x = norm(F.leaky_relu(convolve("4x4/Conv", x), 0.2))
        for n in range(len(CHANNELS) - 1):
            size = f"{8 << n}x{8 << n}"
            x = norm(F.leaky_relu(enlarge_and_convolve(f"{size}/Conv0_up", x), 0.2))
            x = norm(F.leaky_relu(convolve(f"{size}/Conv1", x), 0.2))
        return convolve("ToRGB_lod0", x, gain=1.0)

    return state, image


def pickled(state, module="tfutil", protocol=4, networks=3):
    """A file as the original code writes it: three networks, the third of them the average that counts."""

    class Network:
        def __init__(self, variables):
            self.variables = variables

        def __getstate__(self):
            return {
                "version": 2, "name": "Gs", "static_kwargs": OrderedDict(latent_size=np.int64(LATENT)),
                "build_module_src": "import os; os.abort()", "build_func_name": "G_paper",
                "variables": [(name, value.numpy()) for name, value in self.variables.items()],
            }  # fmt: skip

    Network.__module__, Network.__qualname__ = module, "Network"
    parents = [module[:end] for end, letter in enumerate(f"{module}.") if letter == "."]
    sys.modules.update({name: types.ModuleType(name) for name in parents})
    sys.modules[module].Network = Network
    try:
        others = [Network({"4x4/Dense/weight": torch.zeros(2, 2)}) for _ in range(networks - 1)]
        content = (*others, Network(state))
        return pickle.dumps(content if networks > 1 else content[0], protocol=protocol)
    finally:
        for name in parents:
            del sys.modules[name]


def write(layout, path):
    state, image = {"features": features_layout, "zoo": zoo_layout}[layout]()
    torch.save({"netG": state, "config": {"depth": 4}} if layout == "zoo" else state, path)
    return state, image


def assert_same_images(G, state, image):
    """In float64, because normalising a few nearly vanishing features magnifies the rounding of float32."""
    state.update({key: value.double() for key, value in state.items()})
    z = G.sample_latent(3, seed=0).double()
    with torch.no_grad():
        assert (G.double()(z) - image(z)).abs().max() < 1e-5 * image(z).abs().max()


@pytest.mark.parametrize("layout", ["features", "zoo"])
def test_pytorch_layouts_make_the_same_images(tmp_path, layout):
    state, image = write(layout, tmp_path / "weights.pth")
    G = load_generator(tmp_path / "weights.pth")
    assert_same_images(G, state, image)
    assert G.architecture()["channels"] == list(CHANNELS)
    assert G.latent_distribution == "normal" and G.image_shape == (3, 32, 32)


@pytest.mark.parametrize("module", ["tfutil", "dnnlib.tflib.network"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("fused", [True, False])
def test_tensorflow_pickles_make_the_same_images(tmp_path, module, protocol, fused):
    state, image = tensorflow_layout(fused)
    path = tmp_path / "network.pkl"
    path.write_bytes(pickled(state, module, protocol, networks=3 if fused else 1))
    assert_same_images(load_generator(path), state, image)


@pytest.mark.parametrize("layout", ["features", "zoo", "tensorflow"])
def test_import_prior_keeps_the_images(tmp_path, capsys, layout):
    source, out = tmp_path / "weights", tmp_path / "own.safetensors"
    if layout == "tensorflow":
        state, image = tensorflow_layout()
        source.write_bytes(pickled(state))
    else:
        state, image = write(layout, source)
    assert main(["import-prior", str(source), "--out", str(out)]) == 0
    assert "PGGAN (resolution 32, latent 6, channels [8, 8, 4, 3]" in capsys.readouterr().out
    assert_same_images(load_generator(out), state, image)


def test_the_published_size():
    with torch.device("meta"):
        G = PGGAN(1024)
    assert G.channels == (512, 512, 512, 512, 256, 128, 64, 32, 16)
    convolutions = {name: p for name, p in G.named_parameters() if name.endswith("weight")}
    assert len(convolutions) == 19
    assert (
        sum(p.numel() for p in convolutions.values()) == 23_066_416
    )  # the 23.1M of the paper's Table 2 are these and the biases
    assert sum(name.startswith(("layers.16", "layers.17")) for name in G.state_dict()) == 6


def test_the_length_of_the_latent_does_not_matter():
    G = PGGAN(8, 6, (4, 4))
    z = G.sample_latent(2)
    with torch.no_grad():
        assert torch.allclose(G(z), G(7 * z), atol=1e-5)


def test_hidden_layers_of_full_resolution():
    names = full_resolution_weights(PGGAN(16, 6, (4, 4, 4)))
    assert names == {f"layers.{n}.{kind}" for n in (4, 5) for kind in ("weight", "scale", "bias")}


def test_schedule_is_that_of_the_paper():
    G = PGGAN(16, 6, (4, 4, 4))
    A = BicubicDownsampling(G.image_shape, scale=2)
    from iagan_lightning import IAGAN

    stages = IAGAN(G, "paper").resolve(10 / 255, A)
    assert (stages["latent"].steps, stages["joint"].steps) == (1800, 150)
    assert (stages["joint"].lr, stages["joint"].lr_weights) == (1e-4, 1e-3)


def test_reconstruction_with_both_presets():
    G = PGGAN(16, 6, (4, 4, 4)).eval()
    A = BicubicDownsampling(G.image_shape, scale=2)
    with torch.no_grad():
        y = A(G(G.sample_latent(2, seed=5)).clamp(-1, 1))
    for preset in ("fast", "paper"):
        result = reconstruct(y, A, G, 0.0, preset, latent=Stage(steps=12), joint=Stage(steps=6), accelerator="cpu")
        assert bool((result.objective["joint"] < result.objective["latent"]).all())
        assert torch.allclose(A(result.iagan_bp), y, atol=1e-4)


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Evil()), "wants to build builtins.print, which is refused"),
        (pickle.dumps([np.zeros(3), Evil()], protocol=2), "wants to build __builtin__.print, which is refused"),
        (pickled(tensorflow_layout()[0])[:-200], "is damaged"),
        (pickled(tensorflow_layout()[0], module="elsewhere"), "wants to build elsewhere.Network, which is refused"),
        (pickle.dumps({"a": 1}), "no weight file"),
    ],
)
def test_hostile_and_damaged_pickles(tmp_path, capsys, content, message):
    path = tmp_path / "network.pkl"
    path.write_bytes(content)
    assert main(["import-prior", str(path), "--out", str(tmp_path / "out.safetensors")]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1
    assert "executed" not in printed.out
    assert not (tmp_path / "out.safetensors").exists()


def test_arrays_are_not_called(tmp_path):
    """numpy.ndarray(shape) would allocate whatever a file asks for."""
    path = tmp_path / "network.pkl"
    path.write_bytes(b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.")
    with pytest.raises(WeightsError, match="damaged"):
        load_generator(path)


def test_incomplete_and_contradictory_weights(tmp_path):
    state, _ = features_layout()
    for change, message in (
        (lambda s: s.pop("features.3.conv.weight"), "missing layers.3.weight"),
        (lambda s: s.pop("features.4.conv.weight"), "sizes fit no generator"),
        (lambda s: s.update({"features.3.conv.weight": torch.zeros(8, 9, 3, 3)}), "layers.3.weight has shape"),
        (lambda s: s.update({"features.3.wscale.b": torch.full((8,), torch.nan)}), "not finite"),
        (lambda s: s.update({"extra": torch.zeros(1)}), "surplus extra"),
    ):
        changed = dict(state)
        change(changed)
        buffer = io.BytesIO()
        torch.save(changed, buffer)
        (tmp_path / "w.pth").write_bytes(buffer.getvalue())
        with pytest.raises(WeightsError, match=message):
            load_generator(tmp_path / "w.pth")


@pytest.mark.parametrize("resolution", [2, 6, 2048])
def test_resolutions_that_are_none(resolution):
    with pytest.raises(ValueError, match=f"4, 8, 16 ... 1024; {resolution} was given"):
        PGGAN(resolution)


def test_another_size_of_pictures_is_one_line(tmp_path, capsys):
    save_generator(PGGAN(16, 6, (4, 4, 4)), tmp_path / "g.safetensors")
    arguments = ["super-resolution", "--model.generator", str(tmp_path / "g.safetensors"), "--data.size", "32"]
    assert main([*arguments, "--lpips", "none", "--out", str(tmp_path / "out")]) == 2
    assert "data.size 32 is not the generator's 16 x 16" in capsys.readouterr().err
