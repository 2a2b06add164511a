"""Whether both engines have the same losses, on the device and on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bench import modes
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from gpu.machine import Line, Machine
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.subspace import along, stacked
from lozo_bench.optimizers.low_rank import LowRankDirections
from lozo_bench.randomness.draws import Draws

EMBEDDED = Path(__file__).resolve().parents[2] / "lozo_bench" / "models" / "embedded"
_MODELS: tuple[tuple[str, Any], ...] = (
    ("tiny_opt", AutoModelForCausalLM),
    ("tiny_roberta", AutoModelForMaskedLM),
)
_TOLERANCES = ((torch.float32, 2e-5), (torch.float64, 1e-10))


def engines(machine: Machine) -> Line:
    """Check that the fused and the in-place engine agree, on the device and with the CPU."""
    cases: Line = {}
    for name, auto in _MODELS:
        for attention in ("sdpa", "eager"):
            for dtype, tolerance in _TOLERANCES:
                model = auto.from_pretrained(EMBEDDED / name, attn_implementation=attention)
                off = _differences(machine, model.to(dtype).eval(), auto is AutoModelForMaskedLM)
                worst = max(off, key=off.__getitem__)
                cases[f"{name}/{attention}/{dtype}"] = {
                    "ok": off[worst] < tolerance,
                    "worst": worst,
                    "off": off[worst],
                }
    return {"ok": all(case["ok"] for case in cases.values()), "cases": cases}


def _differences(machine: Machine, model: Any, masked: bool) -> dict[str, float]:
    """Return the greatest relative difference from the CPU's in-place losses, by case."""
    losses = {}
    for device in dict.fromkeys(("cpu", machine.device)):
        job = modes.work(model.to(device), masked, 6, 24, 2, seed=1)
        for batch, parts in (("plain", job.plain), ("answer_only", job.answer_only)):
            for engine in ("fused_1", "fused_2", "in_place"):
                losses[f"{device}/{batch}/{engine}"] = _losses(job, parts, engine)
    reference = losses["cpu/plain/in_place"]
    scale = reference.abs().max()
    return {case: float((x - reference).abs().max() / scale) for case, x in losses.items()}


def _losses(job: modes.Work, parts: Sequence[MicroBatch], which: str) -> Tensor:
    """Return the losses of two candidates before an update and of two after it, [4, examples].

    Args:
        job: the model. Its weights are restored at the end.
        parts: the batch.
        which: ``in_place``, or ``fused_K`` with K candidates in a forward pass.
    """
    draws = Draws(3)
    before = {name: x.detach().clone() for name, x in job.X.items()}
    engine: InPlace | Fused = InPlace(job.X)
    if which != "in_place":
        engine = Fused(job.model, job.X, Folder("nearest", draws), 0, int(which[-1]))
    directions = LowRankDirections(job.X, draws, 2, 1)
    P, Q = directions.draw(0), directions.draw(1)
    candidates_of_P, candidates_of_Q = (stacked([along(x, +0.02), along(x, -0.02)]) for x in (P, Q))
    first = engine.losses(P, candidates_of_P, parts)
    engine.move(P, along(P, 0.01))
    second = engine.losses(Q, candidates_of_Q, parts)
    engine.flush()
    with torch.no_grad():
        for name, x in job.X.items():
            x.copy_(before[name])
    return torch.cat([first, second])
