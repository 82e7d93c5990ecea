"""The two stages, checked against plain loops written from the paper."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from iagan_lightning.callbacks import BackProjection, BestObjective, ImageMetrics, StageStopping
from torch import nn
from torch.utils.data import DataLoader

from iagan_lightning import CSGM, DIP, IAGAN, ILO, DIPSettings, Stage, adapt, reconstruct
from iagan_lightning.generators import BEGAN, PGGAN, ModuleGenerator, Pyramid, full_resolution_weights
from iagan_lightning.generators.pggan import Layer
from iagan_lightning.methods.trainers import quiet_lightning, quiet_trainer
from iagan_lightning.operators import BicubicDownsampling, GaussianSensing, Identity, Inpainting, LinearOperator


@pytest.fixture
def A():
    return BicubicDownsampling((3, 16, 16), scale=4, padding="zero")


class EverySecondRow(LinearOperator):
    """Of pixels and not of a smaller picture, although y has three axes and fewer rows."""

    def forward(self, x):
        return x[:, :, ::2]

    def pinv(self, y, regularization=0.0):
        return torch.stack([y, torch.zeros_like(y)], 3).flatten(2, 3)


def test_a_pyramid_ends_sooner_where_y_is_a_smaller_picture(A):
    """Each number of y tells of many pixels there; a setting of the user's goes before it, the paper's has no end."""
    pyramid, shape = Pyramid((8, 4), 6, 4), (3, 16, 16)
    factor = {operator: IAGAN(pyramid).plan(0.0, operator)[-1].settings.decrease for operator in (
        A, Inpainting(shape, ratio=0.5), GaussianSensing(shape, ratio=0.2), Identity(shape),
    )}  # fmt: skip
    assert list(factor.values()) == [20, 40, 40, 40]
    assert IAGAN(pyramid).plan(0.0, EverySecondRow(shape))[-1].settings.decrease == 40
    assert IAGAN(pyramid, joint=Stage(decrease=7)).plan(0.0, A)[-1].settings.decrease == 7
    assert IAGAN(BEGAN(16, 4, 8)).plan(0.0, A)[-1].settings.decrease == 40
    assert IAGAN(pyramid, "paper").plan(0.0, A)[-1].settings.stop == "never"


@pytest.fixture
def y(A):
    return A(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(7)) * 2 - 1)


def stages(latent=12, joint=9, **settings):
    return {"latent": Stage(steps=latent, **settings), "joint": Stage(steps=joint)}


def run(y, A, G, *, preset="paper", callbacks=(), noise_std=0.0, seeds=0, module=None, trainer=None, **settings):
    module = module or IAGAN(G, preset, **(settings or stages()))
    module.begin(y, A, noise_std, seeds)
    with quiet_lightning():
        adapt(module, trainer or quiet_trainer(accelerator="cpu", callbacks=list(callbacks)))
    return module


def plain_loop(y, A, G, z, latent, joint):
    """IAGAN as the paper tells it, for one image: Eq. (2), then Eq. (3), the lowest objective of each."""
    G = copy.deepcopy(G)

    def minimise(groups, steps):
        optimizer = torch.optim.Adam(groups)
        best = (float("inf"), None, None, None)
        for _ in range(steps):
            optimizer.zero_grad()
            x = G(z)
            loss = (y - A(x)).square().sum() / y[0].numel()
            if loss.item() < best[0]:
                best = loss.item(), x.detach().clone(), z.detach().clone(), copy.deepcopy(G.state_dict())
            loss.backward()
            optimizer.step()
        return best

    z = z.clone().requires_grad_()
    csgm = minimise([{"params": [z], "lr": 0.1}], latent)
    z = csgm[2].clone().requires_grad_()
    iagan = minimise([{"params": [z], "lr": 1e-4}, {"params": list(G.parameters()), "lr": 1e-4}], joint)
    return csgm, iagan


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_paper_preset_is_the_plain_loop(y, A, tiny, memory_format):
    module = IAGAN(tiny, "paper", memory_format=memory_format, **stages(40, 30))
    module.begin(y[:1], A)
    start = module.z.detach().clone()
    run(y[:1], A, tiny, module=module, callbacks=[BestObjective()])
    csgm, iagan = plain_loop(y[:1], A, tiny, start, 40, 30)
    for stage, name, (loss, x, z, _) in (("latent", "csgm", csgm), ("joint", "iagan", iagan)):
        assert module.objective[stage].item() == pytest.approx(loss, rel=1e-4)
        assert torch.allclose(module.results[name], x, atol=2e-4)
        assert torch.allclose(module.kept[stage].z, z, atol=2e-4)
    names = [name for name, _ in tiny.named_parameters()]
    for name, weight in zip(names, module.kept["joint"].weights, strict=True):
        assert torch.allclose(weight[0], iagan[3][name], atol=1e-4)


@pytest.mark.parametrize("callbacks", [[], [BestObjective()]], ids=["last", "best"])
def test_kept_iterate_is_consistent(y, A, tiny, callbacks):
    """z, weights, image and objective belong to one forward pass, in both stages."""
    module = run(y, A, tiny, callbacks=callbacks)
    names = [name for name, _ in tiny.named_parameters()]
    for stage in ("latent", "joint"):
        kept = module.kept[stage]
        for i in range(2):
            weights = {n: w[i] for n, w in zip(names, kept.weights, strict=True)} if kept.weights else {}
            with torch.no_grad():
                x = torch.func.functional_call(tiny, weights, kept.z[i : i + 1])
            assert torch.allclose(x[0], kept.image[i], atol=1e-5)
            objective = (A(x) - y[i]).square().sum() / A.num_measurements
            assert kept.objective[i].item() == pytest.approx(objective.item(), rel=1e-4)


def test_a_stage_may_keep_its_last_iterate(y, A, tiny):
    """The public code does; without the callback that keeps the best one, every stage does."""
    last = {"latent": Stage(steps=12, keep="last"), "joint": Stage(steps=9, keep="last")}
    asked, without, best = (
        run(y, A, tiny, callbacks=callbacks, **settings)
        for callbacks, settings in (([BestObjective()], last), ([], stages()), ([BestObjective()], stages()))
    )
    for name in ("csgm", "iagan"):
        assert torch.equal(asked.results[name], without.results[name])
        assert not torch.equal(asked.results[name], best.results[name])


def test_public_weights_objective_is_recomputable(public, portraits):
    A = BicubicDownsampling((3, 64, 64), scale=4, padding="zero")
    y = A(portraits[:1])
    module = run(
        y, A, public, preset="fast", callbacks=[BestObjective()],
        latent=Stage(steps=15), joint=Stage(steps=6, stop="never"),
    )  # fmt: skip
    weights = {n: w[0] for n, w in zip(module.adapted, module.kept["joint"].weights, strict=True)}
    with torch.no_grad():
        x = torch.func.functional_call(public, weights, module.kept["joint"].z)
    objective = (A(x) - y).double().square().mean().item()
    assert module.objective["joint"].item() == pytest.approx(objective, rel=1e-5)
    assert module.objective["joint"] < module.objective["latent"]


class Count(pl.Callback):
    def __init__(self):
        self.objectives = {"latent": [], "joint": []}
        self.calls = 0
        self.optimizers = []
        self.global_steps = []

    def on_train_start(self, trainer, pl_module):
        self.optimizers.append(trainer.optimizers[0])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.objectives[pl_module.stage].append(pl_module.evaluation.objective.clone())
        self.global_steps.append(trainer.global_step)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_callback_sees_every_evaluation(y, A, tiny, optimizer, monkeypatch):
    calls = []
    forward = type(tiny).forward
    monkeypatch.setattr(type(tiny), "forward", lambda self, z: (calls.append(len(z)), forward(self, z))[1])
    count = Count()
    module = run(y[:1], A, tiny, callbacks=[count, BestObjective()], latent=Stage(optimizer, steps=12, lr=0.1),
                 joint=Stage(optimizer, steps=9, lr=1e-4, lr_weights=1e-4))  # fmt: skip
    assert len(calls) == 21
    assert {stage: len(seen) for stage, seen in count.objectives.items()} == {"latent": 12, "joint": 9}
    assert module.evaluations["latent"].tolist() == [12]
    for stage, seen in count.objectives.items():
        assert module.objective[stage].item() == min(float(value) for value in seen)
    assert count.optimizers[0] is not count.optimizers[1]
    assert count.global_steps == list(range(1, 22))


def test_generator_calls_do_not_depend_on_the_batch(y, A, tiny, monkeypatch):
    calls = []
    forward = type(tiny).forward
    monkeypatch.setattr(type(tiny), "forward", lambda self, z: (calls.append(1), forward(self, z))[1])
    run(y, A, tiny, callbacks=[BestObjective()])
    assert len(calls) == 21


def test_generator_is_never_changed(y, A, tiny):
    before = copy.deepcopy(tiny.state_dict())
    flags = [p.requires_grad for p in tiny.parameters()]
    tiny.train()
    run(y, A, tiny, callbacks=[BestObjective()])
    assert tiny.training
    tiny.eval()
    assert all(torch.equal(before[key], value) for key, value in tiny.state_dict().items())
    assert [p.requires_grad for p in tiny.parameters()] == flags
    assert all(p.grad is None for p in tiny.parameters())


def test_latent_stage_computes_no_weight_gradients(y, A, tiny):
    seen = []

    class Look(pl.Callback):
        def on_after_backward(self, trainer, pl_module):
            seen.append([name for name, p in pl_module.named_parameters() if p.grad is not None])

    run(y, A, tiny, callbacks=[Look()])
    assert seen[0] == ["z"]
    assert len(seen[-1]) == 1 + len(list(tiny.parameters()))


def test_one_evaluation_of_a_batch_is_that_of_each_image(y, A, tiny):
    together = IAGAN(tiny, "paper", **stages())
    together.begin(y, A, seeds=[3, 9])
    for stage in ("latent", "joint"):
        if stage == "joint":
            together.keep(together.last_iterate())
            together.enter("joint")
        loss = together.training_step()
        loss.backward()
        for i in range(2):
            alone = IAGAN(tiny, "paper", **stages())
            alone.begin(y[i : i + 1], A, seeds=[[3, 9][i]])
            if stage == "joint":
                alone.keep(alone.last_iterate())
                alone.enter("joint")
            alone.training_step().backward()
            assert torch.allclose(together.evaluation.objective[i], alone.evaluation.objective[0], rtol=1e-5)
            assert torch.allclose(together.z.grad[i], alone.z.grad[0], rtol=1e-4, atol=1e-7)
            for a, b in zip(together.weights, alone.weights, strict=True):
                assert torch.allclose(a.grad[i], b.grad[0], rtol=1e-4, atol=1e-6)


@pytest.mark.slow  # compiling takes most of a minute
def test_compiled_evaluations_are_the_same(y, A, tiny):
    for batch in (1, 2):
        results = []
        for compiled in (False, True):
            module = IAGAN(tiny, "paper", **stages(), compile=compiled)
            results.append(run(y[:batch], A, tiny, seeds=[3, 9][:batch], module=module, callbacks=[BestObjective()]))
        plain, compiled = results
        for name in ("csgm", "iagan"):
            assert torch.allclose(plain.results[name], compiled.results[name], atol=1e-4)


def test_images_do_not_influence_each_other(y, A, tiny):
    """Beside any companion, in any order, and after any other image, a result is the same."""
    together = run(y, A, tiny, seeds=[3, 9], callbacks=[BestObjective()])
    swapped = run(y.flip(0), A, tiny, seeds=[9, 3], callbacks=[BestObjective()])
    assert torch.allclose(together.results["iagan"], swapped.results["iagan"].flip(0), atol=1e-5)
    module = IAGAN(tiny, "paper", **stages())
    alone = []
    for i in (1, 0):
        run(y[i : i + 1], A, tiny, seeds=[[3, 9][i]], module=module, callbacks=[BestObjective()])
        alone.insert(0, module.results["iagan"][0].clone())
    assert torch.allclose(together.results["iagan"], torch.stack(alone), atol=1e-4)
    fresh = run(y[:1], A, tiny, seeds=[3], callbacks=[BestObjective()])
    assert torch.equal(fresh.results["iagan"][0], alone[0]), "bitwise the same after another image"


@pytest.mark.filterwarnings("ignore:Found .* in eval mode")  # fit is called without adapt here
def test_restarts_keep_the_best_start(y, A, tiny):
    module = run(y, A, tiny, callbacks=[BestObjective()], **stages(restarts=4))
    singles = []
    for start in range(4):
        one = IAGAN(tiny, "paper", **stages(restarts=4))
        one.begin(y, A)
        starts = one.z.detach().reshape(2, 4, -1)[:, start]
        one.starts = 1
        with torch.no_grad():
            one.z = torch.nn.Parameter(starts.clone())
        one.active, one.spent = torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.long)
        with quiet_lightning():
            quiet_trainer(accelerator="cpu", callbacks=[BestObjective()]).fit(one, train_dataloaders=range(12))
        singles.append(one.objective["latent"])
    assert torch.allclose(module.objective["latent"], torch.stack(singles).amin(0), rtol=1e-4)
    assert module.evaluations["latent"].tolist() == [48, 48]
    assert module.results["csgm"].shape == (2, 3, 16, 16)


def test_noise_stop(A, tiny):
    with torch.no_grad():
        truth = tiny(tiny.sample_latent(2, seed=11))
    y = A.measure(truth, noise_std=0.05)
    module = run(y, A, tiny, preset="fast", noise_std=0.05, callbacks=[BestObjective(), StageStopping()],
                 latent=Stage(steps=100), joint=Stage(steps=50))  # fmt: skip
    level = (2 * 0.05) ** 2
    assert (module.objective["latent"] <= level).all()
    assert (module.evaluations["latent"] < 100).all()
    # The latent fit already explains the noise: adapting weights to it would be overfitting.
    assert module.evaluations["joint"].tolist() == [1, 1]


def test_an_ended_image_does_not_change_while_its_companion_goes_on(A, tiny):
    easy = A(tiny(tiny.sample_latent(1, seed=11)).detach())
    hard = A(torch.rand(1, 3, 16, 16) * 2 - 1)
    settings = {"latent": Stage("adam", 40, lr=0.1, stop="noise"), "joint": Stage(steps=2)}
    callbacks = [BestObjective(), StageStopping()]
    both = run(torch.cat([easy, hard]), A, tiny, noise_std=0.01, callbacks=callbacks, **settings)
    alone = run(easy, A, tiny, noise_std=0.01, callbacks=callbacks, **settings)
    assert both.evaluations["latent"][0] < both.evaluations["latent"][1] == 40
    assert both.evaluations["latent"][0] == alone.evaluations["latent"][0]
    assert torch.allclose(both.results["csgm"][:1], alone.results["csgm"], atol=1e-5)


def test_noise_stop_is_at_tau_times_the_noise(A, tiny):
    """The first evaluation at or below the level ends the stage, and a smaller tau ends it later."""
    easy, joint = A(tiny(tiny.sample_latent(1, seed=11)).detach()), Stage(steps=1, stop="never")
    first = run(easy, A, tiny, callbacks=[BestObjective()], latent=Stage("adam", 1), joint=joint).objective["latent"]
    noise_std = first.item() ** 0.5 / 4  # the noise has a quarter of that power
    ends = []
    for tau in (2, 1, 0.5):
        latent = Stage("adam", 300, lr=0.1, stop="noise", tau=tau)
        stopping = [BestObjective(), StageStopping()]
        module = run(easy, A, tiny, noise_std=noise_std, callbacks=stopping, latent=latent, joint=joint)
        level = tau * first.item() / 4
        assert module.objective["latent"].item() <= level
        ends.append(module.evaluations["latent"].item())
        shorter = dataclasses.replace(latent, steps=ends[-1] - 1, stop="never")
        almost = run(easy, A, tiny, noise_std=noise_std, callbacks=[BestObjective()], latent=shorter, joint=joint)
        assert almost.objective["latent"].item() > level
    assert ends == sorted(set(ends)) and ends[-1] < 300


def test_noise_stop_ends_at_a_plateau_above_the_noise(y, A, tiny):
    """What cannot be explained to the level of the noise does not go on to the bound."""
    settings = {
        "latent": Stage("adam", 500, lr=0.1, stop="noise", patience=10, tolerance=0.02),
        "joint": Stage(steps=1),
    }
    stopping = [BestObjective(), StageStopping()]
    module = run(y[:1], A, tiny, noise_std=1e-6, callbacks=stopping, **settings)
    settings["latent"] = dataclasses.replace(settings["latent"], stop="plateau")
    plateau = run(y[:1], A, tiny, noise_std=1e-6, callbacks=stopping, **settings)
    assert 10 < module.evaluations["latent"].item() == plateau.evaluations["latent"].item() < 500


def test_plateau_stop(y, A, tiny):
    settings = {
        "latent": Stage("adam", 500, lr=0.1, stop="plateau", patience=10, tolerance=0.02),
        "joint": Stage(steps=1),
    }
    module = run(y[:1], A, tiny, callbacks=[BestObjective(), StageStopping()], **settings)
    assert 10 < module.evaluations["latent"].item() < 500
    without = run(y[:1], A, tiny, callbacks=[BestObjective()], **settings)
    assert without.evaluations["latent"].item() == 500


def test_decrease_stop(y, A, tiny):
    """Each image ends at the first evaluation that is small enough beside its own first one."""
    joint = Stage("adam", 200, lr_weights=1e-2, stop="decrease", decrease=3)
    module = run(y, A, tiny, callbacks=[BestObjective(), StageStopping()], latent=Stage(steps=5), joint=joint)
    assert bool((3 * module.objective["joint"] <= module.objective["latent"] * 1.0001).all())
    for i, steps in enumerate(module.evaluations["joint"].tolist()):
        shorter = dataclasses.replace(joint, steps=steps - 1)
        almost = run(y, A, tiny, callbacks=[BestObjective()], latent=Stage(steps=5), joint=shorter)
        assert 3 * almost.objective["joint"][i] > module.objective["latent"][i] * 0.9999


def test_callbacks_bring_their_own_output_only(y, A, tiny):
    assert set(run(y, A, tiny, callbacks=[BestObjective()]).results) == {"csgm", "iagan"}
    module = run(y, A, tiny, callbacks=[BestObjective(), BackProjection()])
    assert set(module.results) == {"csgm", "csgm_bp", "iagan", "iagan_bp"}
    for method in ("csgm", "iagan"):
        assert torch.allclose(A(module.results[f"{method}_bp"]), y, atol=1e-5)
        assert torch.equal(module.results[f"{method}_bp"], A.back_project(module.results[method], y))


def test_back_projection_with_noise_warns_and_is_off_by_default(y, A, tiny):
    assert "iagan_bp" not in run(y, A, tiny, noise_std=0.1, callbacks=[BackProjection()]).results
    with pytest.warns(UserWarning, match="amplifies the noise"):
        module = run(y, A, tiny, noise_std=0.1, callbacks=[BackProjection(True)])
    assert "iagan_bp" in module.results
    assert "iagan_bp" not in run(y, A, tiny, callbacks=[BackProjection(False)]).results


@pytest.mark.parametrize("noise_std", [0.0, 0.1, None])
def test_back_projection_by_the_plain_reconstruction(y, A, tiny, noise_std):
    """The public code's: bicubic enlargement in place of A^+, with noise too, and y only approached."""
    results = run(y, A, tiny, noise_std=noise_std, callbacks=[BackProjection("naive")]).results
    for method in ("csgm", "iagan"):
        x = results[method]
        enlarged = torch.nn.functional.interpolate(y - A(x), x.shape[2:], mode="bicubic", align_corners=False)
        assert torch.allclose(results[f"{method}_bp"], x + enlarged, atol=1e-6)
        assert 0.001 < (A(results[f"{method}_bp"]) - y).norm() / (A(x) - y).norm() < 0.5


