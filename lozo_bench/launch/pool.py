"""Runs cells in separate processes, several at a time; a failing cell does not stop the others."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from lozo_bench.launch import child as child
from lozo_bench.launch.cells import Ended, Planned, ended_as, failed, skipped
from lozo_bench.launch.gpus import GpuPool
from lozo_bench.launch.screen import Screen
from lozo_bench.runs.outcome import FAILED, RESULT, Code, written_at
from lozo_bench.runs.signals import StopSignal
from lozo_bench.runs.status import CellState

# A signal is noticed within this time; the end of a cell is noticed at once.
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class _Running:
    number: int
    planned: Planned
    process: ForkServerProcess
    answer: Connection
    gpu: str | None
    result_before: int
    failure_before: int


class Pool:
    """Runs cells in separate processes.

    Args:
        context: makes the processes.
        at_once: the number of cells that run at the same time.
        gpus: the GPUs to assign; a cell keeps its GPU until it ends.
        blind: hide all GPUs from the cells.
        stop: set by a signal, which the pool forwards to the cells; then no further cell begins.
        screen: shows the progress.
    """

    def __init__(
        self,
        context: ForkServerContext,
        at_once: int,
        gpus: Sequence[str],
        blind: bool,
        stop: StopSignal,
        screen: Screen,
    ) -> None:
        self._context, self._at_once, self._blind = context, at_once, blind
        self._gpus, self._stop, self._screen = GpuPool(gpus), stop, screen
        self._running: dict[int, _Running] = {}
        self._ended: dict[int, Ended] = {}
        self._forwarded = False

    def run(self, cells: Iterator[Planned | Ended]) -> list[Ended]:
        """Run the cells and return those that ended, in the order in which they were given.

        Args:
            cells: the cells to run; one whose config could not be composed is already ended.
        """
        try:
            self._run_all(enumerate(cells))
        except KeyboardInterrupt:  # a second Ctrl-C
            for running in self._running.values():
                _kill(running.process)
            self._forwarded = True
            while self._running:
                self._wait(None)
        return [self._ended[number] for number in sorted(self._ended)]

    def _run_all(self, cells: Iterator[tuple[int, Planned | Ended]]) -> None:
        more = True
        while True:
            while more and len(self._running) < self._at_once and self._stop.signal is None:
                number, cell = next(cells, (0, None))
                if cell is None:
                    more = False
                elif isinstance(cell, Ended):
                    self._end(number, cell, cell.cell.folder.name)
                else:
                    self._start(number, cell)
            if not self._running:
                return
            self._wait(_POLL_S)
            if self._stop.signal is not None and not self._forwarded:
                self._forwarded = True
                self._screen.stopping()
                for running in self._running.values():
                    _send(running.process, self._stop.signal)

    def _start(self, number: int, planned: Planned) -> None:
        gpu = self._gpus.take()
        job = child.Job(planned.config, planned.folder, Path.cwd(), "" if self._blind else gpu)
        result, failure = written_at(planned.folder / RESULT), written_at(planned.folder / FAILED)
        answer, to_launcher = self._context.Pipe(duplex=False)
        process = self._context.Process(target=child.main, args=(job, to_launcher))
        process.start()
        to_launcher.close()  # now only the cell holds this end, which closes when the cell ends
        self._running[process.sentinel] = _Running(
            number, planned, process, answer, gpu, result, failure
        )
        self._screen.started(planned.name, gpu)

    def _wait(self, at_most_s: float | None) -> None:
        """Wait for a cell to end, at most ``at_most_s``, and record all that have ended."""
        for sentinel in wait(list(self._running), at_most_s):
            assert isinstance(sentinel, int)
            running = self._running.pop(sentinel)
            running.process.join()
            self._gpus.give_back(running.gpu)
            done = self._classify(running)
            running.process.close()
            self._end(running.number, done, running.planned.name)

    def _end(self, number: int, done: Ended, name: str) -> None:
        self._ended[number] = done
        self._screen.ended(name, done.cell)

    def _classify(self, running: _Running) -> Ended:
        """Return how a cell ended, from the code that it sent and the files that it wrote."""
        folder, exit_code = running.planned.folder, running.process.exitcode
        assert exit_code is not None
        cell = running.planned.status()
        match _received_code(running.answer):
            case Code.finished if written_at(folder / RESULT) == running.result_before:
                return skipped(cell, Code.finished)
            case Code.finished:
                return Ended(cell, Code.finished)
            case (Code.busy | Code.skipped) as code:
                return skipped(cell, code)
            case Code.stopped:
                return ended_as(cell, CellState.stopped, cell.note, Code.stopped)
            case Code() as code if written_at(folder / FAILED) != running.failure_before:
                return Ended(cell, code)
            case None if cell.state is CellState.running and running.process.pid is not None:
                # The fork server died and can no longer report on the cell, which is still running:
                # ask the cell to save its state and end.
                os.kill(running.process.pid, signal.SIGTERM)
                return ended_as(cell, CellState.stopped, "its fork server was killed", Code.stopped)
            case None if self._forwarded:
                return ended_as(cell, CellState.stopped, cell.note, Code.stopped)
        return failed(cell, _reason(exit_code, folder))


def _received_code(answer: Connection) -> Code | None:
    """Return the code that a cell sent before it ended, or None if it sent none."""
    try:
        # Without anything to read, the fork server has died and the cell is still running.
        return Code(answer.recv()) if answer.poll() else None
    except EOFError:
        return None
    finally:
        answer.close()


def _reason(code: int, folder: Path) -> str:
    """Return the reason for the end of a process that sent no code."""
    where = f"see {folder / child.CONSOLE}"
    if code == -signal.SIGKILL:
        return f"killed by SIGKILL; out of memory is the usual reason; {where}"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}; {where}"
    return f"exited early with code {code}{_last_line(folder / child.CONSOLE)}; {where}"


def _last_line(path: Path) -> str:
    """Return the last line that a process printed, in parentheses; empty if it printed none.

    It often says why the process ended.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return ""
    printed = [line.strip() for line in lines if line.strip()]
    return f" ({printed[-1]})" if printed else ""


def _send(process: ForkServerProcess, number: signal.Signals) -> None:
    if process.is_alive() and process.pid is not None:
        os.kill(process.pid, number)


def _kill(process: ForkServerProcess) -> None:
    """Kill a cell together with all processes in its group, which are those that it started."""
    assert process.pid is not None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
