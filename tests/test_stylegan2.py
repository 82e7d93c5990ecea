"""StyleGAN2: the network and its spaces, layouts of its weights, files that are refused, whole reconstructions."""

import argparse
import json
import pickle
import re
import struct

import numpy as np
import pytest
import torch
from searches import FromTheMean, Plus
from stylegan2_files import (
    LATENT,
    STYLE,
    WIDTHS,
    Persistent,
    Reference,
    foreign_modules,
    nvidia_module,
    random_tensors,
    rosinality_state,
    snapshot,
    storage_of,
    tensorflow_network,
    tensorflow_variables,
    write_pickle,
    write_tensorflow,
)

from iagan_lightning import IAGAN, ILO, Fit, FitSettings, Stage, reconstruct
from iagan_lightning.cli import main
from iagan_lightning.data.images import read_image
from iagan_lightning.generators import (
    StyleGAN2,
    WeightsError,
    full_resolution_weights,
    load_generator,
)
from iagan_lightning.methods.stacking import call_stacked
from iagan_lightning.operators import BicubicDownsampling


@pytest.fixture(scope="module")
def tensors():
    return random_tensors()


@pytest.fixture(scope="module")
def prior(tensors, tmp_path_factory):
    """A pickle of a network of 16 x 16 pixels."""
    return write_pickle(tmp_path_factory.mktemp("prior") / "prior.pkl", snapshot(nvidia_module(tensors)))


@pytest.fixture
def G(prior):
    return load_generator(prior)


def latents(n=3):
    return torch.randn(n, LATENT, generator=torch.Generator().manual_seed(5)) * torch.tensor([[0.1], [1.0], [4.0]])[:n]


def difference(images, theirs):
    """Largest difference, in standard deviations of the images."""
    assert images.shape == theirs.shape
    assert theirs.std(dim=0).mean() > 0.03  # images that differ
    return float((images - theirs).abs().max() / theirs.std())


# The layouts -----------------------------------------------------------------------------------------------------

VARIANTS = [("skip", 1), ("skip", 3), ("orig", 3), ("resnet", 3), ("skip", 4)]


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize(("variant", "levels"), VARIANTS)
def test_pickles_of_pytorch(tmp_path, variant, levels, protocol):
    tensors = random_tensors(variant, levels)
    path = write_pickle(tmp_path / "any.name", snapshot(nvidia_module(tensors)), protocol)
    G = load_generator(path)
    assert (G.variant, G.resolution, tuple(G.channels)) == (
        variant if levels > 1 else "skip", 4 << (levels - 1), WIDTHS[:levels]
    )  # fmt: skip
    with torch.no_grad():
        assert difference(G(latents()), Reference(tensors).image(latents())) < 1e-4
        G.adjust(noise="dropped")
        assert difference(G(latents()), Reference(tensors).image(latents(), noise=False)) < 1e-4


@pytest.mark.parametrize(("variant", "levels"), VARIANTS)
def test_pickles_of_tensorflow(tmp_path, variant, levels):
    tensors = random_tensors(variant, levels)
    settings = {"resolution": 4 << (levels - 1), "architecture": variant, "resample_kernel": [1, 3, 3, 1]}
    G = load_generator(write_tensorflow(tmp_path / "ffhq.pkl", tensors, **settings))
    with torch.no_grad():
        assert difference(G(latents()), Reference(tensors).image(latents())) < 1e-4


@pytest.mark.parametrize("kind", ["converted", "training", "old", "alone", "without noises"])
@pytest.mark.parametrize("levels", [1, 3])
def test_files_of_rosinality(tmp_path, levels, kind):
    tensors = random_tensors(levels=levels)
    state = rosinality_state(tensors, noises=kind != "without noises")
    content = {"g_ema": state, "latent_avg": torch.zeros(STYLE)}
    if kind == "training":
        zeros = {name: 0 * value for name, value in state.items()}
        arguments = argparse.Namespace(path="x", batch=16, channel_multiplier=2)
        content = {"g": zeros, "d": zeros, "g_ema": state, "g_optim": {"state": {}}, "args": arguments}
        content |= {"ada_aug_p": 0.3}
    content = state if kind == "alone" else content
    torch.save(content, tmp_path / "550000.pt", _use_new_zipfile_serialization=kind != "old")
    G = load_generator(tmp_path / "550000.pt")
    assert G.noise == ("dropped" if kind == "without noises" else "kept")
    with torch.no_grad():
        theirs = Reference(tensors).image(latents(), noise=kind != "without noises")
        assert difference(G(latents()), theirs) < 1e-4


