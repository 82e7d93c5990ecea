"""Random projections: a dense Gaussian matrix, or a structured one of the same use that needs no memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from iagan_lightning.checks import check_choice, check_kind, check_seed
from iagan_lightning.devices import has_float64
from iagan_lightning.operators.files import Array, fingerprint, read_tensor
from iagan_lightning.operators.linear import LinearOperator
from iagan_lightning.operators.memory import require_memory
from iagan_lightning.operators.modes import cast, has_values, on_the_cpu
from iagan_lightning.operators.operator import check_image_shape

Design = Literal["auto", "dense", "dct"]
LARGEST = 2**30  # bytes of a matrix that "auto" draws


class GaussianSensing(LinearOperator):
    r"""Compressed sensing with random measurements of the whole image, :math:`y = A\, \mathrm{vec}(x)`.

    ``design="dense"`` draws A with independent entries from :math:`N(0, 1/m)`. With the Cholesky factor
    :math:`L L^T = A A^T`, made in float64, :math:`A = L W` where the rows of W are orthonormal, and
    :math:`A^+ = W^T L^{-1}`. Where A is well-conditioned (m/n below some 0.4) that product is kept, else W and L: a
    pseudo-inverse is one pass over a matrix of A's size, its residual in float32 below 1e-6. From m/n of about 0.75 on
    that takes a step of iterative refinement.

    ``design="dct"`` makes a ``StructuredSensing``, as good and without a matrix. ``"auto"`` does so where the matrix
    would take more than a gibibyte (3 x 128 x 128 at m/n = 0.122): what is drawn depends on sizes alone.

    Args:
        image_shape: ``(C, H, W)``; n = C H W.
        ratio: m / n, in (0, 1].
        seed: of the matrix, drawn on the CPU.
        matrix: a matrix ``(m, n)`` of one's own, whole numbers too, or its .pt or .npy file, instead of ratio and seed.
        design: ``"dense"``, ``"dct"`` or ``"auto"``.

    Shapes: x ``(B, C, H, W)`` in [-1, 1] -> y ``(B, m)``.

    Raises:
        ValueError: for a ratio outside (0, 1], a matrix that does not fit the image, is empty or not finite, or one
            that does not fit memory.

    Source: Abu Hussein, Tirer and Giryes, AAAI 2020, Section 4.1 (m/n = 0.122 and 0.61).

    Example:
        >>> A = GaussianSensing((3, 8, 8), ratio=0.25, seed=0)
        >>> x = torch.rand(2, 3, 8, 8) * 2 - 1
        >>> tuple(A(x).shape), bool(torch.allclose(A(A.pseudo_inverse(A(x))), A(x), atol=1e-5))
        ((2, 48), True)
        >>> isinstance(GaussianSensing((3, 8, 8), ratio=0.25, design="dct"), StructuredSensing)
        True
    """

    compressed_sensing = True
    sources: tuple[str, ...] = ("matrix",)

    def __new__(
        cls,
        image_shape: Sequence[int] = (),
        ratio: float | None = None,
        seed: int = 0,
        matrix: Array = None,
        design: Design = "auto",
    ) -> GaussianSensing:
        """Return an operator of the class that the design names."""
        if cls is not GaussianSensing or image_shape == ():  # a copy is made of nothing
            return super().__new__(cls)
        check_choice("design", design, Design)
        check_kind("ratio", ratio, float | None)
        n = math.prod(check_image_shape(image_shape))
        large = matrix is None and ratio is not None and 4 * ratio * n * n > LARGEST
        return super().__new__(StructuredSensing if design == "dct" or (design == "auto" and large) else cls)

    def __init__(
        self,
        image_shape: Sequence[int],
        ratio: float | None = None,
        seed: int = 0,
        matrix: Array = None,
        design: Design = "auto",
    ) -> None:
        super().__init__(image_shape)
        check_choice("design", design, Design)
        if design == "dct":  # a class of one's own: this one has made a StructuredSensing
            raise ValueError('design "dct" is a StructuredSensing: derive from that')
        n = math.prod(self.image_shape)
        self.ratio, self.seed, self.design = ratio, seed, "dense"
        self.given: str | None = None
        if matrix is not None:
            if ratio is not None:
                raise ValueError("GaussianSensing takes a matrix, or a ratio with a design, not both")
            matrix = read_tensor(matrix)
            if matrix.ndim != 2 or matrix.shape[1] != n or matrix.is_complex():
                raise ValueError(
                    f"the matrix is real, of shape (m, {n}) for images of {self.image_shape}; "
                    f"{tuple(matrix.shape)} ({matrix.dtype}) was given"
                )
            if not len(matrix):
                raise ValueError(f"the matrix measures nothing: {tuple(matrix.shape)} was given")
            matrix = matrix if matrix.is_floating_point() else matrix.double()  # of 0 and 1, or of signs
            if not bool(matrix.isfinite().all()):
                raise ValueError("the matrix holds numbers that are not finite")
            self.register_buffer("matrix", matrix)
            self.given = fingerprint(matrix)
        else:
            m = number_of_measurements(ratio, n)
            _check_memory(m, n, self.image_shape)
            # Drawn in float32: the same numbers in either precision, at half the memory.
            draw = torch.Generator().manual_seed(check_seed(seed))
            entries = torch.randn(m, n, generator=draw, dtype=torch.float32, device="cpu")
            self.register_buffer("matrix", entries / math.sqrt(m))
        self._update()

    def _follow(self) -> None:
        self._measurement_shape = (len(self.get_buffer(self.sources[0])),)

    def forward(self, x: Tensor) -> Tensor:
        """Return A x: ``(B, C, H, W)`` -> ``(B, m)``."""
        return x.flatten(1) @ self.constant("matrix", x).T

    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^T y: ``(B, m)`` -> ``(B, C, H, W)``."""
        y = self._check_measurement(y)
        return (y @ self.constant("matrix", y)).reshape(-1, *self.image_shape)

    def pseudo_inverse(self, y: Tensor, noise_std: float = 0.0) -> Tensor:
        r"""Return :math:`A^T (A A^T)^{-1} y`, or :math:`(A^T A)^{-1} A^T y` where m > n.

        The first call factorises A.
        """
        del noise_std
        y = self._check_measurement(y)
        x = self._solve(y)
        if self._factorised(y)[2] > 2:  # less well-conditioned: once more for what rounding left over
            x = x + self._solve(y - self(x))
        return x

    def back_project(self, x_hat: Tensor, y: Tensor, noise_std: float = 0.0) -> Tensor:
        r"""Return :math:`\hat x + A^+ (y - A \hat x)`, see ``LinearOperator``.

        Each measurement is a sum over all pixels, in which float32 loses a digit: a second step without noise takes
        away what rounding has left of the first.
        """
        x = super().back_project(x_hat, y, noise_std)
        return super().back_project(x, y) if noise_std == 0 else x

    def _get_name(self) -> str:
        return "GaussianSensing"  # in records, whatever the design

    def extra_repr(self) -> str:
        """Return the settings that ``repr`` shows."""
        drawn = f"ratio={self.ratio}, seed={self.seed}, design={self.design!r}"
        return f"image_shape={self.image_shape}, {f'matrix={self.given}' if self.given else drawn}"

    def _factorised(self, y: Tensor) -> tuple[Tensor, Tensor | None, float]:
        matrix = self.get_buffer("matrix")

        def make() -> tuple[Tensor, Tensor | None, float]:
            # Where y is, unless there is no float64 there: then on the CPU, where the triangular factor stays.
            place = y if has_float64(y.device) else torch.empty(0, device="cpu")
            W, L, spread = factorise(cast(matrix, matrix.dtype, place), y.dtype)
            return W.to(y.device), L, spread

        return self._keep(f"factors in {y.dtype}", y, make, matrix)

    def _solve(self, y: Tensor) -> Tensor:
        W, L, _ = self._factorised(y)
        if L is None:
            x = y @ W
        elif y.shape[1] <= math.prod(self.image_shape):
            x = _triangular(L, y, upper=False) @ W
        else:
            x = _triangular(L.T, y @ W.T, upper=True)
        return x.reshape(-1, *self.image_shape)


