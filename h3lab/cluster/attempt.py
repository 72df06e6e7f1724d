"""An attempt: the ranks of a run from one start to their ends, as files in the run's folder under ``ranks/``.

::

    ranks/0002.json          slots and engines of attempt 2, and the step it started from; written by the keeper
    ranks/0002.1.start.json  process of its rank 1; written by the host
    ranks/0002.1.error.json  what rank 1 raised; written by the rank
    ranks/0002.1.end.json    exit code; written by the host

:func:`verdict` decides what has become of an attempt; it reads values and touches nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from h3lab.cluster.processes import exit_text
from h3lab.home import read_json, write_json
from h3lab.running.folder import ENDED, RunFolder

#: Attempts that begin at the same step before a run is given up.
TRIES = 3


@dataclass(frozen=True)
class Verdict:
    """``going`` (nothing to do), ``broken`` (some ranks are gone, the others must be released), ``over`` (the run has
    ended in order), ``failed`` (with the error) or ``lost`` (with the reason)."""

    what: Literal["going", "broken", "over", "failed", "lost"]
    reason: str = ""
    error: Mapping[str, Any] | None = None


class Attempt:
    """The files of one attempt."""

    def __init__(self, folder: RunFolder, number: int) -> None:
        self.folder = folder
        self.number = number
        self.plan: dict[str, Any] = read_json(self._path("json"), {})

    @classmethod
    def newest(cls, folder: RunFolder) -> Attempt | None:
        """The last attempt that was planned."""
        numbers = attempts(folder)
        return cls(folder, numbers[-1]) if numbers else None

    @classmethod
    def begin(cls, folder: RunFolder, slots: list[dict[str, Any]], from_step: int) -> Attempt:
        """Plan the next one: ``slots`` has name, pid and born of the engine for each rank."""
        number = (attempts(folder) or [0])[-1] + 1
        plan = {"slots": slots, "from_step": from_step, "at": time.time()}
        write_json(folder.ranks / f"{number:04d}.json", plan)
        return cls(folder, number)

    @property
    def slots(self) -> list[dict[str, Any]]:
        """One entry a rank."""
        return list(self.plan.get("slots", []))

    def report(self, rank: int) -> Path:
        """What the names of a rank's files begin with."""
        return self.folder.ranks / f"{self.number:04d}.{rank}"

    def log(self, rank: int) -> Path:
        """Where a rank's output goes."""
        return self.folder.logs / f"rank{rank}.{self.number:04d}.log"

    def start(self, rank: int) -> dict[str, Any] | None:
        """Process id and birth of a rank once it was started."""
        return read_json(Path(f"{self.report(rank)}.start.json"))

    def end(self, rank: int) -> dict[str, Any] | None:
        """Exit code and time of a rank that has ended."""
        return read_json(Path(f"{self.report(rank)}.end.json"))

    def error(self, rank: int) -> dict[str, Any] | None:
        """What a rank raised."""
        return read_json(Path(f"{self.report(rank)}.error.json"))

    def write_error(self, rank: int, error: Mapping[str, Any]) -> None:
        """Say why this rank fails."""
        write_json(Path(f"{self.report(rank)}.error.json"), dict(error))

    def _path(self, ending: str) -> Path:
        return self.folder.ranks / f"{self.number:04d}.{ending}"


def attempts(folder: RunFolder) -> list[int]:
    """Numbers of a run's attempts, in order."""
    return sorted(int(path.stem) for path in folder.ranks.glob("????.json"))


def stuck(folder: RunFolder, from_step: int) -> bool:
    """Whether the last attempts have all begun where the next one would."""
    last = attempts(folder)[-TRIES:]
    return len(last) == TRIES and all(Attempt(folder, n).plan.get("from_step") == from_step for n in last)


def verdict(
    state: str, ends: Mapping[int, int | None], lost: Mapping[int, str], errors: list[Any], ranks: int
) -> Verdict:
    """``ends``: exit code by rank; ``lost``: why, for ranks whose engine is gone; ``errors``: what ranks raised."""
    gone = ends.keys() | lost.keys()
    broken = bool(lost) or any(code != 0 for code in ends.values())
    if len(gone) < ranks:
        # A rank that is left after its run has ended waits for nobody and must go too.
        return Verdict("broken" if broken or (gone and state in ENDED) else "going")
    if state in ENDED:
        return Verdict("over")
    # When a peer dies the others fail in their collective: that is no cause, however early it is noticed.
    causes = sorted((error for error in errors if not error["released"]), key=lambda error: float(error["at"]))
    if causes:
        return Verdict("failed", error=causes[0])
    reasons = [*lost.values(), *(f"rank {rank} {exit_text(code)}" for rank, code in sorted(ends.items()) if code != 0)]
    return Verdict("lost", reason="; ".join(reasons) or "its ranks ended before the run had")
