"""What a click does: a verb of the Run, in a thread of its own, so that neither a click nor a cell waits for the other.

It knows which verbs a page may ask for; what they do is the Run's affair.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from h3lab.errors import UnknownName
from h3lab.ui.marks import VERBS, code

log = logging.getLogger("h3lab.ui")

#: (code, error, note): what was asked, and what came of it; the error is empty where it went well, and the note says
#: what will come of it where no rank lives that could confirm it.
Answer = Callable[[str, str, str], None]


def perform(
    run: Any, verb: str, values: Mapping[str, Any], answer: Answer, context: contextvars.Context
) -> threading.Thread:
    """Ask ``run`` for a control without waiting; ``answer`` is called on the thread when the rank has confirmed, or
    with the error. What the Run prints meanwhile belongs to the cell of the ``context``. Only the verbs of a panel are
    accepted: the message comes from a page."""
    words = run_words(run)
    if verb not in words:
        raise UnknownName("control", verb, words)
    # A copy, because a context is entered by one thread at a time, and two clicks are two threads.
    task = context.copy().run
    thread = threading.Thread(
        target=task, args=(_perform, run, verb, values, answer), name=f"h3lab-{verb}-{run.name}", daemon=True
    )
    thread.start()
    return thread


def run_words(run: Any) -> Mapping[str, str]:
    """The controls of a run, each with the code that does the same: those of a lab's run, or a local loop's own."""
    words: Mapping[str, str] = VERBS if run.folder is not None else run.info["code"]
    return words


def _perform(run: Any, verb: str, values: Mapping[str, Any], answer: Answer) -> None:
    asked = code(verb, values, run_words(run))
    try:
        said = getattr(run, verb)(**values)
    except Exception as error:
        record(run, f"{asked} from the panel")
        answer(asked, f"{type(error).__name__}: {error}", "refused")
    else:
        # What a rank has confirmed stands in the journal, with its step, and comes from there.
        answer(asked, "", said if str(said).startswith("recorded") else "")


def record(run: Any, what: str) -> None:
    """Keep the current exception where ``run.logs()`` finds it, beside the logs of the ranks."""
    text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {what}\n{traceback.format_exc()}"
    log.warning("%s", text)
    if run.folder is None:
        return
    try:
        with open(run.folder.logs / "panel.log", "a", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError:
        log.exception("the log of the panel cannot be written")
