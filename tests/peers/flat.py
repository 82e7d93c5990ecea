"""Our operators as matrices of real numbers that take NumPy vectors, which is how other libraries see them."""

import torch
from test_operator_modes import ALL
from test_operators import real

SHIPPED = {name: make for name, make in ALL.items() if name != "deepinv"}  # that one would meet itself
EXACT = [name for name in SHIPPED if not name.startswith(("blur-truncated", "blur-general"))]
DAMPED = [name for name in SHIPPED if name.startswith("blur") and name != "blur-then-inpainting"]

NOISE_STD, DAMPING = 0.075, 0.3  # a blur's pseudo-inverse is damped by (2 * 0.075)^2 / 0.25 = 0.3^2


class Flat:
    """A as a real matrix of ``shape``: complex measurements are pairs of numbers, whose inner product is Re<.,.>."""

    def __init__(self, A, dtype=torch.float64):
        self.A, self.dtype = A, dtype
        self.one = A(torch.zeros(1, *A.image_shape, dtype=dtype))
        self.shape = real(self.one).numel(), torch.Size(A.image_shape).numel()

    def image(self, v):
        """Return a vector as an image (1, C, H, W)."""
        return torch.as_tensor(v).to(self.dtype).reshape(1, *self.A.image_shape)

    def measurement(self, w):
        """Return a vector as a measurement (1, *measurement_shape)."""
        w = torch.as_tensor(w).to(self.dtype)
        if self.one.is_complex():
            w = torch.view_as_complex(w.reshape(-1, 2).contiguous())
        return w.reshape(self.one.shape)

    def forward(self, v):
        """Return A v."""
        return real(self.A(self.image(v))).flatten().numpy()

    def adjoint(self, w):
        """Return A^T w."""
        return self.A.adjoint(self.measurement(w)).flatten().numpy()

    def inverse(self, w, noise_std=0.0):
        """Return A^+ w, ours."""
        return self.A.pseudo_inverse(self.measurement(w), noise_std).flatten().numpy()
