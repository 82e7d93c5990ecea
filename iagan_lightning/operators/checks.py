"""Checks of an operator: is it linear, is its adjoint the adjoint, is its pseudo-inverse one."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from iagan_lightning.operators.linear import LinearOperator
from iagan_lightning.operators.operator import Operator


class Verdict(NamedTuple):
    """One line: what was checked, whether it holds (None: only told), and the figure.

    Where it does not hold, also which earlier failure explains it (until that is mended, nothing can be said), the line
    of the user's code, and what usually helps.
    """

    check: str
    passed: bool | None
    detail: str
    follows: str = ""
    where: str = ""
    hint: str = ""


# What a check builds upon, and what usually is the matter where it fails and they do not.
SAME, LINEAR, ADJOINT, BATCH, INVERSE = "same again", "linear", "adjoint (dot test)", "batch = one by one", "A A+ A = A"
UPON: dict[str, tuple[str, ...]] = {
    LINEAR: (SAME,),
    ADJOINT: (SAME, LINEAR),
    "gradient": (SAME, ADJOINT),
    BATCH: (SAME,),
    INVERSE: (SAME, LINEAR, ADJOINT, BATCH),
    "A+ A A+ = A+": (SAME, LINEAR, ADJOINT, BATCH, INVERSE),
    "A A+ and A+ A symmetric": (SAME, LINEAR, ADJOINT, BATCH, INVERSE),
    "back-projection, float32": (SAME, LINEAR, ADJOINT, BATCH, INVERSE),
    "float32 beside float64": (SAME,),
    "bfloat16 autocast": (SAME,),
    "GPU": (SAME,),
}
METHOD = {ADJOINT: "adjoint", INVERSE: "pseudo_inverse", "A+ A A+ = A+": "pseudo_inverse"}  # of others it is forward
HINTS = {
    SAME: "random numbers are drawn once, in __init__, not each time that forward is called",
    LINEAR: "forward may only add and multiply by constants: no offset, clamp, rounding, normalisation or power of x",
    "gradient": "forward goes through PyTorch alone, without detach, NumPy, item() or writing into x",
    BATCH: "an image may not depend on the others: no mean, norm, index or roll over axis 0",
    INVERSE: "leave pseudo_inverse out, and it comes from conjugate gradients",
    "A+ A A+ = A+": "pseudo_inverse has to return the image of least norm; leave it out, and it does",
    "A A+ and A+ A symmetric": "pseudo_inverse has to return the image of least norm; leave it out, and it does",
    "float32 beside float64": "keep constants in float64 and take them as self.constant(name, x), as precise as x",
}


def check_operator(A: LinearOperator, seed: int = 0) -> Iterator[Verdict]:
    r"""Check an operator with random images and measurements, in float64 unless said otherwise.

    Yields a verdict each for: shapes, determinism, linearity, the dot test :math:`\langle A x, y\rangle = \langle x,
    A^T y\rangle`, the gradient of :math:`|A x - y|^2`, batches, the Moore-Penrose identities, the norm, both
    precisions, autocast, and a GPU where there is one.

    Example:
        >>> from iagan_lightning.operators import Identity
        >>> all(verdict.passed is not False for verdict in check_operator(Identity((3, 8, 8))))
        True
    """
    checks: list[tuple[str, Callable[[LinearOperator, _Draw], Verdict]]] = [
        ("shapes", _shapes),
        ("same again", _deterministic),
        ("linear", _linear),
        ("adjoint (dot test)", _adjoint),
        ("gradient", _gradient),
        ("batch = one by one", _batch),
        ("A A+ A = A", _inverse),
        ("A+ A A+ = A+", _reflexive),
        ("A A+ and A+ A symmetric", _symmetric),
        ("back-projection, float32", _back_projection),
        ("norm", _norm),
        ("float32 beside float64", _precision),
        ("bfloat16 autocast", _autocast),
        ("GPU", _gpu),
    ]
    failed: list[Verdict] = []
    for name, check in checks:
        verdict = _judge(A, name, check, seed)
        if verdict.passed is False:
            verdict = verdict._replace(follows=_cause(A, verdict, failed))
            failed.append(verdict)
        yield verdict
        if failed and name == "shapes":
            return  # nothing else could be said


def check_rectangular(build: Callable[[tuple[int, int, int]], Operator], A: LinearOperator) -> Iterator[Verdict]:
    """Tell whether an operator of square images also takes images that are twice as wide; it need not.

    Args:
        build: makes the operator for an image shape; ValueError where there is none.
        A: the operator that has passed the other checks.

    Example:
        >>> from iagan_lightning.operators import Identity
        >>> [verdict.detail for verdict in check_rectangular(Identity, Identity((3, 8, 8)))]
        ['shapes, linearity and dot test hold for images of (3, 8, 16) too']
    """
    channels, height, width = A.image_shape
    if height != width:
        return
    shape = (channels, height, 2 * width)
    try:
        wide = build(shape)
    except ValueError as error:
        yield Verdict("rectangular", None, f"there is none for images of {shape}: {error}")
        return
    assert isinstance(wide, LinearOperator)
    for name, check in (("shapes", _shapes), (LINEAR, _linear), (ADJOINT, _adjoint)):
        verdict = _judge(wide, name, check, 0)
        if verdict.passed is False:
            where = f" ({verdict.where})" if verdict.where else ""
            detail = f"square images only, unless width and height have changed places: for {shape} {name} fails"
            yield Verdict("rectangular", None, f"{detail}, {verdict.detail}{where}")
            return
    yield Verdict("rectangular", True, f"shapes, linearity and dot test hold for images of {shape} too")


def _judge(A: LinearOperator, name: str, check: Callable[[LinearOperator, _Draw], Verdict], seed: int) -> Verdict:
    try:
        verdict = check(A, _Draw(A, seed))
    except Exception as error:  # a user's operator can raise whatever it likes
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        return Verdict(name, False, detail, where=_raised_at(error) or _written_at(A, name))
    verdict = verdict._replace(check=name)
    if verdict.passed is not False:
        return verdict
    return verdict._replace(
        where=_written_at(A, name), hint=_adjoint_hint(A) if name == ADJOINT else HINTS.get(name, "")
    )


def _cause(A: LinearOperator, verdict: Verdict, failed: Sequence[Verdict]) -> str:
    """Return the first failure that explains another one; the same exception as an earlier one does too."""
    for before in failed:
        upon = before.check in UPON.get(verdict.check, ())
        own = before.check == ADJOINT and type(A).pseudo_inverse is not LinearOperator.pseudo_inverse
        if (upon and not (own and verdict.check != "gradient")) or before.detail == verdict.detail:
            return before.follows or before.check
    return ""


def _adjoint_hint(A: LinearOperator) -> str:
    if type(A).adjoint is LinearOperator.adjoint:
        return HINTS["gradient"]
    y = _Draw(A, 0).y()
    given, right = A.adjoint(y), LinearOperator.adjoint(A, y)
    factor = _inner(right, given) / max(_inner(right, right), 1e-300)
    scaled = f"yours is {factor:.6g} times" if _relative(given, factor * right) < 1e-6 else "yours is not"
    return f"{scaled} what automatic differentiation of forward gives: leave adjoint out, and it is taken"


def _raised_at(error: Exception) -> str:
    """Return the line of the user's code in which an exception began."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return f"{_near(frames[-1].filename)}, line {frames[-1].lineno}: {frames[-1].line}" if frames else ""


