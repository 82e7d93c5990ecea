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


class Noisy(LinearOperator):
    def forward(self, x):
        return x + 0.01 * torch.randn_like(x)


class MixesBatch(LinearOperator):
    def forward(self, x):
        return x - x.mean(0)


class Raises(LinearOperator):
    def forward(self, x):
        raise IndexError("out of range")