def test_what_layers_say_of_themselves_counts_not_what_is_usual(tmp_path):
    """Clamps that bite, another learning rate of the mapping, no noise, frozen layers, grey images, channels last."""
    tensors = random_tensors("resnet", noise=False, channels=1)
    for name in ("synthesis.b8.conv0.weight", "synthesis.b16.conv1.weight"):
        tensors[name] = tensors[name].contiguous(memory_format=torch.channels_last)
    options = {"z_dim": LATENT, "mapping_kwargs": {"num_layers": 3}, "synthesis_kwargs": {"conv_clamp": 256}}
    module = nvidia_module(tensors, options, clamp=0.6, rate=0.02, frozen="synthesis.b4")
    G = load_generator(write_pickle(tmp_path / "a.pkl", module))
    assert (G.clamp, G.noise, G.image_shape) == (0.6, "dropped", (1, 16, 16))
    theirs = Reference(tensors, clamp=0.6, rate=0.02).image(latents())
    assert difference(Reference(tensors, rate=0.02).image(latents()), theirs) > 0.1
    with torch.no_grad():
        assert difference(G(latents()), theirs) < 1e-4


@pytest.mark.parametrize("layout", ["pytorch", "tensorflow"])
def test_classes(tmp_path, capsys, layout):
    tensors = random_tensors(classes=4)
    path = tmp_path / "cifar10.pkl"
    if layout == "pytorch":
        write_pickle(path, snapshot(nvidia_module(tensors, {"c_dim": 4})))
    else:
        write_tensorflow(path, tensors, label_size=4)
    reference, out = Reference(tensors), tmp_path / "prior.safetensors"
    with torch.no_grad():
        for label in (0, 3):
            G = load_generator({"weights": path, "label": label})
            theirs = reference.image(latents(), label)
            assert difference(G(latents()), theirs) < 1e-4
            v = G(torch.randn(20_000, LATENT, generator=torch.Generator().manual_seed(8)), to="w")
            assert v.mean(0).abs().max() < 0.05  # of this class
        assert difference(reference.image(latents(), 0), theirs) > 0.1
        assert main(["import-prior", str(path), "--out", str(out), "--settings", "{label: 3, framing: ffhq}"]) == 0
        assert "label 3" in capsys.readouterr().out
        G = load_generator(out)
        assert (G.label, G.framing) == (3, "ffhq")
        assert difference(G(latents()), theirs) < 1e-4
        G = load_generator({"weights": str(out), "label": 0, "noise": "dropped"})
        assert difference(G(latents()), reference.image(latents(), 0, noise=False)) < 1e-4
    for given, message in (
        (str(path), "network of 4 classes: say which one, label 0 to 3"),
        ({"weights": path, "label": 4}, "label is a number from 0 to 3; 4 was given"),
        ({"weights": path, "label": True}, "label is a number from 0 to 3; True was given"),
        ({"weights": path, "label": 1, "truncation": 0.7}, "has the settings label, noise, framing; truncation was"),
        (
            {"weights": path, "label": 1, "noise": "random"},
            "noise is one of kept, dropped, optimised; 'random' was given",
        ),
    ):
        with pytest.raises(WeightsError, match=re.escape(message)) as error:
            load_generator(given)
        assert str(path) in str(error.value)


