import copy
import pickle

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from iagan_lightning.operators import BicubicDownsampling
from iagan_lightning.optim import BatchedLBFGS, noise_power, reached_plateau


def rosenbrock(x):
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)


def quadratic(x):
    return 0.5 * (torch.logspace(0, 3, x.shape[1], dtype=x.dtype) * x**2).sum(1)


def ours(function, start, evaluations, **settings):
    """Lowest objective so far after each evaluation, (evaluations, B)."""
    x = torch.nn.Parameter(start.clone())
    optimizer = BatchedLBFGS([x], **settings)

    def closure():
        optimizer.zero_grad()
        values = function(x)
        values.sum().backward()
        return values

    values = [optimizer.step(closure).detach() for _ in range(evaluations)]
    return torch.stack(values).cummin(0).values, optimizer


def torchs(function, start, evaluations):
    x = torch.nn.Parameter(start.clone())
    values = []
    optimizer = torch.optim.LBFGS(
        [x], max_iter=evaluations, max_eval=evaluations, history_size=20, line_search_fn="strong_wolfe",
        tolerance_grad=1e-14, tolerance_change=1e-16,
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        value = function(x).sum()
        value.backward()
        values.append(value.item())
        return value

    optimizer.step(closure)
    return torch.tensor(values).cummin(0).values


def scipys(function, start, evaluations):
    values = []

    def value_and_gradient(x):
        x = torch.tensor(x[None], requires_grad=True)
        value = function(x).sum()
        value.backward()
        values.append(value.item())
        return value.item(), x.grad[0].numpy()

    minimize(
        value_and_gradient, start[0].numpy(), jac=True, method="L-BFGS-B",
        options={"maxcor": 20, "maxfun": evaluations, "ftol": 0, "gtol": 0},
    )  # fmt: skip
    return torch.tensor(values).cummin(0).values


def needed(values, target):
    """Evaluations until the target is reached."""
    reached = (values <= target).nonzero()
    assert len(reached), "the target was never reached"
    return int(reached[0, 0])


# All coordinates positive: from elsewhere Rosenbrock has a second, local minimum.
STARTS = torch.randn(4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).abs()


@pytest.mark.parametrize(("function", "target"), [(rosenbrock, 1e-8), (quadratic, 1e-8)])
def test_evaluations_of_a_batch_compare_with_torch_and_scipy(function, target):
    values, _ = ours(function, STARTS, 200)
    mine = [needed(values[:, i], target) for i in range(4)]
    reference = [needed(torchs(function, STARTS[i : i + 1], 200), target) for i in range(4)]
    other = [needed(scipys(function, STARTS[i : i + 1], 200), target) for i in range(4)]
    assert sum(mine) <= 1.2 * sum(reference)
    assert sum(mine) <= 1.2 * sum(other)


def test_batch_is_loop():
    together, _ = ours(rosenbrock, STARTS, 60)
    for i in range(len(STARTS)):
        alone, _ = ours(rosenbrock, STARTS[i : i + 1], 60)
        assert torch.allclose(together[:, i], alone[:, 0], rtol=1e-6)


def test_what_accelerators_do_at_every_step_changes_nothing():
    """They do not ask whether a line search has ended, which would make the host wait."""
    start, paths = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), {}
    for asynchronous in (False, True):
        x = torch.nn.Parameter(start.clone())
        optimizer = BatchedLBFGS([x], history_size=3)
        points = []

        def closure(x=x, optimizer=optimizer):
            optimizer.zero_grad()
            values = rosenbrock(x)
            values.sum().backward()
            return values

        for _ in range(60):
            optimizer.step(closure)
            optimizer._state.asynchronous = asynchronous
            points.append(x.detach().clone())
        paths[asynchronous] = torch.stack(points)
    assert torch.equal(paths[True], paths[False])


def test_several_parameters_are_one_variable():
    whole, _ = ours(rosenbrock, STARTS, 50)
    a, b = (torch.nn.Parameter(part.clone()) for part in (STARTS[:, :4].reshape(4, 2, 2), STARTS[:, 4:]))
    optimizer = BatchedLBFGS([a, b])

    def closure():
        optimizer.zero_grad()
        values = rosenbrock(torch.cat([a.flatten(1), b], 1))
        values.sum().backward()
        return values

    values = torch.stack([optimizer.step(closure).detach() for _ in range(50)]).cummin(0).values
    assert torch.allclose(values, whole, rtol=1e-6)


def test_ends_at_the_minimum_and_stays_there():
    _, optimizer = ours(quadratic, STARTS, 300)
    assert bool(optimizer.finished.all())
    x = optimizer.param_groups[0]["params"][0]
    assert torch.allclose(x, torch.zeros_like(x), atol=1e-8)