class StructuredSensing(GaussianSensing):
    r"""Random projections of the same use that need no matrix, :math:`A = S\, C\, D`.

    Random signs D, the orthonormal discrete cosine transform C over channels, rows and columns, and a random choice S
    of m of its coefficients. Rows are orthonormal, so :math:`A^+ = A^T`, and nothing of size m n is ever stored.

    Args:
        image_shape: ``(C, H, W)``; n = C H W.
        ratio: m / n, in (0, 1].
        seed: of signs and choice, drawn on the CPU.

    Shapes: x ``(B, C, H, W)`` in [-1, 1] -> y ``(B, m)``.

    Raises:
        ValueError: for a ratio outside (0, 1], or a matrix.

    Example:
        >>> A = StructuredSensing((3, 8, 8), ratio=0.25)
        >>> x = torch.rand(2, 3, 8, 8) * 2 - 1
        >>> bool(torch.allclose(A(A.adjoint(A(x))), A(x), atol=1e-5)), A.design
        (True, 'dct')
    """

    sources = ("chosen",)
    chosen: Tensor

    def __init__(
        self,
        image_shape: Sequence[int],
        ratio: float | None = None,
        seed: int = 0,
        matrix: Array = None,
        design: Design = "dct",
    ) -> None:
        LinearOperator.__init__(self, image_shape)  # its parent's draws a matrix
        check_choice("design of a StructuredSensing", design, ("dct", "auto"))
        if matrix is not None:
            raise ValueError("GaussianSensing takes a matrix, or a ratio with a design, not both")
        n = math.prod(self.image_shape)
        m = number_of_measurements(ratio, n)
        self.ratio, self.seed, self.design, self.given = ratio, seed, "dct", None
        draw = torch.Generator().manual_seed(check_seed(seed))
        for name, length in zip(("channels", "rows", "columns"), self.image_shape, strict=True):
            self.register_buffer(name, dct_matrix(length))
        signs = torch.randint(0, 2, self.image_shape, generator=draw, device="cpu").double() * 2 - 1
        self.register_buffer("signs", signs)
        self.register_buffer("chosen", torch.randperm(n, generator=draw, device="cpu")[:m].sort().values)
        self._update()

    def forward(self, x: Tensor) -> Tensor:
        """Return A x: ``(B, C, H, W)`` -> ``(B, m)``."""
        x = self.constant("rows", x) @ (x * self.constant("signs", x)) @ self.constant("columns", x).T
        x = torch.einsum("cd,bdhw->bchw", self.constant("channels", x), x)
        return x.flatten(1)[:, self.constant("chosen", x)]

    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^T y: ``(B, m)`` -> ``(B, C, H, W)``."""
        y = self._check_measurement(y)
        x = y.new_zeros(len(y), math.prod(self.image_shape))
        x[:, self.constant("chosen", y)] = y
        x = torch.einsum("dc,bdhw->bchw", self.constant("channels", y), x.reshape(-1, *self.image_shape))
        return self.constant("signs", y) * (self.constant("rows", y).T @ x @ self.constant("columns", y))

    def pseudo_inverse(self, y: Tensor, noise_std: float = 0.0) -> Tensor:
        """Return A^T y, which is A^+ y."""
        del noise_std
        return self.adjoint(y)


def _triangular(L: Tensor, y: Tensor, upper: bool) -> Tensor:
    """Solve for each row of y in float64, where L is."""
    solved = torch.linalg.solve_triangular(L, y.to(L.device).double().T, upper=upper).T
    return solved.to(y.dtype).to(y.device)


def factorise(A: Tensor, dtype: torch.dtype, block: int = 4096) -> tuple[Tensor, Tensor | None, float]:
    r"""Return W of orthonormal rows and L lower triangular with :math:`A = L W`, or :math:`A^T = L W` where m > n.

    Everything is computed in float64, block by block, so that no copy of A in float64 is needed; W comes in ``dtype``.
    Where A is wide and well-conditioned, or not of full rank, :math:`(A^+)^T` and None are returned instead. The third
    value is the spread of L's diagonal, which grows with A's condition.

    Example:
        >>> A = torch.tensor([[6.0, 0.0, 8.0], [0.0, 2.0, 0.0]])
        >>> W, L, spread = factorise(A, torch.float64)
        >>> bool(torch.allclose(L @ W, A.double())), bool(torch.allclose(W @ W.T, torch.eye(2, dtype=torch.float64)))
        (True, True)
        >>> spread
        5.0
    """
    wide = A if A.shape[0] <= A.shape[1] else A.T
    gram = wide.new_zeros(len(wide), len(wide), dtype=torch.float64)
    for part in wide.split(block, dim=1):
        gram += part.double() @ part.double().T
    L, info = torch.linalg.cholesky_ex(gram)
    diagonal = L.diagonal()
    if not has_values(A):  # the shapes of the ordinary case
        return torch.empty_like(wide, dtype=dtype), L, math.inf
    spread = float(diagonal.max()) / max(float(diagonal.min()), 1e-300)
    if int(info) != 0 or spread > 1e6:
        return torch.linalg.pinv(A.double()).T.to(dtype), None, 1.0
    explicit = wide is A and spread < 1.3
    parts = []
    for part in wide.split(block, dim=1):
        W = torch.linalg.solve_triangular(L, part.double(), upper=False)
        parts.append((torch.linalg.solve_triangular(L.T, W, upper=True) if explicit else W).to(dtype))
    return torch.cat(parts, dim=1), None if explicit else L, spread


def number_of_measurements(ratio: float | None, n: int) -> int:
    """Return m for a ratio, at least 1.

    Example:
        >>> number_of_measurements(0.122, 1000)
        122
    """
    check_kind("ratio", ratio, float | None)
    if ratio is None or not 0 < ratio <= 1:
        raise ValueError(f"ratio lies in (0, 1]: the part of the image that is measured; {ratio} was given")
    return max(round(ratio * n), 1)


@on_the_cpu
def dct_matrix(n: int) -> Tensor:
    """Return the orthonormal DCT-II as an ``(n, n)`` float64 matrix.

    Example:
        >>> C = dct_matrix(5)
        >>> bool(torch.allclose(C @ C.T, torch.eye(5, dtype=torch.float64)))
        True
    """
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi * k * (2 * i + 1) / (2 * n)) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def _check_memory(m: int, n: int, image_shape: tuple[int, ...]) -> None:
    matrix, factor = 4 * m * n, 4 * m * n + 16 * m * m  # W; L and its Gram matrix in float64
    require_memory(
        matrix + factor,
        f"a dense Gaussian matrix of {m} x {n} for images of {image_shape} takes {matrix / 1e9:.1f} GB and its "
        f"factorisation {factor / 1e9:.1f} GB",
        'choose design="dct" (as good, and needs no matrix), a smaller ratio, or smaller images',
    )
