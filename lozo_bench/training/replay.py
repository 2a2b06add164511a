"""Rebuild any step of a run from its journal, without forward passes or stored weights."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from lozo_bench.config.renamed import with_new_optimizer
from lozo_bench.config.resolvers import register_resolver
from lozo_bench.config.schema import Config
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.engine.terms import load_term, with_prefix
from lozo_bench.errors import UserError
from lozo_bench.models.save import save_adapter
from lozo_bench.parallel.team import Team
from lozo_bench.runs.checkpoints import Checkpoints
from lozo_bench.runs.history import CHECKPOINTS, JOURNAL, History, check_format
from lozo_bench.runs.journal import Log, read, up_to
from lozo_bench.runs.outcome import RESULT
from lozo_bench.runs.tensor_files import system_errors
from lozo_bench.training.build_run import BuiltRun, build_run
from lozo_bench.training.interfaces import SilentObserver
from lozo_bench.training.plan import plan_run
from lozo_bench.training.trainer import Trainer
from lozo_bench.tuning.save import save_tuned

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A run whose weights are those of a step, and the fingerprint of the engine's state then."""

    built: BuiltRun
    step: int
    weights: str

    def save(self, out: Path) -> str:
        """Write a Hugging Face model, or the adapter if the run tuned one.

        Returns:
            What was written (see `save_tuned`).

        Raises:
            UserError: the disk is full or the permission is missing.
        """
        try:
            out.mkdir(parents=True, exist_ok=True)
            with system_errors(out):
                return self._saved(out)
        except OSError as error:
            raise UserError(
                f"{error.filename or out}: {error.strerror}; choose another place to write to"
            ) from error

    def _saved(self, out: Path) -> str:
        loaded, engine = self.built.loaded, self.built.chosen.engine
        adapter = load_term("attached", engine.tensors(), engine.X)
        if adapter is not None:
            # The adapter is a multiple of U V^T: see `MezoLora`.
            scale = float(adapter.C[0, 0])
            if not loaded.merged:
                save_adapter(loaded, adapter.U, adapter.V, scale, out)
                return "adapter"
            for name, U in adapter.U.items():  # the weights that it stands beside are saved nowhere
                engine.X[name].data += (scale * U @ adapter.V[name].T).to(engine.X[name].dtype)
        engine.flush()
        return save_tuned(loaded, out)


def rebuild(folder: Path, step: int, device: str | None = None) -> Rebuilt:
    """Rebuild the weights of a run after ``step``.

    Replays the journal from the newest checkpoint before the step, or from the beginning.

    Args:
        folder: the run's folder.
        step: from 0 to the last step in the journal.
        device: where to replay; None: the run's own device, which gives the run's own bits.

    Raises:
        UserError: the folder contains no run, or the run has no such step.
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
    """Return the run's config from its result: later commands overwrite Hydra's config file."""
    result, of_hydra = folder / RESULT, folder / ".hydra" / "config.yaml"
    path = result if result.exists() else of_hydra
    try:
        if path is result:
            stored = json.loads(path.read_text(encoding="utf-8"))["config"]
        else:
            register_resolver()  # Hydra's file is not resolved
            stored = OmegaConf.to_container(OmegaConf.load(path))
        stored = OmegaConf.create(with_new_optimizer(stored))
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), stored))
    except FileNotFoundError as error:
        raise UserError(f"{folder}: not a run's folder: it contains no {path.name}") from error
    except (OmegaConfBaseException, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: contains no config of this version: {error}") from error
    assert isinstance(config, Config)
    return config


def _kept(folder: Path, step: int) -> dict[str, Tensor]:
    """Return the engine's state after a step of a run that cannot be replayed."""
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
        f"step {step}: a first-order run can only be rebuilt at a step with a checkpoint; there "
        f"are the steps {', '.join(map(str, sorted({*there, *bests}))) or 'none'}"
    )


def _past(folder: Path, step: int) -> History:
    path = folder / JOURNAL
    if not path.exists():
        raise UserError(f"{folder}: no {JOURNAL} in it: the run made no step, or is too old")
    data = path.read_bytes()
    whole = read(data)
    check_format(whole, path)
    last = len(whole.steps)
    if not 0 <= step <= last:
        raise UserError(f"step {step}: {path} has the steps from 0 to {last}")
    state = Checkpoints(folder / CHECKPOINTS, keep=1).newest(step)
    return History(_cut(whole, data, step), state, step)


def _cut(whole: Log, data: bytes, step: int) -> Log:
    """Return the log up to ``step``, which may be inside a block."""
    cut = read(up_to(whole, data, step))
    cut.steps = whole.steps[:step]
    cut.evaluations = {at: value for at, value in whole.evaluations.items() if at[0] <= step}
    return cut