def test_bfloat16_and_float64(y, A, tiny):
    half = run(y, A, tiny, trainer=quiet_trainer(accelerator="cpu", precision="bf16-mixed"))
    assert half.results["iagan"].isfinite().all()
    assert half.objective["joint"].dtype == torch.float32
    single, double = (
        run(y, A, tiny, trainer=quiet_trainer(accelerator="cpu", precision=p)) for p in ("32-true", "64-true")
    )
    assert double.results["iagan"].dtype == torch.float64
    assert torch.allclose(single.objective["joint"].double(), double.objective["joint"], rtol=1e-3)


@pytest.mark.parametrize(
    "build",
    [lambda: BEGAN(16, 4, 8), lambda: BEGAN(16, 4, 8, skip=True), lambda: PGGAN(16, (8, 8, 4), 6),
     lambda: Pyramid((8, 4), 6, 4)],
    ids=["BEGAN", "skip", "PGGAN", "Pyramid"],
)  # fmt: skip
def test_half_precision_of_a_batch_is_that_of_each_image(y, A, build):
    """Under vmap autocast sees little of what it should lower: layers say in what they computed."""
    G, seen = build(), []

    def note(layer, given, output):
        seen.append((type(layer).__name__, output.dtype))

    evaluations = []
    for rows in ([0, 1], [0], [1]):
        module = IAGAN(G, "paper", **stages())
        module.begin(y[rows], A, seeds=[3 + i for i in rows])
        module.keep(module.last_iterate())
        module.enter("joint")
        for layer in module.generator.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear | Layer):
                layer.register_forward_hook(note)
        with torch.autocast("cpu", torch.bfloat16):
            module.training_step().backward()
        now = module.evaluation
        assert now.objective.dtype == torch.float32 == module.weights[-1].grad.dtype
        evaluations.append((list(seen), now.image.dtype, now.objective, module.weights[-1].grad))
        seen.clear()
    together, *alone = evaluations
    assert together[0] and {dtype for _, dtype in together[0]} == {torch.bfloat16}
    for i in (0, 1):
        assert together[:2] == alone[i][:2]
        assert torch.allclose(together[2][i], alone[i][2][0], rtol=1e-2), "bfloat16 rounds to 1/256"
        assert torch.allclose(together[3][i], alone[i][3][0], rtol=0.05, atol=2e-3)