def _written_at(A: LinearOperator, name: str) -> str:
    """Return where the user's method that a check is about is written; forward where the class has no such method."""
    for method in (METHOD.get(name, "forward"), "forward"):
        code = getattr(inspect.unwrap(getattr(type(A), method)), "__code__", None)
        if code is not None and _is_users(code.co_filename):
            return f"{_near(code.co_filename)}, line {code.co_firstlineno}: {type(A).__name__}.{method}"
    return ""


def _near(file: str) -> str:
    """Return a file as seen from the working folder, where it lies in there."""
    return str(Path(file).relative_to(Path.cwd())) if Path(file).is_relative_to(Path.cwd()) else file


def _is_users(file: str) -> bool:
    own = (str(Path(__file__).parent.parent), str(Path(torch.__file__).parent))
    return not file.startswith((*own, "<frozen"))


@torch.no_grad()
def require_linear(A: LinearOperator) -> None:
    """Raise ValueError for an operator that is not linear or whose adjoint is wrong, as far as float32 can tell.

    Example:
        >>> class Shifted(LinearOperator):
        ...     def forward(self, x):
        ...         return x + 1
        >>> require_linear(Shifted((1, 4, 4)))
        Traceback (most recent call last):
        ...
        ValueError: Shifted is not linear: A(2a - 3b) and 2 A a - 3 A b differ by 97% (iagan check-operator tells more)
    """
    random = torch.Generator().manual_seed(0)
    a, b = (torch.rand(1, *A.image_shape, generator=random) * 2 - 1 for _ in range(2))
    name, more = type(A).__name__, "(iagan check-operator tells more)"
    image, other = A(a), A(b)
    error = _relative(A(2 * a - 3 * b), 2 * image - 3 * other)
    if not error < 1e-3:
        raise ValueError(f"{name} is not linear: A(2a - 3b) and 2 A a - 3 A b differ by {error:.0%} {more}")
    difference = abs(_inner(image, other) - _inner(a, A.adjoint(other)))
    if not difference < 1e-3 * float(image.norm() * other.norm()):
        raise ValueError(
            f"the adjoint of {name} is wrong: <A a, y> = {_inner(image, other):.4g}, <a, A^T y> = "
            f"{_inner(a, A.adjoint(other)):.4g} {more}; leave it out, and it comes from automatic differentiation"
        )


