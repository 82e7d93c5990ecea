"""Public name of ``iagan_lightning.results.metrics``: what a reconstruction is measured by."""

from iagan_lightning.results.metrics import evaluate

__all__ = ["evaluate"]
