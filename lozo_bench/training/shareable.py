"""Refuses a run that several processes cannot share."""

from __future__ import annotations

from lozo_bench.config.schema import Config, Split
from lozo_bench.errors import UserError, bad_value
from lozo_bench.optimizers.base import Needs
from lozo_bench.training.rows import TrainingRows


def require_shareable(config: Config, needs: Needs, rows: TrainingRows, processes: int) -> None:
    """Check that so many processes can share the run.

    Raises:
        UserError: they cannot.
    """
    if processes == 1:
        return
    if config.max_seconds is not None:
        raise UserError(
            f"max_seconds: {processes} processes would not agree on the time; what to do: "
            "max_queries, or one process"
        )
    if needs.features:
        raise UserError(f"optimizer: one process solves for it; it was started as {processes}")
    if config.allocation and needs.gradient:
        # Each would score by its own rows, and torch's DDP would wait for modules that are off.
        raise UserError(
            f"allocation: with gradients it needs a single process; it was started as {processes}; "
            "allowed: one, or a proxy and an optimizer without gradients"
        )
    if needs.updates_by_gradient:
        _require_shareable_gradient(config, rows, processes)


def _require_shareable_gradient(config: Config, rows: TrainingRows, processes: int) -> None:
    if config.parallel.split is Split.candidates:
        raise bad_value("parallel.split", "candidates", "batch: a gradient has no candidates")
    for name, (count, batch_size) in rows.sizes().items():
        smallest = min(batch_size, count % batch_size or batch_size)
        if smallest < processes:
            stream = f" of the stream {name!r}" if name else ""
            raise UserError(
                f"batch_size: given {batch_size}, of which the last of {count} rows{stream} "
                f"leaves a batch of {smallest}; allowed: batches of at least {processes} rows, one "
                "for each process"
            )
