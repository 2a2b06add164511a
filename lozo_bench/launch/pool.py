"""Cells in processes of their own, so many at once; each ends as it may, and the others go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from lozo_bench.launch import cell as child
from lozo_bench.launch.cells import Ended, Planned, ended, failed, left_alone
from lozo_bench.launch.gpus import Deck
from lozo_bench.launch.screen import Screen
from lozo_bench.runs.outcome import FAILED, RESULT, Code, written_at
from lozo_bench.status import State
from lozo_bench.stop import Stop

# How long a signal may go unnoticed; a cell's end is noticed at once.
_LOOK_UP_S = 0.2


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
    """Runs cells.

    Args:
        context: makes processes.
        at_once: so many at a time.
        gpus: dealt to them; one stays with a cell as long as it runs.
        blind: no cell may see a GPU.
        stop: set by a signal: it is passed on, and no further cell begins.
        screen: shows how it goes.
    """

    def __init__(
        self,
        context: ForkServerContext,
        at_once: int,
        gpus: Sequence[str],
        blind: bool,
        stop: Stop,
        screen: Screen,
    ) -> None:
        self._context, self._at_once, self._blind = context, at_once, blind
        self._deck, self._stop, self._screen = Deck(gpus), stop, screen
        self._running: dict[int, _Running] = {}
        self._ended: dict[int, Ended] = {}
        self._told = False

    def run(self, cells: Iterator[Planned | Ended]) -> list[Ended]:
        """Run cells as they come, and return in the same order those that ended.

        One that could not even be planned comes as ended.
        """
        try:
            self._go_on(enumerate(cells))
        except KeyboardInterrupt:  # the second one
            for running in self._running.values():
                _kill(running.process)
            self._told = True
            while self._running:
                self._wait(None)
        return [self._ended[number] for number in sorted(self._ended)]

    def _go_on(self, cells: Iterator[tuple[int, Planned | Ended]]) -> None:
        left = True
        while True:
            while left and len(self._running) < self._at_once and self._stop.signal is None:
                number, following = next(cells, (0, None))
                if following is None:
                    left = False
                elif isinstance(following, Ended):
                    self._end(number, following)
                else:
                    self._start(number, following)
            if not self._running:
                return
            self._wait(_LOOK_UP_S)
            if self._stop.signal is not None and not self._told:
                self._told = True
                self._screen.stopping()
                for running in self._running.values():
                    _send(running.process, self._stop.signal)

    def _start(self, number: int, planned: Planned) -> None:
        gpu = self._deck.take()
        job = child.Job(planned.config, planned.folder, Path.cwd(), "" if self._blind else gpu)
        result, failure = written_at(planned.folder / RESULT), written_at(planned.folder / FAILED)
        answer, to_answer = self._context.Pipe(duplex=False)
        process = self._context.Process(target=child.main, args=(job, to_answer))
        process.start()
        to_answer.close()  # the cell's end is the only one now, and is closed when it ends
        self._running[process.sentinel] = _Running(
            number, planned, process, answer, gpu, result, failure
        )
        self._screen.started(planned.folder, gpu)

    def _wait(self, at_most_s: float | None) -> None:
        """Take down the cells that have ended."""
        for sentinel in wait(list(self._running), at_most_s):
            assert isinstance(sentinel, int)
            running = self._running.pop(sentinel)
            running.process.join()
            self._deck.give_back(running.gpu)
            judged = self._judge(running)
            running.process.close()
            self._end(running.number, judged)

    def _end(self, number: int, done: Ended) -> None:
        self._ended[number] = done
        self._screen.ended(done.cell)

    def _judge(self, running: _Running) -> Ended:
        """How a cell ended, by its answer and what it left."""
        folder, exit_code = running.planned.folder, running.process.exitcode
        assert exit_code is not None
        cell = running.planned.look()
        match _answer(running.answer):
            case Code.finished if written_at(folder / RESULT) == running.result_before:
                return left_alone(cell, Code.finished)
            case Code.finished:
                return Ended(cell, Code.finished)
            case (Code.busy | Code.skipped) as code:
                return left_alone(cell, code)
            case Code.stopped:
                return ended(cell, State.stopped, cell.note, Code.stopped)
            case Code() as code if written_at(folder / FAILED) != running.failure_before:
                return Ended(cell, code)
            case None if cell.state is State.running and running.process.pid is not None:
                # The fork server died and can tell no more of the cell, which lives: it shall save.
                os.kill(running.process.pid, signal.SIGTERM)
                return ended(cell, State.stopped, "its fork server was killed", Code.stopped)
            case None if self._told:
                return ended(cell, State.stopped, cell.note, Code.stopped)
        return failed(cell, _reason(exit_code, folder))


def _answer(answer: Connection) -> Code | None:
    """What a cell that has ended said last; None if it did not come to that."""
    try:
        # Nothing to read: the fork server died, and the cell has not ended at all.
        return Code(answer.recv()) if answer.poll() else None
    except EOFError:
        return None
    finally:
        answer.close()


def _reason(code: int, folder: Path) -> str:
    """Why a process ended that could not say it itself."""
    where = f"see {folder / child.CONSOLE}"
    if code == -signal.SIGKILL:
        return f"killed by SIGKILL; out of memory is the usual reason; {where}"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}; {where}"
    return f"exited with code {code} before its end{_last_line(folder / child.CONSOLE)}; {where}"


def _last_line(path: Path) -> str:
    """What a process said last, often why it ended; empty if it said nothing."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    return f" ({said[-1]})" if said else ""


def _send(process: ForkServerProcess, number: signal.Signals) -> None:
    if process.is_alive() and process.pid is not None:
        os.kill(process.pid, number)


def _kill(process: ForkServerProcess) -> None:
    """End a cell with all that it started, which is in its process group by then."""
    assert process.pid is not None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
