"""Rebuild any step of a run from its journal, without forward passes or stored weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.engine.terms import load_term, with_prefix
from lozo_bench.engine.value_sets import ValueSets
from lozo_bench.errors import UserError
from lozo_bench.models.save import save_adapter
from lozo_bench.parallel.team import Team
from lozo_bench.runs.checkpoints import Checkpoints
from lozo_bench.runs.history import CHECKPOINTS, History
from lozo_bench.runs.journal import Log, read, up_to
from lozo_bench.runs.outcome import JOURNAL
from lozo_bench.runs.provenance import device_name
from lozo_bench.runs.recall import check_format, objection
from lozo_bench.runs.tensor_files import system_errors
from lozo_bench.training.build_run import BuiltRun, build_run
from lozo_bench.training.interfaces import SilentObserver
from lozo_bench.training.plan import plan_run
from lozo_bench.training.start_batches import check_start
from lozo_bench.training.stored import journal_of, stored_run
from lozo_bench.training.trainer import Trainer
from lozo_bench.tuning.prune import prune, require_all_on
from lozo_bench.tuning.save import needs_this_package, save_tuned


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A run whose weights are those of a step, and the fingerprint of the engine's state then."""

    built: BuiltRun
    step: int
    weights: str

    def save(self, out: Path, pruned: bool = False, merge: bool = False) -> str:
        """Write a Hugging Face model, or the adapter if the run tuned one.

        Args:
            out: the folder to write to.
            pruned: whether low-rank modules that are off are left out.
            merge: whether an adapter is added to the weights, so that a whole model is written.

        Returns:
            What was written (see `save_tuned`).

        Raises:
            UserError: the disk is full or the permission is missing, the format cannot say what
                is on, or what was trained cannot be added to the weights.
        """
        if merge and needs_this_package(self.built.loaded.model):
            raise UserError(
                "--merge: a prefix, a prompt or shortcuts cannot be added to the weights; what to "
                "do: export without --merge"
            )
        if pruned or (merge and self.built.gates is not None):
            prune(self.built.loaded.model, self.built.gates)
        elif self.built.gates is not None:
            require_all_on(self.built.gates, self.step)
        try:
            out.mkdir(parents=True, exist_ok=True)
            with system_errors(out):
                return self._saved(out, merge)
        except OSError as error:
            raise UserError(
                f"{error.filename or out}: {error.strerror}; choose another place to write to"
            ) from error

    def _saved(self, out: Path, merge: bool) -> str:
        loaded, engine = self.built.loaded, self.built.chosen.engine
        adapter = load_term("attached", engine.tensors(), engine.X)
        if adapter is not None and adapter.U:
            # The adapter is a multiple of U V^T: see `MezoLora` and `LayerTurns`.
            scale = float(adapter.C[0, 0])
            whole = loaded.merged or merge
            if not whole and not needs_this_package(loaded.model):
                save_adapter(loaded, adapter.U, adapter.V, scale, out)
                return "adapter"
            # It is a prompt, or its weights are saved nowhere. In place, they have it already.
            for name, U in ({} if isinstance(engine, InPlace) else adapter.U).items():
                engine.X[name].data += (scale * U @ adapter.V[name].T).to(engine.X[name].dtype)
        engine.flush()
        both = bool(ValueSets(engine.extras).parameters)
        return save_tuned(loaded, out, with_weights=both or merge)


def rebuild(
    folder: Path,
    step: int,
    device: str | None = None,
    begun: Callable[[BuiltRun], None] = lambda built: None,
) -> Rebuilt:
    """Rebuild the weights of a run after ``step``.

    Replays the journal from the newest checkpoint before the step, or from the beginning.

    Args:
        folder: the run's folder.
        step: from 0 to the last step in the journal.
        device: where to replay; None: the run's own device, which gives the run's own bits.
        begun: called with the run before its first step.

    Raises:
        UserError: the folder contains no run, the run has no such step, a file is damaged or of
            another run, or the weights are not those that the run's result names.
    """
    stored = stored_run(folder)
    config = stored.config
    if device is not None:
        config.model.device = device
    plan = plan_run(config)
    if plan.replayable:
        past = _past(folder, step, stored.digest)
        built = build_run(config, plan, Team(), past.header.get("engine"))
        check_start(past.header, built.start)
        begun(built)
        Trainer(built.parts, history=past, observer=SilentObserver()).advance(step)
        weights = fingerprint(built.chosen.engine.tensors())
    else:
        state = _kept(folder, step, stored.digest)
        built = build_run(config, plan, Team())
        check_start(read(journal_of(folder)).header, built.start)
        begun(built)
        built.chosen.engine.load_state(state)
        weights = fingerprint(state)
    stored.check_weights(step, weights, device_name(built.loaded.device))
    return Rebuilt(built, step, weights)


def _kept(folder: Path, step: int, digest: str) -> dict[str, Tensor]:
    """Return the engine's state after a step of a run that cannot be replayed."""
    states, found = Checkpoints(folder / CHECKPOINTS, keep=1), read(journal_of(folder))
    bests, there = [], []
    for kept in states.steps():
        state = states.newest(kept, lambda state: objection(digest, found, state))
        if state is None or state.step != kept:
            continue
        if kept == step:
            return with_prefix("engine", state.tensors)
        best = state.metadata["best"]
        if best and best["step"] == step:
            return with_prefix("best", state.tensors)
        there.append(kept)
        bests += [best["step"]] if best else []
    raise UserError(
        f"step {step}: a first-order run can only be rebuilt at a step with a checkpoint; there "
        f"are the steps {', '.join(map(str, sorted({*there, *bests}))) or 'none'}"
    )


def _past(folder: Path, step: int, digest: str) -> History:
    path = folder / JOURNAL
    data = journal_of(folder)
    whole = read(data)
    damage = f" and is {whole.damage}" if whole.damage else ""
    if not whole.header:
        raise UserError(
            f"{path}: there is none: the run made no step, or is too old"
            if not data
            else f"{path}: it is {whole.damage}; put the journal back"
        )
    check_format(whole, path)
    if whole.header["digest"] != digest:
        raise UserError(
            f"{path}: it belongs to the run {whole.header['digest']}, and the folder's is {digest}"
        )
    last = len(whole.steps)
    if not 0 <= step <= last:
        raise UserError(f"step {step}: {path} has the steps from 0 to {last}{damage}")
    states = Checkpoints(folder / CHECKPOINTS, keep=1)
    state = states.newest(step, lambda state: objection(digest, whole, state))
    lost = whole.first_lost_after(0 if state is None else state.step)
    if lost is not None and lost <= step:
        raise UserError(
            f"step {step}: {path} has lost the losses of the steps from {lost} to "
            f"{max(whole.lost)}, and there is no checkpoint after them"
        )
    return History(_cut(whole, data, step), state, step)


def _cut(whole: Log, data: bytes, step: int) -> Log:
    """Return the log up to ``step``, which may be inside a block."""
    cut = read(up_to(whole, data, step))
    cut.steps = whole.steps[:step]
    cut.evaluations = {at: value for at, value in whole.evaluations.items() if at[0] <= step}
    return cut
