"""benchmarks/peers.py: real runs with tiny settings, and the linear estimator beside its formula in whole matrices."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from test_operators import dense

from iagan_lightning.operators import BicubicDownsampling, Blur, FourierSensing, GaussianSensing, Identity, Inpainting

ROOT = Path(__file__).parent.parent
SHAPE = (3, 16, 16)


@pytest.fixture
def linear(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import linear_estimator

    return linear_estimator


@pytest.fixture
def pictures():
    """Mixtures of six smooth patterns and a little of everything else, (60, 3, 16, 16) as uint8."""
    draw = torch.Generator().manual_seed(7)  # 0 draws the rows of GaussianSensing
    patterns = F.interpolate(torch.randn(6, 3, 4, 4, generator=draw), SHAPE[1:], mode="bicubic")
    strengths = torch.randn(60, 6, generator=draw) * torch.tensor([30.0, 25.0, 20.0, 16.0, 13.0, 10.0])
    rest = 3 * torch.randn(60, *SHAPE, generator=draw)
    mixed = 128 + torch.einsum("nk,kchw->nchw", strengths, patterns) + rest
    return mixed.round().clamp(0, 255).to(torch.uint8)


def flat(pictures):
    return pictures.flatten(1).double() / 127.5 - 1


def test_statistics_are_those_of_the_whole_covariance(linear, pictures):
    found = linear.fit(pictures, k=6)
    x = flat(pictures)
    variances, directions = torch.linalg.eigh((x - x.mean(0)).mT @ (x - x.mean(0)) / len(x))
    rest = float(variances[:-6].mean())
    top = directions[:, -6:]
    assert found.rest == pytest.approx(rest, rel=1e-3)
    assert torch.allclose(found.mean.flatten().double(), x.mean(0), atol=1e-6)
    W = found.components.flatten(1).double()
    exact = top @ torch.diag(variances[-6:] - rest) @ top.mT
    assert torch.linalg.matrix_norm(W.mT @ W - exact) < 1e-4 * torch.linalg.matrix_norm(exact)


@pytest.mark.parametrize("k", [0, 60])
def test_components_that_pictures_do_not_have_are_refused(linear, pictures, k):
    with pytest.raises(ValueError, match=f"have 1 to 59 components; {k} were asked for"):
        linear.fit(pictures, k)


OPERATORS = {
    "denoising": (Identity(SHAPE), 25 / 255),
    "x4": (BicubicDownsampling(SHAPE, scale=4), 0.0),
    "x4, noise": (BicubicDownsampling(SHAPE, scale=4), 10 / 255),
    "gaussian": (GaussianSensing(SHAPE, ratio=0.1), 0.0),
    "fourier": (FourierSensing(SHAPE, ratio=0.3), 10 / 255),
    "inpainting": (Inpainting(SHAPE, ratio=0.5), 0.0),
    "deblurring": (Blur(SHAPE, size=5), 10 / 255),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_the_estimator_is_its_formula(linear, pictures, name):
    A, noise_std = OPERATORS[name]
    statistics = linear.fit(pictures[:50], k=6)
    truth = flat(pictures[50:]).reshape(-1, *SHAPE)
    y = A.measure(truth, noise_std)
    x = linear.LinearEstimator(statistics, A, noise_std)(y)

    def real(y):
        return (torch.view_as_real(y) if y.is_complex() else y).flatten(1)

    M = dense(A)  # measurements by pixels
    mean, W = statistics.mean.double(), statistics.components.flatten(1).double()
    C = W.mT @ W + statistics.rest * torch.eye(W.shape[1], dtype=W.dtype)
    S = M @ C @ M.mT + (2 * noise_std) ** 2 * torch.eye(len(M), dtype=M.dtype)
    away = real(y) - real(A(mean[None]))
    # Measurements that tell each other (conjugate coefficients) leave S singular where there is no noise.
    expected = mean.flatten() + away @ (torch.linalg.pinv(S, hermitian=True) @ M @ C)
    assert torch.allclose(x.flatten(1).double(), expected, atol=1e-5)


def test_the_estimator_is_better_than_the_plain_reconstruction(linear, pictures):
    statistics = linear.fit(pictures[:50], k=6)
    truth = flat(pictures[50:]).reshape(-1, *SHAPE)
    for A, noise_std in OPERATORS.values():
        y = A.measure(truth, noise_std)
        x = linear.LinearEstimator(statistics, A, noise_std)(y)
        assert (x - truth).square().mean() < 0.5 * (A.naive(y) - truth).square().mean(), A


def test_statistics_are_kept_in_a_file(linear, pictures, tmp_path):
    found = linear.fit(pictures, k=6)
    found.save(tmp_path / "linear.safetensors")
    read = linear.Statistics.load(tmp_path / "linear.safetensors")
    assert torch.equal(read.components, found.components) and torch.equal(read.mean, found.mean)
    assert (read.rest, read.count) == (found.rest, 60)
    with pytest.raises(ValueError, match=r"of images \(3, 16, 16\), the operator takes \(3, 8, 8\)"):
        linear.LinearEstimator(read, Identity((3, 8, 8)), 0.1)
    (tmp_path / "other").write_bytes(b"none")
    with pytest.raises(ValueError, match="holds no statistics of pictures"):
        linear.Statistics.load(tmp_path / "other")


# The script -------------------------------------------------------------------------------------------------------


@pytest.fixture
def peers(linear):
    pytest.importorskip("deepinv", reason="needs deepinv: pip install '.[test]'")
    import peers

    return peers


@pytest.fixture
def words(pictures, tiny_weights, tmp_path):
    for folder, those in (("train", pictures[:40]), ("faces", pictures[40:44])):
        (tmp_path / folder).mkdir()
        for i, picture in enumerate(those):
            Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0).numpy())).save(tmp_path / folder / f"{i}.png")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- peers -->\n<!-- end -->\nafter\n")
    options = ["--faces", tmp_path / "faces", "--generator", tiny_weights, "--first", 2, "--tuning", 1, "--count", 2]
    options += ["--linear", tmp_path / "linear.safetensors", "--train", tmp_path / "train", "--components", 6]
    return [str(word) for word in [*options, "--lpips", "none", "--page", page]]


def test_the_tasks_are_those_of_the_page(peers):
    found = {task: peers.problem_of(command, (3, 64, 64)) for task, command in peers.RUNS.items()}
    kinds = {task: (type(A).__name__, A.num_measurements, round(std * 255)) for task, (A, std) in found.items()}
    assert kinds["compressed sensing, Gaussian 12.2 %"] == ("GaussianSensing", 1499, 0)
    assert kinds["inpainting, half of the pixels"] == ("Inpainting", 3 * 64 * 32, 0)
    assert kinds["inpainting, a box of 20 x 20"] == ("Inpainting", 3 * (64 * 64 - 400), 0)
    assert kinds["super-resolution x4, noise 10/255"] == ("BicubicDownsampling", 3 * 16 * 16, 10)
    assert kinds["denoising, noise 25/255"] == ("Identity", 3 * 64 * 64, 25)
    assert len(kinds) == len(peers.RUNS) == 9


def rows_of(page):
    lines = [line.split("|")[1:-1] for line in page.read_text().splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line] for line in lines[1:]]
    return {method.partition(" (")[0]: (task, *cells) for task, method, *cells in rows}


def test_exact_measurements(peers, words, tmp_path, monkeypatch):
    """Every method; those agree with y that promise it."""
    from deepinv.models import DRUNet

    monkeypatch.setattr(peers, "STEPS", 5)
    torch.save(DRUNet(pretrained=None).state_dict(), tmp_path / "drunet.pth")
    names = ["naive", "linear", "TV", "DIP", "CSGM of deepinv", "DPIR", *peers.OURS.values()]
    names += ["wavelets"] * bool(find_spec("ptwt"))
    options = ["--tasks", "super-resolution x4", "--methods", *names, "--weights", f"drunet={tmp_path / 'drunet.pth'}"]
    peers.main([*words, *options, "--steps", "2", "3", "--slow", "1"])
    text = (tmp_path / "page.md").read_text()
    assert text.startswith("before\n") and text.endswith("after\n")
    assert "tiny. Means over faces 3 to 4" in text and "6 components of 40 faces" in text
    table = rows_of(tmp_path / "page.md")
    assert list(table) == names
    for name, (task, psnr, beside, lpips, residual, seconds, count) in table.items():
        assert task == "super-resolution x4" and 0 < float(psnr) < 60 and lpips == "" and float(seconds) >= 0
        assert count == ("1" if name in peers.SLOW else "2")
        assert (beside == "+0.00") == (name == "IAGAN-BP")
        assert (float(residual) < 1e-5) == (name in ("linear", "TV", "wavelets", "CSGM-BP", "IAGAN-BP"))
    # These pictures are what it takes pictures for, and no network knows them.
    assert table["linear"][1] == max((cells[1] for cells in table.values()), key=float)


def test_noisy_complex_measurements(peers, words, tmp_path, monkeypatch):
    """Total variation improves on the plain reconstruction, on whose scale of y and noise it must be."""
    monkeypatch.setattr(peers, "STEPS", 30)
    names = ["naive", "linear", "TV"]
    peers.main([*words, "--tasks", "compressed sensing, Fourier 30 %, noise 10/255", "--methods", *names])
    table = rows_of(tmp_path / "page.md")
    assert list(table) == names
    assert all(cells[2] == "" for cells in table.values())  # nothing of ours to compare with
    gain = {name: float(cells[1]) - float(table["naive"][1]) for name, cells in table.items()}
    assert gain["linear"] > 5 and gain["TV"] > 1


@pytest.mark.parametrize("kind", ["TV", "wavelets"])
def test_strengths_reach_what_they_are_for(peers, pictures, kind):
    """Of denoising the proximal methods are deepinv's denoiser, on [0, 1]; without noise they agree with y."""
    from deepinv.models import TVDenoiser, WaveletDenoiser

    if kind == "wavelets":
        pytest.importorskip("ptwt", reason="needs ptwt: pip install '.[test]'")
    prior, denoise = {
        "TV": (peers.tv_prior, lambda u: TVDenoiser(n_it_max=3000, crit=1e-9)(u, ths=0.05)),
        "wavelets": (peers.wavelet_prior, lambda u: WaveletDenoiser(level=3, wv="db4", mode="symmetric")(u, ths=0.05)),
    }[kind]
    y = flat(pictures[:1]).reshape(1, *SHAPE).float()
    u = (peers.proximal(prior, peers.Problem(Identity(SHAPE), 0.1), y, 0, {"TV": 0.05, "wavelets": 0.5}[kind]) + 1) / 2
    expected = denoise((y + 1) / 2)
    assert (expected - (y + 1) / 2).abs().max() > 0.03
    assert torch.allclose(u, expected, atol=2e-3)


