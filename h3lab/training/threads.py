"""Threads: how many a computation may use, which decides its bits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any


class Threads:
    """A cap on the threads of the numeric libraries that are loaded, inside ``with`` and nowhere else: what runs
    between two steps of a training keeps its own number. Costs nothing where they have that number anyway."""

    def __init__(self, number: int) -> None:
        from threadpoolctl import ThreadpoolController

        controller = ThreadpoolController()
        wrong = any(library["num_threads"] != number for library in controller.info())
        self._limit = (lambda: controller.limit(limits=number)) if wrong else nullcontext

    def __call__(self) -> AbstractContextManager[Any]:
        return self._limit()
