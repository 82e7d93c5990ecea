"""What an image was made from: the bytes of its files, by which a later run knows whether it has the same before it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from iagan_lightning.data.members import File, Member
from iagan_lightning.data.samples import Sample
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.shards import ShardedOutput
from iagan_lightning.safety import printable

READERS = 8  # at a time: on a network the way to a file takes longer than its bytes
NAMED = 3


def file_hash(path: File) -> str:
    """Return the SHA-256 of a file, or of a picture in a shard."""
    digest = hashlib.sha256()
    if isinstance(path, Member):
        digest.update(path.read())
        return digest.hexdigest()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def inputs_of(sample: Sample) -> dict[str, str]:
    """Return the hashes of the files of a sample: ``truth``, ``measurement`` or both, as metrics.json records them.

    Their whole content, since neither size nor time tells: arrays of one shape are of one size, and archives and copies
    set times back.
    """
    files = {"truth": sample.truth, "measurement": sample.measurement}
    return {role: file_hash(path) for role, path in files.items() if path is not None}


def check_inputs(finished: Iterable[Sample], out: OutputFolder | ShardedOutput) -> None:
    """Refuse files that are others than those from which finished images were made.

    Images of earlier versions, which recorded no hash, and files that cannot be read now are left as they are.

    Raises:
        ValueError: naming the first ones; for a damaged record.
    """

    def changed(sample: Sample) -> bool:
        before = out.metrics(sample.name).get("inputs")
        if not isinstance(before, dict):
            return False
        try:
            return any(before.get(role, new) != new for role, new in inputs_of(sample).items())
        except OSError:
            return False

    samples = list(finished)
    with ThreadPoolExecutor(READERS) as pool:
        others = [sample for sample, differs in zip(samples, pool.map(changed, samples), strict=True) if differs]
    if others:
        names = ", ".join(printable(sample.file) for sample in others[:NAMED]) + " ..." * (len(others) > NAMED)
        anew = ""
        if isinstance(out, OutputFolder):
            folders = printable(str(out.image(others[0].name))) + " and so on" * (len(others) > 1)
            anew = f", or delete {folders} to have them made anew"
        raise ValueError(
            f"{names}: {len(others)} of {len(samples)} finished images were made from other files of these names than "
            f"are given now. Choose another --out{anew}"
        )
