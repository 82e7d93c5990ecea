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
