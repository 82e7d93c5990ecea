"""PGGAN: the network, the three layouts of its weights, the paper's schedule, and files that are refused.

Each layout's network is written down here once more from its own arithmetic, in the names of that layout.
"""

import codecs
import pickle
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from iagan_lightning import IAGAN, Stage, reconstruct
from iagan_lightning.cli import main
from iagan_lightning.generators import PGGAN, WeightsError, full_resolution_weights, load_generator, save_generator
from iagan_lightning.methods.stacking import call_stacked
from iagan_lightning.operators import BicubicDownsampling, FourierSensing

WIDTHS, LATENT = (24, 20, 16, 12), 7  # at 4, 8, 16 and 32 pixels


def random_network(levels=3):
    """A network in which every parameter matters."""
    G = PGGAN(4 << (levels - 1), WIDTHS[:levels], LATENT)
    draw = torch.Generator().manual_seed(1)
    for name, p in G.named_parameters():
        noise = torch.randn(p.shape, generator=draw)
        p.data = 0.1 + 0.3 * noise.abs() if name.endswith("scale") else noise
    return G.eval()


@pytest.fixture(scope="module")
def grown():
    return random_network()


# The layouts, each with a network of random weights and what it computes ----------------------------------------


def features_layout(levels):
    """The layout of the AAAI paper's weights: s (w * x) + b with a learned s, pixels normalised before it."""
    state = {key: value.clone() for key, value in random_network(levels).state_dict().items()}

    def forward(z):
        x = z[:, :, None, None]
        for n in range(2 * levels + 1):
            name = f"features.{n}" if n < 2 * levels else "output"
            x = x / torch.sqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-8)
            if n in range(2, 2 * levels, 2):
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            w = state[f"{name}.conv.weight"]
            x = F.conv2d(x, w, padding={4: 3, 3: 1, 1: 0}[w.shape[-1]])
            x = x * state[f"{name}.wscale.scale"] + state[f"{name}.wscale.b"].view(1, -1, 1, 1)
            if name != "output":
                x = torch.where(x > 0, x, 0.2 * x)
        return x

    return state, forward


