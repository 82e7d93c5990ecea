"""What others build on: plans of fits, spaces, penalties, callbacks with phases, operators that are not linear."""

import copy
import gc
import json
import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from iagan_lightning.callbacks import (
    BackProjection,
    BestObjective,
    CurveWriter,
    DIPBaseline,
    ImageMetrics,
    ResultWriter,
    RunProgress,
    StageStopping,
    TensorBoardImages,
)
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch.func import functional_call

from iagan_lightning import CSGM, DIP, IAGAN, ILO, DIPSettings, Fit, FitSettings, Stage, TestTimeModule, adapt
from iagan_lightning import reconstruct as reconstruct_anywhere
from iagan_lightning.generators import BEGAN, PGGAN, Generator, ModuleGenerator
from iagan_lightning.methods.fit import everything
from iagan_lightning.methods.phases import sort_callbacks
from iagan_lightning.methods.plan import check_plan
from iagan_lightning.methods.trainers import quiet_lightning, quiet_trainer
from iagan_lightning.operators import BicubicDownsampling, Identity, LinearOperator, Operator, PhaseRetrieval
from iagan_lightning.results.metrics import evaluate
from iagan_lightning.results.registry import METRICS, OWN, metric

SHAPE = (3, 16, 16)
SHORT = {"latent": Stage(steps=8), "joint": Stage(steps=6)}
A = BicubicDownsampling(SHAPE, scale=4)


def reconstruct(*args, **settings):
    return reconstruct_anywhere(*args, accelerator="cpu", **settings)


def fitted(module, y, *callbacks, operator=A, noise_std=0.0, trainer=None, **begin):
    module.begin(y, operator, noise_std, **begin)
    with quiet_lightning():
        trainer = trainer or quiet_trainer(accelerator="cpu", callbacks=[BestObjective(), StageStopping(), *callbacks])
        return adapt(module, trainer)


@pytest.fixture
def y():
    return A(torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(7)) * 2 - 1)


# Plans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fits", "message"),
    [
        ([], "one at least"),
        ([Fit("a", result="x"), Fit("a", result="y")], "two fits of a plan have the same name: a"),
        ([Fit("a", result="x"), Fit("b", result="x")], "two results of a plan have the same name: x"),
        ([Fit("a", init="b", result="x"), Fit("b", result="y")], "begins with b, which is no fit before it"),
        ([Fit("a"), Fit("b", init="a", result="x")], "begins with a, which is no fit before it"),
        ([Fit("a", result="x"), Fit("b", init="a")], "the last fit, b, has no result"),
        ([Fit("a", result="truth")], "'truth' is no name of a result"),
        ([Fit("a", result="below/x")], "'below/x' is no name of a result"),
        ([Fit("a", result="x"), Fit("b", result="x_bp")], "'x_bp' is no name of a result"),
        ([Fit("a", space=None, result="x")], "fit a searches no latent .* and no weights"),
        ([Fit("a", FitSettings(restarts=4), init="mean", result="x")], "fit a begins with mean, of which there is one"),
        ([Fit("a", FitSettings(stop="held-out"), result="x")], "no probe before it tells when"),
    ],
)
def test_plans_that_cannot_be_carried_out(fits, message):
    with pytest.raises(ValueError, match=message):
        check_plan(fits)


class Planned(CSGM):
    def __init__(self, generator, fit):
        super().__init__(generator, latent=SHORT["latent"])
        self.fit = fit

    def configure_fits(self):
        return [*super().configure_fits(), self.fit]


@pytest.mark.parametrize(
    ("fit", "noise_std", "message"),
    [
        (Fit("b", adapts=lambda name: "decoder" in name, result="x"), 0.0, "none that the generator has: .* l1.weight"),
        (Fit("b", FitSettings(stop="noise"), result="x"), None, "fit b ends at the noise level, and that is unknown"),
        (Fit("b", view="miror", result="x"), 0.0, "view of fit b is one of identity, mirror, .*; 'miror' was given"),
    ],
)
def test_fits_that_do_not_go_with_generator_or_noise_are_refused_before_the_first(y, tiny, fit, noise_std, message):
    with pytest.raises(ValueError, match=message):
        Planned(tiny, fit).begin(y, A, noise_std)


def test_weights_that_came_frozen_are_told_of_before_the_first_fit(y, tiny):
    with pytest.raises(ValueError, match="all weights that fit b adapts came frozen"):
        Planned(copy.deepcopy(tiny).requires_grad_(False), Fit("b", adapts=everything, result="x")).begin(y, A)


def test_weights_alone_adapt_from_where_the_fit_before_ended(y):
    """In its space: after a search of features, too, and after another fit of weights alone."""

    class Weights(ILO):
        def configure_fits(self):
            *before, _ = super().configure_fits()
            settings = FitSettings(steps=3, lr_weights=1e-3)
            weights = Fit("weights", settings, None, everything, "features", "tuned")
            again = Fit("again", settings, None, everything, "weights", "tuned_again")
            return [*before, weights, again]

    module = fitted(Weights(BEGAN(16, 4, 8), depth=8, features=Stage(steps=3), **SHORT), y)
    assert module.kept["again"].z.shape == module.kept["features"].z.shape
    assert torch.equal(module.kept["again"].z, module.kept["features"].z)
    assert bool((module.objective["again"] <= module.objective["features"]).all())
    assert torch.allclose(module(), module.results["tuned_again"], atol=1e-5)


class Polished(IAGAN):
    def configure_fits(self):
        settings = FitSettings(steps=5, lr=0.0, lr_weights=1e-3)
        polish = Fit("polish", settings, init="joint", adapts=lambda name: name.startswith("l5"), result="polished")
        return [*super().configure_fits(), polish]


