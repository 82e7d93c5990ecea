"""The two checkpoints of a training: the last and the one before, each written whole or not at all.

A checkpoint goes straight into the folder of the training: the system's temporary folder may be full, or on another
disk. It is read back only if every byte is as it was written and every weight is a finite number.
"""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn

from iagan_lightning.replacing import replacing
from iagan_lightning.safety import check_archive, refused_name

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class TwoCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint; the one that lay there becomes the previous one.

    Args:
        keep: whether the file that lies there is worth keeping, which the first one is not where it is damaged.
    """

    def __init__(self, keep: bool = True) -> None:
        self.keep = keep

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the place, then move both files on: at any moment one whole checkpoint is there."""
        path = Path(path)
        content = io.BytesIO()  # torch.save reports a full disk in words of its own
        torch.save(checkpoint, content)
        with replacing(path) as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
            if self.keep and path.exists():
                _link(path, path.with_name(PREVIOUS))
        self.keep = True

    def load_checkpoint(self, path: Any, *args: Any, **settings: Any) -> dict[str, Any]:
        """Read tensors and plain containers; nothing in the file is executed."""
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return content


class Checkpoint(NamedTuple):
    """A checkpoint and the steps that were made until then."""

    path: Path
    step: int


def find_checkpoint(out: Path, model: nn.Module) -> Checkpoint | None:
    """Return the checkpoint to go on from: the last, or the one before where the last is damaged; None for none.

    Raises:
        ValueError: where those that are there are damaged, or of another model.
    """
    troubles: list[str] = []
    for path in (out / LAST, out / PREVIOUS):
        if not path.exists():
            continue
        try:
            content = read_checkpoint(path, model)
        except ValueError as error:
            troubles.append(str(error))
            continue
        wanted = {key: value.shape for key, value in model.state_dict().items()}
        if wanted != {key: value.shape for key, value in content["state_dict"].items()}:
            raise ValueError(f"{path} is of another model: choose another --out, or delete it to begin anew")
        if path.name == PREVIOUS and getattr(rank_zero_only, "rank", 0) == 0:
            reason = troubles[0] if troubles else f"{out / LAST} is missing"
            print(f"iagan: {reason}; going on from {PREVIOUS}, step {content['global_step']}", file=sys.stderr)
        return Checkpoint(path, int(content["global_step"]))
    if troubles:
        raise ValueError(f"{'; '.join(troubles)}: choose another --out, or delete what is damaged to begin anew")
    return None


def read_checkpoint(path: Path, model: nn.Module) -> dict[str, Any]:
    """Return what a checkpoint holds.

    Raises:
        ValueError: for a file that is cut, changed or no checkpoint, and for weights that are not finite.
    """
    try:
        if not path.stat().st_size:
            raise ValueError("it is empty")
        check_archive(path)
        with zipfile.ZipFile(path) as archive:  # PyTorch does not look at the checksums
            if (member := archive.testzip()) is not None:
                raise ValueError(f"{member} has changed")
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content["state_dict"]
        weights = {name for name, _ in model.named_parameters()}
        for key, value in state.items():
            if not isinstance(value, Tensor) or bool(value.isnan().any()) or (key in weights and not _finite(value)):
                raise ValueError(f"{key} is not finite")
        int(content["global_step"])
    except Exception as error:  # torch raises a different kind for each way in which a file can be broken
        refused = refused_name(error)
        reason = f"it wants to build {refused}, which is refused" if refused else str(error).partition("\n")[0]
        raise ValueError(f"{path} is damaged ({reason})") from error
    return content


def _finite(value: Tensor) -> bool:
    return bool(value.isfinite().all())


def _link(path: Path, name: Path) -> None:
    """Let a file have another name too, so that it keeps one when its first is given to another file."""
    link = name.with_name(f".{name.name}.{os.getpid()}.part")
    try:
        os.link(path, link)
        os.replace(link, name)
    except OSError:  # a file system without hard links
        os.replace(path, name)
    finally:
        link.unlink(missing_ok=True)
