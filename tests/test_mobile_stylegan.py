"""MobileStyleGAN: the network and its spaces, the published files read safely, and the rest of the package with it."""

import re
import zipfile

import pytest
import torch
from openvino_wheel import LATENT, Published, write_folder, write_wheel
from searches import FromTheMean, Plus

from iagan_lightning import IAGAN, Stage, reconstruct
from iagan_lightning.cli import main
from iagan_lightning.generators import (
    MobileStyleGAN,
    WeightsError,
    full_resolution_weights,
    load_generator,
    save_generator,
)
from iagan_lightning.generators.openvino_ir import Graph
from iagan_lightning.methods.stacking import call_stacked
from iagan_lightning.operators import BicubicDownsampling
from iagan_lightning.runs.batching import bytes_per_image


@pytest.fixture(scope="module")
def published():
    return Published()


@pytest.fixture(scope="module")
def G(published, tmp_path_factory):
    return load_generator(write_folder(tmp_path_factory.mktemp("ir"), published.files()))


# The published files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "wheel", "zip"])
def test_published_networks_make_the_images_that_their_arithmetic_says(published, tmp_path, kind):
    if kind == "folder":
        path = write_folder(tmp_path / "ir", published.files())
    else:
        path = write_wheel(tmp_path / "tiny-1.0-py3-none-any.whl", published.files())
        path = path.rename(tmp_path / "tiny.zip") if kind == "zip" else path
    G = load_generator(path)
    z = torch.randn(3, LATENT, generator=torch.Generator().manual_seed(5)) * torch.tensor([[0.1], [1.0], [4.0]])
    with torch.no_grad():
        theirs = published.image(published.w(z)[:, None].expand(-1, 8, -1))
        assert theirs.shape == (3, *G.image_shape) == (3, 3, 32, 32)
        assert theirs.std(dim=0).mean() > 0.1  # images that differ
        assert torch.allclose(G(z), theirs, rtol=1e-4, atol=1e-4)