class Watch(pl.Callback):
    def __init__(self):
        self.first = {}

    def on_before_backward(self, trainer, pl_module, loss):
        self.first.setdefault(pl_module.stage, pl_module.evaluation.objective.clone())


@pytest.mark.parametrize("batch", [1, 2])
def test_a_third_fit_begins_where_the_second_ended(y, tiny, batch):
    watch = Watch()
    module = fitted(Polished(tiny, **SHORT), y[:batch], watch, BackProjection())
    assert torch.allclose(watch.first["polish"], module.objective["joint"], rtol=1e-5)
    assert bool((module.objective["polish"] < module.objective["joint"]).all())
    assert set(module.results) == {"csgm", "csgm_bp", "iagan", "iagan_bp", "polished", "polished_bp"}
    assert torch.equal(module.kept["polish"].z, module.kept["joint"].z), "its rate is 0"
    joint, polish = module.weights_of("joint"), module.weights_of("polish")
    for name, weight in joint.items():
        assert torch.equal(weight, polish[name]) != name.startswith("l5"), (
            "all of the joint fit's, the last layer changed"
        )
    for i in range(batch):
        weights = {name: w[i] for name, w in polish.items()}
        with torch.no_grad():
            image = functional_call(tiny, weights, module.kept["polish"].z[i : i + 1])
        assert torch.allclose(image[0], module.results["polished"][i], atol=1e-5)
    assert module.evaluations["polish"].tolist() == [5] * batch


def test_nothing_of_one_image_is_left_for_the_next(y, tiny):
    module = fitted(Polished(tiny, **SHORT), y[:1])
    fitted(module, y[1:], seeds=9)
    fresh = fitted(Polished(tiny, **SHORT), y[1:], seeds=9)
    assert torch.equal(module.results["polished"], fresh.results["polished"])


# Objectives -------------------------------------------------------------------------------------------------------


class Bounded(IAGAN):
    def penalty(self, iterate):
        return 0.3 * iterate.image.square().mean((1, 2, 3)) + 0.1 * iterate.z.square().flatten(1).mean(1)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_line_searches_and_best_iterates_go_by_misfit_and_penalty(y, tiny, optimizer):
    stages = {"latent": Stage(optimizer, steps=15, lr=0.1), "joint": Stage(optimizer, steps=10, lr_weights=1e-3)}
    module = fitted(Bounded(tiny, **stages), y)
    plain = fitted(IAGAN(tiny, **stages), y)
    for fit in ("latent", "joint"):
        kept = module.kept[fit]
        misfit = (A(kept.image) - y).square().flatten(1).mean(1)
        penalty = 0.3 * kept.image.square().mean((1, 2, 3)) + 0.1 * kept.z.square().mean(1)
        assert torch.allclose(module.misfits[fit], misfit, rtol=1e-6)
        assert torch.allclose(module.objective[fit], misfit + penalty, rtol=1e-6)
        other = plain.kept[fit]
        worse = 0.3 * other.image.square().mean((1, 2, 3)) + 0.1 * other.z.square().mean(1) + other.misfit
        assert bool((module.objective[fit] < worse).all()), "it does minimise the sum"
    assert torch.equal(plain.objective["joint"], plain.misfits["joint"])


def test_the_noise_rule_goes_by_the_misfit(tiny):
    """A penalty that never gets small does not keep a fit from ending at the noise."""

    class Raised(CSGM):
        def penalty(self, iterate):
            return torch.ones_like(iterate.misfit)

    y = A.measure(tiny(tiny.sample_latent(1, seed=11)).detach(), noise_std=0.05)
    stage = Stage("adam", steps=200, lr=0.1, patience=300)  # no plateau
    raised, plain = (fitted(kind(tiny, latent=stage), y, noise_std=0.05) for kind in (Raised, CSGM))
    assert raised.evaluations["latent"].item() == plain.evaluations["latent"].item() < 200
    assert raised.misfits["latent"] <= (2 * 0.05) ** 2 < raised.objective["latent"]


def test_a_penalty_on_the_latent_is_a_setting(y, tiny):
    latent = Stage(steps=20, penalty="latent", weight=10.0)
    near, far = (fitted(CSGM(tiny, latent=stage), y) for stage in (latent, Stage(steps=20)))
    size = near.kept["latent"].z.square().mean(1)
    assert bool((size < 0.2 * far.kept["latent"].z.square().mean(1)).all())
    assert torch.allclose(near.objective["latent"], near.misfits["latent"] + 10 * size, rtol=1e-5)


def test_a_term_added_to_the_loss_is_refused(y, tiny):
    class Added(IAGAN):
        def training_step(self, batch=None, batch_idx=0):
            return super().training_step(batch, batch_idx) + 0.1 * self.z.square().mean()

    with pytest.raises(ValueError, match=r"loss of Added.training_step is .* overriding penalty"):
        reconstruct(y, A, Added(tiny, **SHORT))


def test_a_penalty_of_the_wrong_shape_is_refused(y, tiny):
    class Summed(IAGAN):
        def penalty(self, iterate):
            return iterate.z.square().sum()

    with pytest.raises(ValueError, match=r"one number per problem, of shape \(2,\); \(\) was returned"):
        reconstruct(y, A, Summed(tiny, **SHORT))


class Absolute(IAGAN):
    def misfit(self, images, rows=None):
        return self.squares(images, rows).sqrt().mean(1)


