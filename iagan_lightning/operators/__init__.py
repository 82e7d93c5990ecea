"""Measurement operators A: forward, adjoint, pseudo-inverse and back-projection.

Pure PyTorch; nothing here imports the rest of the package.
"""

from iagan_lightning.operators.base import LinearOperator
from iagan_lightning.operators.bicubic import BicubicDownsampling

__all__ = ["BicubicDownsampling", "LinearOperator"]
