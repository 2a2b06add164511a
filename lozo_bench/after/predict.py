"""The command ``lozo-predict RUN|MODEL``: what a model answers, row by row, as lines of JSON."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from lozo_bench.errors import UserError, printable
from lozo_bench.runs.hydra_files import is_cell
from lozo_bench.tables.cells import mistakes_in_one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lozo_bench.after.input_rows import Input
    from lozo_bench.config.schema import Config
    from lozo_bench.evaluation.evaluate import Metrics
    from lozo_bench.evaluation.predictions import Confusion
    from lozo_bench.tasks.base import Encoded, Example, Splits
    from lozo_bench.training.build_run import BuiltRun


def main() -> None:
    """Predict. The exit code is 2 if that is impossible; one line then says why."""
    arguments = _parser().parse_intermixed_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with mistakes_in_one_line():
        asked = _of_run(arguments) if is_cell(Path(arguments.model)) else _of_model(arguments)
        _predict(asked, arguments.batch_size, arguments.out)


def _predict(asked: Asked, batch_size: int, out: Path | None) -> None:
    """Write a JSON object for each row as soon as its batch is answered, then print the metrics.

    Raises:
        UserError: the task has no answers, or the file cannot be written.
    """
    from lozo_bench.evaluation.answers import Answers
    from lozo_bench.evaluation.predictions import Confusion, prediction
    from lozo_bench.training.predictions import wordings

    built, examples, counts = asked.built, asked.examples, Confusion()
    words, own = wordings(asked.config, built), asked.own or repeat(None)
    with built.chosen.engine.applied(), _bar() as advanced:
        evaluator = built.parts.evaluators["test"]
        answers = Answers(evaluator, examples, batch_size, asked.labelled, advanced)
        given = iter(answers)
        first = next(given)  # what the task refuses leaves the file as it was
        with _opened(out) as file:
            for example, answer, row in zip(examples, chain([first], given), own, strict=False):
                shown = prediction(example, answer, words[example.task], asked.labelled, row)
                counts.add(shown)
                file.write(json.dumps(shown, ensure_ascii=False) + "\n")
    if (metrics := answers.metrics()) is not None:
        print_metrics(metrics, counts)


@dataclass(frozen=True, slots=True)
class Asked:
    """A model and the rows that it is to answer.

    Args:
        config: of the run that the model is from, or that evaluates it.
        built: the model and its evaluators.
        examples: the rows as tokens.
        labelled: whether the right answers are known.
        own: the columns of each row of a file.
    """

    config: Config
    built: BuiltRun
    examples: Sequence[Encoded]
    labelled: bool = True
    own: Sequence[Mapping[str, Any]] | None = None


def _of_run(arguments: argparse.Namespace) -> Asked:
    """Return a run's model at its tested step, with the run's test rows or those of the input."""
    from lozo_bench.data.encode import prompt_for
    from lozo_bench.training.plan import plan_run
    from lozo_bench.training.predictions import names_of
    from lozo_bench.training.replay import rebuild
    from lozo_bench.training.stored import stored_run, tested_step

    if arguments.overrides or arguments.task:
        raise UserError(
            "lozo-predict: a run has its own task; allowed with it: --input, --step, --device"
        )
    folder = Path(arguments.model)
    config = stored_run(folder).config
    step = tested_step(folder) if arguments.step is None else arguments.step
    built = rebuild(folder, step, arguments.device).built
    if arguments.input is None:
        return Asked(config, built, built.parts.data.test)
    _refuse_several(config)
    source = plan_run(config).sources[""]
    given = _input(arguments.input, config, source, names_of(config.task))
    prompt = prompt_for(config, built.loaded, built.parts.data.layout.virtual_tokens)
    examples = [prompt.encode(example) for example in given.examples]
    return Asked(config, built, examples, given.labelled, given.own)


def _of_model(arguments: argparse.Namespace) -> Asked:
    """Return a model from a folder or the hub, with a task's test rows or those of the input."""
    from dataclasses import replace

    from hydra import compose

    from lozo_bench.config.paths import CONF
    from lozo_bench.config.quoting import quoted
    from lozo_bench.parallel.team import Team
    from lozo_bench.tables.cells import configs
    from lozo_bench.training.build_run import build_run
    from lozo_bench.training.checks import typed
    from lozo_bench.training.plan import plan_run
    from lozo_bench.training.predictions import names_of

    if arguments.task is None:
        raise UserError(
            f"{arguments.model}: it is no run; a model needs --task NAME, such as --task sst2"
        )
    if arguments.step is not None:
        raise UserError("--step: a model has no steps; allowed: for a run")
    device = [] if arguments.device is None else [f"model.device={arguments.device}"]
    words = ["optimizer=zero_shot", "model=local", f"model.path={quoted(arguments.model)}"]
    with configs(CONF, arguments.config_dir):
        words += [f"task={arguments.task}", *device, *arguments.overrides]
        config, _ = typed(compose("config", words))
        plan = plan_run(config)
        if arguments.input is None:
            built = build_run(config, plan, Team())
            return Asked(config, built, built.parts.data.test)
        _refuse_several(config)
        given = _input(arguments.input, config, plan.sources[""], names_of(config.task))
        built = build_run(config, replace(plan, sources={"": _Rows(given.examples)}), Team())
    return Asked(config, built, built.parts.data.test, given.labelled, given.own)


