"""What a run gave, as an object; and what many runs gave, as a table of pandas."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lozo_bench.config.resolvers import register_resolver
from lozo_bench.errors import UserError
from lozo_bench.runs.files import read_file
from lozo_bench.runs.hydra_files import HYDRA
from lozo_bench.runs.labels import labels
from lozo_bench.runs.outcome import METRICS
from lozo_bench.runs.result_file import load_result
from lozo_bench.runs.row import read_numbers
from lozo_bench.runs.status import status_of, statuses_below

if TYPE_CHECKING:
    import pandas

# Of a result, what a table of runs shows besides the metrics.
_COLUMNS = (
    "best_step", "steps", "forwards", "backwards", "queries", "tokens", "bad_steps", "elapsed_s",
    "peak_memory_bytes", "device",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result:
    """One run: what it was, how it ended and what it gave.

    Args:
        folder: the run's folder.
        status: ``finished``, ``failed``, ``stopped`` or ``running``, as in ``lozo-status``.
        reason: why it failed, or how far it got; empty if it is finished.
        config: the config, as plain values.
        values: the content of ``result.json``; empty if the run is not finished.
    """

    folder: Path
    status: str
    reason: str
    config: Mapping[str, Any] = field(repr=False)
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, folder: Path | str) -> Result:
        """Read the run in a folder.

        Raises:
            UserError: there is no run in it.
        """
        folder = Path(folder)
        path = folder / HYDRA / "config.yaml"
        if not path.is_file():
            raise UserError(f"{folder}: there is no run in this folder")
        cell = status_of(folder)
        finished = cell.state.value == "finished"
        values = (load_result(folder) or {}) if finished else {}
        config = values.get("config") or _config(path)
        return cls(folder, cell.state.value, cell.note, config, values)

    @property
    def metrics(self) -> Mapping[str, Mapping[str, float]]:
        """The metrics by set: ``zero_shot``, ``dev`` and ``test``, those of the tested step."""
        found: Mapping[str, Mapping[str, float]] = self.values.get("metrics", {})
        return found

    @property
    def test(self) -> float:
        """The task's metric on the test rows, with the weights that were best on the dev rows.

        Raises:
            UserError: the run is not finished.
        """
        if not self.metrics:
            raise UserError(f"{self.folder}: the run is {self.status}: {self.reason}")
        return next(iter(self.metrics["test"].values()))

    def history(self) -> list[dict[str, Any]]:
        """Return the rows of ``metrics.jsonl``: losses of steps and metrics of evaluations.

        A damaged row is left out.
        """
        lines = (read_file(self.folder / METRICS) or b"").splitlines()
        return [dict(row) for line in lines if (row := read_numbers(line)) is not None]


def results(folder: Path | str = "outputs") -> pandas.DataFrame:
    """Return a table of all runs below a folder, one row for each.

    Its columns are the method, the task and the model, a column for each value in which the runs
    of a method differ (such as ``lr``), the seed, the status, the metrics by ``set/name``, the
    cost, and the folder.

    Args:
        folder: the folder of a run, of a sweep, or of many.

    Raises:
        UserError: there are no runs, or pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise UserError("results() makes a table of pandas: pip install pandas") from error
    cells = statuses_below(Path(folder).resolve())
    if not cells:
        raise UserError(f"{folder}: no runs in it or below it")
    return pandas.DataFrame(rows([Result.read(cell.folder) for cell in cells]))


def rows(found: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the row of each run in the table of `results`."""
    names = labels([(result.folder, result.config) for result in found])
    return [
        {
            "method": label.method,
            "task": _name(result.config, "task"),
            "model": _name(result.config, "model"),
            **{key: _number(value) for key, value in label.values.items()},
            "seed": (result.config.get("seed") or {}).get("value"),
            "status": result.status,
            **{
                f"{chosen}/{key}": value
                for chosen, metrics in result.metrics.items()
                for key, value in metrics.items()
            },
            **{key: result.values.get(key) for key in _COLUMNS},
            "reason": result.reason,
            "folder": str(result.folder),
        }
        for label, result in zip(names, found, strict=True)
    ]


def _name(config: Mapping[str, Any], node: str) -> Any:
    return (config.get(node) or {}).get("name")


def _number(text: str) -> Any:
    """Return the number that a value is, so that a table can be sorted by it."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _config(path: Path) -> dict[str, Any]:
    """Return the config of a run that is not finished; the part of it that can be resolved."""
    register_resolver()
    raw = OmegaConf.load(path)
    try:
        plain: Any = OmegaConf.to_container(raw, resolve=True)
    except (OmegaConfBaseException, UserError):
        plain = OmegaConf.to_container(raw)
    return dict(plain) if isinstance(plain, dict) else {}
