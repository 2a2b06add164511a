"""The time of a run: operations, bytes that are moved, and the start of each operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lozo_bench.config.schema import Config, Dtype
from lozo_bench.engine.gaussian import GROUP_ELEMENTS
from lozo_bench.estimate.cards import Card
from lozo_bench.estimate.memory import Held
from lozo_bench.estimate.passes import Evaluation, Part, Step, candidates_together
from lozo_bench.optimizers.base import Needs

# A replayed or fused pass of a low-rank method has these products beside each of the model's.
_MOVES_OF_THIN_PRODUCTS = 2
_ADAM_MOVES = 7  # reads and writes of weights, gradients and moments in an update
_SGD_MOVES = 3


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of a step, of all evaluations, and of the run."""

    step_s: float
    evaluations_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Load:
    """What a pass over one token costs.

    Args:
        multiplied: weights that each token is multiplied with.
        matrices: the sums of all trained matrices' heights and widths.
        width: of the hidden states that the head reads.
    """

    multiplied: float
    heights: float
    widths: float
    width: int


class Clock:
    """Adds up the seconds of passes on a card."""

    def __init__(self, card: Card, held: Held, load: Load, dtype: Dtype) -> None:
        self.card, self.held, self.load = card, held, load
        self.rate, self.number = card.flops(dtype), 4 if dtype is Dtype.fp32 else 2

    def forward(self, part: Part, together: int = 1, thin: bool = False) -> float:
        """Return the seconds of a forward pass of ``together`` candidates."""
        tokens = part.tokens * together
        words = part.words or self.held.vocabulary
        products = 2.0 * self.load.multiplied * tokens
        products += 2.0 * self.load.width * words * part.read * together
        moved = self.held.weights + tokens * self.held.traced.operations * self.load.width
        seconds = max(products / self.rate, moved / self.card.bandwidth)
        if thin:
            moves = tokens * (self.load.widths + _MOVES_OF_THIN_PRODUCTS * self.load.heights)
            seconds += moves * self.number / self.card.bandwidth
        return seconds + self.held.traced.operations * (1 + thin) * self.card.launch_s

    def backward(self, part: Part) -> float:
        """Return the seconds of a backward pass: twice those of its forward pass."""
        return 2 * self.forward(part)


def times_of(
    config: Config,
    needs: Needs | None,
    step: Step,
    held: Held,
    load: Load,
    card: Card,
    steps: int,
    sets: tuple[Evaluation, Evaluation],
    writes: int,
) -> Times:
    """Return a run's seconds, without those of starting and loading.

    Args:
        config: of the run.
        needs: of its method; None: it only evaluates.
        step: what a step asks for.
        held: the run's tensors and batches.
        load: what a token costs.
        card: the machine.
        steps: how many steps are made.
        sets: the batches in which the dev and the test rows are evaluated.
        writes: how many tokens the answer to a test row has, if it is generated.
    """
    dtype = config.model.dtype if config.model.autocast is None else Dtype(config.model.autocast)
    clock = Clock(card, held, load, dtype)
    step_s = 0.0
    if needs is not None and held.step_parts:
        step_s = sum(_batch(config, step, clock, parts) for parts in held.step_parts)
        step_s = step_s / len(held.step_parts) + _update(config, needs, step, held, card)
    dev, test = (_evaluation(clock, each) for each in sets)
    test += writes * sets[1].count * held.weights / card.bandwidth
    evaluations = dev * (steps // max(1, config.eval_every)) + test * (2 if steps else 1)
    return Times(step_s, evaluations, steps * step_s + evaluations)


def _evaluation(clock: Clock, of: Evaluation) -> float:
    if not of.parts:
        return 0.0
    seconds = sum(clock.forward(part, thin=clock.held.fused) for part in of.parts)
    return seconds * of.count / len(of.parts)


def _batch(config: Config, step: Step, clock: Clock, parts: Sequence[Part]) -> float:
    seconds = 0.0
    for part in parts:
        if clock.held.fused:
            asked = config.engine.candidates_per_forward
            together = candidates_together(part.tokens, asked, step.forwards, not clock.card.is_cpu)
            seconds += step.forwards / together * clock.forward(part, together, thin=True)
        else:
            seconds += step.forwards * clock.forward(part)
        seconds += step.backwards * clock.backward(part)
    if config.model.gradient_checkpointing:
        seconds += step.backwards * sum(clock.forward(part) for part in parts)
    return seconds


def _update(config: Config, needs: Needs, step: Step, held: Held, card: Card) -> float:
    """Return the seconds in which weights are moved, to candidates and at the end of the step."""
    count = sum(x.numel() for x in held.X.values())
    size = float(sum(x.nbytes for x in held.X.values()))
    if needs.directions == "full_rank":
        moves = step.forwards + 1
        once = config.engine.keep_z or count <= GROUP_ELEMENTS
        drawn = count * (moves / 3 if card.is_cpu and once else moves) / card.normals
        return drawn + (moves * 2 * size / card.bandwidth if card.is_cpu else 0.0)
    if needs.gradient:
        adam = "adamw" in str(config.optimizer.get("_target_", "")).lower()
        return (_ADAM_MOVES if adam else _SGD_MOVES) * size / card.bandwidth
    if held.fused:
        nu = config.optimizer.get("nu", 50)
        return 2 * size / card.bandwidth / (nu if isinstance(nu, int) and nu > 0 else 1)
    return 2 * (step.forwards + 1) * size / card.bandwidth
