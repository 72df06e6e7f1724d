"""The live panel: an anywidget that hands the curves of one or several runs to the page as they grow.

It knows the protocol with ``static/``; what the card looks like is the page's affair, how a folder is read the
follower's. The page holds the full columns. Every message says at which index of which series its points begin, so a
page that missed one notices the gap and asks for everything; a repeated one changes nothing.

======== =================================================================================================
page     ``code``, ``kit`` (asks for the card's code, for BokehJS and its documents: once a page), ``hello`` (asks for
         the state), ``seen`` (still here), ``do`` (a control), ``trouble`` (an exception in the page)
kernel   ``code``, ``kit``, ``state``, ``here``, ``did`` (in answer), ``news``, ``past`` (unasked)
======== =================================================================================================

A card can be mounted in two ways: as a widget's view, or in an element of the class ``h3lab-<view>`` anywhere on the
page. The second is what a displayed run uses: it leaves nothing behind in a notebook that is opened without its kernel,
where a widget's view would say "model not found".
"""

from __future__ import annotations

import contextvars
import hashlib
import json
import threading
import time
import uuid
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from h3lab.ui.controls import perform, record, run_words
from h3lab.ui.curves import bokeh_version, documents, library
from h3lab.ui.follower import Follower, follow
from h3lab.ui.reading import earlier

STATIC = Path(__file__).with_name("static")
SCRIPTS = ("series.js", "plot.js", "controls.js", "card.js", "panel.js")

#: A page says every 15 s that it is there. When it has not, nothing more is sent: Jupyter keeps what is sent to a
#: closed tab in the server's memory, for as long as the kernel lives.
PATIENCE_SECONDS = 60.0
#: Where comm messages wait for the running cell (ipykernel before 7), silence says little.
PATIENCE_WITHOUT_SUBSHELLS = 3600.0


@cache
def code() -> str:
    """The module of the card: several files, and the style sheet as a constant."""
    style = f"const CSS = {json.dumps((STATIC / 'panel.css').read_text(encoding='utf-8'))};"
    return "\n".join([style, *((STATIC / name).read_text(encoding="utf-8") for name in SCRIPTS)])


