"""Pre-trained generators G: architectures and the safe loading of weights.

Pure PyTorch (and safetensors); nothing here imports the rest of the package.
"""

from iagan_lightning.generators.base import Generator
from iagan_lightning.generators.began import BEGAN
from iagan_lightning.generators.files import WeightsError, load_generator, save_generator

__all__ = ["BEGAN", "Generator", "WeightsError", "load_generator", "save_generator"]
