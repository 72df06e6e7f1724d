"""A kernel as a program drives it, without a page: cells in, messages out."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path
from typing import Any


class Kernel:
    """A kernel as a program drives it: cells in, every message of the iopub channel out."""

    def __init__(self) -> None:
        from jupyter_client.manager import start_new_kernel

        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
        self.manager, self.client = start_new_kernel(env=environment)
        self.cells: list[str] = []
        self.messages: list[dict[str, Any]] = []

    def run(self, source: str, fails: bool = False) -> str:
        """Execute a cell to its end; its id. ``fails`` says that it raises."""
        cell = self.client.execute(source)
        self.cells.append(cell)
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            self.messages.append(message)
            assert fails or message["msg_type"] != "error", "\n".join(message["content"]["traceback"])
            idle = message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"
            if idle and message["parent_header"]["msg_id"] == cell:
                return cell

    def value(self, expression: str) -> Any:
        """What an expression of plain values is there."""
        self.run(f"print(repr({expression}))")
        return ast.literal_eval(self.of("stream")[-1]["content"]["text"])

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """The messages of these kinds so far."""
        return [message for message in self.messages if message["msg_type"] in kinds]

    def close(self) -> None:
        """End it."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
