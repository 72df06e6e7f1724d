"""A launch: what a rank is started with, written once by the notebook, signed, and opened by ranks and viewers.

It knows how code and objects travel; it does not train anything. The user's own modules travel by value, so that an
edited file is what the engine runs, however its Python was started.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import TYPE_CHECKING, Any

from h3lab.errors import TravelError
from h3lab.home import replace_file
from h3lab.running.folder import RunFolder
from h3lab.serial import signed

if TYPE_CHECKING:
    from h3lab.training.loop import Training
    from h3lab.training.loops import Loop, LoopTraining


@dataclass
class Launch:
    """``actor`` is a copy, unfitted; ``data`` a Feed, by reference to its store; ``settings`` what ``train`` was given
    beside them; or, without all of these, a ``loop`` of one's own. ``snapshot_every`` in steps, None by the clock."""

    actor: Any = None
    data: Any = None
    transfer: Any = None
    start: Any = None
    class_weight: Any = None
    snapshot_every: int | None = None
    journal_bytes: int = 10**9
    settings: Mapping[str, Any] = field(default_factory=dict)
    loop: Loop | None = None
    directory: str = ""
    path: list[str] = field(default_factory=list)

    def write(self, folder: RunFolder) -> None:
        """Sign and write; TravelError names what cannot be sent."""
        self.directory, self.path = os.getcwd(), [entry for entry in sys.path if entry]
        with own_modules():
            try:
                data = signed.dumps(self)
            except Exception as error:  # pickle raises whatever the object's own methods do
                from h3lab.cluster.travel import culprit

                if self.loop is not None:
                    where, inside, user = culprit(self.loop.function, "loop"), "inside the loop", "loop"
                else:
                    where = culprit(self.actor, "actor") or culprit(self.transfer, "transfer")
                    inside, user = "inside build(spec)", "model"
                raise TravelError(
                    f"{where or 'it'} cannot be sent to an engine: {type(error).__name__}: {error}. Make it "
                    f"{inside}, or keep it out of what the {user} refers to."
                ) from error
        replace_file(folder.launch, data, durable=True)

    @classmethod
    def read(cls, folder: RunFolder) -> Launch:
        """Open it after checking the signature; Untrusted otherwise."""
        launch = signed.load(folder.launch)
        assert isinstance(launch, cls)
        return launch

    def begin(self, rank: int = 0, ranks: int = 1) -> Training | LoopTraining:
        """What is to be iterated by this rank: the actor's training, or the loop."""
        if self.loop is not None:
            return self.loop.begin()
        from h3lab.training.loop import train

        return train(
            self.actor,
            self.data,
            transfer=self.transfer,
            start=self.start,
            class_weight=self.class_weight,
            rank=rank,
            ranks=ranks,
            **self.settings,
        )

    def enter(self) -> None:
        """Stand where the notebook stood: its working directory and its module path."""
        for entry in self.path:
            if entry not in sys.path:
                sys.path.append(entry)
        try:
            os.chdir(self.directory)
        except OSError as error:
            print(f"The notebook's folder {self.directory} is not here ({error}); this rank stays in {os.getcwd()}.")


@contextmanager
def own_modules() -> Iterator[None]:
    """Within, modules of the user's own are pickled by value."""
    import cloudpickle

    # A module can be registered already, by the user: that stays.
    before = set(cloudpickle.list_registry_pickle_by_value())
    ours = [module for module in list(sys.modules.values()) if _own(module) and module.__name__ not in before]
    for module in ours:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in ours:
            cloudpickle.unregister_pickle_by_value(module)


def _own(module: ModuleType) -> bool:
    """Whether a module is neither installed, nor Python's, nor ours, nor the notebook's own (cloudpickle's affair)."""
    file = getattr(module, "__file__", None)
    name = getattr(module, "__name__", "__main__")
    if not file or name in ("__main__", "__mp_main__") or name.partition(".")[0] in _registered(tuple(sys.path)):
        return False
    # Of the names of thousands of modules, so as text: resolving each path would take a second.
    return not os.path.abspath(file).startswith(_installed())


@lru_cache(maxsize=1)
def _registered(path: tuple[str, ...]) -> set[str]:
    """Packages, ours too, that registered something for h3lab. They are installed in a folder of their own (``pip
    install -e``): sent by value, their classes would not be those that the engine's entry points name."""
    found = entry_points()
    points = [point for group in found.groups if group.startswith("h3lab.") for point in found.select(group=group)]
    return {"h3lab", *(point.module.partition(".")[0] for point in points)}


@cache
def _installed() -> tuple[str, ...]:
    named = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    named += [entry for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))]
    return tuple({root + os.sep for path in named for root in (os.path.abspath(path), os.path.realpath(path))})
