"""Prints estimates: a line for each kind of cell, a total, and what is in the memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lozo_bench.config.schema import Config
from lozo_bench.errors import UserError, counted
from lozo_bench.estimate.advice import ways_to_fit
from lozo_bench.estimate.cell import Estimate, Estimator
from lozo_bench.runs.labels import method_of

_GIB = 2**30
_LISTED = 12


@dataclass(frozen=True, slots=True)
class Asked:
    """A run to estimate: its config and the folder that it would have."""

    config: Config
    folder: Path


@dataclass(slots=True)
class _Line:
    """Cells that differ in nothing that an estimate sees."""

    task: str
    model: str
    method: str
    config: Config
    found: Estimate | None
    why: str = ""
    count: int = 1
    ways: list[str] = field(default_factory=list)


def print_estimates(asked: Sequence[Asked], console: Console) -> bool:
    """Print the estimates of runs; return whether all of them fit and could be estimated."""
    estimator = Estimator()
    lines = _lines(asked, estimator)
    known = [line for line in lines if line.found is not None]
    if known:
        console.print(_table(lines, len(asked)))
    if known:
        _print_memory(max(known, key=_peak), console, len(lines) > 1)
        _print_notes(known, console)
    bad = [line for line in lines if line.found is None]
    for why, of_it in _grouped(bad, lambda line: line.why).items():
        console.print(f"\nnot estimated ({_names(of_it)}): {why}")
    tight = [line for line in known if line.found is not None and not line.found.fits]
    for line in tight:
        assert line.found is not None
        line.ways = ways_to_fit(line.config, line.found, estimator)
    for text, of_it in _grouped(tight, _refusal).items():
        console.print(f"\n{_names(of_it)}: {text}")
    return not tight and not bad


def _lines(asked: Sequence[Asked], estimator: Estimator) -> list[_Line]:
    lines: dict[object, _Line] = {}
    for one in asked:
        config = one.config
        node = {"optimizer": config.optimizer, "tuning": config.tuning}
        shots = {"evaluation": {"shots": config.evaluation.shots}}
        method = method_of(one.folder, {**node, **shots})
        found, why = None, ""
        try:
            found = estimator.estimate(config)
        except UserError as error:
            why = str(error)
        key = (config.task.name, config.model.name, method, id(found) if found else why)
        if key in lines:
            lines[key].count += 1
        else:
            lines[key] = _Line(config.task.name, config.model.name, method, config, found, why)
    return list(lines.values())


def _table(lines: Sequence[_Line], cells: int) -> Table:
    first = next(line.found for line in lines if line.found is not None)
    several_models = len({line.model for line in lines}) > 1
    view = Table(title=f"Estimate for {_machine(first)}", title_justify="left")
    for name in ("method", "task", *(["model"] if several_models else [])):
        view.add_column(name)
    for name in ("cells", "memory", "ms a step", "hours", "disk", "kWh", "fits"):
        view.add_column(name, justify="right")
    hours = disk = kwh = 0.0
    for line in lines:
        names = [line.method, line.task, *([line.model] if several_models else [])]
        if line.found is None:
            view.add_row(*names, str(line.count), "?", "?", "?", "?", "?", "?")
            continue
        found = line.found
        hours += line.count * found.hours
        disk += line.count * found.disk
        kwh += line.count * found.kwh
        step = f"{1000 * found.times.step_s:.3g}" if found.times.step_s else "-"
        view.add_row(
            *names,
            str(line.count),
            shown_size(found.memory.peak),
            step,
            _hours(found.hours),
            shown_size(found.disk),
            f"{found.kwh:.2g}",
            "yes" if found.fits else "no",
        )
    blank = [""] * (1 + several_models)
    view.add_section()
    total = [_hours(hours), shown_size(disk), f"{kwh:.3g}"]
    view.add_row("all", *blank, str(cells), "", "", *total, "")
    return view


def _print_memory(line: _Line, console: Console, one_of_several: bool) -> None:
    assert line.found is not None
    which = f" of {line.method} on {line.task}, the largest" if one_of_several else ""
    console.print(f"\nMemory{which}:")
    _print_terms(line.found.memory.terms, console)
    if line.found.memory.host:
        console.print("In the host's memory:")
        _print_terms(line.found.memory.host, console)


def _print_terms(terms: Mapping[str, float], console: Console) -> None:
    for name, size in terms.items():
        console.print(f"  {shown_size(size):>10}  {name}")
    console.print(f"  {shown_size(sum(terms.values())):>10}  in all")


def _print_notes(lines: Sequence[_Line], console: Console) -> None:
    notes = list(dict.fromkeys(note for line in lines if line.found for note in line.found.notes))
    if notes:
        console.print("\nAssumed, because the rows or the tokenizer are not on this machine:")
        for note in notes[:_LISTED]:
            console.print(f"  {note}")
        if len(notes) > _LISTED:
            console.print(f"  and {len(notes) - _LISTED} more")
    console.print(
        "\nHours are those of steps and evaluations on a free machine, without starting and "
        "loading; energy is the card's alone. Expect a factor of two, and more of steps that take "
        "a few milliseconds."
    )


def _refusal(line: _Line) -> str:
    found = line.found
    assert found is not None
    room = f"{shown_size(found.card.memory * found.cards)} of {_machine(found)}"
    text = f"needs {shown_size(found.memory.peak)}, more than the {room}; "
    if not line.ways:
        return text + "no single change makes it fit"
    return text + "what would fit: " + ", or ".join(line.ways)


def _grouped(lines: Sequence[_Line], key: object) -> dict[str, list[_Line]]:
    groups: dict[str, list[_Line]] = {}
    for line in lines:
        groups.setdefault(key(line), []).append(line)  # type: ignore[operator]
    return groups


def _names(lines: Sequence[_Line]) -> str:
    names = list(dict.fromkeys(f"{line.model} {line.method} on {line.task}" for line in lines))
    more = f" and {counted(len(names) - 3, 'other')}" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _peak(line: _Line) -> float:
    return 0.0 if line.found is None else line.found.memory.peak


def _machine(found: Estimate) -> str:
    return found.card.name if found.cards == 1 else f"{found.cards} x {found.card.name}"


def shown_size(count: float) -> str:
    """Return a number of bytes as ``24.3 GiB``."""
    for unit, size in (("GiB", _GIB), ("MiB", 2**20)):
        if count >= 0.1 * size:
            return (
                f"{count / size:.3g} {unit}"
                if count < 1000 * size
                else f"{count / size:.0f} {unit}"
            )
    return f"{count / 1024:.0f} KiB"


def _hours(hours: float) -> str:
    return f"{hours:.3g}" if hours >= 0.01 else f"{3600 * hours:.2g} s"
