"""The experiments of the AAAI 2020 paper as data, and how ours are written beside its tables and figures."""

from iagan_lightning.paper.experiments import EXPERIMENTS, Experiment, Row, published_figures

__all__ = ["EXPERIMENTS", "Experiment", "Row", "published_figures"]
