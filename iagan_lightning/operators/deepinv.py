"""Linear physics of the deepinv library as operators (``pip install 'iagan-lightning[deepinv]'``)."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from iagan_lightning.operators.linear import LinearOperator
from iagan_lightning.operators.linear_map import LinearMap
from iagan_lightning.operators.modes import cast, version_of


class DeepinvOperator(LinearOperator):
    """A ``deepinv.physics.LinearPhysics`` with our interface: its ``A`` and ``A_adjoint``, our pseudo-inverse.

    Its noise model is left aside; noise is ours (``noise_std``). The physics stays the caller's own: what it is told by
    ``physics.update(...)`` holds here too, and the operator's ``state_dict`` is that of the physics.

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
        self._seen: list[tuple[Any, int]] = []

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

        now = _contents(physics)
        pairs = zip(now, self._seen, strict=False)
        if len(now) != len(self._seen) or any(a is not b or new != old for (a, new), (b, old) in pairs):
            self._kept.clear()
            self._seen = now

        def make() -> nn.Module:
            copies: dict[int, Any] = {id(b): _cast(b, like) for b in physics.buffers()}
            for p in physics.parameters():
                copies[id(p)] = nn.Parameter(_cast(p.detach(), like), requires_grad=p.requires_grad)
            return copy.deepcopy(physics, copies)

        return self._keep(f"physics in {like.dtype}", like, make)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        self._given[0].state_dict(destination=destination, prefix=f"{prefix}physics.", keep_vars=keep_vars)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        within = f"{prefix}physics."
        inner = {key[len(within) :]: value for key, value in state_dict.items() if key.startswith(within)}
        own = {key: value for key, value in state_dict.items() if not key.startswith(within)}
        super()._load_from_state_dict(own, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        try:
            left = self._given[0].load_state_dict(
                inner, strict=False, assign=local_metadata.get("assign_to_params_buffers", False)
            )
        except RuntimeError as error:  # of another size
            error_msgs.append(str(error))
            return
        missing_keys += [within + key for key in left.missing_keys]
        unexpected_keys += [within + key for key in left.unexpected_keys]


def _contents(physics: nn.Module) -> list[tuple[Any, int]]:
    """Return all that a physics holds, with the versions of tensors: what a copy of it depends on."""
    contents: list[tuple[Any, int]] = []
    for module in physics.modules():
        for value in (*vars(module).values(), *module._buffers.values(), *module._parameters.values()):
            contents.append((value, version_of(value) if isinstance(value, Tensor) else 0))
    return contents


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
