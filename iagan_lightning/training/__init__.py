"""Training priors: BEGAN as a LightningModule, pictures from folders and tar files, exact resume."""

from iagan_lightning.training.began import BEGANTraining
from iagan_lightning.training.pictures import TrainingPictures

__all__ = ["BEGANTraining", "TrainingPictures"]