def test_half_precision_of_dips_side_by_side():
    """As far from float32 as one alone, and no further: statistics of a normalisation are not rounded."""
    operator, y, seen = Identity((3, 32, 32)), torch.zeros(2, 3, 32, 32), set()

    def images(rows, half):
        module = DIP(settings=DIPSettings(steps=1))
        module.begin(y[rows], operator, 0.0, [3 + i for i in rows])
        for layer in module.network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(lambda _, given, output: seen.add((half, output.dtype)))
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return module().detach()

    exact = images([0, 1], half=False)
    together, alone = images([0, 1], half=True), torch.cat([images([i], half=True) for i in (0, 1)])
    assert seen == {(False, torch.float32), (True, torch.bfloat16)} and together.dtype == torch.float32
    assert (together - exact).norm() < 1.4 * (alone - exact).norm() < 0.2 * exact.norm()


def test_lbfgs_stays_precise_under_autocast(y, A, tiny):
    settings = {"preset": "fast", "latent": Stage(steps=10, stop="never"), "joint": Stage(steps=1, stop="never")}
    mixed, full = (
        run(y, A, tiny, trainer=quiet_trainer(accelerator="cpu", precision=p), **settings)
        for p in ("bf16-mixed", "32-true")
    )
    assert torch.equal(mixed.results["csgm"], full.results["csgm"])


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_variables_in_half_precision_are_refused(y, A, tiny, precision):
    with pytest.raises(ValueError, match="choose 32-true"):
        run(y, A, tiny, trainer=quiet_trainer(accelerator="cpu", precision=precision))


