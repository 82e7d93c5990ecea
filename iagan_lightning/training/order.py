"""The order in which a training shows its pictures: a function of seed and step alone.

Step s always sees the same pictures, flipped or not in the same way: a run that was killed and resumed at step s goes
on as if nothing had happened, and so does one from whose pictures a bad one was taken.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from iagan_lightning.training.picture_set import PictureError, PictureSet
from iagan_lightning.training.record import note_bad, read_bad

IN_A_ROW = 20  # pictures that cannot be read one after another


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


class Places(Dataset):
    """The pictures of a training in the order in which it began; the place of a bad one shows the next good one.

    Args:
        pictures: where they are.
        numbers: of the picture at each place, None where it is bad.
        skip_bad: pass over pictures that turn out bad; otherwise the error is returned in their stead.
        out: folder of the training, in which they are noted.
    """

    def __init__(
        self, pictures: PictureSet, numbers: Sequence[int | None], skip_bad: bool = False, out: Path | None = None
    ) -> None:
        self.pictures, self.numbers, self.skip_bad, self.out = pictures, list(numbers), skip_bad, out

    def __len__(self) -> int:
        """Return the number of places."""
        return len(self.numbers)

    def __getitem__(self, key: tuple[int, bool]) -> Tensor | PictureError:
        """Return the picture of place ``key[0]``, mirrored where ``key[1]`` is True."""
        failed = 0
        for place in (*range(key[0], len(self)), *range(key[0])):
            number = self.numbers[place]
            if number is None:
                continue
            try:
                return self.pictures[number, key[1]]
            except PictureError as error:
                failed += 1
                if not self.skip_bad or failed == IN_A_ROW or not self.pictures.root.exists():
                    return error  # many at once are no bad pictures: the place they come from has gone
                self.numbers[place] = None
                self._note(error)
        return PictureError(self.pictures.root.name, "none of its pictures can be used")

    def _note(self, error: PictureError) -> None:
        """Say that a picture is left out, once among all processes that read them."""
        if self.out is not None and error.name in read_bad(self.out):
            return
        print(f"iagan: {error}; left out", file=sys.stderr, flush=True)
        if self.out is not None:
            with contextlib.suppress(OSError):  # a full disk: the next checkpoint will tell
                note_bad(self.out, {error.name: error.reason})
