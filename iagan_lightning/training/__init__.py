"""Training priors as LightningModules: BEGAN, VAE-GAN; pictures from folders and tar files, exact resume."""

from iagan_lightning.training.base import PriorTraining
from iagan_lightning.training.began import BEGANTraining
from iagan_lightning.training.pictures import TrainingPictures
from iagan_lightning.training.vaegan import VAEGANTraining

__all__ = ["BEGANTraining", "PriorTraining", "TrainingPictures", "VAEGANTraining"]