def test_not_a_number_is_an_error(y, tiny):
    class Broken(LinearOperator):
        def forward(self, x):
            return x * torch.nan

    with pytest.raises(RuntimeError, match="latent stage is infinite or not a number"):
        run(torch.zeros(1, 3, 16, 16), Broken((3, 16, 16)), tiny, callbacks=[BestObjective()])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": torch.zeros(3, 4, 4)}, r"for one image add a batch axis"),
        ({"operator": BicubicDownsampling((3, 32, 32), scale=8)}, "give both the same image_shape"),
        ({"noise_std": -1.0}, "at least 0"),
        ({"noise_std": float("nan")}, "at least 0"),
        ({"noise_std": 25}, "25/255 is meant?"),
        ({"seeds": [1, 2, 3]}, "2 images came with 3 seeds"),
        ({"names": ["a"]}, "2 measurements came with 1 names"),
        ({"truth": torch.zeros(1, 3, 16, 16)}, r"truth must have shape \(2, 3, 16, 16\)"),
    ],
)
def test_begin_names_what_does_not_fit(y, A, tiny, change, message):
    with pytest.raises(ValueError, match=message):
        IAGAN(tiny).begin(**{"y": y, "operator": A, **change})


@pytest.mark.parametrize(
    "kind", [np.int64, np.uint8, np.array, torch.tensor, lambda s: [np.int32(s), torch.tensor(s + 1)]]
)
def test_seeds_may_be_of_any_integer_type(y, A, tiny, kind):
    plain, other = (IAGAN(tiny) for _ in range(2))
    plain.begin(y, A, seeds=5)
    other.begin(y, A, seeds=kind(5))
    assert other.seeds == [5, 6] and {type(seed) for seed in other.seeds} == {int}
    assert torch.equal(plain.z, other.z)
    assert json.dumps(other.seeds) == "[5, 6]", "they are written beside the results"


