"""Measurement operators A: forward and, of linear ones, adjoint, pseudo-inverse and back-projection.

PyTorch, and NumPy and Pillow for files of matrices and masks; nothing here imports the rest of the package.
"""

from iagan_lightning.operators.bicubic import BicubicDownsampling
from iagan_lightning.operators.blur import Blur, CircularBlur, GeneralBlur, SeparableBlur
from iagan_lightning.operators.composition import Composition
from iagan_lightning.operators.fourier import FourierSensing
from iagan_lightning.operators.gaussian import GaussianSensing, StructuredSensing
from iagan_lightning.operators.grayscale import Grayscale
from iagan_lightning.operators.identity import Identity
from iagan_lightning.operators.inpainting import Inpainting
from iagan_lightning.operators.jpeg import JPEG, read_jpeg
from iagan_lightning.operators.linear import LinearOperator
from iagan_lightning.operators.operator import Operator
from iagan_lightning.operators.phase_retrieval import PhaseRetrieval
from iagan_lightning.operators.similarity import Similarity

__all__ = [
    "JPEG",
    "BicubicDownsampling",
    "Blur",
    "CircularBlur",
    "Composition",
    "FourierSensing",
    "GaussianSensing",
    "GeneralBlur",
    "Grayscale",
    "Identity",
    "Inpainting",
    "LinearOperator",
    "Operator",
    "PhaseRetrieval",
    "SeparableBlur",
    "Similarity",
    "StructuredSensing",
    "read_jpeg",
]
