"""Operators as users would write them, outside the package: one without an inverse, and wrong ones."""

import torch

from iagan_lightning.operators import LinearOperator


class NoInverse(LinearOperator):
    """Linear, and its author knows that its pseudo-inverse is out of reach."""

    def forward(self, x):
        return (x + x.roll(1, -1)) / 2

    def pseudo_inverse(self, y, noise_std=0.0):
        raise RuntimeError("conjugate gradients would take for ever")


class NotLinear(LinearOperator):
    def forward(self, x):
        return x + 1


class WrongAdjoint(LinearOperator):
    def forward(self, x):
        return x.cumsum(-1)

    def adjoint(self, y):
        return y.cumsum(-1)


class Twice(LinearOperator):
    def forward(self, x):
        return x.roll(1, -1) / 2

    def adjoint(self, y):
        return y.roll(-1, -1)


class WrongTwice(WrongAdjoint):
    def pseudo_inverse(self, y, noise_std=0.0):
        return 2 * y


class Noisy(LinearOperator):
    def forward(self, x):
        return x + 0.01 * torch.randn_like(x)


class MixesBatch(LinearOperator):
    def forward(self, x):
        return x - x.mean(0)


class Raises(LinearOperator):
    def forward(self, x):
        raise IndexError("out of range")


class Untyped(LinearOperator):
    """Its settings have no annotations."""

    def __init__(self, shape, step=2):
        super().__init__(shape)
        self.step = int(step)

    def forward(self, x):
        return x[..., :: self.step, :]


class UntypedAndNeeded(Untyped):
    def __init__(self, image_shape, step):
        super().__init__(image_shape, step)


class Broken(LinearOperator):
    def __init__(self, image_shape):
        super().__init__(image_shape)
        self.nothing.at_all()


class Elsewhere(NoInverse):
    def __init__(self, image_shape):
        super().__init__((3, 5, 5))


class Masked(LinearOperator):
    """Its mask is no picture, or none that tells it all."""

    def __init__(self, image_shape, kind_of_mask: str = "planes"):
        super().__init__(image_shape)
        rows = torch.arange(image_shape[1])[:, None].expand(image_shape[1:]) % 2
        masks = {
            "row": rows[:, 0] * 1.0,
            "batch": rows.expand(1, *image_shape) * 1.0,
            "complex": rows + 0j,
            "colours": torch.stack([rows, 1 - rows, rows]),
            "weights": rows * 1.5,
            "planes": rows.expand(image_shape),
        }
        self.register_buffer("mask", masks[kind_of_mask])

    def forward(self, x):
        y = x * self.mask
        return y.real if y.is_complex() else y
