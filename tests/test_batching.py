"""How many images go side by side, and what happens when it was too many."""

import json
from pathlib import Path

import pytest
import torch

from iagan_lightning.cli import main
from iagan_lightning.data.images import to_pillow
from iagan_lightning.generators import BEGAN, PGGAN, save_generator
from iagan_lightning.runs import batching


def test_memory_of_an_image_counts_what_a_step_keeps():
    small, wide = (batching.bytes_per_image(BEGAN(32, channels, 8)) for channels in (4, 8))
    weights = sum(p.numel() * 4 for p in BEGAN(32, 8, 8).parameters())
    # 32 x 32 alone: two convolutions with their outputs before and after ELU, and the enlarged input
    assert wide > 6 * weights + 2 * 3 * 8 * 32 * 32 * 4
    assert 1.5 < wide / small < 4
    assert batching.bytes_per_image(BEGAN(32, 8, 8), history=10) - wide == 20 * weights


def test_auto_divides_the_free_memory(monkeypatch):
    G = BEGAN(32, 8, 8)
    for share, expected in ((10.3, 8), (0.1, 1), (1e6, batching.MOST)):
        free = int(share * batching.bytes_per_image(G))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        assert batching.images_that_fit(G, torch.device("cuda", 0)) == expected
    assert batching.images_that_fit(G, torch.device("cpu")) == 1


@pytest.fixture
def five(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(5):
        picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(i)) * 2 - 1
        to_pillow(picture).save(folder / f"{i}.png")
    return folder


@pytest.fixture(autouse=True)
def _own_classes(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)


def run(out, five, weights, *extra):
    return main([
        "super-resolution", "--data.root", str(five), "--model.generator", str(weights), "--lpips", "none",
        "--out", str(out), "--model.latent.steps", "4", "--model.joint.steps", "3", "--trainer.accelerator", "cpu",
        *extra,
    ])  # fmt: skip


def results(out):
    records = [json.loads(path.read_text()) for path in sorted(out.rglob("metrics.json"))]
    return {record["image"]: record["methods"]["iagan_bp"]["psnr"] for record in records}


def test_a_batch_that_needs_too_much_memory_is_halved(tmp_path, five, tiny_weights, capsys):
    assert run(tmp_path / "one", five, tiny_weights) == 0
    limited = ["--trainer.callbacks+=user_callback.TwoAtMost"]
    assert run(tmp_path / "out", five, tiny_weights, "--data.images_per_fit", "4", *limited) == 0
    told = capsys.readouterr().err
    assert told.count("out of memory; going on with 2") == 1, "later batches begin with what worked"
    assert results(tmp_path / "out") == pytest.approx(results(tmp_path / "one"), abs=0.05)


def test_an_image_that_needs_too_much_memory_alone_is_checkpointed(tmp_path, five, tiny_weights, capsys):
    torch.manual_seed(0)
    save_generator(PGGAN(16, (8, 8, 4), 6), tmp_path / "pggan.safetensors")
    pggan = [five, tmp_path / "pggan.safetensors", "--data.limit", "3"]
    assert run(tmp_path / "plain", *pggan) == 0
    small = ["--trainer.callbacks+=user_callback.Small"]
    assert run(tmp_path / "out", *pggan, *small, "--data.images_per_fit", "2") == 0
    told = capsys.readouterr().err
    assert told.count("going on with gradient checkpointing") == 1, "later images begin with what worked"
    assert results(tmp_path / "out") == results(tmp_path / "plain")
    # A generator that cannot compute its features again fails, with its reason.
    assert run(tmp_path / "began", five, tiny_weights, *small, "--data.limit", "1") == 1
    assert "out of memory" in (tmp_path / "began" / "images" / "0" / "error.txt").read_text()


def test_one_bad_image_leaves_its_companions_alone(tmp_path, five, tiny_weights, capsys):
    bad = ["--trainer.callbacks+=user_callback.FailsOnTwo"]
    assert run(tmp_path / "out", five, tiny_weights, "--data.images_per_fit", "5", *bad) == 1
    assert results(tmp_path / "out").keys() == {"0", "1", "3", "4"}
    assert "image 2 is broken" in (tmp_path / "out" / "images" / "2" / "error.txt").read_text()


def test_the_first_images_have_a_board_whoever_is_beside_them(tmp_path, five, tiny_weights):
    """Of a batch some; one that has failed beside others and is tried again has one board, that of the last attempt."""
    bad = ["--trainer.callbacks+=user_callback.FailsOnTwo"]
    batched = ["--data.images_per_fit", "3", "--tensorboard", "2"]
    assert run(tmp_path / "out", five, tiny_weights, *batched, *bad) == 1
    for _ in range(2):
        boards = sorted(path.parent.name for path in (tmp_path / "out" / "tensorboard").rglob("events*"))
        assert boards == ["0", "1"]
        (tmp_path / "out" / "images" / "1" / "metrics.json").unlink()
        assert run(tmp_path / "out", five, tiny_weights, *batched, *bad) == 1


def test_auto_on_a_cpu(tmp_path, five, tiny_weights):
    assert run(tmp_path / "out", five, tiny_weights, "--data.images_per_fit", "auto", "--data.limit", "2") == 0
    assert len(results(tmp_path / "out")) == 2
