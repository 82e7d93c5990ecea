"""Pre-trained generators G: architectures, priors by name, and the safe loading of weights.

Pure PyTorch (and safetensors); nothing here imports the rest of the package.
"""

from iagan_lightning.generators.base import Generator, WeightsError
from iagan_lightning.generators.began import BEGAN
from iagan_lightning.generators.catalogue import CATALOGUE, Prior, bundled_priors, cache_folder
from iagan_lightning.generators.encoder import Encoder, EncoderNetwork, save_encoder
from iagan_lightning.generators.files import fetch_prior, load_generator, save_generator
from iagan_lightning.generators.layers import finer_weights, full_resolution_weights
from iagan_lightning.generators.mobile_stylegan import MobileStyleGAN
from iagan_lightning.generators.mobile_stylegan_reduced import ReducedMobileStyleGAN
from iagan_lightning.generators.module import ModuleGenerator
from iagan_lightning.generators.pggan import PGGAN
from iagan_lightning.generators.pyramid import Pyramid
from iagan_lightning.generators.stylegan2 import StyleGAN2

__all__ = [
    "BEGAN",
    "CATALOGUE",
    "PGGAN",
    "Encoder",
    "EncoderNetwork",
    "Generator",
    "MobileStyleGAN",
    "ModuleGenerator",
    "Prior",
    "Pyramid",
    "ReducedMobileStyleGAN",
    "StyleGAN2",
    "WeightsError",
    "bundled_priors",
    "cache_folder",
    "fetch_prior",
    "finer_weights",
    "full_resolution_weights",
    "load_generator",
    "save_encoder",
    "save_generator",
]