@pytest.mark.parametrize("seeds", [1.5, "ab", np.array([1.0, 2.0]), None])
def test_seeds_that_are_none(y, A, tiny, seeds):
    with pytest.raises(ValueError, match="seed is a whole number of at most 64 bits"):
        IAGAN(tiny).begin(y, A, seeds=seeds)


def test_arrays_are_taken_as_tensors_are(y, A, tiny):
    """Read-only, reversed or of another byte order too; half precision of y is only where it comes from."""
    flipped = np.ascontiguousarray(y.numpy()[:, :, ::-1])[:, :, ::-1]
    swapped = y.numpy().astype(">f4")
    swapped.flags.writeable = False
    expected = reconstruct(y, A, tiny, accelerator="cpu", **stages())
    for given in (y.numpy(), flipped, swapped):
        result = reconstruct(given, A, tiny, np.float64(0), seed=np.int64(0), accelerator="cpu", **stages())
        assert torch.equal(result.iagan, expected.iagan)
    module = IAGAN(tiny)
    module.begin(y.half().numpy(), A, truth=np.zeros((2, 3, 16, 16)))
    assert module.y.dtype == module.energy.dtype == torch.float32 and module.truth.shape == (2, 3, 16, 16)


@pytest.mark.parametrize("name", ["y", "truth"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((1, 3, 16, 16), 200, dtype=torch.uint8), r"{} holds whole numbers \(uint8\).* x / 127.5 - 1"),
        (np.full((1, 3, 16, 16), 200), r"{} holds whole numbers \(int64\)"),
        (torch.ones(1, 3, 16, 16, dtype=torch.bool), r"{} holds whole numbers \(bool\)"),
        (np.full((1, 3, 16, 16), None), "{} is an array of numbers; one of object was given"),
        ([[0.0]], "{} is a tensor or a NumPy array; list was given"),
        (torch.full((1, 3, 16, 16), torch.nan), "{} has values that are infinite or not a number"),
    ],
)
def test_what_is_no_picture_on_our_scale_is_refused(tiny, name, value, message):
    given = {"y": torch.zeros(1, 3, 16, 16), "truth": torch.zeros(1, 3, 16, 16), name: value}
    with pytest.raises(ValueError, match=message.format(name)) as caught:
        IAGAN(tiny).begin(operator=Identity((3, 16, 16)), **given)
    assert "\n" not in str(caught.value)
    if name == "y":
        with pytest.raises(ValueError, match=message.format(name)):
            reconstruct(value, Identity((3, 16, 16)), tiny, accelerator="cpu")