class Panel(anywidget.AnyWidget):
    """The card of ``runs``; with one run it has controls. ``close()`` frees it, here and in every page."""

    view = traitlets.Unicode().tag(sync=True)
    bokeh = traitlets.Unicode().tag(sync=True)
    code = traitlets.Unicode().tag(sync=True)

    def __init__(self, *runs: Any) -> None:
        self._esm = (STATIC / "boot.js").read_text(encoding="utf-8")
        self.runs = runs
        self._context = self._answering = contextvars.copy_context()
        self._followers: list[Follower] = [follow(run) for run in runs]
        self._sent: list[dict[str, int]] = [{} for _ in runs]
        self._cut: list[set[str]] = [set() for _ in runs]
        self._past: dict[str, Any] | None = None
        self._silent_at = 0.0
        self._lock = threading.RLock()
        digest = hashlib.sha256(code().encode()).hexdigest()
        super().__init__(view=uuid.uuid4().hex, bokeh=bokeh_version(), code=digest)
        # ipykernel sends what a page writes to the thread that wrote last to the page. That was the cell's, just now,
        # and a click would wait until the cell has ended; forgetting it leaves the choice to the page, which has
        # Jupyter's thread for widgets in mind (a subshell).
        state: dict[str, Any] = self.comm.__dict__
        state.pop("_reply_subshell_id", None)
        self.on_msg(self._on_message)
        for follower in self._followers:
            follower.join(self)

    def close(self) -> None:
        """Leave the runs and close the comm; twice is fine."""
        for follower in self._followers:
            follower.leave(self)
        if self.comm is not None:
            self.layout.close()  # a widget of its own, with a comm of its own, that nothing else closes
        super().close()

    @property
    def watching(self) -> bool:
        """Whether a page has said lately that it shows this panel."""
        return time.monotonic() < self._silent_at

    def send(self, content: Any, buffers: Any = None) -> None:
        """Send to all pages, from any thread, as if in answer to what a page said last. So it belongs to no cell, and
        the page's next message comes on the same thread as that one (see ``__init__``)."""
        self._answering.copy().run(super().send, content, buffers)

    # ---- From the page ------------------------------------------------------------------------------------

    def _on_message(self, _: Any, content: dict[str, Any], buffers: list[Any]) -> None:
        apart = threading.current_thread() is not threading.main_thread()
        self._silent_at = time.monotonic() + (PATIENCE_SECONDS if apart else PATIENCE_WITHOUT_SUBSHELLS)
        self._answering = contextvars.copy_context()
        kind, page = str(content.get("type")), str(content.get("page"))
        try:
            if kind == "code":
                self.send({"type": "code", "text": code()})
            elif kind == "hello":
                self._send_state(page)
            elif kind == "seen":
                self.send({"type": "here", "page": page, "heads": [follower.head() for follower in self._followers]})
            elif kind == "kit":
                self._send_kit(page)
            elif kind == "do":
                self._do(page, content)
            elif kind == "trouble":
                raise RuntimeError(f"in the page: {content.get('text')}")
        except Exception as error:
            record(self.runs[0], f"{kind} from the page")
            self.send({"type": "did", "page": page, "error": f"{type(error).__name__}: {error}"})
        for follower in self._followers:
            follower.hurry()

    def _do(self, page: str, wish: dict[str, Any]) -> None:
        verb, asked = wish["verb"], {"page": page, "verb": wish["verb"], "id": wish.get("id")}

        def answer(code: str, error: str, note: str) -> None:
            self.send({"type": "did", **asked, "code": code, "error": error, "note": note})

        perform(self.runs[0], verb, wish.get("values", {}), answer, self._context)

    # ---- To the page --------------------------------------------------------------------------------------

    def news(self, follower: Follower, drop_from: int | None) -> None:
        """Send what the page lacks. Called by the follower, with its lock held."""
        index = self._followers.index(follower)
        with self._lock:
            sent, cut = self._sent[index], self._cut[index]
            if drop_from is not None:
                kept = {name: int(follower.columns[name].steps.searchsorted(drop_from)) for name in sent}
                lower = {name: size for name, size in kept.items() if size < sent[name]}
                sent.update(lower)
                cut |= lower.keys()  # the page has to hear of it even if no points follow
            if self.watching:
                part, data = self._part(follower, sent, cut)
                self.send({"type": "news", "run": index, **part}, buffers=[data])
                cut.clear()

    def _part(self, follower: Follower, sent: dict[str, int], cut: set[str]) -> tuple[dict[str, Any], bytes]:
        """What is known of a run beyond ``sent`` (which is brought up to date), and its points in one buffer."""
        series, data = [], b""
        for name, size in follower.columns.sizes().items():
            start = sent.get(name, 0)
            if start < size or name in cut:
                series.append({"name": name, "start": start, "size": size})
                data += follower.columns[name].tail(start)
                sent[name] = size
        return {"head": follower.head(), "marks": follower.story.marks, "series": series}, data

    def _send_state(self, page: str) -> None:
        parts, buffers = [], []
        with ExitStack() as locks:
            # Held until the state is on its way, so that no news overtake it; followers' first, as in `news`.
            for lock in [*(follower.lock for follower in self._followers), self._lock]:
                locks.enter_context(lock)
            for index, follower in enumerate(self._followers):
                self._sent[index], self._cut[index] = {}, set()
                part, data = self._part(follower, self._sent[index], set())
                verbs = list(run_words(self.runs[index]))
                parts.append({**part, "settings": follower.info.get("settings", []), "verbs": verbs})
                buffers.append(data)
            self.send({"type": "state", "page": page, "runs": parts, "past": self._past}, buffers=buffers)
        if self._past is None and len(self.runs) == 1:
            # A thread: a long journal takes seconds, and this one waits for the page's next message.
            self._past = {}
            threading.Thread(target=self._send_past, name="h3lab-past", daemon=True).start()

    def _send_past(self) -> None:
        """The curves of the run of the same name before this one, coarse: they are a dashed line."""
        try:
            follower = self._followers[0]
            folder = follower.origin.folder
            past = follower.past if folder is None else earlier(folder)
        except Exception:
            record(self.runs[0], "reading the run before this one")
        else:
            if past is not None:
                self._past = {"name": past[0], "series": past[1]}
                self.send({"type": "past", "past": self._past})

    def _send_kit(self, page: str) -> None:
        self.send({"type": "kit", "page": page, "version": self.bokeh, "documents": documents()}, [library()])