class _Draw:
    """Random images and measurements."""

    def __init__(self, A: LinearOperator, seed: int) -> None:
        self.A, self.random = A, torch.Generator().manual_seed(seed)

    def x(self, batch: int = 2) -> Tensor:
        return torch.rand(batch, *self.A.image_shape, generator=self.random, dtype=torch.float64) * 2 - 1

    def y(self, batch: int = 2) -> Tensor:
        like = self.A(self.x(batch))
        noise = torch.randn(*like.shape, generator=self.random, dtype=torch.float64)
        if like.is_complex():
            noise = torch.complex(noise, torch.randn(*like.shape, generator=self.random, dtype=torch.float64))
        return self.A.measured(like + noise)


def _inner(a: Tensor, b: Tensor) -> float:
    return float((a.conj() * b).real.sum())


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp(min=1e-300))


def _below(value: float, limit: float, what: str) -> Verdict:
    return Verdict("", value < limit, f"{what} {value:.1e}, at most {limit:.0e}")


def _shapes(A: LinearOperator, draw: _Draw) -> Verdict:
    y = A(draw.x(3))
    back = A.adjoint(y)
    right = y.shape == (3, *A.measurement_shape) and back.shape == (3, *A.image_shape) and not back.is_complex()
    kind = "complex" if y.is_complex() else "real"
    return Verdict("", right, f"{A.image_shape} -> {tuple(y.shape[1:])} {kind} -> {tuple(back.shape[1:])}")


def _deterministic(A: LinearOperator, draw: _Draw) -> Verdict:
    x = draw.x()
    return Verdict("", bool(torch.equal(A(x), A(x))), "A x twice gives the same")


def _linear(A: LinearOperator, draw: _Draw) -> Verdict:
    a, b = draw.x(), draw.x()
    return _below(_relative(A(2 * a - 3 * b), 2 * A(a) - 3 * A(b)), 1e-10, "relative error")


def _adjoint(A: LinearOperator, draw: _Draw) -> Verdict:
    x, y = draw.x(), draw.y()
    image = A(x)
    error = abs(_inner(image, y) - _inner(x, A.adjoint(y))) / float(image.norm() * y.norm())
    return _below(error, 1e-12, "relative error")