def test_survives_infinite_values():
    def cliff(x):  # infinite beyond 2, minimum at 1.9
        return torch.where(x[:, 0] > 2, torch.inf, (x[:, 0] - 1.9) ** 2)

    start = torch.tensor([[-50.0], [0.0]], dtype=torch.float64)
    values, _ = ours(cliff, start, 60)
    assert bool((values[-1] < 1e-10).all())


def test_rows_must_agree():
    with pytest.raises(ValueError, match="same leading size"):
        BatchedLBFGS([torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(3, 3))])


def test_a_real_latent_problem(public, portraits):
    A = BicubicDownsampling((3, 64, 64), scale=4, padding="zero")
    y = A(portraits)
    generator = public.requires_grad_(False)
    start = torch.cat([generator.sample_latent(1, seed) for seed in (0, 1)])

    def misfit(z, y=y):
        return (A(generator(z)) - y).square().flatten(1).mean(1)

    values, _ = ours(misfit, start, 60)
    for i in range(2):
        reference = torchs(lambda z, i=i: misfit(z, y[i : i + 1]), start[i : i + 1], 60)
        assert values[-1, i] < 1.1 * reference[-1], "after as many evaluations the objective is as low"


def test_noise_power_is_the_expected_objective_of_the_truth():
    A = BicubicDownsampling((3, 64, 64), scale=1)
    x = torch.rand(4, 3, 64, 64) * 2 - 1
    y = A.measure(x, noise_std=10 / 255)
    misfit = (y - A(x)).square().mean().item()
    assert misfit == pytest.approx(noise_power(10 / 255), rel=0.02)
    assert noise_power(0.1, is_complex=True) == pytest.approx(2 * noise_power(0.1))


def test_plateau_needs_patience():
    falling = [torch.tensor([value]) for value in np.geomspace(1, 0.1, 10)]
    assert not bool(reached_plateau(falling, patience=5, tolerance=0.01))
    flat = falling + [falling[-1]] * 5
    assert bool(reached_plateau(flat, patience=5, tolerance=0.01))
    assert reached_plateau(flat[-3:], patience=5, tolerance=0.01) is False


def test_direction_is_that_of_the_two_loops():
    """The compact form against Nocedal and Wright's Algorithm 7.4, with full, partly filled and wrapped histories."""
    torch.manual_seed(0)
    scales = torch.logspace(0, 2, 6, dtype=torch.float64)
    x = torch.nn.Parameter(torch.randn(3, 6, dtype=torch.float64))
    optimizer = BatchedLBFGS([x], history_size=4)

    def closure():
        optimizer.zero_grad()
        values = (scales * x.square() + x.pow(4) * torch.tensor([[0.0], [1.0], [5.0]])).sum(1)
        values.sum().backward()
        return values

    for step in range(14):
        optimizer.step(closure)
        state, g = optimizer._state, torch.randn(3, 6, dtype=torch.float64)
        compact = state._times_inverse_hessian(g)
        for i in range(3):
            count = int(state.filled[i].sum())
            slots = [(int(state.newest[i]) - age) % 4 for age in range(count)]
            pairs = [(state.s[i, k], state.y[i, k]) for k in slots]
            q, alphas = g[i], []
            for s, y in pairs:
                alphas.append((s @ q) / (s @ y))
                q = q - alphas[-1] * y
            q = q * state.gamma[i]
            for (s, y), alpha in zip(reversed(pairs), reversed(alphas), strict=True):
                q = q + (alpha - (y @ q) / (s @ y)) * s
            assert torch.allclose(compact[i], q, rtol=1e-8), step
    assert int(state.filled.sum()) == 12


def torchs_step(function, start, lr):
    x = torch.nn.Parameter(start.clone())
    optimizer, seen = torch.optim.LBFGS([x], lr=lr, max_iter=1, max_eval=2, line_search_fn="strong_wolfe"), []

    def closure():
        optimizer.zero_grad()
        seen.append(x.detach().clone())
        value = function(x).sum()
        value.backward()
        return value

    optimizer.step(closure)
    return seen


def stepper(function, *params, **settings):
    """An optimiser and what makes a step of it."""
    optimizer = BatchedLBFGS(list(params), **settings)

    def closure():
        optimizer.zero_grad()
        values = function(torch.cat([p.flatten(1) for p in params], 1))
        values.sum().backward()
        return values

    return optimizer, lambda: optimizer.step(closure).detach()


def test_schedulers_change_the_first_trial_as_in_torch():
    """lr 1 is the search as it always was; a scheduler of PyTorch finds what it needs."""
    start = STARTS[:1]
    for lr in (1.0, 0.25):
        x = torch.nn.Parameter(start.clone())
        optimizer, step = stepper(rosenbrock, x, lr=lr)
        step()
        assert torch.allclose(x.detach(), torchs_step(rosenbrock, start, lr)[1], rtol=1e-12)
    x = torch.nn.Parameter(start.clone())
    optimizer, step = stepper(rosenbrock, x)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for _ in range(30):
        step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert bool(optimizer._state.filled.any()), "the first search is over"
    moved = []
    for lr in (1.0, 0.5):
        optimizer.param_groups[0]["lr"] = lr
        optimizer._state._new_direction(torch.ones(1, dtype=torch.bool))
        moved.append(optimizer._state.point() - optimizer._state.x)
    assert torch.allclose(moved[1], moved[0] / 2)


