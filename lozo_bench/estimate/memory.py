"""The peak memory of a run, as a sum of named terms.

Some terms are there all the time. Of what comes and goes (a pass, an update, a state that is
written), the largest one counts. Activations and gradients are not at their largest at the same
time: a backward pass frees the one while it makes the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from lozo_bench.config.schema import Config, Dtype, EngineMode
from lozo_bench.engine.gaussian import GROUP_ELEMENTS
from lozo_bench.engine.rows import aligned
from lozo_bench.engine.snapshot import LEAST_BYTES
from lozo_bench.engine.tensors import is_half
from lozo_bench.estimate.cards import base_bytes
from lozo_bench.estimate.passes import Part, candidates_together
from lozo_bench.estimate.trace import Trace
from lozo_bench.optimizers.base import Needs

_FLOAT = 4
# Tensors of the logits' size that a loss makes of them, in float32.
_LOGIT_COPIES = 3


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes by what takes them.

    Args:
        terms: on the card, or in the process on a CPU.
        host: in the host's memory beside the card; empty on a CPU.
    """

    terms: Mapping[str, float]
    host: Mapping[str, float]

    @property
    def peak(self) -> float:
        """The sum of the terms."""
        return sum(self.terms.values())


@dataclass(frozen=True, slots=True)
class Held:
    """What a run's memory depends on.

    Args:
        X: the trained weights, on the meta device.
        weights: the bytes of all weights and buffers.
        traced: a pass of the model, without a gradient and, if the method needs one, with it.
        step_parts: the micro-batches of the batches that were looked at.
        eval_parts: those of the sets that are evaluated.
        vocabulary: the number of words.
        candidates: the most candidates that a step asks for at once.
    """

    X: Mapping[str, Tensor]
    weights: float
    traced: Trace
    traced_gradient: Trace | None
    step_parts: Sequence[Sequence[Part]]
    eval_parts: Sequence[Part]
    vocabulary: int
    candidates: float
    fused: bool


def memory_of(
    config: Config, needs: Needs | None, held: Held, on_cpu: bool, full_states: bool = False
) -> Memory:
    """Return the terms of a run's peak memory; ``full_states``: whether it saves all tensors."""
    terms: dict[str, float] = {}
    host: dict[str, float] = {}
    if on_cpu:
        terms["Python, torch and transformers"] = base_bytes()
    terms["weights"] = held.weights
    passing = {"activations and logits of a pass": _passes(config, held, on_cpu)}
    if needs is not None:
        if held.fused:
            terms |= _low_rank(config, held, on_cpu)
        if needs.directions == "full_rank" and on_cpu:
            terms["directions that are drawn"] = _drawn(config, held)
        if needs.gradient and held.traced_gradient is not None:
            terms |= _first_order(config, held)
            passing = _with_gradients(config, held, terms["gradients"], passing, on_cpu)
        beside = terms if on_cpu else host
        beside["the best step's small weights"] = _best_step(config, held, on_disk=False)
        if full_states:
            copied = _trained(held) * (1 + _moments(config))
            (passing if on_cpu else host)["a copy of the state while it is written"] = copied
    largest = max(passing, key=lambda name: passing[name])
    terms[largest] = passing[largest]
    if not on_cpu:
        host["Python, torch and transformers"] = base_bytes()
    return Memory({k: v for k, v in terms.items() if v}, {k: v for k, v in host.items() if v})


def _passes(config: Config, held: Held, on_cpu: bool) -> float:
    """Return the largest activations of a pass that keeps nothing for a gradient."""
    largest = 0.0
    for part in (part for parts in held.step_parts for part in parts):
        together = 1
        if held.fused:
            asked = config.engine.candidates_per_forward
            together = candidates_together(part.tokens, asked, held.candidates, not on_cpu)
        largest = max(largest, together * _kept_nothing(part, held))
    return max([largest, *(_kept_nothing(part, held) for part in held.eval_parts)])


def _kept_nothing(part: Part, held: Held) -> float:
    return max(part.tokens * held.traced.peak, _logits(part, held))


def _kept(part: Part, held: Held) -> float:
    assert held.traced_gradient is not None
    traced = held.traced_gradient
    return part.tokens * (traced.kept + held.traced.peak) + _logits(part, held)