@pytest.mark.parametrize("settings", [{"steps": 0}, {"restarts": 0}, {"lr": -1.0}])
def test_stage_settings_are_checked(settings):
    with pytest.raises(ValueError, match="at least"):
        Stage(**settings)


def test_unknown_preset(y, A, tiny):
    with pytest.raises(ValueError, match=r"preset is one of fast, paper, best; .quick. was given"):
        IAGAN(tiny, "quick").begin(y, A)
    with pytest.raises(ValueError, match="only the latent stage has restarts"):
        IAGAN(tiny, joint=Stage(restarts=2)).begin(y, A)


def test_reconstruct_is_the_same_thing(y, A, tiny, tiny_weights):
    callbacks = [BestObjective(), StageStopping(), BackProjection()]
    module = run(y, A, tiny, preset="fast", seeds=5, callbacks=callbacks, **stages())
    for generator in (tiny, str(tiny_weights)):
        result = reconstruct(y, A, generator, seed=5, accelerator="cpu", **stages())
        for name in ("csgm", "csgm_bp", "iagan", "iagan_bp"):
            assert torch.equal(getattr(result, name), module.results[name])
    assert torch.equal(result.objective["joint"], module.objective["joint"])
    assert result.seconds["total"] > 0


def test_reconstruct_with_noise_and_a_callback(y, A, tiny):
    count = Count()
    result = reconstruct(y, A, tiny, noise_std=0.01, callbacks=[count], accelerator="cpu", **stages())
    assert result.iagan_bp is None
    assert count.objectives["joint"]


# Images that have ended leave the batch; halving -----------------------------------------------------------------


def sizes_of_calls(monkeypatch, G):
    sizes = []
    forward = type(G).forward
    monkeypatch.setattr(type(G), "forward", lambda self, z: (sizes.append(len(z)), forward(self, z))[1])
    return sizes


def test_an_ended_image_costs_nothing_more(A, tiny, monkeypatch):
    easy = A(tiny(tiny.sample_latent(1, seed=11)).detach())
    hard = A(torch.rand(1, 3, 16, 16) * 2 - 1)
    sizes = sizes_of_calls(monkeypatch, tiny)
    for optimizer in ("adam", "lbfgs"):
        sizes.clear()
        settings = {"latent": Stage(optimizer, 40, lr=0.1, stop="noise"), "joint": Stage(steps=1)}
        module = run(torch.cat([easy, hard]), A, tiny, noise_std=0.01,
                     callbacks=[BestObjective(), StageStopping()], **settings)  # fmt: skip
        first, second = module.evaluations["latent"].tolist()
        assert first < second == 40
        assert sizes[:40] == [2] * first + [1] * (second - first)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_halving_gives_up_the_worse_starts(y, A, tiny, optimizer, monkeypatch):
    y, tiny = y.double(), copy.deepcopy(tiny).double()  # line searches end sooner where rounding is all they see
    sizes = sizes_of_calls(monkeypatch, tiny)
    stage = Stage(optimizer, 24, lr=0.1, restarts=5, stop="never")
    settings = {"latent": dataclasses.replace(stage, halve=6), "joint": Stage(steps=1)}
    callbacks = [BestObjective(), StageStopping()]
    halved = run(y, A, tiny, callbacks=callbacks, **settings)
    # 5 starts, then 3, 2 and 1 of them, for each of two images
    assert sizes[:24] == [10] * 6 + [6] * 6 + [4] * 6 + [2] * 6
    assert halved.evaluations["latent"].tolist() == [66, 66]
    everything = run(y, A, tiny, callbacks=callbacks, latent=stage, joint=Stage(steps=1))
    lucky = run(y, A, tiny, callbacks=callbacks, latent=dataclasses.replace(stage, steps=6), joint=Stage(steps=1))
    assert (everything.objective["latent"] <= halved.objective["latent"] * (1 + 1e-4)).all()
    assert (halved.objective["latent"] < lucky.objective["latent"]).all()


def test_starts_spread_less(y, A, tiny):
    near, far = (IAGAN(tiny, latent=Stage(spread=spread)) for spread in (0.3, 1.0))
    near.begin(y, A)
    far.begin(y, A)
    assert torch.allclose(near.z, 0.3 * far.z)


# Noise of unknown level: held-out measurements -------------------------------------------------------------------


