"""One JupyterLab and one headless Chromium for the session; a notebook a test.

What a test asserts are data in the page: points held, the last step painted. Pixels differ with fonts.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("playwright", reason="the browser tests need playwright: pip install playwright")
from browsing import CHROMIUM, FLAGS, Jupyter, Notebook
from playwright.sync_api import Browser, sync_playwright


@pytest.fixture(autouse=True)
def no_leaks() -> None:
    """Replaces the general look for leaks: the server, the browser and playwright's driver live for the session."""


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """The session's JupyterLab."""
    server = Jupyter(tmp_path_factory.mktemp("jupyter"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The session's Chromium. Skips where there is none; under CI that is a failure."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        reason = "no chromium on this machine (Debian: apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def notebook(jupyter: Jupyter, browser: Browser) -> Iterator[Callable[..., Notebook]]:
    """``notebook([cell, cell], app="lab")`` → an open Notebook; its kernel ends with the test."""
    contexts = []

    def make(cells: list[str], app: str = "lab", server: Jupyter | None = None) -> Notebook:
        context = browser.new_context(viewport={"width": 1300, "height": 900})
        contexts.append(context)
        server = server or jupyter
        return Notebook(context.new_page(), server, server.write(cells), app)

    yield make
    for context in contexts:
        context.close()
    jupyter.end_kernels()
