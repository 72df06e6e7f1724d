"""States: what a feed was after each preparation: a numbered, immutable manifest and its pipeline. The highest is
current.

::

    manifest-000002.json   spec, pipeline, parts with rows and files
    pipeline-2.h3lab       the fitted pipeline that manifest 2 names

It knows numbers, JSON and what has become garbage; it does not know parts, nor how a place keeps its files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from h3lab.errors import DamagedData, FeedNotFound, StorageError
from h3lab.serial import codec

#: Number of the layout; a reader refuses another one.
FORMAT = 2
#: States that are kept, so that a feed that was just opened can still be read after the next commit.
KEPT = 2
#: Beside a part of which a reader has found that its bytes are others; preparing again then computes it.
DAMAGED = ".damaged"


class Files(Protocol):
    """The files of one place, by names below it (``parts/00000.x``). What a place raises comes as StorageError."""

    #: The place as it may be shown.
    place: str

    def listing(self, folder: str = "") -> dict[str, int]:
        """Name → bytes of the files of a folder; none where it is not there."""
        ...

    def read(self, name: str) -> bytes:
        """All bytes; DamagedData where the file is missing."""
        ...

    def claim(self, name: str, data: bytes) -> bool:
        """Make a file, whole or not at all; False where the name is taken, by whoever was first."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; one that is gone is no error."""
        ...

    def retire(self, name: str) -> bool:
        """Remove a manifest, unless a living reader holds it."""
        ...


class States:
    """The states of one place. Any process may read them; two that add one at the same time get two numbers."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def numbers(self) -> list[int]:
        """Numbers of the states that are there, ascending."""
        return sorted(filter(None, (_number(name, "manifest") for name in self._files.listing())))

    def add(self, manifest: Mapping[str, Any], document: Any = None) -> int:
        """Write a state, its manifest last, and return its number."""
        taken = [_number(name, "manifest") or _number(name, "pipeline") for name in self._files.listing()]
        number = max(taken, default=0) + 1
        packed = None if document is None else codec.pack(document)
        while not self._claim(number, manifest, packed):
            number += 1
        return number

    def _claim(self, number: int, manifest: Mapping[str, Any], packed: bytes | None) -> bool:
        full: dict[str, Any] = {"format": FORMAT, "number": number, **manifest}
        if packed is not None:
            if not self._files.claim(f"pipeline-{number}.h3lab", packed):
                return False
            full["document"] = {"size": len(packed), "sha256": hashlib.sha256(packed).hexdigest()}
        data = json.dumps(full, indent=1, allow_nan=False).encode() + b"\n"
        return self._files.claim(name_of(number), data)

    def manifest(self, number: int | None = None) -> dict[str, Any]:
        """A manifest by its number, or the current one. StorageError where nothing is stored, or no longer; DamagedData
        where it cannot be read."""
        place = self._files.place
        if not (numbers := self.numbers()):
            raise FeedNotFound(f"no feed is stored in {place}. Make one with lab.prepare(pipeline, rows, to=...).")
        chosen = numbers[-1] if number is None else number
        if chosen not in numbers:
            raise self.gone(chosen)
        name = name_of(chosen)
        try:
            found: dict[str, Any] = json.loads(self._files.read(name))
            layout = int(found["format"])
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, DamagedData):
                raise self.gone(chosen) from error
            raise DamagedData(f"{place}/{name} cannot be read; prepare the feed again.") from error
        if layout > FORMAT:
            raise StorageError(f"{place}/{name} has layout {layout}; this h3lab reads {FORMAT}. Update h3lab.")
        if layout < FORMAT:
            raise DamagedData(f"{place}/{name} has layout {layout}; this h3lab reads {FORMAT}. Prepare the feed again.")
        return found

    def gone(self, number: int) -> StorageError:
        """What is said of a state that was removed."""
        return StorageError(
            f"state {number} of the feed in {self._files.place} is gone; it was prepared again since. Open it anew."
        )

    def pipeline(self, manifest: Mapping[str, Any]) -> Any:
        """The document of the pipeline that was added with a manifest, or None."""
        name, told = f"pipeline-{manifest['number']}.h3lab", manifest.get("document")
        if told is None:
            return None
        data = self._files.read(name)
        if len(data) != told["size"] or hashlib.sha256(data).hexdigest() != told["sha256"]:
            raise DamagedData(
                f"{self._files.place}/{name} is damaged: its bytes are not those that were written. Prepare the feed "
                "again."
            )
        return codec.unpack(data)

    def collect_garbage(self, files_of: Callable[[Mapping[str, Any]], Iterable[str]]) -> int:
        """Remove all but the newest states, those that a reader holds, and the parts that they name by ``files_of``;
        the bytes that became free. A manifest that cannot be read keeps nothing."""
        here = self._files.listing()
        kept, named = list[int](), set[str]()
        freed = 0
        for number in reversed(self.numbers()):
            found = self._readable(number)
            # Manifests go first, so that none names a file that is gone.
            if (found is None or len(kept) >= KEPT) and self._files.retire(name_of(number)):
                freed += here.get(name_of(number), 0)
                continue
            kept.append(number)
            named |= set(files_of(found)) if found is not None else set()
        old = {name: size for name, size in here.items() if _number(name, "pipeline") not in (0, *kept)}
        old |= {name: size for name, size in here.items() if name.startswith((".draft.", "..draft."))}
        parts = self._files.listing("parts")
        old |= {f"parts/{name}": size for name, size in parts.items() if name.removesuffix(DAMAGED) not in named}
        for name, size in old.items():
            self._files.remove(name)
            freed += size
        return freed

    def _readable(self, number: int) -> dict[str, Any] | None:
        try:
            return self.manifest(number)
        except DamagedData:
            return None


def name_of(number: int) -> str:
    """The name of a manifest."""
    return f"manifest-{number:06d}.json"


def _number(name: str, kind: str) -> int:
    """The number of a manifest or pipeline by its name; 0 of any other, as of a copy that somebody has put beside."""
    found = re.fullmatch(rf"{kind}-(\d+)\.(?:json|h3lab)", name)
    return 0 if found is None else int(found[1])
