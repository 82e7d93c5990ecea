import pytest
import torch

from iagan_lightning.cli import main
from iagan_lightning.generators import load_generator


@pytest.mark.parametrize(("half", "tolerance"), [("false", 0.0), ("true", 0.02)])
def test_imported_weights_make_the_same_images(public, shared, tmp_path, capsys, half, tolerance):
    source, out = shared / "weights" / "began64-celeba.pth", tmp_path / "public.safetensors"
    assert main(["import-prior", str(source), "--out", str(out), "--half", half, "--note", "CelebA"]) == 0
    z = public.sample_latent(4, seed=0)
    with torch.no_grad():
        assert (load_generator(out)(z) - public(z)).abs().mean() <= tolerance
    printed = capsys.readouterr().out
    assert "BEGAN (resolution 64, channels 64, latent 64, skip False, latent_distribution uniform)" in printed
    assert "latents (64,), uniform; images (3, 64, 64)" in printed
    assert out.stat().st_size == pytest.approx(source.stat().st_size / (2 if half == "true" else 1), rel=0.05)


def test_bad_input(tmp_path, tiny_weights, capsys):
    (tmp_path / "text.pth").write_text("no weights")
    for arguments, message in (
        ([tmp_path / "nowhere.pth", "--out", tmp_path / "a.safetensors"], "no generator weights at"),
        ([tmp_path / "text.pth", "--out", tmp_path / "a.safetensors"], "no weight file"),
        ([tiny_weights, "--out", tmp_path / "a.pth"], "ending in .safetensors"),
        ([tiny_weights, "--out", tmp_path / "nowhere" / "a.safetensors"], "nowhere"),
        ([tiny_weights], "import-prior needs --out"),
    ):
        assert main(["import-prior", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not list(tmp_path.glob("*.safetensors"))
