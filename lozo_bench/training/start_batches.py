"""Training rows for tunings that look at some before the first step, such as EVA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lozo_bench.data.order import permuted
from lozo_bench.data.sets import Data
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.errors import UserError
from lozo_bench.objectives.losses import Objective
from lozo_bench.tasks.base import Encoded
from lozo_bench.tuning.base import StartBatch, Tuned


def started(
    tuned: Tuned, data: Data, objective: Objective, batch_size: int, seed: int, device: torch.device
) -> Tuned:
    """Return what is trained after the tuning has seen training rows.

    Args:
        tuned: its ``start`` is called.
        data: the training rows.
        objective: the loss that is minimized; each process computes it of all rows.
        batch_size: how many rows are in a batch.
        seed: of the run; it decides the order of the rows.
        device: of the model's inputs.
    """
    if tuned.start is None:
        return tuned
    order = permuted(len(data.train), seed, "start")
    numbers = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    batches = (
        _batch([rows[i] for i in alike], data, objective, device)
        for each in numbers
        for rows in [[data.train[i] for i in each]]
        for alike in data.alike(rows)
    )
    return tuned.start(tuned, batches)


def start_of(tuned: Tuned) -> str | None:
    """Return a fingerprint of what a tuning computed from rows; None: it computed nothing."""
    return None if tuned.start is None else fingerprint({**tuned.X, **tuned.extras.state()})


def check_start(header: Mapping[str, Any], now: str | None) -> None:
    """Compare what the tuning computed from rows with what an earlier attempt of the run recorded.

    Args:
        header: of the run's journal; empty if the run begins.
        now: what `start_of` returns in this attempt.

    Raises:
        UserError: it is something else, so that the run cannot be continued or replayed.
    """
    before = header.get("start")
    if before not in (None, now):
        raise UserError(
            "tuning: what it computes from the training rows has other bits than when the run "
            f"began ({now} instead of {before}, on {header['device']}), because this machine or "
            "this torch rounds in another way; what to do: continue where the run began, or run "
            "again with rerun=all"
        )


def _batch(
    rows: list[Encoded], data: Data, objective: Objective, device: torch.device
) -> StartBatch:
    shares = data.shares(rows)
    losses = objective.prepare(rows, shares).micro_batch.losses
    # A masked model, and a classifier, read one row whatever the answer is.
    tokens = [row.rows[row.label if len(row.rows) > 1 else 0] for row in rows]
    longest = max(map(len, tokens))
    ids = [[*each, *[data.layout.pad_id] * (longest - len(each))] for each in tokens]
    mask = [[1] * len(each) + [0] * (longest - len(each)) for each in tokens]
    return StartBatch(
        torch.tensor(ids, device=device), torch.tensor(mask, device=device), lambda: losses(1)[0]
    )
