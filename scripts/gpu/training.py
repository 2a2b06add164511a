"""Whether short runs through the real training loop end as they do on a CPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from statistics import mode

from gpu.machine import Line, Machine
from lozo_bench.config.schema import Dtype, ModelConfig, Schedule, Select
from lozo_bench.data.batch import BatchLayout
from lozo_bench.data.sets import Data
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import Engine
from lozo_bench.evaluation.evaluators import OptionEvaluator
from lozo_bench.models.load import Loaded, load
from lozo_bench.objectives.losses import OptionObjective, classification
from lozo_bench.objectives.options import option_scorer
from lozo_bench.optimizers.adamw import AdamW
from lozo_bench.optimizers.base import Optimizer
from lozo_bench.optimizers.first_order import Autocast
from lozo_bench.optimizers.lozo import Lozo
from lozo_bench.optimizers.mezo import Mezo
from lozo_bench.randomness.draws import Draws
from lozo_bench.runs.history import History
from lozo_bench.runs.journal import Log
from lozo_bench.tasks.base import Encoded
from lozo_bench.tasks.causal import CausalPrompt
from lozo_bench.tasks.synthetic import Synthetic
from lozo_bench.training.interfaces import Components, Settings, SilentObserver
from lozo_bench.training.rows import TrainingRows
from lozo_bench.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
# LOZO on a CPU: tiny_opt on reviews, 400 steps, the mean of three seeds in the README.
CPU_TEST_ACCURACY = 0.996
BATCH_SIZE, SEED = 16, 0


def train(machine: Machine) -> Line:
    """Train the embedded model by LOZO; it should reach the accuracy that it has on a CPU."""
    return _train(machine, "lozo", 20 if machine.tiny else 400)


def train_mezo(machine: Machine) -> Line:
    """Train it by MeZO, which uses the Triton kernel."""
    return _train(machine, "mezo", 20 if machine.tiny else 400)


def first_order(machine: Machine) -> Line:
    """Train it by AdamW: in float32, and under bf16 and fp16 autocast (with a scaled loss)."""
    kinds: tuple[Autocast, ...] = (None, "bf16", "fp16") if machine.is_cuda else (None, "bf16")
    steps = 10 if machine.tiny else 40
    found = {str(autocast): _train(machine, "adamw", steps, autocast) for autocast in kinds}
    return {"ok": all(line["ok"] for line in found.values()), **found}


def _train(machine: Machine, method: str, steps: int, autocast: Autocast = None) -> Line:
    loaded = load(
        ModelConfig(
            name="tiny_opt",
            path="embedded:tiny_opt",
            dtype=Dtype.fp32,
            device=machine.device,
            bos_token="<s>",
            autocast=autocast,
        )
    )
    engine, optimizer = _method(loaded, method, autocast)
    parts = _components(machine, loaded, engine, optimizer, steps, one_length=method == "adamw")
    outcome = Trainer(parts, history=History(Log(), None, 0), observer=SilentObserver()).run()
    accuracy = outcome.test.main
    assert outcome.zero_shot is not None
    assert outcome.step_ms_median is not None
    return {
        "ok": machine.tiny or accuracy > CPU_TEST_ACCURACY - 0.02,
        "zero_shot": outcome.zero_shot.main,
        "test": accuracy,
        "cpu": CPU_TEST_ACCURACY,
        "step_ms": round(outcome.step_ms_median, 2),
        "best_step": outcome.best_step,
        "last_weights": outcome.weights["last"],
        "elapsed_s": round(outcome.elapsed_s, 1),
    }


def _method(loaded: Loaded, method: str, autocast: Autocast) -> tuple[Engine, Optimizer]:
    X, draws = dict(loaded.model.named_parameters()), Draws(SEED)
    if method == "lozo":
        fused = Fused(loaded.model, X, Folder("stochastic", draws))
        return fused, Lozo(fused, draws, lr=1e-4, eps=1e-3, rank=2, nu=50)
    in_place = InPlace(X, loaded.model)
    if method == "mezo":
        return in_place, Mezo(in_place, draws, lr=1e-4, eps=1e-3)
    return in_place, AdamW(in_place, draws, lr=5e-4, autocast=autocast, dropout=False)


def _components(
    machine: Machine,
    loaded: Loaded,
    engine: Engine,
    optimizer: Optimizer,
    steps: int,
    one_length: bool,
) -> Components:
    counts = (64, 20, 60) if machine.tiny else (512, 200, 500)
    splits = Synthetic("reviews", *counts, SEED).splits()
    prompt = CausalPrompt(loaded.tokenizer, "{sentence} It was", [" terrible", " great"], 64)
    train, dev, test = (
        [prompt.encode(example) for example in rows]
        for rows in (splits.train, splits.dev, splits.test)
    )
    # Libraries prepare kernels in half precision for each new shape, which took 12 s on an H100.
    if one_length:
        common = mode(_length(row) for row in train)
        train, dev, test = (
            [row for row in rows if _length(row) == common] for rows in (train, dev, test)
        )
    layout = BatchLayout(loaded.tokenizer.pad_token_id or 0)
    scorer = option_scorer(loaded.model, layout.scoring)
    evaluator = OptionEvaluator(scorer, layout, loaded.device, classification)
    return Components(
        engine=engine,
        optimizer=optimizer,
        objective=OptionObjective(scorer, layout, loaded.device, classification),
        evaluators={"zero_shot": evaluator, "dev": evaluator, "test": evaluator},
        data=Data(train, dev, test, layout),
        rows=TrainingRows(len(train), BATCH_SIZE, SEED, optimizer.needs),
        settings=Settings(
            steps=steps,
            eval_batch_size=100,
            eval_every=max(1, steps // 10),
            log_every=50,
            schedule=Schedule.constant,
            select=Select.dev_metric,
            max_bad_steps=3,
        ),
        device=loaded.device,
    )


def _length(example: Encoded) -> int:
    return max(map(len, example.rows))


_TEAM = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from lozo_bench.parallel.team import join
team = join("batch", 60.0)
print(team.rank, float(team.wire.sum(torch.ones(1))), team.from_first(b"x"))
"""


def team(machine: Machine) -> Line:
    """Check that two processes on one card connect, add numbers, and end without a warning."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", _TEAM, str(ROOT)]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    try:
        printed = [process.communicate(timeout=90) for process in processes]
    finally:
        for process in processes:
            process.kill()
    right = all(f"{rank} 2.0 b'x'" in out for rank, (out, _) in enumerate(printed))
    codes = [process.returncode for process in processes]
    errors = [error[-300:] for _, error in printed]
    return {"ok": right and codes == [0, 0], "codes": codes, "stderr": errors}
