"""Public name of ``iagan_lightning.data.images``: pictures to tensors and back."""

from iagan_lightning.data.images import fit_image, read_image, shift_rows, to_8bit, to_pillow

__all__ = ["fit_image", "read_image", "shift_rows", "to_8bit", "to_pillow"]