def test_another_misfit_is_what_is_minimised(y, tiny):
    module = fitted(Absolute(tiny, **SHORT), y)
    recomputed = (A(module.results["iagan"]) - y).abs().flatten(1).mean(1)
    assert torch.allclose(module.objective["joint"], recomputed, rtol=1e-5)
    with pytest.raises(ValueError, match="misfit of its own: held-out measurements cannot be told"):
        Absolute(tiny).begin(y, A, None)


def test_weights_that_came_frozen_stay_frozen(y, tiny):
    G = BEGAN(16, 4, 8)
    G.load_state_dict(tiny.state_dict())
    G.l1.requires_grad_(False)
    module = fitted(IAGAN(G, "paper", **SHORT), y)
    assert not {"l1.weight", "l1.bias"} & set(module.adapted)
    assert {"l2.weight", "l3.weight"} <= set(module.adapted)
    G.requires_grad_(False)
    with pytest.raises(ValueError, match=r"came frozen .*G.requires_grad_\(True\)"):
        reconstruct(y, A, G, **SHORT)
    assert reconstruct(y, A, G, method="csgm", latent=Stage(steps=3)).csgm.shape == (2, *SHAPE)


# Spaces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("G", [BEGAN(32, 4, 8), PGGAN(16, (8, 8, 4), 6), BEGAN(16, 4, 8, skip=True)], ids=repr)
def test_every_space_leads_to_the_same_image(G):
    z = G.sample_latent(2, seed=3)
    with torch.no_grad():
        for space, shape in G.spaces.items():
            inner = z if space == "z" else G(z, to=space)
            assert inner.shape == (2, *shape)
            assert torch.allclose(G(inner, space=space), G(z), atol=1e-6)
    with pytest.raises(ValueError, match=r"has the latent spaces z.*; 'w' was given"):
        G.require_space("w")


@pytest.mark.parametrize("batch", [1, 2])
def test_features_are_searched_within_their_radius(y, tiny, batch):
    module = ILO(tiny, features=Stage(steps=12), depth=8, radius=0.05, **SHORT)
    fitted(module, y[:batch])
    with torch.no_grad():
        began = tiny(module.kept["latent"].z, to="features-8")
    kept = module.kept["features"].z
    away = (kept - began).flatten(1).norm(dim=1) / began.flatten(1).norm(dim=1)
    assert bool((away <= 0.05 * (1 + 1e-5)).all()) and bool((away > 0.01).all())
    assert bool((module.objective["features"] < module.objective["latent"]).all())
    assert bool((module.objective["joint"] < module.objective["features"]).all())
    with torch.no_grad():
        assert torch.allclose(tiny(kept, space="features-8"), module.results["ilo"], atol=1e-6)
    assert set(module.results) == {"csgm", "ilo", "iagan"}


def test_depths_that_a_generator_does_not_have(tiny):
    with pytest.raises(ValueError, match="'features-64' was given"):
        ILO(tiny, depth=64)
    with pytest.raises(ValueError, match="radius is above 0"):
        ILO(tiny, depth=8, radius=0.0)


def test_a_plan_may_begin_in_the_middle_of_the_prior(y, tiny):
    class Middle(CSGM):
        def configure_fits(self):
            return [Fit("search", FitSettings("lbfgs", steps=1), init="mean", result="found")]

    module = fitted(Middle(tiny), y)
    with torch.no_grad():
        assert torch.allclose(module.results["found"], tiny(torch.zeros(2, 8)), atol=1e-6)


# Methods ----------------------------------------------------------------------------------------------------------


def test_csgm_is_the_first_half_of_iagan(y, tiny):
    alone, both = (reconstruct(y, A, tiny, method=method, latent=Stage(steps=8)) for method in ("csgm", "iagan"))
    assert torch.equal(alone.csgm, both.csgm) and torch.equal(alone.csgm_bp, both.csgm_bp)
    assert list(alone.results) == ["csgm", "csgm_bp"]
    assert alone.iagan is None
    with pytest.raises(AttributeError, match="its results are csgm, csgm_bp"):
        _ = alone.polished


def test_dip_is_a_method_like_any_other(y, tmp_path):
    everything_there = [
        BackProjection(), ImageMetrics(), TensorBoardImages(str(tmp_path)), CurveWriter(tmp_path), RunProgress(2),
        ResultWriter(tmp_path),
    ]  # fmt: skip
    module = fitted(DIP(settings=DIPSettings(steps=4)), y, *everything_there, names=["a", "b"])
    baseline = reconstruct(y, A, BEGAN(16, 4, 8), **SHORT, callbacks=[DIPBaseline(DIPSettings(steps=4))])
    assert torch.equal(module.results["dip"], baseline.dip)
    assert torch.allclose(A(module.results["dip_bp"]), y, atol=1e-5)
    record = json.loads((tmp_path / "images" / "a" / "metrics.json").read_text())
    assert (record["version"], record["result"], record["evaluations"]) == (2, "dip", {"dip": 4})
    assert set(record["methods"]) == {"naive", "dip", "dip_bp"}
    assert (tmp_path / "images" / "b" / "curves.csv").read_text().splitlines()[1].startswith("0,dip,")
    with pytest.raises(ValueError, match="DIP has none"):
        fitted(DIP(settings=DIPSettings(steps=1)), y, ResultWriter(tmp_path / "w", "weights"))
    with pytest.raises(ValueError, match="leave the baseline out"):
        fitted(DIP(settings=DIPSettings(steps=1)), y, DIPBaseline())


def test_a_learning_rate_of_zero_is_one(y):
    module = DIP(settings=DIPSettings(steps=3, lr=0.0))
    module.begin(y, A)
    before = [w.detach().clone() for w in module.weights]
    fitted(module, y)
    assert all(torch.equal(a, b) for a, b in zip(before, module.weights, strict=True))


