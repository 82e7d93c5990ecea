"""Random and damaged files of every kind that is read here: pictures, masks, kernels, and arrays of measurements.

    python benchmarks/fuzz_readers.py --seconds 3600 --seed 1
    python benchmarks/fuzz_readers.py --seed 1 --case 12345        one file again, with its traceback

A reader may take a file, and then its values are in their range, or refuse it with OSError or ValueError. Any other
exception, a warning of a division, a file that takes longer than 20 seconds or ends the process is a failure; the exit
status is 1 then. The file of a case follows from the seed and its number alone (and from Pillow, which makes the whole
ones).
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms

from iagan_lightning.data.folders import ARRAYS
from iagan_lightning.data.images import opaque, picture_size, read_image
from iagan_lightning.data.samples import read_array
from iagan_lightning.operators.files import read_kernel, read_picture
from iagan_lightning.safety import picture_suffixes

BATCH = 500  # files of one process: one that is killed costs no more
LIMIT = 20  # seconds for one file


def whole_files() -> list[tuple[str, bytes]]:
    """Return files that are as they should be, to begin with: suffix and content."""
    random = np.random.default_rng(0)
    colour = Image.fromarray(random.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    deep = Image.fromarray(random.integers(0, 65536, (24, 20), dtype=np.uint16))
    real = Image.fromarray(random.random((24, 20), dtype=np.float32))
    pictures = [colour.convert(mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr")] + [deep, real]
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    extras: list[dict[str, Any]] = [
        {}, {"icc_profile": profile}, {"exif": exif}, {"transparency": 5}, {"compression": "tiff_lzw"},
    ]  # fmt: skip
    files: dict[bytes, str] = {}
    for suffix in sorted(picture_suffixes()):
        for picture in pictures:
            for extra in extras:
                buffer = io.BytesIO()
                try:
                    picture.copy().save(buffer, format=Image.registered_extensions()[suffix], **extra)
                except Exception:  # not every format has every mode
                    continue
                files.setdefault(buffer.getvalue(), suffix)
    for array in (random.random((3, 8, 8), dtype=np.float32), random.integers(0, 2, (8, 8)) > 0, np.ones(5) * 1j):
        buffer = io.BytesIO()
        np.save(buffer, array)
        files[buffer.getvalue()] = ".npy"
        for zipped in (True, False):
            buffer = io.BytesIO()
            torch.save(torch.from_numpy(array), buffer, _use_new_zipfile_serialization=zipped)
            files[buffer.getvalue()] = ".pt"
    return sorted((suffix, content) for content, suffix in files.items())


def damaged(content: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """Return a file with something wrong: cut, filled, moved, other numbers, two files in one, or noise throughout."""
    data = bytearray(content)
    for _ in range(random.integers(1, 5)):
        # Most of what can be got wrong stands near the beginning.
        place = int(random.integers(0, max(min(len(data), 200 if random.random() < 0.6 else len(data)), 1)))
        length = int(random.integers(1, 9))
        match int(random.integers(0, 8)):
            case 0:
                data = data[:place]
            case 1:
                data[place : place + length] = random.bytes(length)
            case 2:
                data[place:place] = random.bytes(length)
            case 3:
                del data[place : place + length]
            case 4:
                number = int(random.choice([0, 1, 127, 255, 256, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1]))
                data[place : place + 4] = number.to_bytes(4, "big" if random.random() < 0.5 else "little")
            case 5:
                data = data[:place] + other[place:]
            case 6:
                data[place : place + 1] = bytes([data[place] ^ 1 << int(random.integers(0, 8))] if data else [])
            case 7 if random.random() < 0.1:
                data = bytearray(random.bytes(int(random.integers(0, 300))))
    return bytes(data)


def check_picture(path: Path) -> None:
    """Read a picture in colour and in grey."""
    size = picture_size(path)
    assert size is None or min(size) >= 0
    for channels in (3, 1):
        x = read_image(path, channels)
        assert x.shape[0] == channels, x.shape
        assert x.ndim == 3 and x.dtype == torch.float32, (x.shape, x.dtype)
        assert -1 <= x.min() <= x.max() <= 1, (x.min(), x.max())


def check_opacity(path: Path) -> None:
    """Read where a picture is opaque."""
    mask = opaque(path)
    assert mask.dtype == torch.bool and mask.shape == read_image(path, 1).shape[1:], mask.shape


def check_mask(path: Path) -> None:
    """Read a mask."""
    mask = read_picture(path)
    if path.suffix not in ARRAYS:
        assert mask.ndim == 2 and 0 <= mask.min() <= mask.max() <= 1, (mask.shape, mask.min(), mask.max())


def check_kernel(path: Path) -> None:
    """Read a kernel."""
    kernel = read_kernel(path)
    if path.suffix not in ARRAYS:
        assert kernel.ndim == 2 and abs(kernel.sum() - 1) < 1e-6, (kernel.shape, kernel.sum())


def check_array(path: Path) -> None:
    """Read measurements."""
    assert isinstance(read_array(path), torch.Tensor)


PICTURES = {"picture", "opacity"}  # their readers promise OSError too
READERS: dict[str, Callable[[Path], None]] = {
    "picture": check_picture,
    "opacity": check_opacity,
    "mask": check_mask,
    "kernel": check_kernel,
    "array": check_array,
}


def read_case(seed: int, case: int, files: list[tuple[str, bytes]], folder: Path) -> list[tuple[str, str, str | None]]:
    """Make the file of a case and read it; return reader and ending, what came of it, and what was wrong."""
    random = np.random.default_rng([seed, case])
    arrays = [file for file in files if file[0] in ARRAYS]
    chosen = arrays if random.random() < 0.2 else files
    suffix, content = chosen[random.integers(len(chosen))]
    content = damaged(content, files[random.integers(len(files))][1], random)
    if random.random() < 0.05:  # a name promises nothing
        suffix = files[random.integers(len(files))][0]
    path = folder / f"case{suffix}"
    path.write_bytes(content)
    array = suffix in ARRAYS
    outcomes: list[tuple[str, str, str | None]] = []
    for reader, check in READERS.items():
        if reader in (PICTURES if array else {"array"}):
            continue
        signal.alarm(LIMIT)
        try:
            check(path)
            outcomes.append((reader, "read", None))
        except (ValueError, OSError) as error:
            own = isinstance(error, ValueError) or reader in PICTURES
            lines = None if own else f"{reader} {suffix}: {type(error).__name__} where ValueError is promised: {error}"
            outcomes.append((reader, "refused", lines))
        except BaseException:
            outcomes.append((reader, "failed", f"{reader} {suffix}: {traceback.format_exc()}"))
        finally:
            signal.alarm(0)
    return outcomes


def out_of_time(*_: object) -> None:
    """End the reading of a file that takes too long."""
    raise RuntimeError(f"took longer than {LIMIT} seconds")


def work(seed: int, first: int, files: list[tuple[str, bytes]], folder: Path, until: float, results: Any) -> None:
    """Read the files of a batch and tell what came of them."""
    warnings.simplefilter("ignore")
    warnings.filterwarnings("error", category=RuntimeWarning)
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, out_of_time)
    counts, wrong = Counter[str](), []
    for case in range(first, first + BATCH):
        results.send(("case", case))
        for reader, outcome, problem in read_case(seed, case, files, folder):
            counts[f"{reader} {outcome}"] += 1
            if problem:
                wrong.append((case, problem))
        if time.monotonic() > until:
            break
    results.send(("done", case + 1 - first, counts, wrong))


def main() -> int:
    """Read files until the time is up; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, default=None, help="read only this one again")
    given = parser.parse_args()
    files = whole_files()
    until = time.monotonic() + given.seconds
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if given.case is not None:
            signal.signal(signal.SIGALRM, out_of_time)
            outcomes = read_case(given.seed, given.case, files, folder)
            print(*(problem or f"{reader}: {outcome}" for reader, outcome, problem in outcomes), sep="\n")
            return int(any(problem for *_, problem in outcomes))
        counts, wrong, first, number = Counter[str](), [], 0, 0
        while time.monotonic() < until:
            ours, theirs = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.Process(target=work, args=(given.seed, first, files, folder, until, theirs))
            process.start()
            theirs.close()
            case = first
            try:
                while (news := ours.recv())[0] == "case":
                    case = news[1]
                number += news[1]
                counts += news[2]
                wrong += news[3]
                first += BATCH
            except EOFError:
                process.join()
                wrong.append((case, f"the process was ended with status {process.exitcode}"))
                number += case + 1 - first
                first = case + 1
            process.join()
    for case, problem in wrong:
        print(f"seed {given.seed}, case {case}: {problem}")
    print(f"seed {given.seed}: {number} files, {len(wrong)} failures")
    print(*(f"  {what}: {count}" for what, count in sorted(counts.items())), sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
