"""Weights from elsewhere: which of a file's networks is taken, numbers of other kinds, and files made to be awkward."""

import json
import pickle
import random
import struct
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from iagan_lightning.cli import main
from iagan_lightning.generators import BEGAN, PGGAN, MobileStyleGAN, Pyramid, WeightsError, load_generator
from iagan_lightning.training import BEGANTraining, VAEGANTraining

SMALL = {
    "began": lambda: BEGAN(16, 2, 3),
    "pggan": lambda: PGGAN(8, (4, 3), 2),
    "pyramid": lambda: Pyramid([3, 2], latent=2, start=1),
    "mobile": lambda: MobileStyleGAN((8, 4), latent=3, mapping=2),
}


def state_of(kind="began", seed=0):
    torch.manual_seed(seed)
    return SMALL[kind]().state_dict()


def renamed(state, rename):
    return {rename(key): value for key, value in state.items()}


def loaded(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    return load_generator(tmp_path / "weights.pth")


def same(generator, state):
    ours = generator.state_dict()
    return ours.keys() == state.keys() and all(torch.equal(ours[key], value) for key, value in state.items())


# Which network ---------------------------------------------------------------------------------------------------

AVERAGES = ("g_ema", "ema", "G_ema", "generator_ema", "params_ema", "generatorEMA", "averaged", "avgG", "g_running",
            "Gs", "state_dict_ema", "ema_model", "shadow")  # fmt: skip


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("name", AVERAGES)
def test_averaged_weights_are_taken_where_they_are(tmp_path, kind, name):
    raw, averaged, others = state_of(kind, 1), state_of(kind, 2), state_of(kind, 3)
    for first, second in ((("generator", raw), (name, averaged)), ((name, averaged), ("generator", raw))):
        content = dict([first, second]) | {"discriminator": others, "D": others, "step": 3, "optimizer": {"state": {}}}
        G = loaded(tmp_path, content)
        assert same(G, averaged)
        assert G.weights == f"{name}, averaged"


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (lambda raw, avg: {"state_dict": renamed(raw, "generator.{}".format) | renamed(avg, "ema.{}".format)},
         "state_dict.ema"),
        (lambda raw, avg: {"state_dict": renamed(raw, "_orig_mod.generator.{}".format)
                           | renamed(avg, "generator_ema._orig_mod.{}".format)}, "state_dict.generator_ema"),
        (lambda raw, avg: {"ema": {"generator": renamed(avg, "module.{}".format), "discriminator": raw},
                           "generator": renamed(raw, "module.{}".format)}, "ema.generator"),
        # ema-pytorch, Lightning's WeightAveraging, torch_ema and LDM's LitEma
        (lambda raw, avg: {"ema": renamed(raw, "online_model.{}".format) | renamed(avg, "ema_model.{}".format)
                           | {"initted": torch.tensor(True), "step": torch.tensor(7)}, "model": raw}, "ema.ema_model"),
        (lambda raw, avg: {"state_dict": renamed(avg, "generator.{}".format), "current_model_state":
                           renamed(raw, "generator.{}".format), "averaging_state": {}}, "state_dict.generator"),
        (lambda raw, avg: {"model": raw, "ema": {"decay": 0.99, "shadow_params": list(avg.values())}},
         "ema.shadow_params"),
        (lambda raw, avg: {"state_dict": renamed(raw, "net.{}".format) | {"net_ema.decay": torch.tensor(0.9)}
                           | renamed(avg, lambda key: f"net_ema.{key.replace('.', '')}")}, "state_dict.net_ema"),
    ],
)  # fmt: skip
def test_averages_of_other_tools(tmp_path, content, where):
    raw, averaged = state_of(seed=1), state_of(seed=2)
    G = loaded(tmp_path, content(raw, averaged))
    assert same(G, averaged)
    assert G.weights.startswith(f"{where}, ")


def listed(state):
    return list(state.values())


def undotted(state):
    return renamed(state, lambda key: key.replace(".", ""))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("generator", lambda kept: {"optimizer": {"exp_avg": kept, "exp_avg_sq": kept}}),
        ("generator", lambda kept: {"opt": {"exp_avg": kept}}),
        ("netG", lambda kept: {"optG": {"exp_avg": kept}}),
        ("netG", lambda kept: {"exp_avg": kept}),
        ("netG", lambda kept: {"square_avg": kept, "grad_avg": kept}),
        ("netG", lambda kept: {"adam": {"averaged": kept}}),
        ("generator", lambda kept: {"disc_avg": {"w": kept}}),
        ("generator", lambda kept: {"discriminator_ema": kept}),
    ],
)
@pytest.mark.parametrize("stored", [listed, undotted, dict])
def test_what_optimisers_average_is_no_averaged_generator(tmp_path, name, content, stored):
    raw = state_of(seed=1)
    moments = {key: torch.full_like(value, 1e-3) for key, value in raw.items()}
    for kept in (content(stored(moments)) | {name: raw}, {name: raw} | content(stored(moments))):
        G = loaded(tmp_path, kept)
        assert same(G, raw)
        assert G.weights == f"{name}, not averaged"


