"""What logging costs: the share of TensorBoardImages and CurveWriter in the time of an image.

``python benchmarks/logging_cost.py``: preset fast on the bundled portraits, x4, one thread; without LPIPS, which would
make the share smaller. CPU time, so that other work on the machine does not count: that of the hooks of both, and of
TensorBoard's threads that write beside them. The first image pays for the import of TensorBoard.
"""

import functools
import statistics
import tempfile
import time

import torch
from iagan_lightning.callbacks import (
    BackProjection,
    BestObjective,
    CurveWriter,
    ImageMetrics,
    ResultWriter,
    StageStopping,
    TensorBoardImages,
)

from iagan_lightning import IAGAN, adapt
from iagan_lightning.data.images import fit_image, read_image
from iagan_lightning.data.samples import EXAMPLES
from iagan_lightning.generators import load_generator
from iagan_lightning.methods.trainers import quiet_lightning, quiet_trainer
from iagan_lightning.operators import BicubicDownsampling


def clocked(callback, spent):
    """Return the callback with the time of its hooks added to ``spent`` under its class name."""
    name = type(callback).__name__

    def timed(hook, *args):
        start = time.thread_time()
        hook(*args)
        spent[name] = spent.get(name, 0.0) + time.thread_time() - start

    for hook in ("on_train_start", "on_train_batch_end", "on_train_end"):
        setattr(callback, hook, functools.partial(timed, getattr(callback, hook)))
    return callback


def main(rounds=4):
    """Print a line per image, and the median over all but the first."""
    torch.set_num_threads(1)  # then other threads are those that write
    A, module = BicubicDownsampling((3, 64, 64), scale=4), IAGAN(load_generator("began64"))
    totals = []
    for path in rounds * sorted(EXAMPLES.glob("*.png")):
        x = fit_image(read_image(path), (64, 64))[None]
        spent = {}
        with tempfile.TemporaryDirectory() as out, quiet_lightning():
            logging = [clocked(TensorBoardImages(out), spent), clocked(CurveWriter(out), spent)]
            ours = [BestObjective(), StageStopping(), BackProjection(), ImageMetrics("none"), *logging]
            module.begin(A(x), A, 0.0, [0], truth=x, names=[path.stem])
            whole, own = time.process_time(), time.thread_time()
            adapt(module, quiet_trainer(accelerator="cpu", callbacks=[*ours, ResultWriter(out)]))
            whole, own = time.process_time() - whole, time.thread_time() - own
        spent["threads that write"] = max(0.0, whole - own)
        totals.append(sum(spent.values()) / whole)
        shares = ", ".join(f"{name} {seconds / whole:.2%}" for name, seconds in spent.items())
        print(f"{path.stem}: {whole:.1f} s, logging {totals[-1]:.2%} ({shares})", flush=True)
    print(f"median without the first: {statistics.median(totals[1:]):.2%}")


if __name__ == "__main__":
    main()
