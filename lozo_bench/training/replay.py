"""Any step of a run, made again from its log: no forward pass, no gradient, no stored weights."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from lozo_bench.config.schema import Config
from lozo_bench.display.console import SilentObserver
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.engine.terms import load_term, with_prefix
from lozo_bench.errors import UserError
from lozo_bench.models.save import save_adapter
from lozo_bench.parallel.team import Team
from lozo_bench.runs.checkpoints import Checkpoints
from lozo_bench.runs.history import CHECKPOINTS, JOURNAL, History, check_format
from lozo_bench.runs.journal import Log, read, up_to
from lozo_bench.runs.outcome import RESULT
from lozo_bench.training.build_run import BuiltRun, build_run
from lozo_bench.training.plan import plan_run
from lozo_bench.training.trainer import Trainer
from lozo_bench.tuning.save import save_tuned

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A run's parts with the weights of a step, and the fingerprint of the engine's state then."""

    built: BuiltRun
    step: int
    weights: str

    def save(self, out: Path) -> str:
        """Write the model as Hugging Face loads it, or the adapter where that is what moved.

        Returns what was written, in a word (see `save_tuned`).
        """
        out.mkdir(parents=True, exist_ok=True)
        loaded, engine = self.built.loaded, self.built.chosen.engine
        adapter = load_term("attached", engine.tensors(), engine.X)
        if adapter is not None:
            # The adapter is a multiple of U V^T: see `MezoLora`.
            save_adapter(loaded, adapter.U, adapter.V, float(adapter.C[0, 0]), out)
            return "adapter"
        engine.flush()
        return save_tuned(loaded, out)


def rebuild(folder: Path, step: int, device: str | None = None) -> Rebuilt:
    """The weights of a run after ``step``.

    From the newest full state before it, if there is one, and the log from there on.

    Args:
        folder: the run's.
        step: from 0 to the last in the log.
        device: where, if not where the run was; the bits are those of that device.

    Raises:
        UserError: the folder has no run, or no such step.
    """
    config = _config(folder)
    if device is not None:
        config.model.device = device
    plan = plan_run(config)
    if not plan.replayable:
        state = _kept(folder, step)
        built = build_run(config, plan, Team())
        built.chosen.engine.load_state(state)
        return Rebuilt(built, step, fingerprint(state))
    past = _past(folder, step)
    built = build_run(config, plan, Team(), past.header.get("engine"))
    Trainer(built.parts, history=past, observer=SilentObserver()).advance(step)
    return Rebuilt(built, step, fingerprint(built.chosen.engine.tensors()))


def _config(folder: Path) -> Config:
    """The run's config: its result's, as a later command for the same cell changes Hydra's file."""
    result, of_hydra = folder / RESULT, folder / ".hydra" / "config.yaml"
    path = result if result.exists() else of_hydra
    try:
        if path is result:
            told = OmegaConf.create(json.loads(path.read_text(encoding="utf-8"))["config"])
        else:
            told = OmegaConf.load(path)
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), told))
    except FileNotFoundError as error:
        raise UserError(f"{folder}: not a run's folder: there is no {path.name} in it") from error
    except (OmegaConfBaseException, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: holds no config of this version: {error}") from error
    assert isinstance(config, Config)
    return config


def _kept(folder: Path, step: int) -> dict[str, Tensor]:
    """The engine's state after a step of a run whose steps cannot be made again."""
    states = Checkpoints(folder / CHECKPOINTS, keep=1)
    there = states.steps()
    bests = []
    for kept in there:
        state = states.newest(kept)
        if state is None or state.step != kept:
            continue
        if kept == step:
            return with_prefix("engine", state.tensors)
        best = state.metadata["best"]
        if best and best["step"] == step:
            return with_prefix("best", state.tensors)
        bests += [best["step"]] if best else []
    raise UserError(
        f"step {step}: a first-order run can only be had where a full state was kept; there are "
        f"the steps {', '.join(map(str, sorted({*there, *bests}))) or 'none'}"
    )


def _past(folder: Path, step: int) -> History:
    path = folder / JOURNAL
    if not path.exists():
        raise UserError(f"{folder}: the run has no {JOURNAL}; it was never begun, or is older")
    data = path.read_bytes()
    whole = read(data)
    check_format(whole, path)
    last = len(whole.steps)
    if not 0 <= step <= last:
        raise UserError(f"step {step}: {path} has the steps from 0 to {last}")
    state = Checkpoints(folder / CHECKPOINTS, keep=1).newest(step)
    return History(_cut(whole, data, step), state, step)


def _cut(whole: Log, data: bytes, step: int) -> Log:
    """The log as far as ``step``, wherever its blocks end."""
    cut = read(up_to(whole, data, step))
    cut.steps = whole.steps[:step]
    cut.evaluations = {at: value for at, value in whole.evaluations.items() if at[0] <= step}
    return cut