def test_held_out_measurements_end_the_joint_stage_before_the_noise_is_fitted(public, portraits):
    A = BicubicDownsampling((3, 64, 64), scale=4)
    truth = portraits[:1]
    y = A.measure(truth, 20 / 255, seed=3)
    seen = []

    class Fits(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            variables = [pl_module.z, *pl_module.weights]
            seen.append((pl_module.stage, [float(v.detach().double().sum()) for v in variables]))

    latent, joint = Stage(steps=20), Stage(steps=70, patience=15)
    guessed = reconstruct(y, A, public, None, latent=latent, joint=joint, callbacks=[Fits()], accelerator="cpu")
    fitted = reconstruct(y, A, public, 0.0, latent=latent, joint=Stage(steps=70, stop="never"), accelerator="cpu")
    assert [fit for fit, *_ in seen] == ["latent", "probe", "joint"]
    assert seen[1][1] == seen[2][1], "the joint stage begins where the probe began, not where it ended"
    assert guessed.iagan_bp is None, "back-projection would copy noise of unknown level"
    assert set(guessed.evaluations) == {"latent", "probe", "joint"}
    assert (guessed.evaluations["joint"] <= guessed.evaluations["probe"]).all()
    assert (guessed.evaluations["joint"] < 70).all()

    def error(x):
        return (x - truth).square().mean((1, 2, 3))

    assert (error(guessed.iagan) < error(guessed.csgm)).all()
    assert (error(guessed.iagan) < error(fitted.iagan)).all()


def test_the_probe_does_not_see_what_is_held_out(A, y, tiny):
    module = IAGAN(tiny, joint=Stage(steps=3))
    module.begin(y, A, None)
    held = torch.stack([A.held_out(0.05, s) for s in (5, 6)]).flatten(1)
    module.keep(module.last_iterate())
    objectives = []
    for change in (0.0, 100.0):
        module.enter("probe")
        module.held = held
        module.y = y + change * held.reshape(y.shape)
        objectives.append((module.training_step(), module.validation))
    assert torch.equal(objectives[0][0], objectives[1][0])
    assert (objectives[1][1] > 100 * objectives[0][1]).all()


def test_unknown_noise_needs_a_rule_that_does_without(tiny, y, A):
    for settings in ({"joint": Stage(stop="noise")}, {"latent": Stage(stop="held-out")}):
        with pytest.raises(ValueError, match=r"needs a noise_std|a rule of the joint stage"):
            IAGAN(tiny, **settings).begin(y, A, None)


def test_frozen_layers_keep_the_pretrained_weights(y, A, tiny):
    """With frozen layers of full resolution the others adapt as if alone, and the kept picture is theirs."""
    settings = {"latent": Stage(steps=5), "joint": Stage("adam", 6, lr_weights=1e-2, frozen="full-resolution")}
    module = run(y, A, tiny, callbacks=[BestObjective()], **settings)
    names = [name for name, _ in tiny.named_parameters()]
    assert sorted(set(names) - set(module.adapted)) == ["l3.bias", "l3.weight", "l4.bias", "l4.weight"]
    kept = module.kept["joint"]
    for i in range(2):
        weights = {n: w[i] for n, w in zip(module.adapted, kept.weights, strict=True)}
        assert all(not torch.equal(weights[n], tiny.get_parameter(n)) for n in module.adapted)
        with torch.no_grad():
            assert torch.allclose(
                torch.func.functional_call(tiny, weights, kept.z[i : i + 1])[0], kept.image[i], atol=1e-5
            )
    assert bool((module.objective["joint"] < module.objective["latent"]).all())


def test_presets_differ_in_what_adapts(y, A, tiny):
    assert "l3.weight" in run(y, A, tiny, preset="paper").adapted
    fast = run(y, A, tiny, preset="fast", latent=Stage(steps=3), joint=Stage(steps=3))
    assert "l3.weight" not in fast.adapted and "l5.weight" in fast.adapted


def test_a_generator_of_one_resolution_adapts_whole():
    assert full_resolution_weights(BEGAN(8, 4, 8)) == frozenset()


# What has ended stays --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise_std", [0.0, 0.05])
@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_last_iterates_of_a_batch_are_those_of_each_image(A, tiny, optimizer, noise_std):
    """An image that ended early must not be carried on by the momentum or the line search of the others' steps."""
    easy = tiny(tiny.sample_latent(1, seed=11)).detach()
    y = A.measure(torch.cat([easy, torch.rand(2, 3, 16, 16) * 2 - 1]), noise_std, seed=4)
    rule = {"stop": "noise"} if noise_std else {"stop": "plateau", "patience": 4, "tolerance": 0.05}
    latent = Stage(optimizer, 20, lr=0.1, keep="last", **rule)
    joint = Stage(optimizer, 20, lr=1e-2, lr_weights=1e-2, keep="last", stop="decrease", decrease=4)
    settings = {"latent": latent, "joint": joint}
    callbacks = [BestObjective(), StageStopping()]
    y, tiny = y.double(), copy.deepcopy(tiny).double()  # line searches amplify rounding
    together = run(y, A, tiny, noise_std=noise_std, callbacks=callbacks, seeds=[3, 4, 5], **settings)
    assert len(set(together.evaluations["joint"].tolist())) > 1, "they end at different evaluations"
    for i in range(3):
        alone = run(y[i : i + 1], A, tiny, noise_std=noise_std, callbacks=callbacks, seeds=[3 + i], **settings)
        for name in ("csgm", "iagan"):
            assert torch.allclose(together.results[name][i], alone.results[name][0], atol=1e-7)
        for fit in ("latent", "joint"):
            assert together.evaluations[fit][i] == alone.evaluations[fit][0]
            assert torch.allclose(together.kept[fit].z[i], alone.kept[fit].z[0], atol=1e-7)
        for a, b in zip(together.kept["joint"].weights, alone.kept["joint"].weights, strict=True):
            assert torch.allclose(a[i], b[0], atol=1e-7)


def test_weights_of_an_ended_dip_stay(A):
    y = torch.cat([torch.full((1, 3, 4, 4), 0.1), torch.rand(1, 3, 4, 4) * 2 - 1]).double()
    settings = DIPSettings(steps=9, stop="noise")
    modules = []
    for rows, seeds in (([0, 1], [3, 4]), ([0], [3])):
        module = DIP(settings=settings)
        module.begin(y[rows], A, 0.2, seeds)
        with quiet_lightning():
            modules.append(adapt(module, quiet_trainer(accelerator="cpu", callbacks=[StageStopping()])))
    together, alone = modules
    assert together.evaluations["dip"][0] == alone.evaluations["dip"][0] < together.evaluations["dip"][1]
    for a, b in zip(together.kept["dip"].weights, alone.kept["dip"].weights, strict=True):
        assert torch.allclose(a[0], b[0], atol=1e-6)


ENDS = {
    "adam": lambda G: IAGAN(G, "paper", **stages(6, 5)),
    "lbfgs": lambda G: IAGAN(G, latent=Stage("lbfgs", 12), joint=Stage("lbfgs", 10)),
    "restarts": lambda G: CSGM(G, latent=Stage("lbfgs", 12, restarts=3)),
    "features": lambda G: ILO(G, depth=8, radius=0.05, features=Stage(steps=6), **stages(6, 5)),
    "dip": lambda G: DIP(settings=DIPSettings(steps=4, average=0.5)),
}


@pytest.mark.filterwarnings("ignore:The 'predict_dataloader' does not have many workers")
@pytest.mark.parametrize("callbacks", [[], [BestObjective()]], ids=["last", "best"])
@pytest.mark.parametrize("method", ENDS)
def test_the_module_ends_as_its_result(y, A, tiny, tmp_path, method, callbacks):
    """Its variables are the result's, not those of the last step, in memory and in a checkpoint; it can begin again."""
    module = ENDS[method](tiny)
    trainer = quiet_trainer(accelerator="cpu", callbacks=callbacks, inference_mode=False)
    run(y, A, tiny, module=module, trainer=trainer)
    result, objective = module.results[module.final], module.objective[module.stage]
    with torch.no_grad():
        assert torch.allclose(module(), result, atol=1e-6)
        assert torch.allclose(module.misfit(module()), objective, rtol=1e-4)
    with quiet_lightning():
        predicted = torch.cat(trainer.predict(module, DataLoader(range(2), batch_size=1)))
    assert torch.allclose(predicted, result, atol=1e-6)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    loaded = type(module).load_from_checkpoint(tmp_path / "end.ckpt", weights_only=True)
    with torch.no_grad():
        assert torch.allclose(loaded(), result, atol=1e-6)
    again = run(y, A, tiny, module=module, callbacks=callbacks)
    assert torch.equal(again.results[again.final], result), "and it leaves nothing for the next"


@pytest.mark.parametrize("how", ["module", "generator"])
def test_a_generator_never_sees_the_statistics_of_a_batch(y, A, how):
    """Whatever mode a user sets: with one image they would be nothing but its own."""
    layers = nn.Linear(8, 768), nn.BatchNorm1d(768), nn.Dropout(0.5), nn.Tanh(), nn.Unflatten(1, (3, 16, 16))
    G = ModuleGenerator(nn.Sequential(*layers), [8])
    plain, module = IAGAN(G, **stages(8, 5)), IAGAN(G, **stages(8, 5))
    (module if how == "module" else module.generator).train()
    for each in (plain, module):
        each.begin(y, A)
        (each if how == "module" else each.generator).train(each is module)
        with quiet_lightning():
            adapt(each, quiet_trainer(accelerator="cpu", callbacks=[BestObjective()]))
    assert torch.equal(module.results["iagan"], plain.results["iagan"])
    assert not module.generator.training and G.training
    assert all(torch.equal(a, b) for a, b in zip(module.generator.buffers(), G.buffers(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("what", ["generator", "module before", "module after"])
def test_a_cast_to_half_precision_is_refused(y, A, tiny, what, dtype):
    module = IAGAN(copy.deepcopy(tiny).to(dtype) if what == "generator" else tiny, **stages(2, 2))
    if what == "module before":
        module.to(dtype)
    with pytest.raises(ValueError, match=f"is {str(dtype)[6:]}, which would round what is fitted: call float()") as e:
        module.begin(y, A)
        adapt(module.to(dtype), quiet_trainer(accelerator="cpu"))
    assert "\n" not in str(e.value)
    module.float().begin(y, A)  # as it says
    assert adapt(module, quiet_trainer(accelerator="cpu")).results["iagan"].dtype == torch.float32


@pytest.mark.filterwarnings("ignore:You passed .* AMP with fp16 is not supported on CPU")
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_results_of_half_precision_are_float32_and_measured_in_it(y, A, tiny, precision):
    truth = torch.rand(2, 3, 16, 16) * 2 - 1
    module = IAGAN(tiny, "paper", **stages(6, 5))
    module.begin(y, A, truth=truth)
    callbacks = [BestObjective(), BackProjection(), ImageMetrics()]
    adapt(module, quiet_trainer(accelerator="cpu", precision=precision, callbacks=callbacks))
    assert {image.dtype for image in module.results.values()} == {torch.float32}
    for name, image in module.results.items():
        for i in range(2):
            error = (image[i].double().clamp(-1, 1) - truth[i].double()) / 2
            psnr = -10 * float(error.square().mean().log10())
            assert module.metrics[i][name]["psnr"] == pytest.approx(psnr, abs=1e-4)
    with torch.no_grad():
        assert torch.allclose(module(), module.results["iagan"], atol=0.02), "up to the precision of the Trainer"


@pytest.mark.parametrize("preset", ["paper", "fast"])
def test_autocast_around_a_fit_is_left(y, A, tiny, preset):
    """The precision is the Trainer's; bfloat16 would leave a residual of 5e-4 where 1e-7 is promised."""
    short = {"latent": Stage(steps=6), "joint": Stage(steps=5)}
    plain = reconstruct(y, A, tiny, preset=preset, accelerator="cpu", **short)
    with torch.autocast("cpu", torch.bfloat16):
        within = reconstruct(y, A, tiny, preset=preset, accelerator="cpu", **short)
        assert torch.is_autocast_enabled("cpu")
    assert all(torch.equal(within[name], image) for name, image in plain.results.items())


def test_who_has_no_objective_is_named(y, tiny):
    class Broken(LinearOperator):
        def forward(self, x):
            return x * torch.tensor([1.0, torch.nan])[:, None, None, None]

    with pytest.raises(RuntimeError, match=r"not a number, of image-1$"):
        run(torch.zeros(2, 3, 16, 16), Broken((3, 16, 16)), tiny, callbacks=[BestObjective()])
