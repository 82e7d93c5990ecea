"""Lightning callbacks around the ``IAGAN`` module; import them as ``iagan_lightning.callbacks``.

Each one is independent: taking it out of the list takes its output away. Where order matters, results are made
(``BestObjective``, ``BackProjection``, ``DIPBaseline``) before they are measured (``ImageMetrics``) and written
(``ResultWriter``).
"""

from iagan_lightning.callbacks.back_projection import BackProjection
from iagan_lightning.callbacks.best_objective import BestObjective
from iagan_lightning.callbacks.curves import CurveWriter
from iagan_lightning.callbacks.dip_baseline import DIPBaseline
from iagan_lightning.callbacks.metrics import ImageMetrics
from iagan_lightning.callbacks.progress import RunProgress
from iagan_lightning.callbacks.result_writer import ResultWriter
from iagan_lightning.callbacks.stage_stopping import StageStopping
from iagan_lightning.callbacks.tensorboard import TensorBoardImages

__all__ = [
    "BackProjection",
    "BestObjective",
    "CurveWriter",
    "DIPBaseline",
    "ImageMetrics",
    "ResultWriter",
    "RunProgress",
    "StageStopping",
    "TensorBoardImages",
]
