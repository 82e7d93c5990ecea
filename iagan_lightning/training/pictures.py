"""The data of a training: pictures from a folder or a tar file, looked at before the first step, in a fixed order."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from iagan_lightning.signals import leave_to_parent
from iagan_lightning.training.checkpoints import LAST, PREVIOUS
from iagan_lightning.training.order import Places, StepSampler
from iagan_lightning.training.picture_set import PictureError, PictureSet
from iagan_lightning.training.record import (
    HELD_OUT,
    PICTURES,
    SHORT,
    Entry,
    agree,
    known_as,
    match,
    note_bad,
    read_bad,
    read_pictures,
    some,
    with_reasons,
    write_pictures,
)

__all__ = ["PictureSet", "StepSampler", "TrainingPictures", "sample_sheet"]

SHARE = 10  # of so many pictures one is held out at most


class TrainingPictures(pl.LightningDataModule):
    """Pictures to train a prior on.

    Args:
        root: folder of pictures, or an uncompressed .tar file.
        batch_size: pictures per step and device.
        mirror: also show pictures mirrored.
        workers: processes that read pictures; 0 reads them in the training process.
        skip_bad: leave out pictures that are damaged, too small or of a kind that is not read, and say which; otherwise
            they are an error.
        accept_changes: go on with other pictures than those that the training began with.
        held_out: pictures that are never trained on, on which the prior is measured: how many of root, of ten at most
            one, or a folder or .tar file of others; 0 for none. Their contents decide which, whatever they are called.

    Attributes:
        held: those that are held out, ``(n, 3, size, size)`` as uint8.
    """

    def __init__(
        self,
        root: str,
        batch_size: int = 16,
        mirror: bool = True,
        workers: int = 0,
        skip_bad: bool = False,
        accept_changes: bool = False,
        held_out: int | str = 8,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size is at least 1; {batch_size} was given")
        if isinstance(held_out, int) and held_out < 0:
            raise ValueError(f"data.held_out is a number of pictures, 0 or more, or a folder; {held_out} was given")
        self.root, self.batch_size, self.mirror, self.workers = root, batch_size, mirror, workers
        self.skip_bad, self.accept_changes, self.held_out = skip_bad, accept_changes, held_out
        self.seed = 0
        self.size = 64
        self.bad: dict[str, str] = {}
        self._places: Places | None = None
        self.held = torch.empty(0, 3, self.size, self.size, dtype=torch.uint8)
        self._began: list[Entry] = []
        self._held: list[Entry] = []
        self._said: list[str] = []

    def open(self, size: int, seed: int, out: Path | None = None) -> Places:
        """Look at all pictures, so that errors show before any work is done.

        Args:
            size: height and width that the generator needs.
            seed: of the order.
            out: folder of a training; one that was begun before decides about the order.

        Raises:
            ValueError: naming the pictures that are bad, and those that the training did not begin with.
        """
        self.size, self.seed = size, seed
        pictures = self._list()
        known = read_bad(out) if out is not None else {}
        found = [pictures.inspect(number, whole=name in known) for number, name in enumerate(pictures.names)]
        hidden = self._hold_out(pictures, found, out)
        self.bad = {entry.name: reason for entry, reason in found if reason is not None}
        if self.bad and not self.skip_bad:
            raise ValueError(
                f"{len(self.bad)} of {len(pictures)} pictures in {self.root} cannot be used "
                f"({with_reasons(self.bad)}): take them out, or leave them out with --data.skip_bad true"
            )
        before = read_pictures(out) if out is not None else None
        good, self._said = self._without_held(pictures, found, hidden, before)
        if not good and hidden:
            raise ValueError(f"all pictures in {self.root} are held out: choose fewer, or others, with --data.held_out")
        if not good:
            raise ValueError(f"none of the pictures in {self.root} can be used ({with_reasons(self.bad)})")
        if self.bad:
            _tell(f"{len(self.bad)} bad pictures are left out of {self.root} ({with_reasons(self.bad)})")
        now = [found[number][0] for number in good]
        numbers: list[int | None] = list(range(len(now)))
        self._began = before or now
        lost = known_as(digest for digest, _ in hidden) - known_as(entry.hash for entry in now)
        if shown := [entry.name for entry in self._began if entry.hash in lost]:
            raise ValueError(
                f"{out} was begun with pictures that are to be held out now ({some(shown)}): choose others with "
                "--data.held_out, or another --out"
            )
        if self._began is not now:
            numbers, changed = match(self._began, now, {**known, **self.bad})
            if changed and not self.accept_changes:
                raise ValueError(
                    f"{out} was begun with other pictures than {self.root} holds: {changed}. Bring them back, choose "
                    "another --out, or go on with those that are there with --data.accept_changes true"
                )
            if changed:
                _tell(f"{out} goes on with other pictures: {changed}")
                self._began, numbers = now, list(range(len(now)))
        self._places = Places(
            pictures, [None if number is None else good[number] for number in numbers], self.skip_bad, out
        )
        return self._places

    def keep(self, out: Path) -> None:
        """Write down which pictures the training began with, and which are bad; say what it goes without."""
        for line in self._said:
            _tell(line)
        if self._held and read_pictures(out, HELD_OUT) != self._held:
            write_pictures(out, self._held, HELD_OUT)
        if read_pictures(out) != self._began:
            write_pictures(out, self._began)
        note_bad(out, self.bad)
        if self._places is not None:
            self._places.out = out  # where those are noted that turn out to be bad later

    def check(self, size: int) -> dict[str, str]:
        """Decode every picture and return those that cannot be used, and why."""
        self.size = size
        pictures = self._list()
        looks = DataLoader(
            _Looks(pictures), batch_size=None, num_workers=self._processes(), worker_init_fn=leave_to_parent
        )
        return {entry.name: reason for entry, reason in looks if reason is not None}

    def train_dataloader(self) -> DataLoader:
        """Return an endless loader that begins at the Trainer's present step."""
        places = self._places or self.open(self.size, self.seed)
        trainer = self.trainer
        assert trainer is not None
        sampler = StepSampler(
            len(places), self.batch_size, self.seed, trainer.global_step, trainer.global_rank, trainer.world_size,
            self.mirror,
        )  # fmt: skip
        return DataLoader(
            places, batch_sampler=sampler, num_workers=self._processes(), collate_fn=_arrays,
            worker_init_fn=leave_to_parent,
        )  # fmt: skip

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Return the batch as a tensor; what could not be read stops the training between two steps."""
        if isinstance(batch, PictureError):
            if self._places is not None and self._places.out is not None:
                with contextlib.suppress(OSError):
                    note_bad(self._places.out, {batch.name: batch.reason})
            raise batch
        return torch.from_numpy(batch) if isinstance(batch, np.ndarray) else batch

    def _hold_out(
        self, pictures: PictureSet, found: list[tuple[Entry, str | None]], out: Path | None
    ) -> set[tuple[str, str]]:
        """Keep back those on which the prior is measured, and read them; one that proves bad is so in ``found`` too.

        Returns:
            The hash of each, with one of all that it holds.

        Raises:
            ValueError: where they are others than those of an earlier training in ``out``, or cannot be used.
        """
        before = read_pictures(out, HELD_OUT) if out is not None else None
        if isinstance(self.held_out, str):
            pictures = PictureSet(self.held_out, self.size)
            found = [pictures.inspect(number, whole=True) for number in range(len(pictures))]
            if bad := {entry.name: reason for entry, reason in found if reason is not None}:
                raise ValueError(f"pictures in {self.held_out} cannot be used ({with_reasons(bad)}): take them out")
            numbers = sorted(_numbers(pictures, found).values())
        elif before is not None:
            numbers = _again(before, found)
        else:
            numbers = self._choose(pictures, found, out)
        self._held = [found[number][0] for number in numbers]
        bad = {entry.name: reason for entry, reason in found if reason is not None}
        changed = match(before, self._held, bad)[1] if before is not None else ""
        if changed and not self.accept_changes:
            raise ValueError(
                f"{out} was begun with other held-out pictures: {changed}. Bring them back, choose another --out, or "
                "go on with those that are there with --data.accept_changes true"
            )
        if numbers:
            self.held = torch.stack([pictures[number, False] for number in numbers])
        return {(found[number][0].hash, pictures.content(number)) for number in numbers}

    def _without_held(
        self,
        pictures: PictureSet,
        found: Sequence[tuple[Entry, str | None]],
        hidden: Collection[tuple[str, str]],
        before: Sequence[Entry] | None,
    ) -> tuple[list[int], list[str]]:
        """Return the numbers of good pictures but those held out and copies of them, and what is to be said of it.

        A training that was begun by an earlier version took for a copy what only begins and ends alike, and goes on
        without it.
        """
        good = [number for number, (_, reason) in enumerate(found) if reason is None]
        hashes = {digest for digest, _ in hidden}
        same = {n for n in good if found[n][0].hash in hashes and (found[n][0].hash, pictures.content(n)) in hidden}
        own = () if isinstance(self.held_out, str) else self._held
        copies = [found[number][0].name for number in sorted(same) if found[number][0] not in own]
        good = [number for number in good if number not in same]
        said = []
        if copies:
            said.append(f"copies of held-out pictures are left out of {self.root}: {len(copies)} ({some(copies)})")
        if before is None or self.accept_changes:
            return good, said
        ends, began = {digest[:SHORT] for digest in hashes}, {word for entry in before for word in entry}
        alike = [n for n in good if found[n][0].hash[:SHORT] in ends and began.isdisjoint(found[n][0])]
        if alike:
            names = some([found[number][0].name for number in alike])
            said.append(
                f"{len(alike)} pictures that begin and end as held-out ones are left out of {self.root} as before "
                f"({names}); --data.accept_changes true takes them in"
            )
        return [number for number in good if number not in set(alike)], said

    def _choose(self, pictures: PictureSet, found: list[tuple[Entry, str | None]], out: Path | None) -> list[int]:
        """Return the numbers of those to hold out in a training that begins; one that has begun without has none."""
        known = _numbers(pictures, found)
        wanted = min(int(self.held_out), len(known) // SHARE)
        numbers: list[int] = []
        if wanted and out is not None and any((out / name).exists() for name in (PICTURES, LAST, PREVIOUS)):
            _tell(f"{out} was begun without held-out pictures and goes on so; --data.held_out FOLDER gives it others")
            return numbers
        for digest in sorted(known):
            if len(numbers) == wanted:
                break
            number = known[digest]
            found[number] = pictures.inspect(number, whole=True)
            if found[number][1] is None:
                numbers.append(number)
        return numbers

    def _list(self) -> PictureSet:
        pictures = PictureSet(self.root, self.size)
        if pictures.left_out:
            _tell(pictures.left_out)
        return pictures

    def _processes(self) -> int:
        """Return how many processes read pictures: none where the system cannot let them talk to each other."""
        if not self.workers:
            return 0
        try:
            multiprocessing.Lock()  # lies in /dev/shm
        except (ImportError, OSError) as error:
            _tell(
                f"--data.workers {self.workers} is not possible here, where processes cannot share memory ({error}); "
                "pictures are read in the training process"
            )
            return 0
        return self.workers


def _numbers(pictures: PictureSet, found: Sequence[tuple[Entry, str | None]]) -> dict[str, int]:
    """Return the numbers of good pictures by what they hold: the first where one is there twice."""
    good = [(number, entry.hash) for number, (entry, reason) in enumerate(found) if reason is None]
    count = Counter(digest for _, digest in good)
    held = [(digest if count[digest] == 1 else digest + pictures.content(number), number) for number, digest in good]
    return dict(reversed(held))


def _again(before: Sequence[Entry], found: Sequence[tuple[Entry, str | None]]) -> list[int]:
    """Return the numbers of good pictures that are as they were, by name where several may be meant."""
    numbers = []
    for known in before:
        now = [n for n, (entry, reason) in enumerate(found) if reason is None and agree(known.hash, entry.hash)]
        numbers += [n for n in now if found[n][0].name == known.name][:1] or now[:1]
    return numbers


class _Looks(Dataset):
    """What is found when each picture is decoded."""

    def __init__(self, pictures: PictureSet) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Entry, str | None]:
        return self.pictures.inspect(index, whole=True)


def _arrays(items: Sequence[Tensor | PictureError]) -> np.ndarray | PictureError:
    """Return a batch as it goes from process to process: by a pipe, since tensors need room in /dev/shm."""
    for item in items:
        if isinstance(item, PictureError):
            return item
    return np.stack([item.numpy() for item in items if isinstance(item, Tensor)])


def _tell(line: str) -> None:
    """Say something once, whatever the number of processes."""
    if getattr(rank_zero_only, "rank", 0) == 0:
        print(f"iagan: {line}", file=sys.stderr)


def sample_sheet(images: Tensor, columns: int) -> Image.Image:
    """Return images ``(n, 3, H, W)`` in [-1, 1] as one picture, ``columns`` in a row."""
    rows = [torch.cat(list(row), dim=-1) for row in images.split(columns)]
    whole = torch.full((3, rows[0].shape[-2] * len(rows), rows[0].shape[-1]), 1.0)
    for number, row in enumerate(rows):
        whole[:, number * row.shape[-2] : (number + 1) * row.shape[-2], : row.shape[-1]] = row
    pixels = ((whole.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())