def test_what_a_method_does_not_take_is_refused(y, tiny):
    with pytest.raises(ValueError, match="CSGM has no joint; it takes generator"):
        reconstruct(y, A, tiny, method="csgm", joint=Stage(steps=2))
    with pytest.raises(ValueError, match="is one of iagan, csgm, ilo, dip; 'gan' was given"):
        reconstruct(y, A, tiny, method="gan")
    with pytest.raises(ValueError, match="network of its own"):
        reconstruct(y, A, tiny, method="dip")
    with pytest.raises(ValueError, match="needs a generator"):
        reconstruct(y, A, None)
    with pytest.raises(ValueError, match="is a method already"):
        reconstruct(y, A, CSGM(tiny), preset="paper")
    with pytest.raises(ValueError, match=r"call begin\(y, A\) first"):
        adapt(IAGAN(tiny), quiet_trainer(accelerator="cpu"))


# Callbacks --------------------------------------------------------------------------------------------------------


class Mean(pl.Callback):
    def __init__(self, name="mean"):
        self.name = name

    def on_train_end(self, trainer, pl_module):
        if pl_module.is_last:
            pl_module.results[self.name] = (pl_module.results["csgm"] + pl_module.results["iagan"]) / 2


def test_no_order_of_callbacks_drops_a_result(y, tiny, tmp_path):
    truth = torch.zeros(2, *SHAPE)
    records = []
    for turn in (1, -1):
        out = tmp_path / str(turn)
        callbacks = [
            BestObjective(), StageStopping(), BackProjection(), Mean(), ImageMetrics(), TensorBoardImages(str(out)),
            CurveWriter(out), ResultWriter(out),
        ][::turn]  # fmt: skip
        fitted(IAGAN(tiny, **SHORT), y, trainer=quiet_trainer(accelerator="cpu", callbacks=callbacks), truth=truth)
        record = json.loads((out / "images" / "image-0" / "metrics.json").read_text())
        assert set(record["methods"]) == {"naive", "csgm", "csgm_bp", "iagan", "iagan_bp", "mean"}
        assert (out / "images" / "image-0" / "mean.png").is_file()
        record.pop("seconds")
        records.append(record)
    assert records[0] == records[1]


@pytest.mark.parametrize("name", ["truth", "comparison", "below/mean", ""])
def test_no_callback_puts_a_result_in_place_of_another_picture(name, y, tiny, tmp_path):
    with pytest.raises(ValueError, match=f"'{name}' is no name of a result"):
        fitted(IAGAN(tiny, **SHORT), y, Mean(name), ResultWriter(tmp_path), truth=torch.zeros(2, *SHAPE))
    assert not list(tmp_path.rglob("*.png"))


def test_each_image_has_steps_of_its_own_in_tensorboard(y, tiny, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoardImages(str(tmp_path))
    for name in ("a", "b"):
        fitted(IAGAN(tiny, "paper", **SHORT), y[:1], board, names=[name])
        events = EventAccumulator(str(tmp_path / "tensorboard" / name)).Reload()
        steps = [event.step for event in events.Scalars("curve/objective")]
        assert (steps[0], steps[-1]) == (0, 13)


def test_a_phase_that_does_not_exist():
    class Late(pl.Callback):
        phase = "later"

    with pytest.raises(ValueError, match="phase of Late is one of make, measure, write; 'later' was given"):
        sort_callbacks([Late()])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "callback",
    [BestObjective(), StageStopping(), BackProjection(), DIPBaseline(), ImageMetrics(), TensorBoardImages("nowhere"),
     CurveWriter("nowhere"), ResultWriter("nowhere")],
    ids=lambda callback: type(callback).__name__,
)  # fmt: skip
def test_another_kind_of_module_is_told_so_in_one_sentence(callback):
    from pytorch_lightning.demos.boring_classes import BoringModel

    trainer = quiet_trainer(accelerator="cpu", callbacks=[callback], limit_train_batches=2)
    message = f"{type(callback).__name__} works with a TestTimeModule, such as IAGAN; BoringModel is none"
    with quiet_lightning(), pytest.raises(TypeError, match=message):
        trainer.fit(BoringModel())


def test_best_iterates_go_by_what_is_still_active(y, tiny):
    """Where a device is looked at now and then only, ended images are still evaluated: they must not change."""
    module = IAGAN(tiny, **SHORT)
    module.begin(y, A)
    best = BestObjective()
    for lower in (0.0, 1.0):
        module.training_step()
        module.evaluation.objective -= lower
        module.active[0] = lower == 0.0
        best.on_before_backward(None, module, None)
        if not lower:
            first = module.best.objective.clone()
    assert module.best.objective[0] == first[0]
    assert module.best.objective[1] == first[1] - 1


