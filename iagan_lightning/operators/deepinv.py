"""Linear physics of the deepinv library as operators (``pip install 'iagan-lightning[deepinv]'``)."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from iagan_lightning.operators.linear import LinearOperator
from iagan_lightning.operators.linear_map import LinearMap
from iagan_lightning.operators.modes import cast


class DeepinvOperator(LinearOperator):
    """A ``deepinv.physics.LinearPhysics`` with our interface: its ``A`` and ``A_adjoint``, our pseudo-inverse.

    Its noise model is left aside; noise is ours (``noise_std``).

    Args:
        image_shape: ``(C, H, W)``.
        physics: the physics itself, or from a config a mapping with ``class_path`` and ``init_args``.

    Raises:
        ValueError: for a physics that is not linear or cannot be built.

    Example:
        >>> import torch
        >>> from deepinv.physics import Inpainting
        >>> A = DeepinvOperator((1, 4, 4), Inpainting((1, 4, 4), mask=torch.ones(1, 4, 4)))
        >>> x = torch.rand(2, 1, 4, 4)
        >>> torch.equal(A(x), x), torch.allclose(A.pseudo_inverse(A(x)), x, atol=1e-5)
        (True, True)
    """

    def __init__(self, image_shape: Sequence[int], physics: Any) -> None:
        super().__init__(image_shape)
        self.description = str(physics) if isinstance(physics, Mapping) else type(physics).__name__
        if isinstance(physics, Mapping):
            physics = _build(physics)
        if not (isinstance(physics, nn.Module) and hasattr(physics, "A") and hasattr(physics, "A_adjoint")):
            raise ValueError(f"a linear physics of deepinv has A and A_adjoint; {type(physics).__name__} has not")
        if "LinearPhysics" not in {kind.__name__ for kind in type(physics).__mro__}:  # non-linear ones may have both
            raise ValueError(
                f"{type(physics).__name__} is no LinearPhysics of deepinv: write an Operator of your own whose forward "
                "calls its A"
            )
        self._given = (physics,)  # in a tuple: it stays as it is, no part of this module

    def forward(self, x: Tensor) -> Tensor:
        """Return A x."""
        return self._in(x).A(x)  # type: ignore[operator]

    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^T y."""
        y = self._check_measurement(y)

        def apply(y: Tensor) -> Tensor:
            x = self._in(y).A_adjoint(y)  # type: ignore[operator]
            return x.real if x.is_complex() else x

        # As a whole: deepinv writes in place, which neither vmap nor every derivative can follow.
        return LinearMap(apply, self.__call__)(y)

    def extra_repr(self) -> str:
        """Return the settings that ``repr`` shows."""
        return f"image_shape={self.image_shape}, physics={self.description}"

    def _in(self, like: Tensor) -> nn.Module:
        """Return the physics with its constants in the precision and on the device of a tensor."""
        like = like.real if like.is_complex() else like
        (physics,) = self._given

        def make() -> nn.Module:
            copies: dict[int, Any] = {id(b): _cast(b, like) for b in physics.buffers()}
            for p in physics.parameters():
                copies[id(p)] = nn.Parameter(_cast(p.detach(), like), requires_grad=p.requires_grad)
            return copy.deepcopy(physics, copies)

        return self._keep(f"physics in {like.dtype}", like, make)


def _cast(tensor: Tensor, like: Tensor) -> Tensor:
    if tensor.is_complex():  # Module.to(dtype) would make it real
        return cast(tensor, like.dtype.to_complex(), like)
    return cast(tensor, like.dtype if tensor.is_floating_point() else tensor.dtype, like)


def _build(description: Mapping[str, Any]) -> nn.Module:
    path, arguments = str(description.get("class_path")), dict(description.get("init_args") or {})
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module or "deepinv.physics"), name)(**arguments)
    except ImportError as error:
        raise ValueError(f"{path} needs deepinv: pip install 'iagan-lightning[deepinv]' ({error})") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"physics {path} cannot be built from {arguments}: {error}") from error