def _logits(part: Part, held: Held) -> float:
    return part.read * (part.words or held.vocabulary) * _FLOAT * _LOGIT_COPIES


def _low_rank(config: Config, held: Held, on_cpu: bool) -> dict[str, float]:
    """The factors of the directions, of the updates that are not folded, and their buffers."""
    matrices = [x for x in held.X.values() if x.ndim >= 2]
    left = sum(len(x) for x in matrices)
    right = sum(x[0].numel() for x in matrices)
    vectors = sum(x.numel() for x in held.X.values() if x.ndim < 2)
    rank = _option(config, "rank", config.rank.value)
    half = any(is_half(x.dtype) for x in held.X.values())
    closed = config.engine.max_rank if half else 0
    own = 2 if half else _FLOAT
    k = 1 + 2 * rank + closed
    k = k if on_cpu else aligned(k)
    versions = 2
    return {
        "factors of directions and pending updates": _FLOAT
        * (rank * (2 * left + right) + vectors * 2)
        + 2 * closed * (left + right),
        "buffers of factors for a pass": own * k * (versions * left + right),
    }


def _drawn(config: Config, held: Held) -> float:
    """A direction's numbers in memory: a group, or all; and what a group is drawn from."""
    count = sum(x.numel() for x in held.X.values())
    group = min(count, GROUP_ELEMENTS)
    kept = count if config.engine.keep_z else group
    return kept * _FLOAT + group * 8 * 3  # 64-bit words and float64 numbers on the way


def _with_gradients(
    config: Config, held: Held, gradients: float, passing: Mapping[str, float], on_cpu: bool
) -> dict[str, float]:
    """Return what comes and goes in a step with gradients, beside the gradients themselves."""
    largest = max((x.nbytes for x in held.X.values()), default=0)
    several = any(len(parts) > 1 for parts in held.step_parts)
    kept = max(_kept(part, held) for parts in held.step_parts for part in parts)
    pass_name = next(iter(passing))
    # A CPU's allocator does not give back the memory of the last step's gradients.
    in_pass = kept + largest - (0 if several or on_cpu else gradients)
    update = 2 * largest if on_cpu else _trained(held)
    return {
        pass_name: max(passing[pass_name], in_pass),
        "temporary tensors of the update": update if _moments(config) else 0.0,
    }


def _first_order(config: Config, held: Held) -> dict[str, float]:
    size, moments = _trained(held), _moments(config)
    terms = {"gradients": size}
    if moments:
        terms["the optimizer's moments"] = moments * size
    if config.model.autocast is not None:
        terms[f"weights in {config.model.autocast}"] = held.weights / 2
    return terms


def _trained(held: Held) -> float:
    return float(sum(x.nbytes for x in held.X.values()))


def _moments(config: Config) -> float:
    """Return how many numbers a first-order method keeps for each weight."""
    target = str(config.optimizer.get("_target_", "")).rpartition(".")[2]
    if target == "AdamW":
        return 2.0
    return float(target == "SGD" and bool(config.optimizer.get("momentum")))


def best_step_on_disk(config: Config, needs: Needs | None, held: Held) -> float:
    """Return the bytes of the file in the run's folder that has the best step's weights."""
    return 0.0 if needs is None else _best_step(config, held, on_disk=True)


def _best_step(config: Config, held: Held, on_disk: bool) -> float:
    """A copy of what is trained, if the weights are written to after the best step."""
    size = float(sum(x.nbytes for x in held.X.values() if (x.nbytes >= LEAST_BYTES) == on_disk))
    if not held.fused:
        return size
    nu, rank = _option(config, "nu", 1), _option(config, "rank", config.rank.value)
    periods = 1
    if config.model.dtype is not Dtype.fp32:
        periods += config.engine.max_rank // max(1, rank)
    return size if config.steps > nu * periods else 0.0


def _option(config: Config, name: str, otherwise: int) -> int:
    value = config.optimizer.get(name, otherwise)
    return value if isinstance(value, int) else otherwise


def is_fused(config: Config, needs: Needs | None, whole: bool) -> bool:
    """Return whether a run's engine leaves the weights as they are (see `choose_engine`)."""
    in_place = config.engine.mode not in (EngineMode.fused, EngineMode.auto)
    return needs is not None and needs.directions == "low_rank" and whole and not in_place
