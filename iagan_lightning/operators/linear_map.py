r"""A linear map that automatic differentiation takes as a whole, where its inside cannot or should not be recorded.

Conjugate gradients take hundreds of steps and decide by numbers; the derivative of :math:`v \mapsto L v` is L itself,
and its transpose is another solution of the same kind. So gradients need no record of the steps (implicit
differentiation), and neither do ``torch.func``'s transforms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LinearMap:
    r"""Apply L to a batch, each item on its own, and know its derivatives.

    Args:
        apply: :math:`v \mapsto L v`. Called without gradients.
        transpose: :math:`g \mapsto L^T g`, itself differentiable.
        parameters: returns the tensors that L depends on and that need gradients.
        product: :math:`(v, g) \mapsto` a number whose derivative with respect to the parameters is that of
            :math:`\langle g, L v\rangle`; differentiable once more only where ``twice``.
        twice: whether it is.

    Example:
        >>> double = LinearMap(lambda v: 2 * v, lambda g: 2 * g)
        >>> v = torch.ones(1, 3, requires_grad=True)
        >>> double(v).square().sum().backward()
        >>> v.grad.tolist(), torch.func.vmap(double)(torch.ones(2, 1, 1)).flatten().tolist()
        ([[8.0, 8.0, 8.0]], [2.0, 2.0])
    """

    apply: Callable[[Tensor], Tensor]
    transpose: Callable[[Tensor], Tensor]
    parameters: Callable[[], Sequence[Tensor]] = tuple
    product: Callable[[Tensor, Tensor], Tensor] | None = None
    twice: bool = False

    def __call__(self, v: Tensor) -> Tensor:
        """Return L v."""
        if torch.compiler.is_compiling():  # dynamo would record the steps one by one: a graph ends here
            return torch.compiler.disable(self._apply)(v)
        return self._apply(v)

    def _apply(self, v: Tensor) -> Tensor:
        parameters = tuple(self.parameters())
        return _Apply.apply(_Bound(self, parameters), v, *parameters)


@dataclass(frozen=True, eq=False)
class _Bound:
    """A map with the parameters that it had when it was applied."""

    map: LinearMap
    parameters: tuple[Tensor, ...]

    def gradients(self, v: Tensor, g: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        """Return the gradients of <g, L v> with respect to the parameters, None for those that are not wanted."""
        now = tuple(self.map.parameters())
        if len(now) != len(self.parameters) or any(a is not b for a, b in zip(now, self.parameters, strict=True)):
            raise RuntimeError(
                "the operator's parameters are no longer those it was applied with (functional_call): "
                "differentiate within the same call"
            )
        if torch.is_grad_enabled() and not self.map.twice:
            raise RuntimeError("second derivatives of A^+ with respect to the operator's own parameters are not known")
        assert self.map.product is not None
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            value = self.map.product(v, g)
            chosen = [p for p, want in zip(self.parameters, wanted, strict=True) if want]
            found = iter(torch.autograd.grad(value, chosen, create_graph=again, allow_unused=True))
        return [next(found) if want else None for want in wanted]


class _Apply(torch.autograd.Function):
    """L v for autograd and the transforms of ``torch.func``."""

    @staticmethod
    def forward(bound: _Bound, v: Tensor, *parameters: Tensor) -> Tensor:
        # A copy: what an operator returns may be its input, or a view of it.
        return bound.map.apply(v).clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.bound, v, *parameters = inputs
        if parameters:
            ctx.save_for_backward(v)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        _, wanted, *others = ctx.needs_input_grad
        gradient = ctx.bound.map.transpose(g) if wanted else None
        through: list[Tensor | None] = [None] * len(others)
        if any(others):
            through = ctx.bound.gradients(*ctx.saved_tensors, g, others)
        return None, gradient, *through

    @staticmethod
    def jvp(ctx: Any, _: None, v: Tensor | None, *parameters: Tensor | None) -> Tensor:
        if v is None or any(p is not None for p in parameters):
            raise RuntimeError("forward derivatives with respect to the operator's own parameters are not known")
        return ctx.bound.map(v)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], bound: _Bound, v: Tensor, *parameters: Tensor) -> tuple[Tensor, int]:
        if any(dim is not None for dim in in_dims[2:]):
            raise RuntimeError("A^T and A^+ cannot be mapped over the operator's own parameters: loop over them")
        v = v.movedim(in_dims[1], 0)
        return bound.map(v.flatten(0, 1)).unflatten(0, v.shape[:2]), 0