def test_import_prior_says_what_it_found(prior, G, tmp_path, capsys):
    out = tmp_path / "prior.safetensors"
    assert main(["import-prior", str(prior), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "StyleGAN2 (resolution 16, channels [12, 10, 8], latent 7, mapping [9, 9, 9], variant skip" in printed
    assert "latents (7,), normal; images (3, 16, 16)" in printed
    again = load_generator(out)
    assert again.architecture() == G.architecture()
    with torch.no_grad():
        for to in (*list(G.spaces)[1:], "image"):
            assert torch.equal(again(latents(), to=to), G(latents(), to=to))


def test_a_class_path_with_a_pickle_as_weights(prior, tensors):
    sizes = {"resolution": 16, "channels": list(WIDTHS[:3]), "latent": LATENT, "mapping": [STYLE] * 3}
    G = load_generator({"class_path": "iagan_lightning.generators.StyleGAN2", "init_args": sizes, "weights": prior})
    with torch.no_grad():
        assert difference(G(latents()), Reference(tensors).image(latents())) < 1e-4
        assert difference(G(G(latents(), to="w"), space="w"), G(latents())) < 1e-4
        v = torch.zeros(1, STYLE)
        assert torch.allclose(G(v, space="w"), load_generator(prior)(v, space="w"), atol=1e-5)  # w is whitened


def test_settings_need_weights_that_can_be_found():
    for given, message in (
        ({"weights": 3, "label": 1}, "weights is the name of a prior or a file; 3 was given"),
        ({"weights": "nowhere.pkl", "label": 1}, "no generator weights at nowhere.pkl"),
        ({"weights": "began64", "label": 1}, "BEGAN has the settings framing; label was given"),
        ({"weights": "began64", "framing": "loose"}, "framing is one of tight, ffhq; 'loose' was given"),
    ):
        with pytest.raises(ValueError, match=message):
            load_generator(given)
    assert load_generator({"weights": "began64", "framing": "ffhq"}).framing == "ffhq"


# Against the original code ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fixtures(shared):
    folder = shared / "fixtures"
    if not folder.is_dir():
        pytest.skip("needs reference images, which are no part of the package")
    return folder


def check_against(G, reference):
    z, plus = torch.from_numpy(reference["z"]), torch.from_numpy(reference["wplus"])
    with torch.no_grad():
        for noise, name in (("kept", "const"), ("dropped", "none")):
            G.adjust(noise=noise)
            assert difference(G(z), torch.from_numpy(reference[f"img_{name}"])) < 1e-4
            images = G(G.whitening.whiten(plus), space="w+")
            assert difference(images, torch.from_numpy(reference[f"img_wplus_{name}"])) < 1e-4


def test_images_of_nvidias_code(fixtures, tmp_path):
    stored = np.load(fixtures / "nvidia_a_state.npz")
    tensors = {name: torch.from_numpy(stored[name]) for name in stored.files if not name.startswith("__")}
    options = json.loads(str(stored["__init_kwargs_json__"]))
    write_pickle(tmp_path / "a.pkl", snapshot(nvidia_module(tensors, options)))
    check_against(load_generator(tmp_path / "a.pkl"), np.load(fixtures / "nvidia_a_ref.npz"))


def test_images_of_rosinalitys_code(fixtures):
    G = load_generator(fixtures / "rosinality_32_narrow.pt")
    check_against(G, np.load(fixtures / "rosinality_32_narrow_ref.npz"))


# Files that are refused ------------------------------------------------------------------------------------------


def refused(capsys, path, *messages):
    """The file is refused in one line, from Python and from the command line."""
    with pytest.raises(WeightsError) as error:
        load_generator(path)
    assert main(["import-prior", str(path), "--out", str(path.with_suffix(".safetensors"))]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    for message in (str(path), *messages):
        assert message in str(error.value)
        assert message in printed


class Canary:
    """Makes a file on being unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


WAYS = (
    "open({!r}, 'w').close()",
    "import os\nos.system('touch {}')",
    "from pathlib import Path as P\nclass Generator:\n    done = P({!r}).touch()",
    "def f(x=__import__('os').mkdir({!r})): pass",
    "def f():\n    open({!r}, 'w').close()\n(lambda: f())()",
)
HARMLESS = (
    "import os, sys\nsys.path.append(os.path.join('a', 'b'))\nclass Generator:\n    def save(self):\n        open('a')",
    "import torch\n@torch.no_grad()\ndef f(x): return '\\d'",
    "print 'of Python 2'",
)


@pytest.mark.parametrize("source", HARMLESS)
def test_a_source_of_other_kinds_is_text(tensors, tmp_path, source):
    path = write_pickle(tmp_path / "fork.pkl", nvidia_module(tensors, source=source))
    assert load_generator(path).resolution == 16


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layout", ["pytorch", "tensorflow"])
def test_a_source_that_writes_a_file_is_refused_and_nothing_runs(tensors, tmp_path, capsys, way, layout):
    canary, path = tmp_path / "canary", tmp_path / "hostile.pkl"
    source = way.format(str(canary))
    if layout == "pytorch":
        write_pickle(path, snapshot(nvidia_module(tensors, source=source)))
    else:
        with foreign_modules():
            path.write_bytes(pickle.dumps(tensorflow_network(tensorflow_variables(tensors), source)))
    refused(capsys, path, "holds source code that calls", "nothing of it was run")
    assert not canary.exists()
    exec(source, {})  # which is what the original does
    assert canary.exists()


def test_a_storage_that_is_a_pickle_with_code_is_refused_by_name(tensors, tmp_path, capsys):
    canary = tmp_path / "canary"
    torch.save(Canary(canary), tmp_path / "archive")
    torch.save(Canary(canary), tmp_path / "old", _use_new_zipfile_serialization=False)
    for data, message in (
        (pickle.dumps(Canary(canary)), "holds a storage that wants to build io.open, which is refused"),
        ((tmp_path / "old").read_bytes(), "holds a storage that wants to build io.open, which is refused"),
        ((tmp_path / "archive").read_bytes(), "holds a storage that is none of PyTorch's plain ones"),
        (b"numbers", "holds a damaged storage"),
    ):
        for place in ("D", "G_ema"):
            whole = snapshot(nvidia_module(tensors))
            whole[place].state["_parameters"]["forged"] = storage_of(data)
            refused(capsys, write_pickle(tmp_path / "hostile.pkl", whole), message)
            assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary))).close()  # noqa: S301 - which is what the original does
    assert canary.exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_an_unknown_global_is_refused_by_name(tensors, tmp_path, capsys, protocol):
    canary = tmp_path / "canary"
    for place in ("augment_pipe", "G_ema"):
        module = nvidia_module(tensors)
        module.state["activation"] = Canary(canary)
        path = write_pickle(tmp_path / "hostile.pkl", snapshot(nvidia_module(tensors), {place: module}), protocol)
        refused(capsys, path, "wants to build io.open, which is refused")
        assert not canary.exists()


def change(name, value):
    """Change one tensor; None takes it away."""

    def apply(tensors):
        left = {key: kept for key, kept in tensors.items() if key != name}
        return nvidia_module(left if value is None else {**left, name: value})

    return apply


def say(name, **said):
    """Let a module say something else of itself."""

    def apply(tensors):
        root = module = nvidia_module(tensors)
        for part in name.split(".") if name else ():
            module = module.state["_modules"][part]
        module.state.update(said)
        return root

    return apply


def own(make):
    return lambda tensors: make(nvidia_module(tensors))


DAMAGES = {
    "missing": (change("synthesis.b8.conv1.weight", None), "missing synthesis.b8.conv1.weight"),
    "noise missing": (
        lambda t: say("synthesis.b8.conv1", use_noise=True)(
            {k: v for k, v in t.items() if not k.startswith("synthesis.b8.conv1.noise")}
        ),
        "missing synthesis.b8.conv1.noise_strength",
    ),
    "surplus": (change("synthesis.b8.conv1.extra", torch.zeros(2)), "surplus synthesis.b8.conv1.extra"),
    "control characters": (change("synthesis.b8.conv1.ex\ntra", torch.zeros(2)), "surplus synthesis.b8.conv1.ex\\ntra"),
    "vast mapping": (
        lambda t: nvidia_module(t | {f"mapping.fc{i}.weight": torch.full((9, 9), 1e38) for i in (1, 2)}),
        "numbers that are too large",
    ),
    "other size": (say("", _init_kwargs={"z_dim": 5}), "made with z_dim 5 whose tensors are those of 7"),
    "classes without embedding": (say("", _init_kwargs={"c_dim": 3}), "made with c_dim 3"),
    "modules no dictionary": (say("synthesis.b8", _modules=[1]), "whose _modules are a list"),
    "module no module": (say("synthesis.b8", _modules={"conv1": 1}), "in place of the module synthesis.b8.conv1"),
    "tensor no tensor": (say("synthesis.b8.conv1", _buffers={"noise_const": 1}), "holds a int in place of the tensor"),
    "misshapen": (change("synthesis.b8.conv1.weight", torch.zeros(10, 10, 5, 5)), "blocks.1.conv1.weight has shape"),
    "not finite": (change("synthesis.b8.conv1.bias", torch.full((10,), torch.nan)), "not finite"),
    "other filter": (change("synthesis.b8.resample_filter", torch.ones(4, 4) / 16), "another filter than [1, 3, 3, 1]"),
    "gap": (
        lambda t: nvidia_module({k: v for k, v in t.items() if "b8" not in k}),
        "its blocks would be of 4, 8, 16 ... pixels, and are of [4, 16]",
    ),
    "other activation": (say("synthesis.b8.conv0", activation="relu"), "synthesis.b8.conv0 made with activation relu"),
    "other gain": (say("synthesis.b8.conv0", act_gain=1.0), "synthesis.b8.conv0 made with act_gain 1.0"),
    "other clamps": (say("synthesis.b8.conv0", conv_clamp=3), "clamped differently"),
    "no upsampling": (say("synthesis.b8.conv0", up=1), "synthesis.b8.conv0 made with up 1; only 2 is supported"),
    "other variant": (say("synthesis.b8", architecture="orig"), "synthesis.b8 made with architecture orig"),
    "unknown option": (say("", _init_kwargs={"magic": 1}), "made with magic, which is not known here"),
    "unknown inner option": (say("", _init_kwargs={"mapping_kwargs": {"pose": 1}}), "made with pose, which is not"),
    "options no dictionary": (say("", _init_kwargs={"mapping_kwargs": [1]}), "is damaged, or holds another network"),
    "settings no number": (say("", _init_kwargs={"mapping_kwargs": {"lr_multiplier": "x"}}), "is damaged, or holds"),
    "no number": (say("synthesis.b8.torgb", weight_gain="a"), "holds synthesis.b8.torgb with a str"),
    "another class": (lambda t: Persistent("SynthesisInput"), "holds a SynthesisInput (G_ema)"),
    "another version": (lambda t: Persistent("Generator", version=7), "holds a class of version 7"),
    "no modules": (lambda t: Persistent("Generator"), "holds no StyleGAN2"),
    "no G_ema": (lambda t: None, "holds a dict without a network"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_and_foreign_networks_are_refused_in_one_line(tensors, tmp_path, capsys, damage):
    make, message = DAMAGES[damage]
    refused(capsys, write_pickle(tmp_path / "spoiled.pkl", snapshot(make(tensors))), message)


def test_damaged_files(prior, tensors, tmp_path, capsys):
    whole, path = prior.read_bytes(), tmp_path / "spoiled.pkl"
    for content in (whole[:-100], whole[:2], whole.replace(b"G_ema", b"G_emu"), b"\x80\x04" + 40 * b"N"):
        path.write_bytes(content)
        refused(capsys, path)
    # A number of what is remembered for which much memory would be made.
    path.write_bytes(b"\x80\x02Nr" + struct.pack("<I", 2**32 - 2) + b".")
    refused(capsys, path, "is damaged or no weight file")
    module = nvidia_module(tensors)
    module.state["_modules"]["again"] = module  # a module within itself
    refused(capsys, write_pickle(path, module), "is damaged or no weight file")


class Forged:
    """A tensor of a storage, which may be that of others."""

    def __init__(self, storage, size, stride):
        self.of = storage, 0, size, stride, False, None

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.of


@pytest.mark.parametrize(
    ("size", "stride", "message"),
    [((3,), (1,), "reaches beyond"), ((2**20,), (0,), "impossible shape"), ((-1,), (1,), "impossible shape")],
)
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_tensors_that_claim_more_than_they_hold(tensors, tmp_path, capsys, size, stride, message):
    module = nvidia_module(tensors)
    module.state["_parameters"]["forged"] = Forged(torch.zeros(2).storage(), size, stride)
    refused(capsys, write_pickle(tmp_path / "spoiled.pkl", module), message)


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_few_bytes_do_not_become_many_tensors(tensors, tmp_path, capsys):
    def refuse(spoil, message):
        module = nvidia_module(tensors)
        spoil(module.state["_parameters"], module.state["_modules"])
        refused(capsys, write_pickle(tmp_path / "spoiled.pkl", snapshot(module)), message)

    storage = torch.zeros(5000).storage()
    steps = Forged(storage, (1000, 1000, 1000, 1000), (1, 1, 1, 1))  # 4 TB, were it made
    refuse(lambda own, _: own.update(forged=steps), "holds a tensor (1000, 1000, 1000, 1000) of 5000 numbers")
    views = {f"forged{i}": Forged(storage, (5000,), (1,)) for i in range(99)}
    refuse(lambda own, _: own.update(views), "asks for more numbers than it holds")
    again = dict.fromkeys(["a", "b"], torch.zeros(99))
    refuse(lambda own, _: own.update(again), "holds one array (99,) under several names")
    inner = Persistent("MappingNetwork")  # eight levels of ten names each would be a hundred million
    refuse(lambda _, modules: modules.update(a=inner, b=inner), "a module b without attributes, within itself, or in")


def test_one_array_for_both_parts_of_a_network(tensors, tmp_path, capsys):
    parts = tensorflow_variables(tensors)
    shared = np.zeros(99, np.float32)
    with foreign_modules():
        network = tensorflow_network({part: [*own, ("more", shared)] for part, own in parts.items()})
        (tmp_path / "spoiled.pkl").write_bytes(pickle.dumps(network, protocol=3))
    refused(capsys, tmp_path / "spoiled.pkl", "holds one array (99,) under several names")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nonlinearity": "relu"}, "made with nonlinearity relu; only lrelu is supported"),
        ({"resample_kernel": [1, 1]}, "made with resample_kernel [1, 1]"),
        ({"pose_dim": 3}, "made with pose_dim, which is not known here"),
        ({"architecture": "orig"}, "tensors of a skip network and says orig"),
        ({"resolution": 32}, "a network of 32 pixels with blocks up to 16"),
    ],
)
def test_networks_of_tensorflow_that_mean_something_else(tensors, tmp_path, capsys, settings, message):
    refused(capsys, write_tensorflow(tmp_path / "other.pkl", tensors, **settings), message)


@pytest.mark.parametrize(
    "settings", [{"static_kwargs": [1, 2]}, {"static_kwargs": 5}, {"mapping_lrmul": "x"}, {"mapping_lrmul": None}]
)
def test_settings_of_tensorflow_that_are_none(tensors, tmp_path, capsys, settings):
    with foreign_modules():
        network = tensorflow_network(tensorflow_variables(tensors), **settings)
        network.state["static_kwargs"] = settings.get("static_kwargs", settings)
        (tmp_path / "spoiled.pkl").write_bytes(pickle.dumps(network, protocol=3))
    refused(capsys, tmp_path / "spoiled.pkl", "is damaged, or holds another network")


def test_variables_of_tensorflow_that_are_none(tensors, tmp_path, capsys):
    parts = tensorflow_variables(tensors)
    for value in (None, Persistent("Generator"), np.zeros(3).sum):
        spoiled = {part: [*own, ("more", value)] for part, own in parts.items()}
        with foreign_modules():
            (tmp_path / "spoiled.pkl").write_bytes(pickle.dumps(tensorflow_network(spoiled), protocol=3))
        refused(capsys, tmp_path / "spoiled.pkl")


def test_damaged_files_of_rosinality(tensors, tmp_path, capsys):
    state = rosinality_state(tensors)
    for name, value, message in (
        ("convs.0.conv.weight", None, "missing convs.0.conv.weight"),
        ("noises.noise_2", None, "missing noises.noise_2"),
        ("iwt.ll", torch.zeros(1), "surplus iwt.ll"),
        ("convs.0.conv.blur.kernel", torch.ones(4, 4), "another filter"),
        ("convs.0.activate.bias", torch.zeros(77), "blocks.1.conv0.bias has shape (77,)"),
        ("input.input", torch.zeros(()), "impossible shape"),
    ):
        spoiled = {key: kept for key, kept in state.items() if key != name} | ({} if value is None else {name: value})
        torch.save({"g_ema": spoiled}, tmp_path / "spoiled.pt")
        refused(capsys, tmp_path / "spoiled.pt", message)


# The network -----------------------------------------------------------------------------------------------------


def test_the_published_network():
    with torch.device("meta"):
        G = StyleGAN2()
    assert G.image_shape == (3, 1024, 1024)
    assert G.channels == [512, 512, 512, 512, 512, 256, 128, 64, 32]
    assert {name: G.spaces[name] for name in ("z", "w", "w+")} == {"z": (512,), "w": (512,), "w+": (18, 512)}
    own = ("filter", "whitening.mean", "whitening.root", "whitening.inverse")
    numbers = sum(value.numel() for name, value in G.state_dict().items() if name not in own)
    assert numbers == pytest.approx(33.2e6, rel=0.002)  # what the published file holds, noise included
    assert G(torch.empty(2, 512, device="meta")).shape == (2, 3, 1024, 1024)


@pytest.mark.parametrize("variant", ["skip", "orig", "resnet"])
def test_fresh_weights_give_images_of_a_sensible_size(variant):
    torch.manual_seed(0)
    G = StyleGAN2(32, (32, 32, 32, 16), latent=32, mapping=(32,) * 4, variant=variant)
    G.measure_whitening(2000)
    with torch.no_grad():
        assert 0.1 < G(G.sample_latent(8, seed=0)).std() < 10


def test_each_layer_hears_its_own_row(tensors, G):
    v = torch.randn(2, *G.spaces["w+"], generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert difference(G(v, space="w+"), Reference(tensors).paint(G.whitening.colour(v))) < 1e-4


@pytest.mark.parametrize("variant", ["skip", "orig", "resnet"])
def test_spaces_follow_each_other(variant, tmp_path):
    tensors = random_tensors(variant)
    G = load_generator(write_pickle(tmp_path / "a.pkl", nvidia_module(tensors)))
    z = latents()
    names = list(G.spaces)
    assert names == ["z", "w", "w+", "features-4", "features-8"]
    with torch.no_grad():
        for start, space in enumerate(names):
            latent = G(z, to=space)
            assert latent.shape == (3, *G.spaces[space])
            assert torch.equal(G(latent, space=space, to=space), latent)
            assert difference(G(latent, space=space), G(z)) < 1e-4
            for to in names[start:]:
                assert torch.allclose(G(latent, space=space, to=to), G(z, to=to), rtol=1e-3, atol=1e-3)
            for to in names[:start]:
                with pytest.raises(ValueError, match=rf"from {re.escape(space)} one comes to .*; '{to[:1]}"):
                    G(latent, space=space, to=to)


def test_w_is_searched_where_it_is_normal(tensors, G):
    z = torch.randn(20_000, LATENT, generator=torch.Generator().manual_seed(77))
    with torch.no_grad():
        v, w = G(z, to="w"), Reference(tensors).w(z)
    assert v.mean(0).abs().max() < 0.05
    assert (v.T.cov() - torch.eye(STYLE)).abs().max() < 0.1
    assert (w.T.cov() - torch.eye(STYLE)).abs().max() > 0.5


@pytest.mark.parametrize("variant", ["skip", "resnet"])
@pytest.mark.parametrize("space", ["z", "w+", "features-8"])
def test_stacked_weights_are_those_of_each_image(variant, space):
    """Several images side by side, each with its own weights: as one after another, gradients included."""
    torch.manual_seed(0)
    G = StyleGAN2(16, WIDTHS[:3], LATENT, (STYLE,) * 2, variant, clamp=2.0, noise="optimised").double()
    stacks = {name: torch.stack([p.detach() * (1 + i / 10) for i in range(3)]) for name, p in G.named_parameters()}
    shape = G.spaces[space]
    inputs = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients, images = [], []
    for way in ("together", "alone", "checkpointing"):
        G.checkpointing = way == "checkpointing"
        given = [w.clone().requires_grad_() for w in (inputs, *stacks.values())]
        named = dict(zip(stacks, given[1:], strict=True))
        if way == "alone":
            parts = [
                call_stacked(G, {n: w[i, None] for n, w in named.items()}, given[0][i, None], space=space)
                for i in range(3)
            ]
            images.append(torch.cat(parts))
        else:
            images.append(call_stacked(G, named, given[0], space=space))
        gradients.append(torch.autograd.grad(images[-1].square().sum(), given, materialize_grads=True))
    for image, gradient in zip(images[1:], gradients[1:], strict=True):
        assert torch.allclose(image, images[0])
        assert all(torch.allclose(a, b) for a, b in zip(gradient, gradients[0], strict=True))


def test_checkpointing_keeps_less(G):
    kept = []
    for G.checkpointing in (False, True):
        storages = {}

        def note(tensor, storages=storages):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            G(latents(2).requires_grad_())
        kept.append(sum(storages.values()))
    assert kept[1] < 0.7 * kept[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_as_runs_use_it(G, dtype):
    """Also where styles are large, which float16 could not hold: only their proportions count."""
    with torch.no_grad():
        for name, p in G.named_parameters():
            if ".conv" in name and ".style." in name:
                p *= 3e3
        stacks = {name: torch.stack([p.detach()] * 2) for name, p in G.named_parameters()}
        whole = G(latents(2))
        with torch.autocast("cpu", dtype):
            for images in (G(latents(2)), call_stacked(G, stacks, latents(2))):
                assert float((images - whole).abs().mean() / whole.std()) < 0.05


def test_which_weights_adapt(G):
    """What paints; not the mapping, and noise only where it is to be optimised."""

    def adapting(G):
        module = IAGAN(G, preset="fast", latent=Stage(steps=1), joint=Stage(steps=2, frozen="none"))
        A = BicubicDownsampling(G.image_shape, scale=4)
        reconstruct(A(torch.zeros(1, *G.image_shape)), A, module)
        return set(module.adapted)

    every = {name for name, _ in G.named_parameters()}
    mapping = {name for name in every if name.startswith("mapping.")}
    maps = {name for name in every if name.endswith(".noise")}
    strengths = {name for name in every if name.endswith(".noise_strength")}
    assert len(maps) == len(strengths) == 5
    assert adapting(G) == every - mapping - maps
    G.adjust(noise="optimised")
    assert adapting(G) == every - mapping
    G.adjust(noise="dropped")
    assert adapting(G) == every - mapping - maps - strengths
    last = {name for name in every if name.startswith("blocks.2.conv")}
    assert full_resolution_weights(G) == last


def test_noise_is_optimised_by_choice(prior, tmp_path):
    G = load_generator({"weights": prior, "noise": "optimised"})
    A = BicubicDownsampling(G.image_shape, scale=2)
    with torch.no_grad():
        y = A(G(latents(1)))
    module = IAGAN(G, latent=Stage(steps=2), joint=Stage(steps=3, frozen="none"))
    reconstruct(y, A, module)
    weights, before = module.weights_of("joint"), dict(G.named_parameters())
    changed = {name for name, w in weights.items() if not torch.equal(w[0], before[name])}
    assert "blocks.1.conv0.noise" in changed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resolution": 12}, "resolution of a StyleGAN2 is 4, 8, 16"),
        ({"resolution": 8192}, "resolution of a StyleGAN2 is 4, 8, 16"),
        ({"resolution": 8.0}, "resolution of a StyleGAN2 is 4, 8, 16"),
        ({"channels": [4]}, "8 pixels take 2 numbers of channels"),
        ({"channels": [4, 0]}, "8 pixels take 2 numbers of channels from 1 on"),
        ({"latent": 0}, "mapping has 1 to 64 layers"),
        ({"mapping": []}, "mapping has 1 to 64 layers"),
        ({"mapping": [10**9]}, "1 to 2048 wide"),
        ({"variant": "unet"}, "variant is one of skip, orig, resnet"),
        ({"image_channels": 4}, "images have 1 or 3 channels"),
        ({"classes": -1}, "classes are at least 0"),
        ({"clamp": 0}, "clamp is above 0"),
        ({"label": 1}, "the network has no classes"),
        ({"noise": "random"}, "noise is one of kept, dropped, optimised"),
    ],
)
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        StyleGAN2(**{"resolution": 8, "channels": [4, 4], "latent": 4, "mapping": [4], **arguments})


# Reconstruction --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [FromTheMean, Plus])
def test_a_search_of_w_begins_at_the_mean_of_w(tensors, G, method):
    A = BicubicDownsampling(G.image_shape, scale=2)
    with torch.no_grad():
        y = A(G(latents(2)))
        w = Reference(tensors).w(torch.randn(20_000, LATENT, generator=torch.Generator().manual_seed(4))).mean(0)
        middle = Reference(tensors).paint(w.expand(2, 6, -1)).float()
    module = method(G)
    module.begin(y, A, 0.0, [0, 1])
    assert module.z.count_nonzero() == 0
    assert torch.allclose(module(), middle, atol=0.1 * float(middle.std()))
    result = reconstruct(y, A, method(G))
    assert (A(result["found"]) - y).square().mean() < 0.3 * (A(middle) - y).square().mean()


class WThenWeights(IAGAN):
    """w from its mean, w+, then w+ and weights."""

    def configure_fits(self):
        first = Fit("w", FitSettings("lbfgs", steps=6), "w", init="mean", result="csgm")
        second = Fit("plus", FitSettings("lbfgs", steps=6), "w+", init="w", result="plus")
        return [first, second, *self.joint_fits("plus", "w+")]


def test_from_w_by_w_plus_to_the_weights(G):
    A = BicubicDownsampling(G.image_shape, scale=2)
    with torch.no_grad():
        y = A(G(latents(2))) + 0.05
    result = reconstruct(y, A, WThenWeights(G, joint=Stage(steps=30)))
    assert (result.objective["plus"] < result.objective["w"]).all()
    assert (result.objective["joint"] < 0.8 * result.objective["plus"]).all()
    assert torch.allclose(A(result.iagan_bp), y, atol=1e-4)


def test_features_are_searched_by_ilo(G):
    A = BicubicDownsampling(G.image_shape, scale=2)
    with torch.no_grad():
        y = A(G(latents(1)))
    result = reconstruct(y, A, ILO(G, depth=4, latent=Stage(steps=5), features=Stage(steps=10), joint=Stage(steps=3)))
    assert result.objective["features"] < result.objective["latent"]


@pytest.mark.parametrize("given", ["file", "settings"])
def test_a_run_is_saved_rebuilt_and_gone_on_with(prior, tmp_path, capsys, given):
    """w and w+ from the command line, straight from NVIDIA's pickle."""
    out = tmp_path / "out"
    generator = str(prior) if given == "file" else f"{{weights: {prior}, noise: optimised}}"
    words = ["super-resolution", "--model", "test_stylegan2.WThenWeights", "--model.generator", generator]
    words += ["--model.joint.steps", "3", "--save", "weights", "--lpips", "none", "--out", str(out)]
    words += ["--trainer.accelerator", "cpu", "--tensorboard", "0"]
    assert main([*words, "--data.limit", "1"]) == 0
    folder = next(out.rglob("metrics.json")).parent
    assert json.loads((folder / "metrics.json").read_text())["evaluations"]["plus"] == 6
    assert main(["rebuild", str(folder)]) == 0
    assert (read_image(folder / "rebuilt.png") - read_image(folder / "iagan.png")).abs().max() < 0.02
    before = (folder / "metrics.json").stat().st_mtime_ns
    capsys.readouterr()
    assert main(words) == 0  # goes on with the second picture
    assert (folder / "metrics.json").stat().st_mtime_ns == before
    assert len(list(out.rglob("metrics.json"))) == 2
    other = f"{{weights: {prior}, noise: dropped}}"
    assert main([other if word == generator else word for word in words]) == 2
    assert "generator" in capsys.readouterr().err
