"""A group: the ranks of one attempt, joined by torch.distributed for as long as their processes live.

They meet through a file in the run's folder, so no port is opened for that; gloo's own connections stay on the
loopback interface where all ranks are on one machine. A group is never mended: when one rank ends, the others get an
error in their next collective, end too, and the lab starts a new attempt.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import Any

from h3lab.cluster.attempt import Attempt

JOIN_SECONDS = 60
#: What the collectives of a rank say when a peer has gone.
_PEER = re.compile(r"gloo|nccl|peer|broken pipe|connection|store|process group", re.IGNORECASE)


class Group:
    """``join`` before the training, ``leave`` after it; a rank alone has nobody to join."""

    def __init__(self, attempt: Attempt, rank: int, ranks: int) -> None:
        self._attempt, self._rank, self._ranks = attempt, rank, ranks
        self._torch: Any = None

    def join(self) -> None:
        """Meet the others; after JOIN_SECONDS without them an error says so."""
        if self._ranks == 1:
            return
        import torch
        import torch.distributed as distributed

        if len({slot["host"] for slot in self._attempt.slots}) == 1:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        store = distributed.FileStore(f"{self._attempt.report(0)}.store", self._ranks)
        # A step may take long, and a peer that has gone is noticed by its closed connection, not by this.
        distributed.init_process_group(
            backend, store=store, rank=self._rank, world_size=self._ranks, timeout=timedelta(hours=12)
        )
        self._torch = distributed
        self._torch.barrier()

    def wait(self) -> None:
        """Until all ranks are here."""
        if self._torch is not None:
            self._torch.barrier()

    def leave(self) -> None:
        """After the last step, together."""
        if self._torch is not None:
            self._torch.barrier()
            self._torch.destroy_process_group()

    def released(self, error: BaseException) -> bool:
        """Whether an error only says that another rank has gone."""
        return self._ranks > 1 and isinstance(error, RuntimeError) and bool(_PEER.search(str(error)))