def test_prefixes_of_wrapped_modules(tmp_path):
    """The wrappers themselves make the names; one of PyTorch's averages counts as averaged."""
    G = SMALL["pyramid"]()
    compiled, parallel, both = torch.compile(G), nn.DataParallel(G), nn.DataParallel(torch.compile(G))
    parts = Pyramid([3, 2], latent=2, start=1)
    parts.load_state_dict(G.state_dict())
    parts.blocks[0] = torch.compile(parts.blocks[0])
    for module in (compiled, parallel, both, parts):
        names = module.state_dict()
        assert names.keys() != G.state_dict().keys()
        again = loaded(tmp_path, names)
        assert same(again, G.state_dict())
        assert again.weights == "the whole file, not averaged"
    average = AveragedModel(G)
    assert loaded(tmp_path, average.state_dict()).weights == "the whole file, averaged"
    raw = state_of("pyramid", 9)
    content = renamed(raw, "net.{}".format) | renamed(average.state_dict(), "kept.{}".format)
    assert same(loaded(tmp_path, content), G.state_dict())


class Holder(nn.Module):
    """A network whose own part is called as a wrapper is."""

    def __init__(self):
        super().__init__()
        self.module, self.norm = nn.Linear(3, 3 * 8 * 8), nn.BatchNorm2d(3)

    def forward(self, z):
        return torch.tanh(self.norm(self.module(z).view(-1, 3, 8, 8)))


@pytest.mark.parametrize("wrapped", ["{}", "module.{}", "generator._orig_mod.{}"])
def test_networks_of_ones_own_are_found_by_their_names(tmp_path, wrapped):
    torch.manual_seed(0)
    network, raw = Holder(), Holder()
    network.norm.num_batches_tracked += 5
    content = {"G_ema": renamed(network.state_dict(), wrapped.format), "G": raw.state_dict(), "D": raw.state_dict()}
    torch.save(content, tmp_path / "own.pth")
    G = load_generator({"class_path": f"{__name__}.Holder", "latent_shape": [3], "weights": str(tmp_path / "own.pth")})
    assert same(G.module, network.state_dict())


def test_networks_that_could_both_be_meant(tmp_path):
    content = {"netG_A": state_of(seed=1), "netG_B": state_of(seed=2)}
    with pytest.raises(
        WeightsError, match=r"weights\.pth holds several networks .* \(netG_A, netG_B\): store the right"
    ):
        loaded(tmp_path, content)
    assert same(loaded(tmp_path, {"netG_A": state_of(seed=1), "copy": state_of(seed=1)}), state_of(seed=1))
    with pytest.raises(WeightsError, match="another network"):
        loaded(tmp_path, {"discriminator": state_of()})


