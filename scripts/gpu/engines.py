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
# The greatest relative difference between two engines on one device.
_TOLERANCES = ((torch.float32, 2e-5), (torch.float64, 1e-10))
# Between devices or ways to score a batch, eager attention of OPT may differ by more in float64: it
# computes its softmax in float32.
_EAGER = 1e-6


def engines(machine: Machine) -> Line:
    """Check that the fused and the in-place engine agree, and the device with the CPU."""
    cases: Line = {}
    for name, auto in _MODELS:
        for attention in ("sdpa", "eager"):
            for dtype, tolerance in _TOLERANCES:
                model = auto.from_pretrained(EMBEDDED / name, attn_implementation=attention)
                losses = _all_losses(machine, model.to(dtype).eval(), auto is AutoModelForMaskedLM)
                apart = max(tolerance, _EAGER) if attention == "eager" else tolerance
                cases[f"{name}/{attention}/{dtype}"] = _case(losses, tolerance, apart)
    in_float64 = [case for name, case in cases.items() if name.endswith("float64")]
    return {
        "ok": all(case["ok"] for case in cases.values()),
        "engines_off": max(case["engines_off"] for case in in_float64),
        "devices_off": max(case["devices_off"] for case in in_float64),
        "cases": cases,
    }


def _case(losses: dict[str, Tensor], same_device: float, apart: float) -> Line:
    """Compare the engines with each other where all else is equal, and then all the rest.

    Args:
        losses: the losses by device/batch/engine.
        same_device: the tolerance for two engines on one device with one form of the batch.
        apart: the tolerance for the in-place engine on another device or form of the batch.
    """
    reference = losses["cpu/plain/in_place"]
    scale = reference.abs().max()
    between_engines, between_devices = {}, {}
    for case, found in losses.items():
        where, _, engine = case.rpartition("/")
        if engine == "in_place":
            between_devices[case] = float((found - reference).abs().max() / scale)
        else:
            between_engines[case] = float((found - losses[f"{where}/in_place"]).abs().max() / scale)
    worst = max(between_engines, key=between_engines.__getitem__)
    farthest = max(between_devices, key=between_devices.__getitem__)
    engines_off, devices_off = between_engines[worst], between_devices[farthest]
    return {
        "ok": engines_off < same_device and devices_off < apart,
        "worst": worst,
        "engines_off": engines_off,
        "farthest": farthest,
        "devices_off": devices_off,
    }


def _all_losses(machine: Machine, model: Any, masked: bool) -> dict[str, Tensor]:
    """Return the losses of every device, form of the batch and engine, by device/batch/engine."""
    losses = {}
    for device in dict.fromkeys(("cpu", machine.device)):
        job = modes.work(model.to(device), masked, 6, 24, 2, seed=1)
        for batch, parts in (("plain", job.plain), ("answer_only", job.answer_only)):
            for engine in ("fused_1", "fused_2", "in_place"):
                losses[f"{device}/{batch}/{engine}"] = _losses(job, parts, engine)
    return losses


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