@pytest.mark.filterwarnings("ignore:.*ModelCheckpoint|.*Checkpoint directory")
@pytest.mark.parametrize("every", [None, 3])
def test_checkpoints_hold_an_iterate_with_its_own_objective(y, tiny, tmp_path, every):
    """Also one that is stored amid a fit: the weights after a step have no objective yet."""
    when = {"save_on_train_epoch_end": True} if every is None else {"every_n_train_steps": every}
    checkpoint = ModelCheckpoint(tmp_path, monitor="objective", save_top_k=-1, filename="{step}", **when)
    trainer = quiet_trainer(
        accelerator="cpu", logger=CSVLogger(tmp_path, flush_logs_every_n_steps=1), log_every_n_steps=1,
        enable_checkpointing=True, callbacks=[BestObjective(), StageStopping(), checkpoint],
    )  # fmt: skip
    module = fitted(IAGAN(tiny, "paper", logged=True, **SHORT), y[:1], trainer=trainer)
    files = sorted(tmp_path.glob("*.ckpt"))
    assert len(files) == (2 if every is None else 4)
    for file in files:
        stored = torch.load(file, weights_only=False)
        iterate, state = stored["iterate"], stored["state_dict"]
        weights = {name: w[0] for name, w in iterate["weights"].items()}
        assert torch.equal(state["z"], iterate["z"])
        with torch.no_grad():
            image = functional_call(tiny, weights, iterate["z"])
        assert torch.allclose((A(image) - y[:1]).square().mean(), iterate["objective"], rtol=1e-5)
    if every is None:
        assert trainer.callback_metrics["objective"].item() == pytest.approx(module.objective["joint"].item())
    header, *rows = (Path(trainer.logger.log_dir) / "metrics.csv").read_text().splitlines()
    assert {"objective", "misfit", "residual"} <= set(header.split(","))
    assert len(rows) >= 14


class Weighted(IAGAN):
    """A method of one's own with an argument of its own."""

    def __init__(self, generator, size=0.3, **settings):
        super().__init__(generator, **settings)
        self.size = size

    def penalty(self, iterate):
        return self.size * iterate.z.square().mean(1)


CHECKPOINTED = {
    "csgm": lambda G: CSGM(G, "fast", Stage(steps=4, restarts=2)),
    "iagan": lambda G: IAGAN(G, "paper", **SHORT),
    "ilo": lambda G: ILO(G, features=Stage(steps=3), depth=8, radius=0.05, **SHORT),
    "dip": lambda G: DIP(settings=DIPSettings(steps=3)),
    "own": lambda G: Weighted(G, size=0.1, **SHORT),
}


def assert_same_outcome(loaded, module):
    assert loaded.results.keys() == module.results.keys() and loaded.kept.keys() == module.kept.keys()
    assert all(torch.equal(loaded.results[name], image) for name, image in module.results.items())
    for fit, kept in module.kept.items():
        assert all(torch.equal(a, b) for a, b in zip(loaded.kept[fit].tensors, kept.tensors, strict=True))
        theirs, ours = loaded.weights_of(fit), module.weights_of(fit)
        assert theirs.keys() == ours.keys() and all(torch.equal(theirs[name], w) for name, w in ours.items())
    for name in ("seeds", "names", "noise_std", "seconds", "titles", "final", "stage", "given", "preset"):
        assert getattr(loaded, name) == getattr(module, name), name
    for name in ("objective", "misfits", "evaluations"):
        ours, theirs = getattr(module, name), getattr(loaded, name)
        assert ours.keys() == theirs.keys() and all(torch.equal(theirs[fit], value) for fit, value in ours.items())
    assert [fit.settings for fit in loaded.fits] == [fit.settings for fit in module.fits]


@pytest.mark.parametrize(("method", "noise_std"), [*((name, 0.0) for name in CHECKPOINTED), ("ilo", None)])
def test_a_checkpoint_gives_the_same_results_again(y, tiny, tmp_path, method, noise_std):
    """Nothing but the file is given, which holds nothing that runs; from there a new image is one like any other."""
    given = {"noise_std": noise_std, "seeds": [4, 9], "names": ["a", "b"]}
    module = fitted(CHECKPOINTED[method](tiny), y, BackProjection(), **given)
    module.trainer.save_checkpoint(tmp_path / "all.ckpt")
    loaded = type(module).load_from_checkpoint(tmp_path / "all.ckpt", weights_only=True)
    assert_same_outcome(loaded, module)
    if "iagan" in module.results:
        with torch.no_grad():
            assert torch.allclose(loaded(), module.results["iagan"], atol=1e-6)
    with pytest.raises(ValueError, match=r"call begin\(y, A\) first"):
        adapt(loaded, quiet_trainer(accelerator="cpu"))
    again = fitted(loaded, y, BackProjection(), **given)
    assert all(torch.equal(again.results[name], image) for name, image in module.results.items())