@pytest.mark.parametrize("kind", ["tv_prior", "wavelet_prior"])
def test_an_even_grey_costs_nothing(peers, kind):
    """What is not measured (here every other pixel) is as grey as what is, and does not drift to black."""
    if kind == "wavelet_prior":
        pytest.importorskip("ptwt", reason="needs ptwt: pip install '.[test]'")
    grey = torch.full((1, *SHAPE), 0.4)
    for noise_std in (0.0, 0.1):
        problem = peers.Problem(Inpainting(SHAPE, ratio=0.9), noise_std)
        x = peers.proximal(getattr(peers, kind), problem, problem.A(grey), 0, 1.0)
        assert torch.allclose(x, grey, atol=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "drunet=nowhere.pth"], "no such file: nowhere.pth, given for drunet"),
        (["--weights", "unet=x"], "takes drunet=FILE and diffunet=FILE; unet=x was given"),
        (["--methods", "TVs"], "TVs was given"),
        (["--first", "40"], "has 4 faces: too few for --first 40"),
        (["--tuning", "3"], "--first 2 leaves no 3 faces before it for --tuning"),
        (["--components", "7"], "linear.safetensors holds 6 components of 16 pixels; 7 of 16 are wanted"),
        (["--linear", "missing"], "missing is not there: give the training faces with --train"),
    ],
)
def test_bad_input_is_one_line(peers, words, tmp_path, capsys, options, message):
    if "--linear" in options:
        words = words[: words.index("--train")]
    if "--components" in options:
        peers.statistics_in(tmp_path / "linear.safetensors", tmp_path / "train", 16, 6)
    with pytest.raises(SystemExit) as stopped:
        peers.main([*words, *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_weights_of_another_network_are_refused(peers, tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not hold deepinv's DRUNet"):
        peers.networks([f"drunet={tmp_path / 'other.pth'}"])
