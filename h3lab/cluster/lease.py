"""A lease: how long a lab that nobody needs may live, and a run that nobody resumes may hold its slot.

It knows times; the keeper says what is needed.
"""

from __future__ import annotations

import time

HOURS = 12.0


class Lease:
    """Runs out ``hours`` after the lab was last needed."""

    def __init__(self, hours: float = HOURS) -> None:
        self.hours = hours
        self.needed = time.time()

    @property
    def ends(self) -> float:
        """When it runs out if nothing happens (seconds since the epoch)."""
        return self.needed + self.hours * 3600

    @property
    def ends_from_now(self) -> float:
        """When one that begins now runs out."""
        return time.time() + self.hours * 3600

    def renew(self) -> None:
        """The lab is needed now."""
        self.needed = time.time()

    @property
    def over(self) -> bool:
        """Whether it has run out."""
        return time.time() > self.ends