@pytest.mark.parametrize("training", ["BEGANTraining", "began", "pyramid"])
def test_checkpoints_of_our_own_trainings(tmp_path, capsys, training):
    """Of two training steps, with the codes of a VAE-GAN folded into the layers that z enters."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    words = ["train-prior", "--data.root", folder, "--out", tmp_path / "out", "--steps", "2", "--data.batch_size", "2",
             "--trainer.accelerator", "cpu"]  # fmt: skip
    settings = ["resolution", 32, "channels", 4, "latent", 3]
    if training != "BEGANTraining":
        words += ["--model", "VAEGANTraining"]
        settings += ["architecture", training, "perceptual", 0, "adversarial", 0]
    words += [f"--model.{word}" if i % 2 == 0 else word for i, word in enumerate(settings)]
    assert main([str(word) for word in words]) == 0
    last, out = tmp_path / "out" / "last.ckpt", tmp_path / "prior.safetensors"
    capsys.readouterr()
    assert main(["import-prior", str(last), "--out", str(out)]) == 0
    assert "weights: state_dict.averaged, averaged" in capsys.readouterr().out
    ours, theirs = load_generator(out), load_generator(tmp_path / "out" / "prior.safetensors")
    assert ours.architecture() == theirs.architecture()
    assert ours.latent_distribution == theirs.latent_distribution
    kind = BEGANTraining if training == "BEGANTraining" else VAEGANTraining
    module = kind.load_from_checkpoint(last)
    assert same(ours, module.prior().state_dict())
    for key, value in theirs.state_dict().items():  # stored in half precision
        assert torch.allclose(ours.state_dict()[key], value, rtol=1e-3, atol=1e-6)


def test_import_says_which_weights_it_took(tmp_path, capsys):
    torch.save({"generator": state_of(seed=1), "g_ema": state_of(seed=2)}, tmp_path / "both.pth")
    assert main(["import-prior", str(tmp_path / "both.pth"), "--out", str(tmp_path / "prior.safetensors")]) == 0
    assert "weights: g_ema, averaged\n" in capsys.readouterr().out
    assert same(load_generator(tmp_path / "prior.safetensors"), state_of(seed=2))
    with safe_open(tmp_path / "prior.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["iagan_lightning"])["training"]["weights"] == "g_ema, averaged"


# Numbers of other kinds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
)
@pytest.mark.parametrize("save", [torch.save, save_file])
def test_floating_point_numbers_of_any_size(tmp_path, dtype, save):
    state = {key: value.to(dtype) for key, value in state_of().items()}
    save(state, tmp_path / "weights")
    assert same(load_generator(tmp_path / "weights"), {key: value.float() for key, value in state.items()})


def changed(change, kind="began"):
    return {key: change(value) for key, value in state_of(kind).items()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(torch.Tensor.char), "l0.bias holds numbers of type int8 where floating-point ones are needed"),
        (changed(lambda value: value > 0), "numbers of type bool"),
        (changed(lambda value: value.to(torch.complex64)), "numbers of type complex64"),
        (changed(lambda value: value.double() * 1e300), "l0.bias holds values that are not finite"),
        (changed(lambda value: value.to("meta")), "holds no values, only a shape"),
        (changed(torch.Tensor.char, "pggan"), "numbers of type int8"),
        ({"formatLayer.weight": torch.ones(64, 3, dtype=torch.int8), "formatLayer.bias": torch.zeros(64)}, "type int8"),
        ({"formatLayer.weight": torch.ones(64, 3) * 1j, "formatLayer.bias": torch.zeros(64)}, "type complex64"),
    ],
)  # fmt: skip
def test_numbers_that_are_no_weights(tmp_path, content, message):
    with pytest.raises(WeightsError, match=message) as error:
        loaded(tmp_path, content)
    assert "\n" not in str(error.value)


def test_whole_numbers_of_a_pickle_are_no_weights(tmp_path, monkeypatch):
    network = type("Network", (), {"__module__": "tfutil", "__qualname__": "Network"})
    monkeypatch.setitem(sys.modules, "tfutil", type(sys)("tfutil"))
    sys.modules["tfutil"].Network = network
    holder = network()
    holder.variables = [("4x4/Dense/weight", np.ones((3, 64), np.int32)), ("4x4/Dense/bias", np.ones(4, np.float32))]
    (tmp_path / "network.pkl").write_bytes(pickle.dumps(holder))
    with pytest.raises(WeightsError, match="4x4/Dense/weight holds numbers of type int64"):
        load_generator(tmp_path / "network.pkl")


# Files made to be awkward -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"l400001.weight": torch.zeros(1)}, r"surplus l400001\.weight$"),
        ({f"l{'9' * 5000}.weight": torch.zeros(1)}, r"surplus l9{79}$"),
        ({f"surplus{i}": torch.zeros(1) for i in range(3000)}, "surplus surplus0, surplus1, surplus2 and 2997 more"),
        ({".".join("a" * 50_000): torch.zeros(1)}, "surplus a"),
        ({"a\x1b[2J\n": torch.zeros(1)}, r"surplus a\\x1b\[2J\\n$"),
    ],
)
def test_a_surplus_name_costs_nothing(tmp_path, extra, message):
    with pytest.raises(WeightsError, match=message):
        loaded(tmp_path, state_of() | extra)


def test_mappings_within_themselves(tmp_path):
    """A thousand names for one mapping, eight deep: 10^24 paths to what is one state dict."""
    content = {"generator": state_of()}
    for _ in range(8):
        content = {f"again{i}": content for i in range(1000)}
    content["itself"] = content
    with pytest.raises(WeightsError, match="not a state dict"):
        loaded(tmp_path, content)  # deeper than is looked
    shallow = {"generator": state_of()}
    shallow |= {f"again{i}": shallow for i in range(1000)}
    assert same(loaded(tmp_path, shallow), state_of())


ARGUMENTS = {
    "BEGAN": ("resolution", "channels", "latent", "skip", "latent_distribution", "depth"),
    "PGGAN": ("resolution", "channels", "latent", "positional_bias"),
    "Pyramid": ("widths", "latent", "start"),
    "MobileStyleGAN": ("channels", "latent", "mapping"),
}
VALUES = (-1, 4.0, 10**12, 8 << 4000, None, "4", [], [4.0], [10**12, 4], [8] * 20_000, [[4]], {}, float("nan"))


def test_any_header_is_refused_in_one_line(tmp_path):
    """Every argument with every value, in every architecture."""
    path = tmp_path / "weights.safetensors"
    save_file(state_of(), path)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    tensors, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    outcomes = set()
    for name, arguments in ARGUMENTS.items():
        for argument in arguments:
            for value in VALUES:
                description = json.dumps({"architecture": name, "arguments": {argument: value}})
                header = json.dumps({**tensors, "__metadata__": {"iagan_lightning": description}}).encode()
                path.write_bytes(struct.pack("<Q", len(header)) + header + data)
                outcomes.add(outcome(path))
    assert outcomes == {"refused"}
    for description in ("[" * 100_000, '"BEGAN"', "3", "[]", '{"architecture": ["BEGAN"]}', '{"architecture": "BEGAN"}',
                        '{"architecture": "BEGAN", "arguments": [1]}'):  # fmt: skip
        save_file(state_of(), path, metadata={"iagan_lightning": description})
        assert outcome(path) == "refused"


def outcome(path):
    """Return what becomes of a file; whatever is neither a network nor one line about the file fails the test."""
    try:
        load_generator(path)
    except WeightsError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
        assert len(str(error)) < 2000
        return "refused"
    return "loaded"


def layouts():
    """A small file of every layout that is known by its names."""
    zoo = {"formatLayer.weight": torch.ones(64, 3), "formatLayer.bias": torch.ones(64),
           "groupScale0.0.weight": torch.ones(4, 4, 3, 3), "groupScale0.0.bias": torch.ones(4),
           "toRGBLayers.0.weight": torch.ones(3, 4, 1, 1), "toRGBLayers.0.bias": torch.ones(3)}  # fmt: skip
    original = {"4x4/Dense/weight": torch.ones(3, 64), "4x4/Dense/bias": torch.ones(4),
                "4x4/Conv/weight": torch.ones(3, 3, 4, 4), "4x4/Conv/bias": torch.ones(4),
                "ToRGB_lod0/weight": torch.ones(1, 1, 4, 3), "ToRGB_lod0/bias": torch.ones(3)}  # fmt: skip
    return [*(state_of(kind) for kind in SMALL), zoo, original]


def awkward(state, draw):
    """Return a state dict with something changed: names, numbers in them, shapes, types, places."""
    state = dict(state)
    for _ in range(draw.randint(1, 3)):
        tensors = [key for key, value in state.items() if isinstance(value, torch.Tensor)]
        if not tensors:
            return state
        key, number = draw.choice(tensors), draw.choice([0, 1, 7, 10**6, 10**9, 10**40])
        value = state[key]
        match draw.randrange(9):
            case 0:
                del state[key]
            case 1:  # another number in the name
                name = "".join(str(number) if c.isdigit() and draw.random() < 0.5 else c for c in key)
                state[name] = state.pop(key)
            case 2:
                state[key] = value.reshape(-1)[: draw.randint(0, 3)].clone()
            case 3:
                state[key] = torch.zeros([draw.choice([0, 1, 2, 64]) for _ in range(draw.randint(0, 5))])
            case 4:
                state[key] = value.to(draw.choice([torch.int8, torch.bool, torch.complex64, torch.float8_e5m2]))
            case 5:
                state[key] = draw.choice(
                    [3, "text", None, [value], {"nested": value}, value[..., None].expand(*value.shape, 9)]
                )
            case 6:
                state[draw.choice(["module.", "g_ema.", "D.", "x" * 300, "\n", "."]) + key] = value
            case 7:
                state = {draw.choice(["state_dict", "generator", "ema", "", "d"]): state, **draw.choice([{}, state])}
            case 8:
                prefix = draw.choice(["module.", "_orig_mod.", "ema.", "encoder."])
                state = {prefix + name: value for name, value in state.items()}
    return state


def test_any_state_dict_loads_or_is_refused_in_one_line(tmp_path):
    draw, files, outcomes = random.Random(0), layouts(), []
    for case in range(300):
        content = awkward(files[case % len(files)], draw)
        torch.save(content, tmp_path / "weights.pth")
        outcomes.append(outcome(tmp_path / "weights.pth"))
    assert outcomes.count("refused") > 150
    assert outcomes.count("loaded") > 10