def test_checkpoints_on_the_way_hold_what_there_was(y, tiny, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{step}", every_n_train_steps=4)
    trainer = quiet_trainer(
        accelerator="cpu", enable_checkpointing=True, callbacks=[BestObjective(), BackProjection(), checkpoint]
    )
    module = fitted(IAGAN(tiny, "paper", **SHORT), y, trainer=trainer)
    early, late = (IAGAN.load_from_checkpoint(tmp_path / f"step={step}.ckpt") for step in (4, 12))
    assert not early.results and early.stage == "latent"
    assert set(late.results) == {"csgm", "csgm_bp"} and late.stage == "joint"
    assert torch.equal(late.results["csgm"], module.results["csgm"])
    with torch.no_grad():
        misfit = (A(late()) - y).square().flatten(1).mean(1)
    iterate = torch.load(tmp_path / "step=12.ckpt", weights_only=True)["iterate"]
    assert torch.allclose(misfit, iterate["objective"], rtol=1e-5), "the best so far"


def test_a_generator_that_cannot_say_how_it_is_built_is_given(y, tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(8, 768), torch.nn.Tanh(), torch.nn.Unflatten(1, SHAPE))
    G = ModuleGenerator(network, latent_shape=[8])
    module = fitted(CSGM(G, latent=Stage(steps=3)), y)
    module.trainer.save_checkpoint(tmp_path / "own.ckpt")
    with pytest.raises(ValueError, match=r"another generator: .* CSGM.load_from_checkpoint\(file, generator=G\)"):
        CSGM.load_from_checkpoint(tmp_path / "own.ckpt")
    assert_same_outcome(CSGM.load_from_checkpoint(tmp_path / "own.ckpt", generator=G), module)


def test_a_state_is_taken_by_a_module_that_has_not_begun(y, tiny):
    module = fitted(IAGAN(tiny, **SHORT), y)
    state = module.state_dict()
    fresh = IAGAN(BEGAN(16, 4, 8))
    fresh.load_state_dict(state)
    assert torch.equal(fresh.z, module.z)
    assert all(torch.equal(a, b) for a, b in zip(fresh.weights, module.weights, strict=True))
    assert torch.equal(fresh.generator(module.z), tiny(module.z))
    module.load_state_dict(state)
    with pytest.raises(ValueError, match="another generator"):
        IAGAN(BEGAN(16, 8, 8)).load_state_dict(state)
    other = IAGAN(tiny, **SHORT)
    other.begin(y, A)
    with pytest.raises(ValueError, match="another fit than latent"):
        other.load_state_dict(state)


def test_checkpoints_of_a_command_are_loaded_too(tiny_weights, tmp_path):
    from iagan_lightning.cli import main

    words = ["super-resolution", "--out", str(tmp_path / "out"), "--model.generator", str(tiny_weights)]
    words += ["--model.latent.steps", "3", "--model.joint.steps", "3", "--data.limit", "1", "--lpips", "none"]
    words += ["--tensorboard", "0", "--trainer.accelerator", "cpu", "--trainer.enable_checkpointing", "true"]
    words += ["--trainer.callbacks+=ModelCheckpoint", f"--trainer.callbacks.dirpath={tmp_path / 'kept'}"]
    words += ["--trainer.callbacks.filename={step}", "--trainer.callbacks.save_top_k=-1"]
    assert main(words) == 0
    loaded = IAGAN.load_from_checkpoint(tmp_path / "kept" / "step=6.ckpt", weights_only=True)
    record = json.loads(next((tmp_path / "out").rglob("metrics.json")).read_text())
    assert set(loaded.results) == {"csgm", "csgm_bp", "iagan"}
    assert loaded.objective["joint"].item() == record["objective"]["joint"]
    assert (loaded.seeds, loaded.names) == ([record["seed"]], [record["image"]])


def test_metrics_of_ones_own_are_measured_written_and_shown(y, tiny, tmp_path, capsys):
    from iagan_lightning.cli import main
    from iagan_lightning.results.folder import OutputFolder
    from iagan_lightning.results.page.collect import collect
    from iagan_lightning.results.table import print_summary

    try:

        @metric(title="MAE", better="low")
        def mae(x, truth):
            return (x.clamp(-1, 1) - truth).abs().mean((1, 2, 3)) / 2

        module = fitted(IAGAN(tiny, **SHORT), y, ImageMetrics(), ResultWriter(tmp_path), truth=torch.zeros(2, *SHAPE))
        expected = module.results["iagan"][0].clamp(-1, 1).abs().mean().item() / 2
        assert module.metrics[0]["iagan"]["mae"] == pytest.approx(expected, rel=1e-5)
        assert "mae" not in evaluate(y.new_zeros(2, *SHAPE), y, A)[0], "it needs the truth"
        with pytest.raises(ValueError, match="there is a metric psnr already"):
            metric("psnr")(lambda x: x)
        for taken in ("mse", "residual_8bit", "null_space_mse", "image", "method", "title", "n", "psnr_of_mean_mse"):
            with pytest.raises(ValueError, match=f"there is a metric {taken} already"):
                metric(taken)(lambda x: x)
        with pytest.raises(ValueError, match="asks for z"):
            metric()(lambda z: z)
    finally:
        METRICS.pop("mae"), OWN.pop("mae")
    # Whoever reads the folder need not know the function.
    out = OutputFolder(tmp_path)
    print_summary(out.write_summary(), out)
    assert "MAE" in capsys.readouterr().out
    shown = {row["key"]: row for row in collect([tmp_path], tmp_path / "report.html")["metrics"]}
    assert (shown["mae"]["title"], shown["mae"]["judged"]) == ("MAE", True)
    assert main(["report", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("returned", "got"), [(0.5, "a float"), (torch.zeros(1), r"\(1,\)"), (torch.zeros(2, 1), r"\(2, 1\)")]
)
def test_a_metric_that_is_no_number_of_each_image_is_refused_by_name(y, returned, got):
    try:
        metric("mine")(lambda x: returned)
        with pytest.raises(
            ValueError, match=rf"metric mine returns a tensor of one number per image, \(2,\); got {got}"
        ):
            evaluate(y.new_zeros(2, *SHAPE), y, A)
    finally:
        METRICS.pop("mine"), OWN.pop("mine")


def test_a_metric_is_not_told_that_noise_of_unknown_level_is_none(y):
    try:
        metric("mine")(lambda x, noise_std: torch.full((len(x),), noise_std))
        x = y.new_zeros(2, *SHAPE)
        assert [evaluate(x, y, A, noise_std=level)[0].get("mine") for level in (0.0, 0.25, None)] == [0.0, 0.25, None]
    finally:
        METRICS.pop("mine"), OWN.pop("mine")


def test_folders_of_earlier_versions_are_read_but_not_gone_on_with(y, tiny, tiny_weights, tmp_path, capsys):
    """Their metrics.json has no version, settings.json no format, weights.safetensors says of no fit."""
    from safetensors.torch import load_file, save_file

    from iagan_lightning.cli import main
    from iagan_lightning.commands.rebuild import rebuild

    out = tmp_path / "out"
    words = ["super-resolution", "--out", str(out), "--model.generator", str(tiny_weights), "--save", "weights"]
    words += ["--model.latent.steps", "3", "--model.joint.steps", "3", "--data.limit", "1", "--lpips", "none"]
    words += ["--tensorboard", "0", "--trainer.accelerator", "cpu"]
    assert main(words) == 0
    folder = next(out.rglob("metrics.json")).parent
    record = json.loads((folder / "metrics.json").read_text())
    for key in ("version", "result", "misfit"):
        record.pop(key)
    (folder / "metrics.json").write_text(json.dumps(record))
    image = rebuild(folder / "weights.safetensors", tiny)
    save_file(load_file(folder / "weights.safetensors"), folder / "weights.safetensors")
    assert torch.equal(rebuild(folder / "weights.safetensors", tiny), image)
    settings = json.loads((out / "settings.json").read_text())
    settings.pop("format")
    (out / "settings.json").write_text(json.dumps({**settings, "stages": settings.pop("fits")}))
    assert main(["report", str(out)]) == 0
    capsys.readouterr()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1 and "holds results of another version" in error and "iagan report still reads" in error
    )


# Operators that are not linear ------------------------------------------------------------------------------------


class Saturated(Operator):
    def forward(self, x):
        return x.clamp(-0.5, 0.5)


def test_what_needs_linearity_says_so(tiny, tmp_path):
    B = Saturated(SHAPE)
    y = B(torch.rand(2, *SHAPE) * 2 - 1)
    module = fitted(IAGAN(tiny, **SHORT), y, BackProjection(), ImageMetrics(), operator=B, truth=torch.zeros(2, *SHAPE))
    assert set(module.results) == {"csgm", "iagan"}, "no back-projection, and no plain reconstruction"
    assert not {"row_space_mse", "null_space_mse"} & set(module.metrics[0]["iagan"])
    for enabled in (True, "discrepancy", "naive"):
        watch = Watching()
        with pytest.raises(ValueError, match="back_projection needs a linear operator; Saturated is none"):
            reconstruct(y, B, tiny, **SHORT, back_projection=enabled, callbacks=[watch])
        assert not watch.evaluations, "before any fit"
    x, v = torch.rand(1, *SHAPE, dtype=torch.float64) * 2 - 1, torch.rand(1, *SHAPE, dtype=torch.float64)
    assert torch.equal(B.vjp(x, v), v * (x.abs() < 0.5))


class Watching(pl.Callback):
    evaluations = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.evaluations += 1


@pytest.mark.parametrize(
    ("noise_std", "callback", "said"),
    [
        (None, BackProjection("discrepancy"), "needs a noise_std that is known"),
        (0.0, DIPBaseline(DIPSettings(stop="noise")), "needs a noise_std above 0"),
        (None, DIPBaseline(DIPSettings(stop="noise")), "needs a noise_std above 0"),
    ],
)
def test_what_a_callback_cannot_do_is_refused_before_any_fit(tiny, noise_std, callback, said):
    watch = Watching()
    with pytest.raises(ValueError, match=said):
        reconstruct(torch.zeros(1, *SHAPE), Identity(SHAPE), tiny, noise_std, callbacks=[callback, watch], **SHORT)
    assert not watch.evaluations


def test_pictures_are_no_measurements_of_a_non_linear_operator(tmp_path):
    from PIL import Image

    from iagan_lightning.data import ImageData

    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    data = ImageData(measurements=str(tmp_path))
    [sample] = data.samples(0, SHAPE)
    with pytest.raises(ValueError, match=r"Saturated is none: give .pt or .npy"):
        data.read(sample, SHAPE, lambda shape, **_: Saturated(shape), 0.0)


def test_a_zero_gradient_is_no_convergence():
    class Modulus(LinearOperator):
        def forward(self, x):
            return x.abs()

    class Half(LinearOperator):
        def forward(self, x):
            return x[..., :2]

        def measured(self, y):
            return y

    with pytest.raises(RuntimeError, match="not linear, or has a wrong adjoint"):
        Modulus((1, 4, 4)).pseudo_inverse(torch.ones(1, 1, 4, 4))
    assert Half((1, 4, 4)).pseudo_inverse(torch.zeros(1, 1, 4, 2)).abs().max() == 0


def test_physics_of_deepinv_that_are_not_linear_are_refused():
    physics = pytest.importorskip("deepinv.physics")
    from iagan_lightning.operators.deepinv import DeepinvOperator

    class Squares(physics.Physics):
        def A(self, x, **_):
            return x.square()

        A_adjoint = A

    with pytest.raises(ValueError, match="Squares is no LinearPhysics of deepinv"):
        DeepinvOperator(SHAPE, Squares())


@pytest.mark.parametrize("kind", ["gaussian", "fourier"])
def test_phase_retrieval_is_a_modulus(kind):
    B = PhaseRetrieval(SHAPE, ratio=0.5, seed=1, kind=kind)
    x = torch.rand(2, *SHAPE, dtype=torch.float64) * 2 - 1
    assert torch.allclose(B(x), B(-x)) and torch.allclose(B(3 * x), 3 * B(x))
    assert not torch.allclose(B(x[:1] + x[1:]), B(x[:1]) + B(x[1:]))
    assert torch.allclose(B(x), torch.cat([B(x[:1]), B(x[1:])]))
    assert torch.autograd.gradcheck(B, x.requires_grad_())
    with pytest.raises(ValueError, match="kind is one of"):
        PhaseRetrieval(SHAPE, kind="other")
    if kind == "gaussian":
        wide = PhaseRetrieval((1, 8, 8), ratio=1.0, seed=0)
        energy = torch.stack(
            [PhaseRetrieval((1, 8, 8), 1.0, s)(torch.ones(1, 1, 8, 8)).square().sum() for s in range(30)]
        )
        assert wide.num_measurements == 64
        assert energy.mean().item() == pytest.approx(64, rel=0.1), "|y| is about |x|"


def test_phase_retrieval_finds_an_image_of_the_generator(tiny):
    """Gaussian, half as many measurements as pixels, weights frozen: the best of a few starts is the image."""
    B = PhaseRetrieval(SHAPE, ratio=0.5, seed=0)
    with torch.no_grad():
        x = tiny(tiny.sample_latent(1, seed=5))
    result = reconstruct(B(x), B, tiny, method="csgm", latent=Stage("lbfgs", steps=200, restarts=8, stop="never"))
    error = (result.csgm - x).square().mean().item()
    assert 10 * math.log10(4 / error) > 30


# Other packages ---------------------------------------------------------------------------------------------------


def test_what_other_packages_register_is_found(tiny_weights, tmp_path, monkeypatch):
    """A package with methods, metrics, generators, operators and a task, as pip would leave it."""
    from iagan_lightning import plugins
    from iagan_lightning.cli import main
    from iagan_lightning.commands.tasks import TASKS, TaskTrainer
    from iagan_lightning.generators import load_generator
    from iagan_lightning.results import registry

    (tmp_path / "elsewhere.py").write_text(
        "from iagan_lightning import IAGAN, Fit, FitSettings\n"
        "from iagan_lightning.commands.tasks import Task\n"
        "from iagan_lightning.generators import load_generator\n"
        "from iagan_lightning.operators import Grayscale, LinearOperator\n"
        "class Thrice(IAGAN):\n"
        "    def configure_fits(self):\n"
        "        third = Fit('third', FitSettings(steps=2), init='joint', adapts=lambda n: True, result='thrice')\n"
        "        return [*super().configure_fits(), third]\n"
        "class Upside(LinearOperator):\n"
        "    def forward(self, x):\n"
        "        return x.flip(-2)\n"
        "def brightness(x):\n"
        "    return x.mean((1, 2, 3))\n"
        f"def cats():\n    return load_generator({str(tiny_weights)!r})\n"
        "colourise = Task('Colour grey pictures.', Grayscale)\n"
    )
    info = tmp_path / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    groups = {"methods": "thrice = elsewhere:Thrice", "operators": "Upside = elsewhere:Upside", "metrics":
              "brightness = elsewhere:brightness", "generators": "cats = elsewhere:cats", "tasks":
              "colourise = elsewhere:colourise"}  # fmt: skip
    (info / "entry_points.txt").write_text("".join(f"[iagan_lightning.{g}]\n{line}\n" for g, line in groups.items()))
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._load_registered.cache_clear()
    try:
        assert load_generator("cats").image_shape == SHAPE
        few = ["--model.latent.steps", "2", "--model.joint.steps", "2", "--data.limit", "1", "--lpips", "none",
               "--trainer.accelerator", "cpu", "--tensorboard", "0", "--model.generator", "cats"]  # fmt: skip
        out = tmp_path / "out"
        words = ["inpainting", "--model", "thrice", "--operator", "Upside", *few, "--out", str(out)]
        assert main(words) == 0
        record = json.loads(next(out.rglob("metrics.json")).read_text())
        assert record["evaluations"] == {"latent": 2, "joint": 2, "third": 2}
        assert record["operator"].startswith("Upside") and "brightness" in record["methods"]["thrice"]
        assert main(["colourise", *few, "--out", str(tmp_path / "grey")]) == 0
        assert next((tmp_path / "grey").rglob("measurement.png")).is_file()
    finally:
        registry._load_registered.cache_clear()
        METRICS.pop("brightness", None), OWN.pop("brightness", None), TASKS.pop("colourise", None)
        plugins.load.cache_clear()
        if hasattr(TaskTrainer, "colourise"):
            delattr(TaskTrainer, "colourise")


def test_a_bare_module_says_what_it_lacks(y, tiny):
    with pytest.raises(NotImplementedError, match="TestTimeModule does not define configure_fits"):
        TestTimeModule(tiny).begin(y, A)
    with pytest.raises(NotImplementedError, match="does not define forward"):
        Operator(SHAPE)(torch.zeros(1, *SHAPE))


def test_every_weight_that_a_plan_names_adapts(tiny):
    class Whole(CSGM):
        def configure_fits(self):
            return [Fit("all", FitSettings(steps=2), adapts=everything, result="all")]

    module = fitted(Whole(tiny), torch.zeros(1, *SHAPE), operator=Identity(SHAPE))
    assert set(module.adapted) == {name for name, _ in tiny.named_parameters()}
    assert isinstance(tiny, Generator)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_an_image_leaves_no_memory_behind(y, tiny, solver):
    """Trainers and optimisers refer to themselves: without the collector, all images of a run would stay."""
    module = IAGAN(tiny, latent=Stage(steps=2), joint=Stage(solver, steps=2))

    def live():
        return sum(x.numel() for x in gc.get_objects() if issubclass(type(x), torch.Tensor))

    gc.collect()
    gc.disable()
    try:
        held = []
        for _ in range(3):
            reconstruct(y, A, module)
            held.append(live())
    finally:
        gc.enable()
    weights = sum(p.numel() for p in tiny.parameters())
    assert held[2] - held[1] < weights