def test_each_modulation_hears_its_own_row(published, G):
    v = torch.randn(2, *G.spaces["w+"], generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        theirs = published.image(G.whitening.colour(v))
        assert torch.allclose(G(v, space="w+"), theirs, rtol=1e-4, atol=1e-4)


def change(files, name, old, new):
    assert re.search(old, files[name], re.DOTALL), old
    return {**files, name: re.sub(old, lambda match: match.expand(new), files[name], count=1, flags=re.DOTALL)}


DTD = b"""<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>"""
PRODUCTS = b"".join(b'<layer id="9%d" type="MatMul"/>' % i for i in range(64))
XML, BIN = "SynthesisNetwork.xml", "SynthesisNetwork.bin"
DAMAGES = {
    "cut numbers": (lambda f: {**f, BIN: f[BIN][:-8]}, "outside of the"),
    "cut xml": (lambda f: {**f, XML: f[XML][:-20]}, "no OpenVINO network"),
    "no xml": (lambda f: {**f, XML: b"\xff\xfe\x00"}, "no OpenVINO network"),
    "offset beyond": (lambda f: change(f, XML, rb'offset="\d+"', rb'offset="99999999"'), "outside of the"),
    "offset below": (lambda f: change(f, XML, rb'offset="\d+"', rb'offset="-4"'), "outside of the"),
    "offset no number": (lambda f: change(f, XML, rb'offset="\d+"', rb'offset="x"'), "not described"),
    "vast shape": (lambda f: change(f, XML, rb'shape="1, 8, 4, 4"', rb'shape="1, 80000000, 4, 4"'), "has 512 bytes"),
    "negative shape": (lambda f: change(f, XML, rb'shape="1, 8, 4, 4"', rb'shape="-1, -8, 4, 4"'), "outside of the"),
    "other shape": (lambda f: change(f, XML, rb'shape="1, 8, 4, 4"', rb'shape="1, 4, 4, 8"'), "input has shape"),
    "unknown numbers": (lambda f: change(f, XML, rb'"f32"', rb'"u8"'), "not described"),
    "entities": (lambda f: change(f, XML, rb"<\?xml.*?\?>", DTD), "entities"),
    "other encoding": (
        lambda f: {**f, XML: f[XML].replace(b'<?xml version="1.0"?>', DTD).decode().encode("utf-16")},
        "no OpenVINO network",
    ),
    "no such edge": (lambda f: change(f, XML, rb'from-layer="\d+"', rb'from-layer="777"'), "no OpenVINO network"),
    "no edges": (lambda f: change(f, XML, rb"<edges>.*</edges>", rb""), "holds another network"),
    "another name": (lambda f: change(f, XML, rb"m\.input\.input", rb"m.start"), "it has no m.input.input"),
    "swapped networks": (
        lambda f: {
            **f, XML: f["MappingNetwork.xml"], BIN: f["MappingNetwork.bin"],
            "MappingNetwork.xml": f[XML], "MappingNetwork.bin": f[BIN],
        },
        "holds another network",
    ),
    "not finite": (lambda f: {**f, "MappingNetwork.bin": b"\xff" * len(f["MappingNetwork.bin"])}, "not finite"),
    "deep mapping": (
        lambda f: change(f, "MappingNetwork.xml", rb"</layers>", PRODUCTS + rb"</layers>"),
        "; 64 are the most here",
    ),
    "too large": (lambda f: {**f, XML: f[XML] + b" " * 8_000_000}, "more than the 8,000,000 that are read"),
    "a file missing": (lambda f: {name: f[name] for name in f if name != BIN}, "SynthesisNetwork.bin"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["folder", "wheel"])
def test_damaged_networks_are_refused_in_one_line(published, tmp_path, capsys, damage, kind):
    spoil, message = DAMAGES[damage]
    files = spoil(published.files())
    if kind == "folder":
        path = write_folder(tmp_path / "ir", files)
    else:
        path = write_wheel(tmp_path / "tiny-1.0-py3-none-any.whl", files)
    assert main(["import-prior", str(path), "--out", str(tmp_path / "a.safetensors")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(path) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "a.safetensors").exists()


def test_constants_in_one_place_are_not_copied_without_end():
    const = b"""<layer id="1" type="Const"><data element_type="f16" offset="0" shape="99" size="198"/></layer>"""
    graph = Graph(b"<net><layers>" + const + b"</layers></net>", bytes(198))
    assert graph.copied(graph.constant("1")).tolist() == 99 * [0]
    with pytest.raises(WeightsError, match="asks for more numbers than it holds"):
        [graph.copied(graph.constant("1")) for _ in range(2)]


def test_damaged_and_foreign_wheels_are_refused(published, tmp_path):
    whole = write_wheel(tmp_path / "tiny-1.0-py3-none-any.whl", published.files()).read_bytes()
    path = tmp_path / "spoiled.whl"
    middle = len(whole) // 2
    for content in (b"", b"no wheel", whole[:-100], whole[:middle] + bytes(64) + whole[middle + 64 :]):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"spoiled\.whl is damaged or no wheel"):
            load_generator(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other/__init__.py", "raise SystemExit('executed')")
    with pytest.raises(WeightsError, match=r"it has 0 files MappingNetwork\.xml"):
        load_generator(path)


def test_a_folder_without_networks_is_no_generator(tmp_path):
    with pytest.raises(WeightsError, match="no generator weights at"):
        load_generator(tmp_path)


def test_import(published, G, tmp_path, capsys):
    path = write_wheel(tmp_path / "tiny-1.0-py3-none-any.whl", published.files())
    assert main(["import-prior", str(path), "--out", str(tmp_path / "prior.safetensors")]) == 0
    printed = capsys.readouterr().out
    assert "MobileStyleGAN (channels [8, 8, 4], latent 6, mapping 2)" in printed
    assert "latents (6,), normal; images (3, 32, 32)" in printed
    again, z = load_generator(tmp_path / "prior.safetensors"), G.sample_latent(2)
    assert again.framing == "ffhq"
    with torch.no_grad():
        for to in ("w", "w+", "image"):
            assert torch.equal(again(z, to=to), G(z, to=to))


# The network -----------------------------------------------------------------------------------------------------


def test_the_published_network():
    with torch.device("meta"):
        G = MobileStyleGAN()
    assert G.image_shape == (3, 1024, 1024)
    assert G.spaces == {"z": (512,), "w": (512,), "w+": (23, 512)}
    numbers = sum(value.numel() for name, value in G.state_dict().items() if not name.startswith("whitening"))
    assert numbers == 10_106_652  # what the published files hold of it
    assert G(torch.empty(2, 512, device="meta")).shape == (2, 3, 1024, 1024)


def test_fresh_weights_give_images_of_a_sensible_size():
    torch.manual_seed(0)
    G = MobileStyleGAN((64, 64, 32), latent=64)
    G.measure_whitening(2000)
    with torch.no_grad():
        assert 0.1 < G(G.sample_latent(8, seed=0)).std() < 10


def test_spaces_follow_each_other(G):
    z = G.sample_latent(3, seed=2)
    with torch.no_grad():
        v = G(z, to="w")
        for latent, space in ((v, "w"), (G(v, space="w", to="w+"), "w+"), (G(z, to="w+"), "w+")):
            assert latent.shape[1:] == G.spaces[space]
            assert torch.allclose(G(latent, space=space), G(z), atol=1e-4)
            assert torch.equal(G(latent, space=space, to=space), latent)
    for space, to in (("w", "z"), ("w+", "w"), ("z", "features-8")):
        with pytest.raises(ValueError, match=rf"from {re.escape(space)} one comes to .*; '{to}' was given"):
            G(torch.zeros(1, *G.spaces[space]), space=space, to=to)
    with pytest.raises(ValueError, match="has the latent spaces z, w, w"):
        G(z, space="features-8")


def test_w_is_searched_where_it_is_normal(published, G):
    """Of draws that it was not measured on: mean 0 and unit covariance, while w itself is far from that."""
    z = torch.randn(20_000, LATENT, generator=torch.Generator().manual_seed(77))
    with torch.no_grad():
        v, w = G(z, to="w"), published.w(z)
    assert v.mean(0).abs().max() < 0.05
    assert (v.T.cov() - torch.eye(LATENT)).abs().max() < 0.1
    assert (w.T.cov() - torch.eye(LATENT)).abs().max() > 0.5
    root = G.whitening.root.double()
    assert torch.allclose(root, root.T, atol=1e-5)
    assert torch.allclose((root @ root).float(), w.T.cov(), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("method", [FromTheMean, Plus])
def test_a_search_of_w_begins_at_the_mean_of_w(published, G, method):
    A = BicubicDownsampling(G.image_shape, scale=4)
    with torch.no_grad():
        y = A(G(G.sample_latent(2, seed=9)))
        w = published.w(torch.randn(20_000, LATENT, generator=torch.Generator().manual_seed(4))).mean(0)
        middle = published.image(w.expand(2, 8, -1))
    module = method(G)
    module.begin(y, A, 0.0, [0, 1])
    assert module.z.count_nonzero() == 0
    assert torch.allclose(module(), middle, atol=0.1 * float(middle.std()))
    result = reconstruct(y, A, method(G))
    assert (A(result["found"]) - y).square().mean() < 0.3 * (A(middle) - y).square().mean()


def test_stacked_weights_are_those_of_each_image(G):
    """Several images side by side, each with its own weights: as one after another, gradients included."""
    G = load_copy(G)
    stacks = {name: torch.stack([p.detach() * (1 + i / 10) for i in range(3)]) for name, p in G.named_parameters()}
    for space in G.spaces:
        latents = torch.randn(3, *G.spaces[space], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        given = [w.clone().requires_grad_() for w in (latents, *stacks.values())]
        together = call_stacked(G, dict(zip(stacks, given[1:], strict=True)), given[0], space=space)
        alone = torch.cat(
            [
                call_stacked(G, {n: w[i, None] for n, w in zip(stacks, given[1:], strict=True)}, given[0][i, None],
                             space=space)
                for i in range(3)
            ]
        )  # fmt: skip
        assert torch.allclose(together, alone)
        gradients = [
            torch.autograd.grad(images.square().sum(), given, allow_unused=True, retain_graph=True)
            for images in (together, alone)
        ]
        for both, single in zip(*gradients, strict=True):
            assert (both is None) == (single is None)
            assert both is None or torch.allclose(both, single)


def load_copy(G):
    copy = MobileStyleGAN(**G.architecture()).double()
    copy.load_state_dict(G.state_dict())
    return copy


def test_what_the_methods_ask_of_it(G):
    assert full_resolution_weights(G) == frozenset()  # only the image itself is that large
    assert bytes_per_image(G) > 6 * 4 * sum(p.numel() for p in G.parameters())


def test_the_mapping_comes_frozen_from_every_file(G, tmp_path):
    """What z becomes does not adapt; everything that paints does."""
    save_generator(G, tmp_path / "prior.safetensors")
    for network in (MobileStyleGAN((8, 4), latent=4), G, load_generator(tmp_path / "prior.safetensors")):
        assert all(p.requires_grad != name.startswith("mapping.") for name, p in network.named_parameters())
    A = BicubicDownsampling(G.image_shape, scale=4)
    module = IAGAN(G, latent=Stage(steps=1), joint=Stage(steps=2, frozen="none"))
    reconstruct(A(torch.zeros(1, *G.image_shape)), A, module)
    assert set(module.adapted) == {name for name, _ in G.named_parameters() if not name.startswith("mapping.")}


def test_a_whole_reconstruction(G):
    A = BicubicDownsampling(G.image_shape, scale=4)
    with torch.no_grad():
        y = A.measure(G(G.sample_latent(2, seed=9)))
    result = reconstruct(y, A, G, preset="fast", latent=Stage(steps=20), joint=Stage(steps=20))
    assert result.objective["joint"].max() < 0.1 * y.var()
    assert torch.allclose(A(result.iagan_bp), y, atol=1e-4)


# Files of our own ------------------------------------------------------------------------------------------------


def test_round_trip(tmp_path):
    torch.manual_seed(3)
    G = MobileStyleGAN((8, 4), latent=5, mapping=3).eval()
    G.measure_whitening(500)
    G.framing = "tight"
    save_generator(G, tmp_path / "prior.safetensors")
    again = load_generator(tmp_path / "prior.safetensors")
    assert again.architecture() == G.architecture()
    assert again.framing == "tight"
    v = torch.randn(2, *G.spaces["w+"])
    with torch.no_grad():
        assert torch.equal(again(v, space="w+"), G(v, space="w+"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": []}, "channels are 1 to 8 whole numbers"),
        ({"channels": [4] * 9}, "channels are 1 to 8 whole numbers"),
        ({"channels": [6, 4]}, "all but the last multiples of 4"),
        ({"channels": [4, 0]}, "numbers from 1 on"),
        ({"latent": 0}, "latent is at least 1"),
        ({"mapping": 10**9}, "mapping 1 to 64"),
    ],
)
def test_impossible_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MobileStyleGAN(**arguments)
