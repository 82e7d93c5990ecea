"""Lightning callbacks around every ``TestTimeModule``; import them as ``iagan_lightning.callbacks``.

Each one is independent: taking it out of the list takes its output away. ``adapt`` sorts them by their ``phase``:
results are made (``BestObjective``, ``BackProjection``, ``ViewMean``, ``DIPBaseline``), then measured
(``ImageMetrics``), then written (``ResultWriter``). A callback of one's own may name its phase too; without one it
makes.
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
from iagan_lightning.callbacks.time_limit import TimeLimit
from iagan_lightning.callbacks.view_mean import ViewMean

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
    "TimeLimit",
    "ViewMean",
]
