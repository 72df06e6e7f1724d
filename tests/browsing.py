"""A JupyterLab of one's own, and a notebook open in a page: what the browser tests and the benchmarks drive."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import nbformat
import psutil
from playwright.sync_api import Error, Page

TESTS = Path(__file__).parent
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
]
SETTINGS = {
    # A cell that is scrolled away would leave the page, and its card with it.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
}


def wait_for(condition: Callable[[], Any], timeout_seconds: float = 20.0, what: str = "") -> Any:
    """The first true value of ``condition``."""
    deadline = time.monotonic() + timeout_seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_seconds:g} s: {what or condition}"
        time.sleep(0.05)
    return value


# ---- Servers ----------------------------------------------------------------------------------------------


class Jupyter:
    """A JupyterLab, which serves Notebook 7 too, with its files in a folder of its own."""

    def __init__(self, folder: Path, base_url: str = "/") -> None:
        self.folder, self.base_url, self.token = folder, base_url, secrets.token_hex(16)
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}{base_url}"
        settings = folder / "settings"
        for name, values in SETTINGS.items():
            path = settings / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        (folder / "notebooks").mkdir(exist_ok=True)
        with open(folder / "jupyter.log", "wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"),
                    *("--expose-app-in-browser", "--JupyterNotebookApp.expose_app_in_browser=True"),
                    *(f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1"),
                    *(f"--IdentityProvider.token={self.token}", f"--ServerApp.base_url={base_url}"),
                    f"--ServerApp.root_dir={folder / 'notebooks'}",
                ],
                env={
                    **os.environ,
                    "JUPYTERLAB_SETTINGS_DIR": str(settings),
                    "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment, not one of the user
                    "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]),
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for(self.answers, 60, "JupyterLab answers")

    def answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "jupyter.log").read_text()[-2000:]
        try:
            self.api("status")
        except OSError:
            return False
        return True

    def api(self, path: str, method: str = "GET") -> Any:
        """What the server's REST interface answers."""
        request = Request(f"{self.url}api/{path}", method=method, headers={"Authorization": f"token {self.token}"})
        with urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    def write(self, cells: list[str]) -> str:
        """A notebook with these cells; its path."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = f"{secrets.token_hex(4)}.ipynb"
        nbformat.write(notebook, self.folder / "notebooks" / path)
        return path

    def end_kernels(self) -> None:
        """Shut down whatever notebooks have left."""
        for session in self.api("sessions"):
            self.api(f"sessions/{session['id']}", "DELETE")
        for kernel in self.api("kernels"):
            self.api(f"kernels/{kernel['id']}", "DELETE")

    def close(self) -> None:
        """End the server and its kernels."""
        self.end_kernels()
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


# ---- A notebook in the page -------------------------------------------------------------------------------

READY = """async () => {
  const panel = window.jupyterapp?.shell.currentWidget;
  if (!panel?.content?.model || !panel.sessionContext) return false;
  await panel.sessionContext.ready;
  return panel.sessionContext.session?.kernel?.status === "idle";
}"""
CARD = "document.querySelectorAll('.h3lab-card')"


class Notebook:
    """A notebook open in a page: its cells are run as a person would, its cards asked for what they hold."""

    def __init__(self, page: Page, server: Jupyter, path: str, app: str = "lab") -> None:
        self.page, self.server, self.path, self.app = page, server, path, app
        self.errors: list[str] = []
        # Of our code alone, which is loaded from a blob; Jupyter's applications have errors of their own.
        page.on("pageerror", lambda error: "blob:" in (error.stack or "") and self.errors.append(error.stack or ""))
        self.open()

    def open(self) -> None:
        """Load, or load again, and wait until the kernel is idle: three readings, because it is idle between two
        messages of its start as well."""
        # A workspace of its own: the default one opens what an earlier test had open too.
        where = f"lab/workspaces/{Path(self.path).stem}/tree/" if self.app == "lab" else "notebooks/"
        self.page.goto(f"{self.server.url}{where}{self.path}?token={self.server.token}")
        self.ready()

    def ready(self) -> None:
        """Wait until the kernel is idle."""
        readings = 0
        deadline = time.monotonic() + 60
        while readings < 3:
            assert time.monotonic() < deadline, "the kernel is not idle after a minute"
            try:
                readings = readings + 1 if self.page.evaluate(READY) else 0
            except Error:  # the application goes on to another address while it starts
                readings = 0
            self.page.wait_for_timeout(50)

    def run(self, index: int, wait: bool = True) -> None:
        """Execute a cell; without ``wait`` return as soon as it runs."""
        script = """async ([index, wait]) => {
          const { commands, shell } = window.jupyterapp;
          shell.currentWidget.content.activeCellIndex = index;
          const done = commands.execute('notebook:run-cell');
          if (wait) await done;
        }"""
        self.page.evaluate(script, [index, wait])
        self.wait(lambda: self.prompt(index) != "[ ]:", what=f"cell {index} runs")

    def output(self, index: int) -> list[dict[str, Any]]:
        """The outputs of a cell, as they would be saved."""
        script = "(index) => jupyterapp.shell.currentWidget.content.model.cells.get(index).toJSON().outputs"
        return list(self.page.evaluate(script, index))

    def prompt(self, index: int) -> str:
        """What stands before a cell: ``[3]:``, or ``[*]:`` while it runs."""
        return self.page.locator(".jp-Notebook-cell").nth(index).locator(".jp-InputPrompt").inner_text()

    def save(self) -> Path:
        """Write the notebook to disk."""
        self.page.evaluate("() => jupyterapp.shell.currentWidget.context.save()")
        return self.server.folder / "notebooks" / self.path

    def kernel(self) -> str:
        """The kernel's id."""
        return str(self.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.id"))

    def kernel_process(self) -> psutil.Process:
        """The kernel, found by its connection file."""
        name = f"kernel-{self.kernel()}"
        for process in psutil.Process(self.server.process.pid).children(recursive=True):
            if any(name in argument for argument in process.cmdline()):
                return process
        raise AssertionError(f"no process of {name}")

    # ---- Cards

    def card(self, expression: str, index: int = -1) -> Any:
        """What ``expression`` says of a ``card``, None while there is none."""
        script = f"(index) => {{ const card = [...{CARD}].at(index)?.h3lab; return card ? {expression} : null; }}"
        return self.page.evaluate(script, index)

    def held(self, index: int = -1, series: str = "loss") -> int:
        """Points of a series in the page."""
        return self.card(f"card.board.runs[0].points('{series}')?.size ?? 0", index) or 0

    def painted(self, index: int = -1) -> int:
        """The last step that is on the screen."""
        return self.card("card.painted.step", index) or 0

    def steps(self, index: int = -1, series: str = "loss") -> list[int]:
        """The steps of a series in the page."""
        points = f"card.board.runs[0].points('{series}')"
        return self.card(f"{points} ? [...{points}.x.subarray(0, {points}.size)] : []", index) or []

    def text(self, part: str, index: int = -1) -> str:
        """The text of a part of a card, ``pill``, ``code``, ``cause-line``, ..."""
        return self.card(f"card.root.querySelector('.h3-{part}')?.textContent ?? ''", index) or ""

    def type(self, setting: str, value: str, index: int = -1) -> None:
        """Type the value of a setting."""
        field = self.page.locator(".h3lab-card").nth(index).locator(f"[data-setting={setting}] input[type=text]")
        field.fill(value)
        field.press("Enter")

    def click(self, verb: str, index: int = -1) -> None:
        """Click a button as a mouse would."""
        self.page.locator(".h3lab-card").nth(index).locator(f"[data-verb={verb}]").click()

    def wait(self, condition: Callable[[], Any], timeout_seconds: float = 20.0, what: str = "") -> Any:
        """As :func:`wait_for`; the page's events are served meanwhile."""
        deadline = time.monotonic() + timeout_seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not within {timeout_seconds:g} s: {what}; page errors: {self.errors}"
            self.page.wait_for_timeout(50)
        return value
