"""A run's update as a LoRA adapter: what it changed in the weights, and nothing else.

LOZO moves each matrix by U C V^T, with one V for every ``nu`` steps. After a number of periods,
the sum has at most the rank r times that number. An adapter of this rank is exact; of a lower one,
it is the closest, and the error is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lozo_bench.engine.tensors import on_cpu
from lozo_bench.errors import UserError, bad_value, counted
from lozo_bench.runs.tensor_files import system_errors
from lozo_bench.training.build_run import BuiltRun
from lozo_bench.training.replay import rebuild
from lozo_bench.training.stored import stored_run
from lozo_bench.tuning.difference import write_difference
from lozo_bench.tuning.save import needs_this_package


def export_as_lora(run: Path, step: int, rank: int | None, device: str | None, out: Path) -> str:
    """Write the update of a run's first ``step`` steps, and return a line that says what it is.

    Args:
        run: the folder of the run.
        step: the step.
        rank: of the adapter; None: that of the update.
        device: where the steps are made again; None: where the run made them.
        out: the folder.

    Raises:
        UserError: the run trained an adapter, or its update has no low rank and none is given.
    """
    if rank is not None and rank < 1:
        raise bad_value("--rank", rank, "a whole number >= 1")
    own = rank_of_update(stored_run(run).config.optimizer, step)
    if rank is None and own is None:
        raise UserError(
            "--as-lora: the updates of this optimizer have full rank; what to do: --rank R writes "
            "the closest adapter of rank R and says its error"
        )
    before: dict[str, Tensor] = {}

    def remember(built: BuiltRun) -> None:
        if hasattr(built.loaded.model, "peft_config") or needs_this_package(built.loaded.model):
            raise UserError("--as-lora: this run trained an adapter, which is exported without it")
        if built.loaded.merged:
            raise UserError(
                "--as-lora: the run began with an adapter that was merged into the weights; what "
                "to do: export it without --as-lora, as a whole model"
            )
        before.update(on_cpu(dict(built.X)))

    rebuilt = rebuild(run, step, device, remember)
    built = rebuilt.built
    built.chosen.engine.flush()
    bound = rank if rank is not None else own
    assert bound is not None
    with system_errors(out):
        written = write_difference(built.loaded, before, lambda _: bound, out)
    line = (
        f"step {step}: LoRA of rank {written.rank} in {out}; of its {written.matrices} matrices, "
        f"it leaves out {written.error:.2e} of the update (Frobenius norm)"
    )
    if written.whole:
        line += (
            f"; {counted(len(written.whole), 'module')} without a low-rank update (norms, biases, "
            "embeddings) written whole, which peft loads and vLLM does not"
        )
    return line


def rank_of_update(optimizer: Mapping[str, Any], step: int) -> int | None:
    """Return the largest rank that the sum of a method's first updates can have; None: any."""
    rank, nu = optimizer.get("rank"), optimizer.get("nu")
    if not (isinstance(rank, int) and isinstance(nu, int)):
        return None
    return rank * max(1, math.ceil(step / nu))
