"""Who waits for whom: one reconstruction at a time, in the order in which they were asked for."""

from __future__ import annotations

import threading

LONGEST = 8  # those who wait, and the one who does not


class Line:
    """A line of tickets, of which the first one's turn it is.

    A reconstruction uses all cores, so two at once would take twice as long each.

    Example:
        >>> line = Line()
        >>> first, second = line.join(), line.join()
        >>> line.before(first), line.before(second)
        (0, 1)
        >>> line.leave(first)
        >>> line.before(second)
        0
    """

    def __init__(self, longest: int = LONGEST) -> None:
        self.longest = longest
        self._tickets: list[object] = []
        self._moves = threading.Condition()

    def join(self) -> object:
        """Return a ticket.

        Raises:
            ValueError: where too many wait already.
        """
        with self._moves:
            if len(self._tickets) >= self.longest:
                raise ValueError(f"{self.longest} reconstructions are under way or wait already: try again later")
            ticket = object()
            self._tickets.append(ticket)
            return ticket

    def before(self, ticket: object, seconds: float = 0.0) -> int:
        """Return how many are before a ticket, after waiting for its turn for so many seconds at most."""
        with self._moves:
            self._moves.wait_for(lambda: self._tickets.index(ticket) == 0, seconds)
            return self._tickets.index(ticket)

    def leave(self, ticket: object) -> None:
        """Make room for the next one; leaving twice is leaving once."""
        with self._moves:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
                self._moves.notify_all()
