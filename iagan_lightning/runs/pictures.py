"""Which pictures a run keeps of each image, and whether there will be such."""

from __future__ import annotations

from iagan_lightning.callbacks import BackProjection
from iagan_lightning.runs.reconstructor import Job

OF_EVERY_IMAGE = ("measurement", "mask", "truth", "naive")


def check_pictures(job: Job) -> None:
    """Refuse to keep a picture that no image will have.

    Callbacks and methods of one's own may make any; there what is missing is left out, with a warning.

    Raises:
        ValueError: naming those there are.
    """
    if not job.options.pictures:
        return
    own = bool(job.callbacks) or type(job.model).__module__.partition(".")[0] != __name__.partition(".")[0]
    known = pictures_of(job)
    unknown = [name for name in job.options.pictures if name not in known]
    if unknown and not own:
        raise ValueError(f"pictures: there will be no {', '.join(unknown)}; there will be {', '.join(known)}")


def pictures_of(job: Job) -> list[str]:
    """Return the names of the pictures that settings alone lead to: of each fit's result, and those beside them."""
    options, model = job.options, job.model
    fits = model.plan(job.noise_std, None, options.views)
    results = [fit.result for fit in fits if fit.result is not None]
    results += [f"{name}_bp" for name in results] * BackProjection(options.back_projection).wanted(job.noise_std)
    if len(model.views) > 1:
        results += [f"{fits[len(fits) // len(model.views) - 1].result}_mean", "uncertainty"]
    results += ["dip"] * (options.baseline is not None)
    return [*OF_EVERY_IMAGE, *results, "comparison"]