def zoo_layout(levels):
    """pytorch_GAN_zoo: c (w * x + b), c = sqrt(2 / fan-in); a linear layer first; pixels normalised after each one."""
    draw = torch.Generator().manual_seed(2)
    state = {}

    def parameters(name, *shape):
        state[f"{name}.weight"] = torch.randn(shape, generator=draw)
        state[f"{name}.bias"] = torch.randn(shape[0], generator=draw)

    parameters("formatLayer", 16 * WIDTHS[0], LATENT)
    parameters("groupScale0.0", WIDTHS[0], WIDTHS[0], 3, 3)
    parameters("toRGBLayers.0", 3, WIDTHS[0], 1, 1)
    for i in range(levels - 1):
        parameters(f"scaleLayers.{i}.0", WIDTHS[i + 1], WIDTHS[i], 3, 3)
        parameters(f"scaleLayers.{i}.1", WIDTHS[i + 1], WIDTHS[i + 1], 3, 3)
        parameters(f"toRGBLayers.{i + 1}", 3, WIDTHS[i + 1], 1, 1)

    def normalise(x):
        return x * (((x**2).mean(dim=1, keepdim=True) + 1e-8).rsqrt())

    def layer(name, x):
        w, b = state[f"{name}.weight"], state[f"{name}.bias"]
        constant = (2 / np.prod(w.shape[1:])) ** 0.5
        x = F.linear(x, w, b) if w.ndim == 2 else F.conv2d(x, w, b, padding=w.shape[-1] // 2)
        return x * constant

    def forward(z):
        x = F.leaky_relu(layer("formatLayer", normalise(z)), 0.2)
        x = normalise(x.view(len(z), -1, 4, 4))
        x = normalise(F.leaky_relu(layer("groupScale0.0", x), 0.2))
        for i in range(levels - 1):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            for j in range(2):
                x = normalise(F.leaky_relu(layer(f"scaleLayers.{i}.{j}", x), 0.2))
        return layer(f"toRGBLayers.{levels - 1}", x)

    return state, forward


def tensorflow_layout(levels, fused=True):
    """The original: kernels as height, width, in, out; enlarging and convolving fused into a transposed convolution."""
    rng = np.random.default_rng(3)
    variables = {"lod": np.float32(0)}

    def parameters(name, out, *shape):
        variables[f"{name}/weight"] = rng.standard_normal(shape).astype(np.float32)
        variables[f"{name}/bias"] = rng.standard_normal(out).astype(np.float32)

    up = "Conv0_up" if fused else "Conv0"
    parameters("4x4/Dense", WIDTHS[0], LATENT, 16 * WIDTHS[0])
    parameters("4x4/Conv", WIDTHS[0], 3, 3, WIDTHS[0], WIDTHS[0])
    parameters(f"ToRGB_lod{levels - 1}", 3, 1, 1, WIDTHS[0], 3)
    for i in range(1, levels):
        a, b, block = WIDTHS[i - 1], WIDTHS[i], f"{4 << i}x{4 << i}"
        parameters(f"{block}/{up}", b, 3, 3, *((b, a) if fused else (a, b)))
        parameters(f"{block}/Conv1", b, 3, 3, b, b)
        parameters(f"ToRGB_lod{levels - 1 - i}", 3, 1, 1, b, 3)

    def weight(name, fan_in, gain=2**0.5):
        return torch.from_numpy(variables[f"{name}/weight"]) * float(gain / np.sqrt(fan_in))

    def bias(name):
        return torch.from_numpy(variables[f"{name}/bias"]).view(1, -1, 1, 1)

    def normalise(x):
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)

    def activate(x, name):
        x = x + bias(name)
        return normalise(torch.maximum(x, 0.2 * x))

    def convolve(x, name, gain=2**0.5):
        height, width, a, _ = variables[f"{name}/weight"].shape
        w = weight(name, height * width * a, gain)
        return F.conv2d(x, w.permute(3, 2, 0, 1), padding=height // 2)

    def enlarge(x, name):
        if not fused:
            return convolve(F.interpolate(x, scale_factor=2, mode="nearest"), name)
        w = weight(name, 9 * x.shape[1])  # height, width, out, in
        w = F.pad(w, (0, 0, 0, 0, 1, 1, 1, 1))
        w = w[1:, 1:] + w[:-1, 1:] + w[1:, :-1] + w[:-1, :-1]
        return F.conv_transpose2d(x, w.permute(3, 2, 0, 1), stride=2, padding=1)

    def forward(z):
        x = normalise(z) @ weight("4x4/Dense", LATENT, 2**0.5 / 4)
        x = activate(x.view(len(z), -1, 4, 4), "4x4/Dense")
        x = activate(convolve(x, "4x4/Conv"), "4x4/Conv")
        for i in range(1, levels):
            block = f"{4 << i}x{4 << i}"
            x = activate(enlarge(x, f"{block}/{up}"), f"{block}/{up}")
            x = activate(convolve(x, f"{block}/Conv1"), f"{block}/Conv1")
        return convolve(x, "ToRGB_lod0", gain=1) + bias("ToRGB_lod0")

    return variables, forward


@pytest.fixture
def tfutil(monkeypatch):
    """The module whose networks the original pickles hold; it is gone when they are read."""
    module = types.ModuleType("tfutil")

    class Network:
        def __init__(self, variables, **static_kwargs):
            self.variables, self.static_kwargs = variables, static_kwargs

        def __getstate__(self):
            return {
                "version": 2,
                "name": "G",
                "static_kwargs": self.static_kwargs,
                "build_module_src": "raise SystemExit('executed')",
                "build_func_name": "G_paper",
                "variables": list(self.variables.items()),
            }

    Network.__module__, Network.__qualname__ = "tfutil", "Network"
    module.Network = Network
    monkeypatch.setitem(sys.modules, "tfutil", module)
    return module


def write_pickle(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    sys.modules.pop("tfutil", None)
    return path


def difference(path, forward, levels):
    """Largest difference between the images of a loaded file and those of the layout's own network."""
    G = load_generator(path)
    z = torch.randn(3, LATENT, generator=torch.Generator().manual_seed(5)) * torch.tensor([[0.1], [1.0], [4.0]])
    with torch.no_grad():
        ours, theirs = G(z), forward(z)
    assert G.image_shape == (3, 4 << (levels - 1), 4 << (levels - 1))
    assert tuple(G.channels) == WIDTHS[:levels]
    assert theirs.std() > 0.1  # images that differ from place to place
    return (ours - theirs).abs().max().item() / max(1, theirs.abs().max().item())  # rounding grows with the values


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_features_layout(tmp_path, levels):
    state, forward = features_layout(levels)
    torch.save(state, tmp_path / "weights.pth")
    assert difference(tmp_path / "weights.pth", forward, levels) < 1e-5


@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("kind", ["plain", "modules", "checkpoint"])
def test_gan_zoo_layout(tmp_path, monkeypatch, levels, kind):
    state, forward = zoo_layout(levels)
    content = state
    if kind == "modules":  # as a newer PyTorch stores them
        content = {f"module.{k.rpartition('.')[0]}.module.{k.rpartition('.')[2]}": v for k, v in state.items()}
    if kind == "checkpoint":  # settings as an object of their own; the running average is what is wanted
        config = types.ModuleType("models.utils.config")
        config.BaseConfig = type("BaseConfig", (), {"__module__": "models.utils.config"})
        settings = config.BaseConfig()
        settings.noiseVectorDim = LATENT
        monkeypatch.setitem(sys.modules, "models", types.ModuleType("models"))
        monkeypatch.setitem(sys.modules, "models.utils", types.ModuleType("models.utils"))
        monkeypatch.setitem(sys.modules, "models.utils.config", config)
        raw = {key: torch.zeros_like(value) for key, value in state.items()}
        content = {"config": settings, "netG": raw, "netD": {"a.weight": torch.ones(1)}, "avgG": state}
    torch.save(content, tmp_path / "weights.pt", _use_new_zipfile_serialization=levels != 2)
    monkeypatch.undo()
    assert difference(tmp_path / "weights.pt", forward, levels) < 1e-5


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("levels", "protocol"), [(1, 4), (2, 2), (3, 5), (4, 3)])
def test_tensorflow_pickle(tmp_path, tfutil, levels, protocol, fused):
    variables, forward = tensorflow_layout(levels, fused)
    other = {name: 0 * value for name, value in variables.items()}
    three = (tfutil.Network(other), tfutil.Network({"4x4/Conv/weight": np.ones(3)}), tfutil.Network(variables))
    path = write_pickle(tmp_path / "weights.pkl", three, protocol)
    assert difference(path, forward, levels) < 1e-5


def test_one_network_in_other_number_formats(tmp_path, tfutil):
    variables, forward = tensorflow_layout(2)
    other = {
        name: np.asfortranarray(value.astype(">f8" if value.ndim == 4 else "<f4")) for name, value in variables.items()
    }
    path = write_pickle(tmp_path / "weights.pkl", tfutil.Network(other, normalize_latents=True, resolution=8))
    assert difference(path, forward, 2) < 1e-5


@pytest.mark.parametrize("layout", ["features", "zoo", "tensorflow"])
def test_import(tmp_path, tfutil, capsys, layout):
    if layout == "tensorflow":
        variables, forward = tensorflow_layout(3)
        source = write_pickle(tmp_path / "source", tfutil.Network(variables))
    else:
        state, forward = {"features": features_layout, "zoo": zoo_layout}[layout](3)
        torch.save(state, source := tmp_path / "source")
    assert main(["import-prior", str(source), "--out", str(tmp_path / "prior.safetensors")]) == 0
    printed = capsys.readouterr().out
    assert "PGGAN (resolution 16, channels [24, 20, 16], latent 7" in printed
    assert "latents (7,), normal; images (3, 16, 16)" in printed
    assert difference(tmp_path / "prior.safetensors", forward, 3) < 1e-5


# The network ---------------------------------------------------------------------------------------------------


def test_the_published_network():
    with torch.device("meta"):
        G = PGGAN(resolution=1024)
    assert G.channels == [512, 512, 512, 512, 256, 128, 64, 32, 16]
    assert G.latent_shape == (512,)
    assert G.image_shape == (3, 1024, 1024)
    # Convolutions of the table in the publication, a bias per channel and one scale for each of 19 layers.
    widths = [512, 512, 512, 512, 256, 128, 64, 32, 16]
    pairs = list(zip([512, *widths[:-1]], widths, strict=True))
    weights = 512 * 512 * 16 + 512 * 512 * 9 + sum(9 * (a * b + b * b) for a, b in pairs[1:]) + 3 * 16
    assert sum(p.numel() for p in G.parameters()) == weights + 2 * sum(widths) + 3 + 19
    assert len(G.features) == 18
    assert G(torch.empty(2, 512, device="meta")).shape == (2, 3, 1024, 1024)


def test_fresh_weights_give_images_of_a_sensible_size():
    torch.manual_seed(0)
    G = PGGAN(32, latent=64, channels=(64, 32, 16, 16))
    with torch.no_grad():
        assert 0.3 < G(G.sample_latent(8, seed=0)).std() < 3


def test_latents_are_normal_and_their_length_does_not_matter(grown):
    assert grown.sample_latent(2000, seed=0).std().item() == pytest.approx(1, rel=0.05)
    z = grown.sample_latent(2, seed=0)
    with torch.no_grad():
        assert torch.allclose(grown(z), grown(7 * z), atol=1e-5)
        assert torch.allclose(grown(z)[:1], grown(z[:1]), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
def test_checkpointing_keeps_less_and_changes_nothing(batch):
    """Also with weights that are not the module's own, which it no longer holds when features are computed again."""
    G = random_network().double()
    z, kept, gradients = G.sample_latent(batch, seed=0).double(), [], []
    stacks = {name: torch.stack([p.detach() * (1.1 + i) for i in range(batch)]) for name, p in G.named_parameters()}
    for G.checkpointing in (False, True):
        variables = [z.clone().requires_grad_(), *(w.clone().requires_grad_() for w in stacks.values())]
        storages = {}

        def note(tensor, storages=storages):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            images = call_stacked(G, dict(zip(stacks, variables[1:], strict=True)), variables[0])
        kept.append(sum(storages.values()))
        gradients.append(torch.autograd.grad(images.square().sum(), variables))
    assert kept[1] < 0.7 * kept[0]
    for plain, again in zip(*gradients, strict=True):
        assert torch.allclose(plain, again)


def test_round_trip(tmp_path):
    for positional in (False, True):
        G = PGGAN(16, WIDTHS[:3], LATENT, positional)
        save_generator(G, tmp_path / "prior.safetensors")
        again = load_generator(tmp_path / "prior.safetensors")
        assert isinstance(again, PGGAN)
        assert again.architecture() == G.architecture()
        z = G.sample_latent(1)
        with torch.no_grad():
            assert torch.equal(again(z), G(z))


# Reconstruction ------------------------------------------------------------------------------------------------


def settings_of(module, noise_std, operator):
    return {fit.name: fit.settings for fit in module.plan(noise_std, operator)}


def test_the_paper_preset_follows_the_generator(grown, tiny):
    sr, cs = BicubicDownsampling((3, 16, 16), scale=4), FourierSensing((3, 16, 16), ratio=0.3)
    for operator, noise_std, steps in ((sr, 0.0, 300), (sr, 0.1, 150), (cs, 0.0, 500), (cs, 0.1, 250)):
        stages = settings_of(IAGAN(grown, preset="paper"), noise_std, operator)
        assert (stages["latent"].steps, stages["latent"].lr) == (1800, 0.1)
        assert (stages["joint"].steps, stages["joint"].lr, stages["joint"].lr_weights) == (steps, 1e-4, 1e-3)
    stages = settings_of(IAGAN(tiny, preset="paper"), 0.0, sr)
    assert (stages["latent"].steps, stages["joint"].steps, stages["joint"].lr_weights) == (1600, 500, 1e-4)
    assert settings_of(IAGAN(grown), 0.0, sr)["joint"].lr_weights == 1e-3
    assert settings_of(IAGAN(tiny), 0.0, sr)["joint"].lr_weights == 1e-4


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_reconstruction(grown, preset, batch):
    A = BicubicDownsampling((3, 16, 16), scale=2)
    with torch.no_grad():
        truth = grown(grown.sample_latent(batch, seed=9))
    y = A(truth + 0.05)
    result = reconstruct(y, A, grown, preset=preset, latent=Stage(steps=60), joint=Stage(steps=40), accelerator="cpu")
    start = (y**2).mean((1, 2, 3))
    assert (result.objective["latent"] < 0.5 * start).all()
    assert (result.objective["joint"] < 0.8 * result.objective["latent"]).all()
    assert torch.allclose(A(result.iagan_bp), y, atol=1e-4)


def test_task_from_the_command_line(grown, tmp_path):
    save_generator(grown, tmp_path / "prior.safetensors")
    out = tmp_path / "out"
    arguments = ["--model.generator", tmp_path / "prior.safetensors", "--lpips", "none", "--out", out]
    steps = ["--model.preset", "paper", "--model.latent.steps", "3", "--model.joint.steps", "2"]
    assert main(["super-resolution", *map(str, arguments), *steps]) == 0
    assert "lr_weights: 0.001" in (out / "settings.json").read_text().replace('"', "")


# Bad input -----------------------------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return (print, ("executed",))


class Shell:
    def __reduce__(self):
        return (eval, ("print('executed')",))


def refused(capsys, path, *messages):
    """The file is refused in one line, from Python and from the command line, and nothing is executed."""
    with pytest.raises(WeightsError) as error:
        load_generator(path)
    assert main(["import-prior", str(path), "--out", str(path.with_suffix(".safetensors"))]) == 2
    captured = capsys.readouterr()
    assert "executed" not in captured.out
    assert captured.err.count("\n") == 1
    for message in (str(path), *messages):
        assert message in str(error.value)
        assert message in captured.err


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(("bomb", "name"), [(Bomb, "print"), (Shell, "eval")])
def test_a_pickle_that_builds_anything_else_is_refused_by_name(tmp_path, tfutil, capsys, bomb, name, protocol):
    variables, _ = tensorflow_layout(2)
    path = tmp_path / "bomb.pkl"
    write_pickle(path, (tfutil.Network(variables), tfutil.Network({**variables, "8x8/Conv1/weight": bomb()})), protocol)
    module = "__builtin__" if protocol == 2 else "builtins"
    refused(capsys, path, f"wants to build {module}.{name}, which is refused")


def test_other_objects_in_pickles(tmp_path, tfutil, capsys):
    variables, _ = tensorflow_layout(2)
    objects = {**variables, "8x8/Conv1/weight": np.array([Bomb()], dtype=object)}
    for content, *messages in (
        (tfutil.Network(objects), "an array of type O8"),
        (tfutil.Network({**variables, "8x8/Conv1/weight": np.array(["a"])}), "an array of type U1"),
        (tfutil.Network({**variables, "8x8/Conv1/weight": "a"}), "no pairs of a name and an array"),
        ((1, 2), "holds a tuple without a network"),
        (torch.zeros(2), "holds a Tensor without a network"),
        (tfutil.Network(variables, use_pixelnorm=False), "use_pixelnorm False"),
        (tfutil.Network({"a": np.ones(2)}), "another network"),
    ):
        sys.modules["tfutil"] = tfutil
        refused(capsys, write_pickle(tmp_path / "other.pkl", content), *messages)


def test_a_pickle_cannot_ask_for_memory(tmp_path):
    path = tmp_path / "huge.pkl"  # numpy.ndarray((10**12,))
    path.write_bytes(b"\x80\x02cnumpy\nndarray\n(\x8a\x06\x00\x10\xa5\xd4\xe8\x00\x85tR.")
    with pytest.raises(WeightsError, match="damaged"):
        load_generator(path)


class Again:
    """An array of the very bytes that others are made of, as a pickle names them: a few bytes each."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        read = np.zeros(1).__reduce_ex__(5)[0]
        return read, (self.content, np.dtype("f2"), (len(self.content) // 2,), "C")


class Encoded:
    """Bytes of the very text that others are made of."""

    def __init__(self, text):
        self.text = text

    def __reduce__(self):
        return codecs.encode, (self.text, "latin1")


@pytest.mark.parametrize(
    ("shared", "message"),
    [
        (lambda: [np.zeros(500, np.float16)] * 50, "holds one array (500,) under several names"),
        (lambda: map(Again, [bytes(20_000)] * 50), "asks for more numbers than it holds"),
        (lambda: map(Encoded, ["a" * 20_000] * 50), "asks for more numbers than it holds"),
    ],
)
def test_few_bytes_do_not_become_many_arrays(tmp_path, tfutil, capsys, shared, message):
    variables, _ = tensorflow_layout(2)
    content = tfutil.Network({**variables, **{f"more{i}": array for i, array in enumerate(shared())}})
    refused(capsys, write_pickle(tmp_path / "shared.pkl", content), message)


@pytest.mark.parametrize("layout", ["features", "zoo"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.99])
def test_truncated_checkpoints(tmp_path, capsys, layout, part):
    state, _ = {"features": features_layout, "zoo": zoo_layout}[layout](3)
    torch.save(state, path := tmp_path / "weights.pth")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    refused(capsys, path, "damaged")


@pytest.mark.parametrize("part", [0.01, 0.5, 0.999])
def test_truncated_pickles(tmp_path, tfutil, capsys, part):
    path = write_pickle(tmp_path / "weights.pkl", tfutil.Network(tensorflow_layout(3)[0]))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    refused(capsys, path, "damaged")


@pytest.mark.parametrize(
    ("layout", "key"),
    [
        ("features", "features.2.conv.weight"),
        ("features", "features.3.wscale.b"),
        ("zoo", "groupScale0.0.bias"),
        ("zoo", "scaleLayers.1.0.weight"),
        ("tensorflow", "8x8/Conv0_up/weight"),
        ("tensorflow", "ToRGB_lod0/bias"),
    ],
)
def test_missing_tensors_are_named(tmp_path, tfutil, capsys, layout, key):
    state, _ = {"features": features_layout, "zoo": zoo_layout, "tensorflow": tensorflow_layout}[layout](3)
    del state[key]
    if layout == "tensorflow":
        path = write_pickle(tmp_path / "weights.pkl", tfutil.Network(state))
        key = key.replace("Conv0_up", "Conv0")
    else:
        torch.save(state, path := tmp_path / "weights.pth")
    refused(capsys, path, "does not fit PGGAN", f"missing {key}")


def test_shapes_that_do_not_fit(tmp_path, capsys):
    state, _ = zoo_layout(2)
    state["formatLayer.weight"] = torch.ones(17, LATENT)
    torch.save(state, tmp_path / "a.pth")
    refused(capsys, tmp_path / "a.pth", "does not fit PGGAN", "shape")
    state, _ = features_layout(2)
    torch.save({**state, "features.99999999.conv.weight": torch.ones(1)}, tmp_path / "b.pth")
    refused(capsys, tmp_path / "b.pth", "100000000 layers")
    torch.save({**state, "features.2.conv.weight": torch.ones(20, 24, 5, 5)}, tmp_path / "c.pth")
    refused(capsys, tmp_path / "c.pth", "features.2.conv.weight has shape (20, 24, 5, 5) instead of (20, 24, 3, 3)")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resolution": 48}, "resolution of a PGGAN is 4, 8, 16 ... 1024; 48 was given"),
        ({"resolution": 2048}, "2048 was given"),
        ({"resolution": 0}, "0 was given"),
        ({"resolution": -4}, "-4 was given"),
        ({"resolution": 16, "channels": (4, 4)}, "16 pixels take 3 numbers of channels; 2 were given"),
        ({"resolution": 8, "channels": (4, 0)}, "at least 1"),
        ({"resolution": 8, "latent": 0}, "at least 1"),
    ],
)
def test_impossible_networks(tmp_path, capsys, arguments, message):
    with pytest.raises(ValueError, match="given") as error:
        PGGAN(**arguments)
    assert message in str(error.value)
    config = tmp_path / "config.yaml"
    lines = "".join(f"      {k}: {list(v) if isinstance(v, tuple) else v}\n" for k, v in arguments.items())
    config.write_text(
        "model:\n  generator:\n    class_path: iagan_lightning.generators.PGGAN\n    init_args:\n" + lines
    )
    assert main(["super-resolution", "--config", str(config), "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr().err
    assert message in captured
    assert captured.count("\n") == 1


def test_pictures_and_weights_of_another_resolution(tmp_path, capsys, grown):
    save_generator(grown, weights := tmp_path / "prior.safetensors")
    common = ["super-resolution", "--lpips", "none", "--out", str(tmp_path / "out")]
    assert main([*common, "--model.generator", str(weights), "--data.size", "32"]) == 2
    assert "data.size 32 is not the generator's 16 x 16" in capsys.readouterr().err
    config = tmp_path / "config.yaml"
    config.write_text(
        "model:\n  generator:\n    class_path: iagan_lightning.generators.PGGAN\n"
        f"    init_args: {{resolution: 32, channels: [24, 20, 16, 12], latent: 7}}\n    weights: {weights}\n"
    )
    assert main([*common, "--config", str(config)]) == 2
    captured = capsys.readouterr().err
    assert "does not fit PGGAN: missing features.6.conv.weight" in captured
    assert captured.count("\n") == 1


def test_hidden_layers_of_full_resolution(grown):
    kinds = ("conv.weight", "wscale.scale", "wscale.b")
    names = {f"features.{n}.{kind}" for n in (4, 5) for kind in kinds}
    assert full_resolution_weights(grown) == names
