"""One operator after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from iagan_lightning.checks import in_words
from iagan_lightning.operators.linear import LinearOperator
from iagan_lightning.operators.operator import Operator


class Composition(LinearOperator):
    r"""Several operators in a row, :math:`y = A_k \cdots A_2 A_1 x`: blurred, then made small, for example.

    A^+ is not the product of the pseudo-inverses; it comes from conjugate gradients with a checked residual.

    Args:
        image_shape: ``(C, H, W)`` of x.
        operators: A_1, A_2 ...: operators, or functions (such as the classes themselves) that take an image shape. All
            but the last must make images.

    Raises:
        ValueError: where one operator does not take what the one before it makes.

    Example:
        >>> import torch
        >>> from functools import partial
        >>> from iagan_lightning.operators import BicubicDownsampling, Blur
        >>> A = Composition((3, 16, 16), [partial(Blur, size=3), partial(BicubicDownsampling, scale=2)])
        >>> tuple(A(torch.zeros(1, 3, 16, 16)).shape)
        (1, 3, 8, 8)
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        operators: Sequence[LinearOperator | Callable[[tuple[int, int, int]], LinearOperator]],
    ) -> None:
        super().__init__(image_shape)
        if not isinstance(operators, Iterable) or not (operators := list(operators)):
            raise ValueError("Composition needs at least one operator, in a list")
        shape: tuple[int, ...] = self.image_shape
        parts: list[LinearOperator] = []
        for number, part in enumerate(operators, 1):
            if len(shape) != 3:
                raise ValueError(f"operator {number} needs an image, the one before it makes measurements {shape}")
            if not callable(part):
                raise ValueError(f"operator {number} is an operator, or makes one; {in_words(part)} was given")
            A = part if isinstance(part, Operator) else part((shape[0], shape[1], shape[2]))
            if not isinstance(A, LinearOperator):
                raise ValueError(
                    f"operator {number} is {type(A).__name__}, which is not linear: only linear ones compose"
                )
            if A.image_shape != shape:
                raise ValueError(f"operator {number} takes {A.image_shape}, the one before it makes {shape}")
            parts.append(A)
            shape = A.measurement_shape
        self.operators = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        """Return A_k ... A_1 x."""
        for A in self.operators:
            x = A(x)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        r"""Return :math:`A_1^T \cdots A_k^T y`."""
        y = self._check_measurement(y)
        for A in reversed(list(self.operators)):
            y = A.adjoint(y)  # type: ignore[operator]
        return y

    def naive(self, y: Tensor) -> Tensor:
        """Return the operators' own plain reconstructions, the last one's first."""
        y = self._check_measurement(y)
        for A in reversed(list(self.operators)):
            y = A.naive(y)  # type: ignore[operator]
        return y

    def picture(self, y: Tensor) -> Tensor | None:
        """Return what the last operator shows of its measurement."""
        return self.operators[-1].picture(y)  # type: ignore[operator]

    def measured(self, y: Tensor) -> Tensor:
        """Return y with what the last operator never measures set to 0."""
        return self.operators[-1].measured(y)  # type: ignore[operator]

    def _scores(self, draw: torch.Generator) -> Tensor:
        return self.operators[-1]._scores(draw)  # type: ignore[operator]

    @property
    def measurement_shape(self) -> tuple[int, ...]:
        """Shape of one measurement of the last operator."""
        return self.operators[-1].measurement_shape  # type: ignore[return-value]

    @property
    def compressed_sensing(self) -> bool:  # type: ignore[override]
        """True where one of the operators is compressed sensing."""
        return any(A.compressed_sensing for A in self.operators)

    @property
    def num_measurements(self) -> int:
        """Number of entries that the last operator measures."""
        return self.operators[-1].num_measurements  # type: ignore[return-value]
