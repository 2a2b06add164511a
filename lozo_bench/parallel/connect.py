"""Connects the processes of a run, and ends the connections again.

torch's calls that wait for other processes do not react to signals, and one of them has no time
limit: it asks whatever listens at the address for a reply. They run in a thread, while the main
thread watches the time and the signals.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # re-exported

from lozo_bench.errors import UserError, bad_value

# A waiting process looks this often whether it was asked to stop.
LOOK_EVERY_S = 0.05
# torch's server replies from a thread of its own, even if its process is busy.
_REPLY_WITHIN_S = 60.0
_SOCKETS = Path("/proc/self/fd")


def connect(
    backend: str, rank: int, size: int, timeout_s: float, check: Callable[[], None]
) -> None:
    """Connect to the other processes, at the address in MASTER_ADDR and MASTER_PORT.

    Args:
        backend: torch's backends of the process group.
        rank: of this process.
        size: the number of processes.
        timeout_s: how long to wait for the others, and later in each exchange.
        check: called while waiting; raises Stopped if this process was asked to stop.

    Raises:
        UserError: they did not connect in time.
    """
    connecting = _Connecting(backend, rank, size, timeout_s)
    connecting.start()
    try:
        while connecting.is_alive():
            connecting.join(LOOK_EVERY_S)
            check()
            connecting.require_in_time()
    finally:
        connecting.given_up.set()
        connecting.join(1.0)
    connecting.raise_error()


def hang_up() -> None:
    """End the connections to the other processes, even while an exchange with them is going on.

    The exchange fails then, here and in the others, as if this process had ended. Without this,
    the process could not end before the exchange does.
    """
    for number, name in _connections.items():
        if _socket_name(number) == name:
            with socket.socket(fileno=os.dup(number)) as one:
                one.shutdown(socket.SHUT_RDWR)
    _connections.clear()


def leave() -> None:
    """Leave the process group, if this process is in one."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


class _Connecting(threading.Thread):
    """Connects in the background; ``given_up`` asks it to end."""

    def __init__(self, backend: str, rank: int, size: int, timeout_s: float) -> None:
        super().__init__(name="connecting", daemon=True)
        self.given_up = threading.Event()
        self._backend, self._rank, self._size, self._timeout_s = backend, rank, size, timeout_s
        self._host, self._port = _address(os.environ)
        self._error: Exception | None = None
        self._began = time.monotonic()
        self._waits_for("the first process listens at this address")

    def run(self) -> None:
        """Connect, or keep the error."""
        try:
            self._connect()
        except (RuntimeError, ValueError, OSError) as error:
            self._error = error

    def require_in_time(self) -> None:
        """Raise a UserError if it takes too long."""
        if self.is_alive() and time.monotonic() > self._until:
            waited = time.monotonic() - self._began
            raise self._failed(f"after {waited:.0f} s, {self._missing}")

    def raise_error(self) -> None:
        """Raise a UserError if connecting failed."""
        if self._error is not None:
            lines = str(self._error).splitlines() or [type(self._error).__name__]
            raise self._failed(lines[0]) from self._error

    def _connect(self) -> None:
        launcher_listens = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        listens = self._rank == 0 and not launcher_listens
        if not listens and not self._wait_until(self._somebody_listens):
            return
        self._waits_for(
            "what listens there has not replied as the first process of a run does: another "
            "program may have the port",
            _REPLY_WITHIN_S,
        )
        store = TCPStore(
            self._host,
            self._port,
            self._size,
            is_master=listens,
            timeout=timedelta(seconds=self._timeout_s),
            wait_for_workers=False,
            multi_tenant=True,
        )
        store.set(f"here/{self._rank}", "")
        if not self._wait_until(lambda: self._all_are_here(store)):
            return
        self._waits_for("the processes cannot reach each other")
        before = set(_open_sockets())
        distributed.init_process_group(
            self._backend,
            store=store,
            rank=self._rank,
            world_size=self._size,
            timeout=timedelta(seconds=self._timeout_s),
        )
        _connections.update(one for one in _open_sockets() if one not in before)

    def _waits_for(self, missing: str, at_most_s: float = math.inf) -> None:
        self._missing = missing
        self._until = min(self._began + self._timeout_s, time.monotonic() + at_most_s)

    def _wait_until(self, done: Callable[[], bool]) -> bool:
        while not done():
            if self.given_up.wait(LOOK_EVERY_S):
                return False
        return True

    def _somebody_listens(self) -> bool:
        try:
            with closing(socket.create_connection((self._host, self._port), timeout=1.0)):
                return True
        except OSError as error:
            self._missing = f"nobody listens there ({error.strerror or error})"
            return False

    def _all_are_here(self, store: TCPStore) -> bool:
        absent = [rank for rank in range(self._size) if not store.check([f"here/{rank}"])]
        listed = ", ".join(map(str, absent[:5])) + (", ..." if len(absent) > 5 else "")
        self._waits_for(f"process {listed} did not come")
        return not absent

    def _failed(self, reason: str) -> UserError:
        return UserError(
            f"process {self._rank} of {self._size} could not connect to the others at "
            f"{self._host}:{self._port} ({reason}); check that all processes started and that the "
            "port is free; parallel.timeout_s is how long they wait for each other"
        )


def _address(environment: Mapping[str, str]) -> tuple[str, int]:
    host, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT", "")
    if not host:
        raise bad_value("MASTER_ADDR", host, "the host of the run's first process")
    if not port.isdecimal() or int(port) >= 2**16:
        raise bad_value("MASTER_PORT", port, "a free port of that host, below 65536")
    return host, int(port)


# The sockets to the other processes: the number of each, and the name that tells whether the
# number is still that of the same socket.
_connections: dict[int, str] = {}


def _open_sockets() -> Iterator[tuple[int, str]]:
    """Yield the number and the name of each connected socket of this process; Linux only."""
    if not _SOCKETS.exists():
        return
    for number in sorted(int(path.name) for path in _SOCKETS.iterdir()):
        name = _socket_name(number)
        if name.startswith("socket:") and _is_connected(number):
            yield number, name


def _socket_name(number: int) -> str:
    try:
        return str((_SOCKETS / str(number)).readlink())
    except OSError:  # closed in the meantime
        return ""


def _is_connected(number: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(number)) as one:
            one.getpeername()
            return True
    except OSError:
        return False
