"""Files of pictures and measurements -> samples: what is reconstructed, in which framing and size."""

from iagan_lightning.data.samples import ImageData, Measured, OperatorFactory, Sample

__all__ = ["ImageData", "Measured", "OperatorFactory", "Sample"]
