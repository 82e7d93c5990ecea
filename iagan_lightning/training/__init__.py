"""Training priors as LightningModules, BEGAN and VAE-GAN, and their encoders; exact resume."""

from iagan_lightning.training.base import PriorTraining
from iagan_lightning.training.began import BEGANTraining
from iagan_lightning.training.encoder import EncoderTraining
from iagan_lightning.training.pictures import TrainingPictures
from iagan_lightning.training.vaegan import VAEGANTraining

__all__ = ["BEGANTraining", "EncoderTraining", "PriorTraining", "TrainingPictures", "VAEGANTraining"]
