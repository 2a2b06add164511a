"""MLflow: a server, a database or a folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lozo_bench.display.trackers.base import About
from lozo_bench.errors import UserError
from lozo_bench.runs.untold import flat

_ID = "lozo_bench.run_id"
_LONGEST = 6000  # characters that MLflow keeps of a value


class Mlflow:
    """Records a run in MLflow; a run that was interrupted continues its record.

    Args:
        about: the run.
        uri: where MLflow keeps its records; None: where the environment variable
            MLFLOW_TRACKING_URI says, or MLflow's own default.
        experiment: the experiment's name, which is made if it is missing.
    """

    def __init__(
        self, about: About, *, uri: str | None = None, experiment: str = "lozo-bench"
    ) -> None:
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise UserError(
                f"tracking=mlflow: mlflow cannot be imported ({error}); what to do: "
                "pip install mlflow, or use tracking=csv or tracking=files"
            ) from error
        self.failures: tuple[type[Exception], ...] = (MlflowException,)
        self._metric = Metric
        self._recorded: dict[str, int] = {}
        try:
            self._client: Any = MlflowClient(uri)
            self._run = self._find(experiment, about)
        except MlflowException as error:
            first = str(error).splitlines()[0]
            raise UserError(
                f"tracking=mlflow: MLflow could not start ({first}); what to do: check "
                "tracking.trackers.mlflow.uri, or use tracking=csv or tracking=files"
            ) from error
        self._step = max(self._recorded.values(), default=0)

    def _find(self, name: str, about: About) -> str:
        """Return the id of the record that an earlier attempt began, or of a new one."""
        client = self._client
        found = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if found is None else found.experiment_id
        before = client.search_runs([experiment], f"tags.`{_ID}` = '{about.run_id}'")
        if before:
            run = str(before[0].info.run_id)
            client.update_run(run, status="RUNNING")
            self._recorded = {
                key: max(each.step for each in client.get_metric_history(run, key))
                for key in before[0].data.metrics
            }
            return run
        tags = {_ID: about.run_id, "tags": ",".join(about.tags), "sweep": about.group or ""}
        run = str(client.create_run(experiment, run_name=about.name, tags=tags).info.run_id)
        for key, value in flat(about.config):
            client.log_param(run, key, str(value)[:_LONGEST])
        return run

    def recorded(self, name: str) -> int:
        """Return the last step at which MLflow has a number."""
        return self._recorded.get(name, -1)

    def log(self, step: int, numbers: Mapping[str, float | str]) -> None:
        """Record the numbers; texts are left out."""
        self._step, now = step, time.time_ns() // 10**6
        metrics = [
            self._metric(key, float(value), now, step)
            for key, value in numbers.items()
            if key != "step" and not isinstance(value, str)
        ]
        self._client.log_batch(self._run, metrics=metrics)

    def summarize(self, numbers: Mapping[str, float]) -> None:
        """Record the final numbers in the group ``summary``."""
        self.log(self._step, {f"summary/{key.replace('/', '_')}": x for key, x in numbers.items()})

    def figure(self, path: Path) -> None:
        """Upload the figure."""
        self._client.log_artifact(self._run, str(path))

    def close(self, failed: bool) -> None:
        """End the record."""
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")
