"""Work for those who look on: in a thread of its own, in turn, told of as it goes on, ended when nobody wants it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from iagan_lightning.app.choices import Job
from iagan_lightning.app.job import Outcome, check, do
from iagan_lightning.app.line import LONGEST, Line
from iagan_lightning.app.watch import StoppedError, Watch

LOOK = 0.5  # seconds after which somebody who waits is told of it again, and a page that is gone is noticed
END = 20.0  # seconds in which work that is to end does: an evaluation with the largest prior


@dataclass(frozen=True)
class Waiting:
    """So many are before this one."""

    before: int


@dataclass(frozen=True)
class News:
    """What is done at the moment, and the iterate ``(C, H, W)`` in [-1, 1]; None where there is none yet."""

    text: str
    image: Tensor | None


class Desk:
    """Takes jobs, each under the name of a session, which has one at a time.

    Args:
        longest: how many may wait, with the one at work.
        carry_out: does a job; another one in tests.
    """

    def __init__(self, longest: int = LONGEST, carry_out: Callable[[Job, Watch], Outcome] = do) -> None:
        self.line, self.carry_out = Line(longest), carry_out
        self._stops: dict[str, threading.Event] = {}
        self._threads: set[threading.Thread] = set()

    def work(self, session: str, job: Job) -> Iterator[Waiting | News | Outcome]:
        """Do a job and tell of it; the last that is told is the outcome.

        Where nobody listens any more (the iterator is closed) the work ends with the evaluation at hand.

        Raises:
            OSError, ValueError: for what cannot be done.
            StoppedError: after ``stop``.
        """
        check(job)
        self.stop(session)
        ticket, begun = self.line.join(), False
        stop = self._stops[session] = threading.Event()
        work = _Work(job, self.carry_out, stop)
        try:
            while before := self.line.before(ticket, LOOK):
                if stop.is_set():
                    raise StoppedError
                yield Waiting(before)
            thread = threading.Thread(target=work.run, args=(lambda: self._end(ticket),), daemon=True)
            self._threads.add(thread)
            begun = True
            thread.start()
            yield from work.news()
        finally:
            stop.set()
            if not begun:
                self.line.leave(ticket)
            if self._stops.get(session) is stop:
                del self._stops[session]

    def stop(self, session: str) -> None:
        """End the work of a session, if there is any."""
        if session in self._stops:
            self._stops[session].set()

    def close(self) -> None:
        """End all work, and wait for that."""
        for stop in list(self._stops.values()):
            stop.set()
        for thread in list(self._threads):
            thread.join(END)

    def _end(self, ticket: object) -> None:
        self._threads.discard(threading.current_thread())
        self.line.leave(ticket)


class _Work:
    """A job in another thread, and the latest news of it."""

    def __init__(self, job: Job, carry_out: Callable[[Job, Watch], Outcome], stop: threading.Event) -> None:
        self.job, self.carry_out, self.stop = job, carry_out, stop
        self._news: News | Outcome | Exception | None = None
        self._told = threading.Condition()

    def run(self, end: Callable[[], object]) -> None:
        """Do it; whatever goes wrong is for the one who listens."""
        try:
            self._tell(self.carry_out(self.job, Watch(lambda text, image: self._tell(News(text, image)), self.stop)))
        except Exception as error:
            self._tell(error)
        finally:
            end()

    def _tell(self, news: News | Outcome | Exception) -> None:
        with self._told:
            self._news = news
            self._told.notify_all()

    def news(self) -> Iterator[News | Outcome]:
        """Return what happens, the latest alone where it happens faster than it is listened to."""
        last = News("", None)
        while True:
            with self._told:
                self._told.wait_for(lambda: self._news is not None, LOOK)
                news, self._news = self._news, None
            if isinstance(news, Exception):
                raise news
            if isinstance(news, Outcome):
                yield news
                return
            last = last if news is None else News(news.text, last.image if news.image is None else news.image)
            yield last
