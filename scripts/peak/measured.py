"""A whole run of a small random model on the CPU, in a process of its own, and its peaks by phase.

``python -m peak.measured RESULT TRACKER WHAT [key=value ...]`` runs ``lozo-train`` with these
overrides and writes the peaks to the JSON file RESULT. TRACKER is ``resident``, the process's
memory as the system counts it, or ``tensors``, the bytes of all tensors that are made after the
model is loaded. WHAT is ``run``, of which the third evaluation is made the best one, or ``bare``:
after loading, only two forward passes of the first batch and an evaluation of dev, by the model as
it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from lozo_bench.evaluation.evaluate import evaluate
from lozo_bench.models.locate import locate
from lozo_bench.training.batcher import Batcher
from peak.live import Live, LiveMode
from peak.phases import Phases

LOAD, TWO_LOSSES, EVALUATION = "load the model", "two bare forward passes", "a bare evaluation"
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_ROOT = Path(__file__).resolve().parents[2]
_SIZES = {"hidden_size": 1024, "ffn_dim": 4096, "num_hidden_layers": 2, "vocab_size": 50272}


def measure(
    optimizer: str, tracker: str, what: str, model: Path, folder: Path, more: list[str]
) -> dict[str, int]:
    """Return the peaks of a run in a process of its own, in bytes by phase.

    Args:
        optimizer: ``lozo`` or ``mezo``.
        tracker: ``resident`` or ``tensors``.
        what: ``run`` or ``bare``.
        model: the model's folder.
        folder: a folder for the run.
        more: further overrides.
    """
    found = folder / f"{optimizer}-{tracker}-{what}.json"
    run = found.with_suffix("")
    overrides = [
        *("model=local", f"model.path={model}", "task=reviews", "task.select=dev_loss"),
        *("task.source.dev=32", "task.source.test=32", "batch_size=8", "eval_batch_size=8"),
        *(f"optimizer={optimizer}", "steps=8", "eval_every=2", "checkpoint.every=4"),
        *("tracking=files", f"hydra.run.dir={run}", f"hydra.sweep.dir={run}"),
        *(["optimizer.nu=2"] if optimizer == "lozo" else []),
        *more,
    ]
    path = os.pathsep.join(map(str, (_ROOT, _ROOT / "scripts")))
    subprocess.run(
        [sys.executable, "-m", "peak.measured", found, tracker, what, *overrides],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    peaks: dict[str, int] = json.loads(found.read_text())
    return peaks


def make_model(folder: Path) -> int:
    """Write a random OPT with the tokenizer of tiny_opt; return the bytes of its weights."""
    from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM

    small = locate("embedded:tiny_opt")
    sizes = {**_SIZES, "word_embed_proj_dim": _SIZES["hidden_size"], "num_attention_heads": 16}
    sizes["max_position_embeddings"] = 2048
    config = OPTConfig(**{**OPTConfig.from_pretrained(small).to_dict(), **sizes})
    torch.manual_seed(0)
    model = OPTForCausalLM(config)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(small).save_pretrained(folder)
    return sum(x.nbytes for x in model.parameters())


def resident() -> Counter[str]:
    """Return the peak of the process's memory since the last call."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    _RESET.write_text("5")  # see proc(5)
    return Counter(cpu=int(line.split()[1]) * 1024)


def main(result: str, tracker: str, what: str, *overrides: str) -> None:
    """Run ``lozo-train`` and write the peaks."""
    from lozo_bench import train
    from lozo_bench.runs import provenance
    from lozo_bench.training import run as run_module
    from lozo_bench.training import selection

    live = Live()
    phases = Phases(resident if tracker == "resident" else live.take)
    build = getattr(run_module, "build_run")  # noqa: B009  # imported there
    sys.argv = ["lozo-train", *overrides]
    with ExitStack() as stack:

        def built(*args: Any, **kwargs: Any) -> Any:
            with phases.phase(LOAD):
                found = build(*args, **kwargs)
            if tracker == "tensors":
                model = found.loaded.model
                live.leave_out([*model.parameters(), *model.buffers()])
                stack.enter_context(LiveMode(live))
            if what == "bare":
                _bare(found.parts, phases)
                _write(result, phases)
                os._exit(0)
            return found

        stack.enter_context(patch.object(run_module, "build_run", built))
        # It would forget the peak of the phase that is running.
        stack.enter_context(patch.object(provenance, "reset_peak_memory", lambda device: "run"))
        better = iter([True, True])
        stack.enter_context(patch.object(selection, "is_better", lambda *_: next(better, False)))
        stack.enter_context(phases.watching())
        try:
            train.main()
        finally:
            _write(result, phases)


def _bare(parts: Any, phases: Phases) -> None:
    batch = Batcher(parts.data, parts.objective, None).batch(next(parts.rows.batches()))
    with phases.phase(TWO_LOSSES), torch.inference_mode():
        for _ in range(2):
            for part in batch.parts:
                part.losses(1)
    with phases.phase(EVALUATION):
        evaluate(parts.evaluators["dev"], parts.data.dev, parts.settings.eval_batch_size)
    phases.note()


def _write(result: str, phases: Phases) -> None:
    peaks = {name: peak["cpu"] for name, peak in phases.peaks.items()}
    Path(result).write_text(json.dumps(peaks))


if __name__ == "__main__":
    main(*sys.argv[1:])
