"""A search that begins where an encoder of plain reconstructions says, and where that cannot be."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import iagan_lightning
from iagan_lightning import CSGM, DIP, IAGAN, ILO, Fit, FitSettings, Stage
from iagan_lightning import reconstruct as reconstruct_anywhere
from iagan_lightning.cli import main
from iagan_lightning.commands.rebuild import rebuild
from iagan_lightning.data.images import fit_image, read_image
from iagan_lightning.generators import (
    BEGAN,
    Encoder,
    EncoderNetwork,
    MobileStyleGAN,
    WeightsError,
    load_generator,
    save_encoder,
    save_generator,
)
from iagan_lightning.generators.catalogue import BUNDLED
from iagan_lightning.generators.mobile_stylegan_reduced import average, reduce
from iagan_lightning.methods.fit import ENCODER
from iagan_lightning.methods.seeds import derived_seed
from iagan_lightning.operators import (
    BicubicDownsampling,
    FourierSensing,
    Identity,
    Inpainting,
    Operator,
    PhaseRetrieval,
)
from iagan_lightning.runs.fingerprint import _encoder

EXAMPLES = Path(iagan_lightning.__file__).parent / "examples"
SHAPE = (3, 16, 16)
A = BicubicDownsampling(SHAPE, scale=4)


def reconstruct(*args, **settings):
    return reconstruct_anywhere(*args, accelerator="cpu", **settings)


class Encoded(IAGAN):
    """Begins with the encoder; shows where, as the first evaluation is made there."""

    def configure_fits(self):
        first, *others = super().configure_fits()
        return [Fit("latent", first.settings, init=ENCODER, result="csgm"), *others]


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(3)
    return Encoder(EncoderNetwork(latent=8, widths=(4, 8, 8), last=2))


@pytest.fixture
def own(encoder, tmp_path):
    """A generator with an encoder beside its file, and the path of its weights."""
    torch.manual_seed(1)
    G, path = BEGAN(resolution=16, channels=4, latent=8).eval(), tmp_path / "prior" / "own.safetensors"
    path.parent.mkdir()
    save_generator(G, path)
    save_encoder(encoder, G, path)
    return load_generator(path), path


@pytest.fixture
def y():
    return A(torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(7)) * 2 - 1)


# The encoder itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "words"), [(torch.nan, "not finite"), (7e4, "more than half precision holds")])
def test_weights_that_half_precision_does_not_hold_are_not_stored(tmp_path, value, words):
    G, path = BEGAN(resolution=16, channels=4, latent=8).eval(), tmp_path / "own.safetensors"
    save_generator(G, path)
    network = EncoderNetwork(latent=8, widths=(4, 8, 8), last=2)
    with torch.no_grad():
        name, weight = next(iter(network.named_parameters()))
        weight.view(-1)[0] = value
    with pytest.raises(WeightsError, match=rf"{name} .*{words}"):
        save_encoder(Encoder(network), G, path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_codes_depend_on_each_picture_alone(encoder):
    x = torch.rand(3, 3, 128, 128) * 2 - 1
    together, alone = encoder(x), torch.cat([encoder(picture[None]) for picture in x])
    assert together.shape == (3, 8) and torch.allclose(together, alone, atol=1e-5)
    assert torch.equal(encoder(x), together) and not together.requires_grad
    assert encoder(x.double()).device == x.device
    assert len(together.unique(dim=0)) == 3


def test_what_is_stored_is_what_is_read(own, encoder):
    G, path = own
    x = torch.rand(2, *SHAPE) * 2 - 1
    assert torch.allclose(G.encode(x), encoder(x), atol=1e-2), "half precision"
    assert path.with_name("encoders").joinpath(path.name).stat().st_mode & 0o077, "as readable as the weights"


def test_an_encoder_is_no_part_of_the_generator(own, encoder):
    G, path = own
    bare = BEGAN(resolution=16, channels=4, latent=8)
    assert G.state_dict().keys() == bare.state_dict().keys()
    assert [name for name, _ in G.named_parameters()] == [name for name, _ in bare.named_parameters()]
    G.encode(torch.zeros(1, *SHAPE))
    before = [p.clone() for p in G.encoder.network.parameters()]
    module = Encoded(G, latent=Stage(steps=3), joint=Stage(steps=3, frozen="none"))
    reconstruct(A(torch.zeros(1, *SHAPE)), A, module)
    assert set(module.adapted) == {name for name, _ in bare.named_parameters()}
    assert all(torch.equal(a, b) for a, b in zip(before, G.encoder.network.parameters(), strict=True))
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(bare.state_dict())


def test_it_is_read_when_it_is_first_used(own, capsys):
    _, path = own
    beside = path.with_name("encoders") / path.name
    save_file({"code.weight": torch.zeros(1)}, beside, metadata=metadata(beside))
    with pytest.raises(WeightsError, match=r"own\.safetensors is damaged or holds no encoder"):
        load_generator(path).encode(torch.zeros(1, *SHAPE))


def metadata(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


@pytest.mark.parametrize("what", ["other weights", "no encoder", "deep header", "cut"])
def test_what_does_not_belong_to_the_weights_is_left_out(own, capsys, what):
    _, path = own
    beside = path.with_name("encoders") / path.name
    if what == "other weights":
        save_generator(BEGAN(resolution=16, channels=4, latent=8), path)
    elif what == "no encoder":
        save_file({"a": torch.zeros(1)}, beside)
    elif what == "deep header":
        save_file({"a": torch.zeros(1)}, beside, metadata=dict.fromkeys(metadata(beside), "[" * 100_000))
    else:
        beside.write_bytes(beside.read_bytes()[:100])
    again = load_generator(path)
    assert again.encoder is None and again.encode(torch.zeros(1, *SHAPE)) is None
    [line] = capsys.readouterr().err.splitlines()
    assert str(beside) in line and "left out" in line


def test_encoders_of_other_sizes_are_refused(own):
    G, _ = own
    with pytest.raises(ValueError, match="three widths"):
        EncoderNetwork(latent=8, widths=(4, 4, 4))
    G.encoder = Encoder(EncoderNetwork(latent=7, widths=(4, 8, 8), last=2))
    with pytest.raises(ValueError, match=r"gives \(1, 7\), no latents"):
        Encoded(G).begin(A(torch.zeros(1, *SHAPE)), A)


@pytest.mark.parametrize("name", ["began64", "faces64", "faces128"])
def test_bundled_encoders_know_plain_reconstructions(name, capsys):
    G = load_generator(name)
    assert not capsys.readouterr().err, "it belongs to these very weights"
    assert sum(weight.numel() for weight in G.encoder.network.parameters()) <= 500_000
    assert G.encoder.path.stat().st_size <= 1_000_000
    x = torch.stack([fit_image(read_image(path), G.image_shape[1:]) for path in sorted(EXAMPLES.glob("*.png"))])
    x4, x8, half = (BicubicDownsampling(G.image_shape, scale=4), BicubicDownsampling(G.image_shape, scale=8),
                    Inpainting(G.image_shape, ratio=0.5))  # fmt: skip
    middle = torch.zeros(2, *G.latent_shape)
    for A, noise_std in ((x4, 0.0), (x4, 10 / 255), (x8, 0.0), (half, 0.0), (Identity(G.image_shape), 25 / 255)):
        y = A.measure(x, noise_std, seed=0)
        with torch.no_grad():
            errors = [(A(G(z)) - A(x)).square().flatten(1).mean(1) for z in (G.encode(A.naive(y)), middle)]
        assert bool((errors[0] < errors[1] / 2).all()), A


@pytest.mark.parametrize("path", sorted((BUNDLED / "encoders").iterdir()), ids=lambda path: path.stem)
def test_bundled_encoders_can_be_read(path):
    """Those too whose generators are not bundled."""
    with torch.no_grad():
        z = Encoder(path=path)(torch.zeros(2, 3, 64, 64))
    assert z.shape in {(2, 64), (2, 256), (2, 512)}
    assert bool(z.isfinite().all())


def test_bundled_encoders_belong_to_weights_and_not_to_names(tmp_path):
    G = load_generator("began64")
    elsewhere, other = tmp_path / "renamed.safetensors", tmp_path / "began64.safetensors"
    save_generator(G, elsewhere)
    again = load_generator(elsewhere)
    assert again.encoder.path == G.encoder.path, "the same weights"
    with torch.no_grad():
        next(G.parameters()).mul_(1.001)
    save_generator(G, other)
    assert load_generator(other).encoder is None, "others of the same name"


# Where searches begin --------------------------------------------------------------------------------------------


def test_the_search_begins_at_the_code_of_the_plain_reconstruction(own, y):
    G, _ = own
    result = reconstruct(y, A, Encoded(G, latent=Stage(steps=1), joint=Stage(steps=1)))
    with torch.no_grad():
        assert torch.allclose(result.csgm, G(G.encode(A.naive(y))), atol=1e-5)
    assert result.evaluations["latent"].tolist() == [1, 1]
    again = reconstruct(y, A, Encoded(G, latent=Stage(steps=1), joint=Stage(steps=1)), seed=5)
    assert torch.equal(result.csgm, again.csgm), "no seed has a part in it"


def test_further_restarts_are_drawn(own, y):
    G, _ = own
    module = Encoded(G, latent=Stage(restarts=3, spread=0.5, steps=2))
    module.begin(y, A, seeds=[4, 9])
    first, *others = module.z.detach().unflatten(0, (2, 3)).unbind(1)
    assert torch.equal(first, G.encode(A.naive(y)))
    drawn = torch.stack([G.sample_latent(3, derived_seed(seed, "latent"))[1:] for seed in (4, 9)]) * 0.5
    assert torch.equal(torch.stack(others, 1), drawn)


def test_complex_measurements_have_a_plain_reconstruction_too(own):
    G, _ = own
    F = FourierSensing(SHAPE, ratio=0.5)
    x = torch.rand(1, *SHAPE) * 2 - 1
    module = Encoded(G)
    module.begin(F(x), F)
    assert torch.equal(module.z, G.encode(F.naive(F(x))))


class Doubled(Operator):
    """Not linear in name: it has no plain reconstruction."""

    def forward(self, x):
        return 2 * x


def test_where_it_cannot_be_it_is_refused_and_can_be_asked(own, y, tiny):
    G, _ = own
    with pytest.raises(ValueError, match="fit latent begins with encoder, which needs a generator that has one"):
        Encoded(tiny).begin(y, A)
    x = torch.zeros(1, *SHAPE)
    for operator in (Doubled(SHAPE), PhaseRetrieval(SHAPE, ratio=0.5)):
        with pytest.raises(ValueError, match="an operator with a plain reconstruction"):
            Encoded(G).begin(operator(x), operator)

    class Either(CSGM):
        def configure_fits(self):
            return [Fit("latent", self.resolve("latent"), init=ENCODER if self.can_encode else "draw", result="csgm")]

    for generator, expected in ((G, ENCODER), (tiny, "draw")):
        module = Either(generator)
        module.begin(y, A)
        assert module.current.init == expected
    assert not DIP().can_encode


@pytest.mark.parametrize(
    ("given", "begins", "steps"),
    [
        ({}, ENCODER, 10),
        ({"init": "encoder"}, ENCODER, 10),
        ({"latent": Stage(steps=4)}, ENCODER, 4),
        ({"init": "draw"}, "draw", 50),
        ({"latent": Stage(restarts=2)}, "draw", 50),  # starts are draws
        ({"preset": "paper"}, "draw", 1600),
        ({"preset": "paper", "init": "encoder"}, ENCODER, 1600),
        ({"init": "mean"}, "mean", 50),
    ],
)
def test_fast_begins_with_the_encoder_where_the_weights_follow(own, y, tiny, given, begins, steps):
    """Not where the search is all there is (CSGM), nor where it goes on among features (ILO)."""
    G, _ = own

    def first(method, generator, operator=A, measured=y, **settings):
        module = method(generator, **settings)
        module.begin(measured, operator)
        return module.fits[0].init, module.fits[0].settings.steps

    assert first(IAGAN, G, **given) == (begins, steps)
    assert first(CSGM, G) == first(ILO, G, depth=8) == ("draw", 50)
    assert first(IAGAN, tiny) == ("draw", 50)
    doubled = Doubled(SHAPE)
    assert first(IAGAN, G, doubled, doubled(y.new_zeros(1, *SHAPE))) == ("draw", 50)


# In w ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def styled(tmp_path):
    """A style generator with an encoder that leads to w."""
    torch.manual_seed(2)
    G, path = MobileStyleGAN(channels=(8, 8), latent=6, mapping=2).eval(), tmp_path / "style.safetensors"
    G.measure_whitening(draws=500)
    save_generator(G, path)
    save_encoder(Encoder(EncoderNetwork(latent=6, widths=(4, 8, 8), last=2), space="w"), load_generator(path), path)
    return load_generator(path)


def test_an_encoder_may_lead_to_w(styled, y, tmp_path):
    code = styled.encode(A.naive(y))
    assert (styled.code_space, tuple(code.shape)) == ("w", (2, 6))
    module = IAGAN(styled)
    module.begin(y, A, seeds=[0, 1])
    assert (module.fits[0].init, module.fits[0].settings.steps) == (ENCODER, 15)
    assert torch.equal(module.z, code)
    result = reconstruct(y, A, IAGAN(styled, latent=Stage(steps=1), joint=Stage(steps=1)))
    with torch.no_grad():
        assert torch.allclose(result.csgm, styled(code, space="w"), atol=1e-5)


def test_from_w_one_comes_to_w_plus_and_not_to_z(styled, y):
    module = CSGM(styled, space="w+", init="encoder")
    module.begin(y, A, seeds=[0, 1])
    assert torch.equal(module.z, styled.encode(A.naive(y))[:, None].expand(-1, 5, -1))
    message = (
        "fit latent begins with encoder, whose latents lie in w, and searches z: from w one comes to w, w[+], image"
    )
    with pytest.raises(ValueError, match=message):
        CSGM(styled, space="z", init="encoder").begin(y, A)
    for given in ({"space": "z"}, {"preset": "paper"}):
        module = IAGAN(styled, **given)
        module.begin(y, A)
        assert module.fits[0].init == "draw"


def test_further_restarts_in_w_are_those_of_drawn_z(styled, y):
    module = CSGM(styled, latent=Stage(restarts=3, spread=0.5, steps=2), space="w", init="encoder")
    module.begin(y, A, seeds=[4, 9])
    first, *others = module.z.detach().unflatten(0, (2, 3)).unbind(1)
    assert torch.equal(first, styled.encode(A.naive(y)))
    drawn = torch.stack([styled.sample_latent(3, derived_seed(seed, "latent"))[1:] for seed in (4, 9)]) * 0.5
    with torch.no_grad():
        assert torch.allclose(
            torch.stack(others, 1), styled(drawn.flatten(0, 1), to="w").unflatten(0, (2, 2)), atol=1e-5
        )


def test_what_is_measured_of_weights_is_no_part_of_them(styled, tmp_path):
    """Whitening is measured anew where a pickle is loaded, and rounds otherwise on another machine."""
    styled.whitening.root.mul_(1 + 1e-6)
    save_generator(styled, tmp_path / "style.safetensors")
    assert load_generator(tmp_path / "style.safetensors").encoder is not None


def test_the_same_weights_at_another_size_have_another(tmp_path):
    """What pays at few pixels need not do so at many (ffhq128 is ffhq256, averaged)."""
    path = tmp_path / "style.safetensors"
    small = reduce(MobileStyleGAN(channels=(8, 8, 8), latent=6, mapping=2), 16)
    save_generator(small, path)
    save_encoder(Encoder(EncoderNetwork(latent=6, widths=(4, 8, 8), last=2), space="w"), small, path)
    assert load_generator(path).encoder is not None
    save_generator(average(small, 8), path)
    assert load_generator(path).encoder is None


def test_a_checkpoint_knows_where_its_encoder_leads(styled, y, tmp_path):
    module = IAGAN(styled, latent=Stage(steps=2), joint=Stage(steps=1))
    result = reconstruct(y, A, module)
    module.trainer.save_checkpoint(tmp_path / "all.ckpt")
    loaded = IAGAN.load_from_checkpoint(tmp_path / "all.ckpt", weights_only=True)
    assert loaded.generator.code_space == "w"
    assert torch.equal(reconstruct(y, A, loaded).csgm, result.csgm)


# What is kept ----------------------------------------------------------------------------------------------------


def test_a_checkpoint_brings_its_encoder_along(own, y, tmp_path):
    G, _ = own
    module = Encoded(G, latent=Stage(steps=3), joint=Stage(steps=2))
    reconstruct(y, A, module)
    module.trainer.save_checkpoint(tmp_path / "all.ckpt")
    loaded = Encoded.load_from_checkpoint(tmp_path / "all.ckpt", weights_only=True)
    assert torch.equal(loaded.kept["latent"].z, module.kept["latent"].z)
    first, again = (reconstruct(y, A, m) for m in (module, loaded))
    assert torch.equal(first.csgm, again.csgm)


def test_another_encoder_is_another_setting_where_a_fit_begins_with_it(own, tiny):
    G, _ = own
    begins = [Fit("search", FitSettings(), init=ENCODER, result="found")]
    first = _encoder(begins, CSGM(G))
    G.encoder = Encoder(EncoderNetwork(latent=8, widths=(4, 8, 8), last=2))
    assert first and _encoder(begins, CSGM(G)) not in (first, None)
    assert _encoder([Fit("search", result="found")], CSGM(G)) is None and _encoder([], DIP()) is None


def test_runs_resume_and_rebuild_as_before(own, folder, tmp_path):
    _, path = own
    out = tmp_path / "out"
    words = ["super-resolution", "--data.root", str(folder), "--model.generator", str(path), "--lpips", "none"]
    words += ["--model.latent.steps", "2", "--model.joint.steps", "2", "--save", "weights", "--out", str(out)]
    words += ["--tensorboard", "0", "--trainer.accelerator", "cpu"]
    assert main(words) == 0
    written = {file: file.stat().st_mtime_ns for file in out.rglob("metrics.json")}
    assert main(words) == 0 and len(written) == 2
    assert all(file.stat().st_mtime_ns == then for file, then in written.items()), "nothing is done twice"
    image = sorted(out.rglob("weights.safetensors"))[0]
    with safe_open(image, framework="pt") as file:
        assert not any("encoder" in key or "code" in key for key in file.keys())  # noqa: SIM118
    assert rebuild(image, load_generator(path)).shape == (1, *SHAPE)