def _gradient(A: LinearOperator, draw: _Draw) -> Verdict:
    x, y = draw.x().requires_grad_(), draw.y()
    (A(x) - y).abs().square().sum().backward()
    assert x.grad is not None
    return _below(_relative(x.grad, 2 * A.adjoint(A(x.detach()) - y)), 1e-10, "beside 2 A^T (A x - y): relative error")


def _batch(A: LinearOperator, draw: _Draw) -> Verdict:
    x = draw.x(3)
    loop = torch.cat([A(x[i : i + 1]) for i in range(3)])
    return _below(_relative(A(x), loop), 1e-12, "relative error")


def _inverse(A: LinearOperator, draw: _Draw) -> Verdict:
    y = A(draw.x())
    error = _relative(A(A.pseudo_inverse(y)), y)
    if A.regularised:
        return Verdict("", None, f"relative error {error:.1e}; this A^+ is regularised, so that is by design")
    return _below(error, 1e-9, "relative error")


def _reflexive(A: LinearOperator, draw: _Draw) -> Verdict:
    x = A.pseudo_inverse(draw.y())
    return _below(_relative(A.pseudo_inverse(A(x)), x), 1e-9, "relative error")


def _symmetric(A: LinearOperator, draw: _Draw) -> Verdict:
    y, y2, x, x2 = draw.y(), draw.y(), draw.x(), draw.x()

    def project(v: Tensor) -> Tensor:
        return A(A.pseudo_inverse(v))

    def row_space(v: Tensor) -> Tensor:
        return A.pseudo_inverse(A(v))

    errors = [
        abs(_inner(project(y), y2) - _inner(y, project(y2))) / float(y.norm() * y2.norm()),
        abs(_inner(row_space(x), x2) - _inner(x, row_space(x2))) / float(x.norm() * x2.norm()),
    ]
    return _below(max(errors), 1e-9, "relative error")


def _back_projection(A: LinearOperator, draw: _Draw) -> Verdict:
    truth, x = draw.x().float(), draw.x().float()
    y = A(truth)
    residual = _relative(A(A.back_project(x, y)), y)
    if A.regularised:
        return Verdict("", None, f"residual {residual:.1e} of |y|; this A^+ is regularised, so that is by design")
    iterative = type(A).pseudo_inverse is LinearOperator.pseudo_inverse  # conjugate gradients end earlier in float32
    return _below(residual, 1e-3 if iterative else 1e-5, "residual / |y|")


def _norm(A: LinearOperator, draw: _Draw) -> Verdict:
    x = draw.x(1)
    value = 0.0
    for _ in range(50):
        x = A.adjoint(A(x / x.norm()))
        value = float(x.norm()) ** 0.5
    return Verdict("", None, f"|A| = {value:.4g}, {A.num_measurements} measurements of {x.numel()} numbers")


def _precision(A: LinearOperator, draw: _Draw) -> Verdict:
    x = draw.x()
    y, y32 = A(x), A(x.float())
    right = y.dtype in (torch.float64, torch.complex128) and y32.dtype in (torch.float32, torch.complex64)
    error = _relative(y32.to(y.dtype), y)
    return Verdict("", right and error < 1e-5, f"{y32.dtype} and {y.dtype}, relative difference {error:.1e}")


def _autocast(A: LinearOperator, draw: _Draw) -> Verdict:
    x = draw.x().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = A(x.bfloat16())
    return _below(_relative(y, A(x.bfloat16().float())), 1e-6, "beside full precision: relative difference")


def _gpu(A: LinearOperator, draw: _Draw) -> Verdict:
    if not torch.cuda.is_available():
        return Verdict("", None, "none here, not checked")
    x = draw.x().float()
    expected = A(x)
    y = A.to("cuda")(x.cuda()).cpu()
    A.to("cpu")
    return _below(_relative(y, expected), 1e-5, "beside the CPU: relative difference")