class _Rows:
    """A source of the rows of the input alone; nothing is trained, but no set may be empty."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = list(examples)

    def splits(self) -> Splits:
        """See `Source`."""
        from lozo_bench.tasks.base import Splits

        return Splits(self.examples[:1], self.examples[:1], self.examples)


def _input(given: str, config: Config, source: object, names: Sequence[str]) -> Input:
    from lozo_bench.after.input_rows import read_input

    if config.evaluation.shots or config.evaluation.calibrated:
        raise UserError(
            "--input: rows of a file are asked alone; allowed: without demonstrations and "
            "calibration"
        )
    return read_input(given, config.task, getattr(source, "layout", None), names)


def _refuse_several(config: Config) -> None:
    if config.task.tasks:
        raise UserError("--input: the run has several tasks; allowed: a run or model of one task")


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal; yield what moves it."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("rows", total=None)
        yield lambda done, of: progress.update(bar, completed=done, total=of)


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    with out.open("w", encoding="utf-8") as file:
        yield file


def print_metrics(metrics: Metrics, counted: Confusion) -> None:
    """Print the metrics and, if the rows share their classes, the confusion table, to stderr."""
    console = Console(stderr=True, highlight=False, markup=False)
    line = "  ".join(f"{name} {value:.4f}" for name, value in metrics.values.items())
    console.print(f"{counted.rows} rows: {line}")
    counts = counted.table()
    if counts is None:
        return
    table = Table(title="rows: gold; columns: choice", title_justify="left")
    table.add_column("")
    for choice in next(iter(counts.values())):
        table.add_column(printable(choice), justify="right")
    for gold, chosen in counts.items():
        table.add_row(printable(gold), *map(str, chosen.values()))
    console.print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lozo-predict",
        description="Print what a model answers on each row, one JSON object in a line: the text, "
        "its options with their scores and the choice, or the answer that is written. Labelled "
        "rows also give metrics and a confusion table. Rows of a file keep their columns in `row`.",
        epilog="for example: lozo-predict RUN --input new.csv --out answers.jsonl",
    )
    parser.add_argument("model", metavar="RUN|MODEL", help="a run, a model's folder or a hub name")
    parser.add_argument("overrides", nargs="*", help="of a model: overrides as for lozo-train")
    parser.add_argument("--task", help="of a model: the task; its test rows are the default input")
    parser.add_argument(
        "--input",
        metavar="FILE|-",
        help="rows with the task's columns (.csv, .tsv, .jsonl, .json), or a text in each line",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")
    parser.add_argument("--step", type=int, help="of a run; default: the step that was tested")
    parser.add_argument("--batch-size", type=_count, default=64, help="rows a pass (%(default)s)")
    parser.add_argument("--device", help="cpu, cuda, ...")
    parser.add_argument("--config-dir", type=Path, help="a folder of your own with YAML files")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"given {text!r}; allowed: a whole number >= 1")
    return int(text)


if __name__ == "__main__":
    main()