@pytest.mark.parametrize("before", [0, 1, 25])
def test_a_state_goes_on_bitwise(before, tmp_path):
    """Through a file that holds nothing that runs, with history and line search in whatever state."""
    x = torch.nn.Parameter(STARTS.float())
    optimizer, step = stepper(rosenbrock, x, history_size=5)
    for _ in range(before):
        step()
    torch.save({"x": x.detach(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    rest = torch.stack([step() for _ in range(20)])
    stored = torch.load(tmp_path / "state.pt", weights_only=True)
    other = torch.nn.Parameter(stored["x"])
    again, step = stepper(rosenbrock, other, history_size=5)
    again.load_state_dict(stored["optimizer"])
    assert torch.equal(torch.stack([step() for _ in range(20)]), rest)
    assert torch.equal(other, x)


@pytest.mark.parametrize("before", [0, 1, 25])
@pytest.mark.parametrize("way", ["copied", "pickled"])
def test_a_copy_goes_on_bitwise(before, way):
    x = torch.nn.Parameter(STARTS.float())
    optimizer, step = stepper(rosenbrock, x, history_size=5)
    for _ in range(before):
        step()
    again = copy.deepcopy(optimizer) if way == "copied" else pickle.loads(pickle.dumps(optimizer))  # noqa: S301
    [other] = again.param_groups[0]["params"]
    assert other is not x

    def evaluate():
        again.zero_grad()
        values = rosenbrock(other)
        values.sum().backward()
        return values

    for _ in range(20):
        assert torch.equal(again.step(evaluate), step())
    assert torch.equal(other, x)


def test_a_state_of_another_problem_is_refused():
    optimizer, step = stepper(quadratic, torch.nn.Parameter(STARTS.clone()))
    step()
    for other, settings in ((STARTS, {"history_size": 3}), (STARTS[:2], {}), (STARTS[:, :5], {})):
        again, _ = stepper(quadratic, torch.nn.Parameter(other.clone()), **settings)
        with pytest.raises(ValueError, match="the state is that of another BatchedLBFGS"):
            again.load_state_dict(optimizer.state_dict())


def test_parameters_may_be_added_until_the_first_step():
    whole, _ = ours(rosenbrock, STARTS, 30)
    a, b = (torch.nn.Parameter(part.clone()) for part in (STARTS[:, :4], STARTS[:, 4:]))
    optimizer = BatchedLBFGS([a])
    for group, message in (
        ({"params": torch.nn.Parameter(torch.zeros(3, 2))}, "same leading size"),
        ({"params": b, "lr": 0.5}, "with one lr"),
    ):
        with pytest.raises(ValueError, match=message):
            optimizer.add_param_group(group)
    optimizer.add_param_group({"params": b})

    def closure():
        optimizer.zero_grad()
        values = rosenbrock(torch.cat([a, b], 1))
        values.sum().backward()
        return values

    values = torch.stack([optimizer.step(closure).detach() for _ in range(30)]).cummin(0).values
    assert torch.allclose(values, whole, rtol=1e-6)
    with pytest.raises(ValueError, match="make a new optimiser"):
        optimizer.add_param_group({"params": torch.nn.Parameter(torch.zeros(4, 1))})


@pytest.mark.parametrize("broken", ["value", "gradient"])
def test_a_problem_that_is_no_number_from_the_start_has_ended(broken):
    """Its neighbours are bitwise what they are beside a sound one."""

    paths = []
    for spoilt in (torch.tensor([False, True, False, False]), torch.zeros(4, dtype=torch.bool)):
        x = torch.nn.Parameter(STARTS.clone())
        factor, added = torch.where(spoilt, torch.nan, 1.0), torch.where(spoilt, torch.inf, 0.0)[:, None]
        if broken == "gradient":
            x.register_hook(lambda gradient, added=added: gradient + added)
        optimizer, step = stepper(lambda x, f=factor: rosenbrock(x) * (f if broken == "value" else 1), x)
        values = torch.stack([step() for _ in range(15)])
        if spoilt.any():
            assert optimizer.finished.tolist() == spoilt.tolist()
            assert torch.equal(x[1], STARTS[1]), "it stays where it began"
        paths.append(values[:, [0, 2, 3]])
    assert torch.equal(*paths)


def test_values_may_be_of_another_precision_than_parameters():
    x = torch.nn.Parameter(STARTS.float())
    _, step = stepper(lambda x: rosenbrock(x.double()), x)
    values = [step() for _ in range(40)]
    assert x.dtype == torch.float32 and values[-1].dtype == torch.float64
    assert bool((values[-1] < values[0] / 100).all())
