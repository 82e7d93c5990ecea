"""L-BFGS for many independent problems side by side, one evaluation of the objective per step.

The strong-Wolfe line search of each problem is a small state machine (bracketing, then zooming), so that a step is
one evaluation for all problems, wherever each of them is in its own search: callers see every evaluation, and no
problem waits for another. Nothing loops over problems in Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from iagan_lightning.checks import check_number, in_words
from iagan_lightning.devices import has_float64

BRACKETING, ZOOMING = 0, 1


class BatchedLBFGS(Optimizer):
    """Limited-memory BFGS with a strong-Wolfe line search, for B problems at once.

    Every parameter has shape ``(B, ...)``; row i of all parameters together is the variable of problem i. The
    objectives must be independent: the closure's scalar is their sum, ``values`` returns them one by one.

    Args:
        params: parameters, all with the same leading size B.
        values: called after the closure, returns the ``(B,)`` objectives of that evaluation. Without it, the closure
            itself has to return them.
        history_size: number of curvature pairs kept per problem.
        max_search: evaluations after which a line search takes the best point that it saw.
        tolerance_grad: a problem ends when the largest entry of its gradient is below this.
        c1, c2: constants of the strong Wolfe conditions (Nocedal and Wright, Numerical Optimization, Eq. 3.7).
        lr: the first trial of each line search is that many times the quasi-Newton step, as in ``torch.optim.LBFGS``;
            one for all groups of parameters, and what schedulers change.

    Raises:
        ValueError: for numbers that are none or out of range, and for parameters of different leading sizes.

    ``state_dict`` holds searches and history: an optimiser over the same parameters that loads it goes on bitwise.
    Parameters may be added before the first step, not after it.

    A problem whose objective or gradient is no number at its first evaluation ends there, ``finished``; later ones are
    trials that went too far.

    After ``step``, parameters are the next point to evaluate, not the best one seen: keep the best from the
    evaluations (the ``BestObjective`` callback does). Problems that ended stay at their last accepted point.

    Source: Nocedal and Wright, Numerical Optimization, 2nd ed., Algorithms 3.5, 3.6 and 7.4.

    Example:
        >>> x = torch.nn.Parameter(torch.tensor([[3.0, 4.0], [-2.0, 1.0]]))
        >>> scale = torch.tensor([1.0, 10.0])
        >>> optimizer = BatchedLBFGS([x])
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     values = (scale * x.square()).sum(1)
        ...     values.sum().backward()
        ...     return values
        >>> for _ in range(20):
        ...     values = optimizer.step(closure)
        >>> bool((values < 1e-10).all())
        True
    """

    def __init__(
        self,
        params: Iterable[Any],
        values: Callable[[], Tensor] | None = None,
        history_size: int = 20,
        max_search: int = 20,
        tolerance_grad: float = 1e-9,
        c1: float = 1e-4,
        c2: float = 0.9,
        lr: float = 1.0,
    ) -> None:
        for name, number in (("history_size", history_size), ("max_search", max_search)):
            check_number(name, number, int)
            if number < 1:
                raise ValueError(f"{name} is at least 1; {number} was given")
        for name, value in (("c1", c1), ("c2", c2), ("tolerance_grad", tolerance_grad)):
            check_number(name, value)
        if not 0 < c1 < c2 < 1:
            raise ValueError(f"0 < c1 < c2 < 1 are the Wolfe conditions; c1 {c1} and c2 {c2} were given")
        if not tolerance_grad >= 0:
            raise ValueError(f"tolerance_grad is at least 0; {tolerance_grad} was given")
        self._params: list[Tensor] = []
        self._state: _Search | None = None
        super().__init__(params, {"lr": lr})
        self._values = values
        self.history_size, self.max_search, self.tolerance_grad = history_size, max_search, tolerance_grad
        self.c1, self.c2 = c1, c2

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take further parameters, before the first step.

        Raises:
            ValueError: after it; for another number of problems, or another ``lr``, than that of the parameters so far,
                and for an ``lr`` that is no finite number above 0.
        """
        if self._state is not None:
            raise ValueError(
                "BatchedLBFGS has begun, and parameters that come now have no history: make a new optimiser of all"
            )
        super().add_param_group(param_group)
        lr = self.param_groups[-1]["lr"]
        if not isinstance(lr, Real | Tensor) or not 0 < float(lr) < math.inf:
            self.param_groups.pop()
            raise ValueError(f"lr is a finite number above 0; {in_words(lr)} was given")
        params = [p for group in self.param_groups for p in group["params"]]
        sizes, rates = {len(p) for p in params}, {float(group["lr"]) for group in self.param_groups}
        if len(sizes) == len(rates) == 1:
            self._params = params
            return
        self.param_groups.pop()
        if len(rates) > 1:
            raise ValueError(
                f"all parameters are one variable of each problem, with one lr; {sorted(rates)} were given"
            )
        raise ValueError(f"all parameters need the same leading size, one row per problem; sizes are {sizes}")

    def __getstate__(self) -> dict[str, Any]:
        """Return all that a copy goes on with; PyTorch's own has parameters and their groups alone."""
        own = ("_params", "_state", "_values", "history_size", "max_search", "tolerance_grad", "c1", "c2")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}

    def state_dict(self) -> dict[str, Any]:
        """Return what ``torch.optim.Optimizer`` does, and as ``search`` the tensors of line searches and history."""
        return {**super().state_dict(), "search": None if self._state is None else self._state.stored()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the optimiser of a ``state_dict`` was; the parameters themselves are loaded elsewhere.

        Raises:
            ValueError: for that of other parameters, or of another ``history_size``.
        """
        super().load_state_dict(state_dict)
        self._params = [p for group in self.param_groups for p in group["params"]]
        search = state_dict.get("search")
        if search is None:
            self._state = None
            return
        x = torch.cat([_rows(p) for p in self._params], 1)
        fresh = _Search(x, x.new_zeros(len(x)), torch.zeros_like(x), self)
        fresh.restore(search)
        self._state = fresh

    def forget(self) -> None:
        """Let go of parameters, history and functions; the optimiser is of no use any more."""
        self._params, self._state, self._values = [], None, None

    @property
    def finished(self) -> Tensor | None:
        """``(B,)``: which problems have converged or cannot improve; None before the first step."""
        return None if self._state is None else self._state.finished

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Evaluate all problems once and move each to the next point of its own line search."""
        if closure is None:
            raise ValueError("BatchedLBFGS.step needs a closure that evaluates the objectives")
        with torch.enable_grad():
            result = closure()
        gradient = torch.cat([_rows(p.grad if p.grad is not None else torch.zeros_like(p)) for p in self._params], 1)
        values = (result if self._values is None else self._values()).detach().to(gradient.dtype)
        if self._state is None:
            start = torch.cat([_rows(p) for p in self._params], 1)
            self._state = _Search(start, values, gradient, self)
        else:
            self._state.observe(values, gradient)
        point = self._state.point()
        offset = 0
        for p in self._params:
            width = p[0].numel()
            p.copy_(point[:, offset : offset + width].reshape(p.shape))
            offset += width
        return result


class _Search:
    """State of all problems. Scalars of a problem are entries of ``(B,)`` tensors, vectors rows of ``(B, n)``.

    Vectors stay where they are and are written over: of weights they are megabytes each, and new ones in every step
    would leave ever less room in one piece for the features of the next evaluation.
    """

    def __init__(self, x: Tensor, value: Tensor, gradient: Tensor, settings: BatchedLBFGS) -> None:
        self.settings = settings
        batch, n = x.shape
        self.x, self.value, self.gradient = x, value, gradient  # last accepted point
        self.every = torch.arange(batch, device=x.device)
        self.finished = value.isnan() | ~gradient.isfinite().all(1)
        self.asynchronous = x.device.type != "cpu"
        self.place = x.device if has_float64(x.device) else torch.device("cpu")  # of what is float64
        # Ring buffers of curvature pairs, which slots count, and all inner products s_i.y_j and y_i.y_j.
        self.s = x.new_zeros(batch, settings.history_size, n)
        self.y = torch.zeros_like(self.s)
        size = settings.history_size
        self.sy = torch.zeros(batch, size, size, dtype=torch.float64, device=self.place)
        self.yy = torch.zeros_like(self.sy)
        self.filled = torch.zeros(batch, settings.history_size, dtype=torch.bool, device=x.device)
        self.ages = torch.arange(settings.history_size, device=x.device)
        self.gamma = x.new_ones(batch)
        self.newest = torch.full_like(self.every, -1)
        # The line search: its direction, the slope at its start, the trial step t, and the two ends of its bracket.
        self.direction, self.slope, self.t = torch.zeros_like(x), torch.zeros_like(value), torch.zeros_like(value)
        self.low_t, self.low_value, self.low_slope = (torch.zeros_like(value) for _ in range(3))
        self.high_t, self.high_value, self.high_slope = (torch.zeros_like(value) for _ in range(3))
        self.low_gradient = gradient.clone()
        self.phase, self.tries = torch.zeros_like(self.every), torch.zeros_like(self.every)
        self._new_direction(~self.finished)

    def point(self) -> Tensor:
        """Return the points to evaluate next; finished problems stay where they are."""
        return self.x + torch.where(self.finished, 0, self.t)[:, None] * self.direction

    def stored(self) -> dict[str, Tensor]:
        """Return all tensors that ``restore`` takes, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def restore(self, stored: Mapping[str, Tensor]) -> None:
        """Take the tensors of another search, as they are.

        Raises:
            ValueError: for those of another problem.
        """
        for name, own in self.stored().items():
            if name not in stored or stored[name].shape != own.shape:
                given = tuple(stored[name].shape) if name in stored else "nothing"
                raise ValueError(
                    f"the state is that of another BatchedLBFGS: {name} is {given} in it, {tuple(own.shape)} here: "
                    "build it with the same parameters and history_size"
                )
            setattr(self, name, stored[name].to(own.device, copy=True))

    # One evaluation --------------------------------------------------------------------------------------------

    def observe(self, value: Tensor, gradient: Tensor) -> None:
        """Take the evaluation at ``point()``: accept it, or narrow or widen the search."""
        c1, c2 = self.settings.c1, self.settings.c2
        slope = (gradient * self.direction).sum(1)
        finite = value.isfinite() & slope.isfinite()
        zooming = self.phase == ZOOMING
        self.tries = self.tries + 1

        high = ~finite | (value > self.value + c1 * self.t * self.slope)
        high = high | (value >= torch.where(zooming | (self.tries > 1), self.low_value, torch.inf))
        accepted = ~high & (slope.abs() <= -c2 * self.slope)
        current = (self.t, value, slope)
        low = (self.low_t, self.low_value, self.low_slope)

        # Bracketing (Algorithm 3.5): "low" is the previous trial. Too high, or rising: a minimum lies in between.
        starts_zoom = ~zooming & (high | (slope >= 0)) & ~accepted
        widens = ~zooming & ~starts_zoom & ~accepted
        # Zooming (Algorithm 3.6): "low" is the best trial, "high" the other end of the bracket.
        flips = zooming & ~high & (slope * (self.high_t - self.low_t) >= 0)
        moves_high = (zooming | starts_zoom) & high
        takes_low = ~high & ~accepted  # the current trial is the best so far
        new_high = _choose(moves_high, current, _choose(flips | (starts_zoom & ~high), low, self._high()))
        widest = self.t + (self.t - self.low_t).clamp_min(0) * 9
        extrapolated = _cubic_minimum(*low, *current).clamp(min=self.t + 0.01 * (self.t - self.low_t), max=widest)
        extrapolated = torch.where(extrapolated.isfinite(), extrapolated, widest)

        self.low_t, self.low_value, self.low_slope = _choose(takes_low, current, low)
        _replace(self.low_gradient, takes_low, gradient)
        self.high_t, self.high_value, self.high_slope = new_high
        self.phase = torch.where(starts_zoom, ZOOMING, self.phase)
        zooming = self.phase == ZOOMING

        trial = torch.where(zooming, self._interpolate(), torch.where(widens, extrapolated, self.t))
        # A search that takes too long, or whose bracket has no width left, ends with the best trial it saw.
        gap = (self.high_t - self.low_t).abs() * self.direction.abs().amax(1)
        narrow = zooming & (gap <= 1e-9 * (1 + self.x.abs().amax(1)))
        gives_up = ~accepted & (narrow | (self.tries >= self.settings.max_search))
        accepted_t = torch.where(accepted, self.t, torch.where(gives_up, self.low_t, 0))
        new_value = torch.where(accepted, value, self.low_value)
        new_gradient = torch.where(accepted[:, None], gradient, self.low_gradient)
        self.t = trial
        ends = (accepted | gives_up) & ~self.finished
        # Without an end this changes nothing; an accelerator does it rather than make the host wait for the answer.
        if self.asynchronous or bool(ends.any()):
            self._accept(ends, accepted_t, new_value, new_gradient)

    def _high(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.high_t, self.high_value, self.high_slope

    def _interpolate(self) -> Tensor:
        """Return the minimiser of the cubic through both ends, kept off the ends by a tenth of the bracket."""
        t = _cubic_minimum(self.low_t, self.low_value, self.low_slope, *self._high())
        left, right = torch.minimum(self.low_t, self.high_t), torch.maximum(self.low_t, self.high_t)
        middle = (left + right) / 2
        margin = 0.1 * (right - left)
        t = torch.minimum(torch.maximum(t, left + margin), right - margin)
        return torch.where(t.isfinite(), t, middle)

    # Between line searches -------------------------------------------------------------------------------------

    def _accept(self, ends: Tensor, t: Tensor, value: Tensor, gradient: Tensor) -> None:
        step = torch.where(ends, t, 0)[:, None] * self.direction
        change = torch.where(ends[:, None], gradient - self.gradient, 0)
        curvature = (step * change).sum(1)
        keeps = ends & (curvature > 1e-10 * (step.norm(dim=1) * change.norm(dim=1)))
        self.newest = torch.where(keeps, (self.newest + 1) % self.settings.history_size, self.newest)
        slot = self.every, self.newest.clamp_min(0)
        s = torch.where(keeps[:, None], step, self.s[slot])
        y = torch.where(keeps[:, None], change, self.y[slot])
        self.s[slot], self.y[slot] = s, y
        self.filled[slot] |= keeps
        with_y = self._precise(self.y @ torch.stack([s, y], 2))
        every, newest = (index.to(self.place) for index in slot)
        self.sy[every, newest], self.sy[every, :, newest] = with_y[..., 0], self._precise(_times(self.s, y))
        self.yy[every, newest] = self.yy[every, :, newest] = with_y[..., 1]
        self.gamma = torch.where(keeps, curvature / change.square().sum(1), self.gamma)

        stuck = ends & (step.abs().amax(1) == 0)
        # Without progress the curvature is not to be trusted: forget it once, and end when that does not help.
        fresh = ~self.filled.any(1)
        self.finished = self.finished | (stuck & fresh)
        self.filled &= ~stuck[:, None]
        self.gamma = torch.where(stuck, 1, self.gamma)
        self.newest = torch.where(stuck, -1, self.newest)

        self.x += step
        self.value = torch.where(ends, value, self.value)
        _replace(self.gradient, ends, gradient)
        self.finished = self.finished | (ends & (self.gradient.abs().amax(1) <= self.settings.tolerance_grad))
        self._new_direction(ends)

    def _new_direction(self, which: Tensor) -> None:
        """Begin a line search for the problems in ``which``."""
        direction = -self._times_inverse_hessian(self.gradient)
        slope = (direction * self.gradient).sum(1)
        uphill = ~(slope < 0)
        direction = torch.where(uphill[:, None], -self.gradient, direction)
        slope = torch.where(uphill, -self.gradient.square().sum(1), slope)
        first = ~self.filled.any(1)
        t = torch.where(first, (1 / self.gradient.abs().sum(1)).clamp_max(1), torch.ones_like(slope))
        lr = self.settings.param_groups[0]["lr"]
        t = t if lr == 1 else t * lr
        _replace(self.direction, which, direction)
        self.slope, self.t = torch.where(which, slope, self.slope), torch.where(which, t, self.t)
        self.low_t = torch.where(which, 0, self.low_t)
        self.low_value = torch.where(which, self.value, self.low_value)
        self.low_slope = torch.where(which, slope, self.low_slope)
        _replace(self.low_gradient, which, self.gradient)
        self.phase = torch.where(which, BRACKETING, self.phase)
        self.tries = torch.where(which, 0, self.tries)

    def _times_inverse_hessian(self, g: Tensor) -> Tensor:
        """Return H g, all pairs at once: the compact form of the inverse (Byrd, Nocedal and Schnabel 1994, Eq. 3.1).

        It equals the two loops over the pairs (Nocedal and Wright, Algorithm 7.4) in a dozen operations. Products of
        the long vectors keep their precision, the small triangular systems are solved in float64.
        """
        size = self.settings.history_size
        order = (self.newest[:, None] + 1 + self.ages) % size  # the oldest pair first, empty slots before it
        order = order.to(self.place)
        filled = self.filled.to(self.place).gather(1, order)
        both = filled[:, :, None] & filled[:, None, :]
        sy, yy = (
            m.gather(1, order[:, :, None].expand_as(m)).gather(2, order[:, None, :].expand_as(m)).where(both, 0)
            for m in (self.sy, self.yy)
        )
        p, q = (self._precise(_times(m, g)).gather(1, order).where(filled, 0)[..., None] for m in (self.s, self.y))
        gamma = self._precise(self.gamma)[:, None, None]
        upper = sy.triu() + torch.diag_embed((~filled).double())
        w = torch.linalg.solve_triangular(upper, p, upper=True)
        right = sy.diagonal(dim1=1, dim2=2)[..., None] * w + gamma * (yy @ w - q)
        u = torch.linalg.solve_triangular(upper.mT, right, upper=False)
        u, w = (torch.zeros_like(v[..., 0]).scatter(1, order, v[..., 0]).to(g.dtype) for v in (u, gamma * w))
        u, w = u.to(g.device), w.to(g.device)
        return self.gamma[:, None] * g + _times(self.s.mT, u) - _times(self.y.mT, w)

    def _precise(self, small: Tensor) -> Tensor:
        """Return a small tensor in float64: on the CPU where the device, such as Apple's, has none."""
        return small.to(self.place).double()


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    return (matrices @ vectors[..., None])[..., 0]


def _replace(vectors: Tensor, which: Tensor, others: Tensor) -> None:
    """Write the vectors of some problems over, in place."""
    torch.where(which[:, None], others, vectors, out=vectors)


def _rows(p: Tensor) -> Tensor:
    return p.detach().reshape(len(p), -1)


def _choose(mask: Tensor, yes: tuple[Tensor, ...], no: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.where(mask, a, b) for a, b in zip(yes, no, strict=True))


def _cubic_minimum(t0: Tensor, f0: Tensor, g0: Tensor, t1: Tensor, f1: Tensor, g1: Tensor) -> Tensor:
    """Minimiser of the cubic with these values and slopes (Nocedal and Wright, Eq. 3.59); nan where it has none."""
    d1 = g0 + g1 - 3 * (f0 - f1) / (t0 - t1)
    d2 = (d1.square() - g0 * g1).sqrt() * (t1 - t0).sign()
    return t1 - (t1 - t0) * (g1 + d2 - d1) / (g1 - g0 + 2 * d2)
