"""Training pictures from a folder or a tar file, in an order that depends on the step alone.

Step s always sees the same pictures, flipped or not in the same way: a run that was killed and resumed at step s goes
on as if nothing had happened.
"""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from iagan_lightning.data.folders import BROKEN, EMPTY, OURS, LeftOut, list_pictures, reason_left_out
from iagan_lightning.data.images import fit_image, read_image
from iagan_lightning.data.written import written_in_tar
from iagan_lightning.safety import picture_suffixes
from iagan_lightning.signals import leave_to_parent


class PictureSet(Dataset):
    """Pictures of a folder or of an uncompressed tar file, ``(3, size, size)`` as uint8.

    Args:
        root: folder or .tar file; only members with the ending of a picture are used, and no hidden or empty ones.
        size: height and width; larger pictures are cropped at the centre and shrunk.

    Raises:
        ValueError: where there is nothing to read.
    """

    def __init__(self, root: str, size: int) -> None:
        self.root, self.size = Path(root), size
        self.members: list[tuple[str, int, int]] = []
        self.paths: list[Path] = []
        if not self.root.exists():
            raise ValueError(f"no such folder or tar file: {root}")
        if self.root.is_dir():
            listing = list_pictures(root)
            self.paths, self.left_out = list(listing.files.values()), listing.left_out
            return
        left = LeftOut(root)
        try:
            with tarfile.open(self.root, "r:") as archive:
                ours = written_in_tar(archive)
                for folder in dict.fromkeys(ours.values()):
                    left.add(OURS, folder)
                for member in archive:
                    if member.isdir() or member.name in ours:
                        continue
                    reason = reason_left_out(member.name, picture_suffixes()) or (
                        BROKEN if not member.isfile() else EMPTY if not member.size else None
                    )
                    if reason is None:
                        self.members.append((member.name, member.offset_data, member.size))
                    else:
                        left.add(reason, member.name)
        except tarfile.TarError as error:
            raise ValueError(f"{root} is neither a folder nor an uncompressed tar file: {error}") from error
        self.left_out = str(left)
        if not len(self):
            raise left.nothing(picture_suffixes())

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.paths) or len(self.members)

    def __getitem__(self, key: tuple[int, bool]) -> Tensor:
        """Return picture number ``key[0]``, mirrored where ``key[1]`` is True."""
        index, mirrored = key
        name = str(self.paths[index]) if self.paths else self.members[index][0]
        try:
            x = fit_image(read_image(self.paths[index] if self.paths else self._member(index)), (self.size, self.size))
        except (OSError, ValueError) as error:
            raise ValueError(f"training picture {name}: {error}") from error
        x = ((x + 1) * 127.5).round().to(torch.uint8)
        return x.flip(-1) if mirrored else x

    def _member(self, index: int) -> io.BytesIO:
        _, offset, size = self.members[index]
        with self.root.open("rb") as file:
            file.seek(offset)
            return io.BytesIO(file.read(size))


class StepSampler(Sampler):
    """Endless batches of (index, mirrored): batch s is a function of the seed, s and the process alone.

    Args:
        length: number of pictures.
        batch_size: pictures per step and process.
        seed: of the order.
        start: first step.
        rank, world: this process and how many there are; they share out each epoch's order.
        mirror: mirror every other picture, at random.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        mirror: bool = True,
    ) -> None:
        self.length, self.batch_size, self.seed, self.start = length, batch_size, seed, start
        self.rank, self.world, self.mirror = rank, world, mirror

    def __iter__(self) -> Iterator[list[tuple[int, bool]]]:
        """Return the batches from ``start`` on."""
        epoch, order, flips = -1, np.empty(0, int), np.empty(0, bool)
        step = self.start
        while True:
            first = (step * self.world + self.rank) * self.batch_size
            batch = []
            for position in range(first, first + self.batch_size):
                if position // self.length != epoch:
                    epoch = position // self.length
                    random = np.random.default_rng([self.seed, epoch])
                    order, flips = random.permutation(self.length), random.random(self.length) < 0.5
                place = position % self.length
                batch.append((int(order[place]), bool(flips[place]) and self.mirror))
            yield batch
            step += 1


class TrainingPictures(pl.LightningDataModule):
    """Pictures to train a prior on.

    Args:
        root: folder of pictures, or an uncompressed .tar file.
        batch_size: pictures per step and device.
        mirror: also show pictures mirrored.
        workers: processes that read pictures; 0 reads them in the training process.
    """

    def __init__(self, root: str, batch_size: int = 16, mirror: bool = True, workers: int = 0) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size is at least 1; {batch_size} was given")
        self.root, self.batch_size, self.mirror, self.workers = root, batch_size, mirror, workers
        self.seed = 0
        self.size = 64
        self._pictures: PictureSet | None = None

    def open(self, size: int, seed: int) -> PictureSet:
        """List the pictures; errors show before any work is done."""
        self.size, self.seed = size, seed
        self._pictures = PictureSet(self.root, size)
        if self._pictures.left_out and getattr(rank_zero_only, "rank", 0) == 0:
            print(f"iagan: {self._pictures.left_out}", file=sys.stderr)
        return self._pictures

    def train_dataloader(self) -> DataLoader:
        """Return an endless loader that begins at the Trainer's present step."""
        pictures = self._pictures or self.open(self.size, self.seed)
        trainer = self.trainer
        assert trainer is not None
        sampler = StepSampler(
            len(pictures), self.batch_size, self.seed, trainer.global_step, trainer.global_rank, trainer.world_size,
            self.mirror,
        )  # fmt: skip
        return DataLoader(
            pictures, batch_sampler=sampler, num_workers=self.workers, pin_memory=torch.cuda.is_available(),
            worker_init_fn=leave_to_parent,
        )  # fmt: skip


def sample_sheet(images: Tensor, columns: int) -> Image.Image:
    """Return images ``(n, 3, H, W)`` in [-1, 1] as one picture, ``columns`` in a row."""
    rows = [torch.cat(list(row), dim=-1) for row in images.split(columns)]
    whole = torch.full((3, rows[0].shape[-2] * len(rows), rows[0].shape[-1]), 1.0)
    for number, row in enumerate(rows):
        whole[:, number * row.shape[-2] : (number + 1) * row.shape[-2], : row.shape[-1]] = row
    pixels = ((whole.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())
