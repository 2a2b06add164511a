"""Forward passes as CUDA graphs: recorded once, then started by the host with a single call.

A small model computes a pass in less time than the host needs to start its kernels one by one. A
graph repeats the kernels of a recorded pass, on the same memory: the inputs of a batch are copied
to where the recorded pass read its own, and the versions of the weights are in buffers that stay
where they are (`packed.py`).

The kernels of a graph are those that the pass started when it was recorded. Code that decides from
the values of a tensor what to run, as transformers does from the attention mask, decides once.
Therefore a graph serves only batches whose inputs have the same shapes and the same padding or
none, and its losses are compared with those of a usual pass, bit for bit, the first times that it
is used. If they differ, or if the pass cannot be recorded, such batches run as usual.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lozo_bench.engine.protocol import Inputs, MicroBatch
from lozo_bench.errors import UserError

log = logging.getLogger(__name__)

Run = Callable[[MicroBatch], Tensor]

# A pass is recorded when its shapes occur for the second time.
_RECORDED_AT = 2
_COMPARISONS = 3
_MOST_GRAPHS = 48


@dataclass(slots=True)
class Recorded:
    """A recorded pass.

    Attributes:
        inputs: where it reads a batch, by name.
        losses: where it writes the losses.
        replay: repeats the pass.
        comparisons: how often its losses will still be compared with those of a usual pass.
    """

    inputs: Mapping[str, Tensor]
    losses: Tensor
    replay: Callable[[], None]
    comparisons: int = _COMPARISONS


Recorder = Callable[[MicroBatch, Run], Recorded]


class Graphs:
    """The recorded passes of an engine.

    Args:
        recorder: returns a function that records a pass, given a micro-batch whose inputs keep
            their memory and the function that computes its losses.
    """

    def __init__(self, recorder: Callable[[], Recorder] | None = None) -> None:
        self._recorder = recorder or CudaRecorder
        self._record = self._recorder()
        self._recorded: dict[Hashable, Recorded | None] = {}
        self._seen: Counter[Hashable] = Counter()
        self._memory: object = None

    def losses(self, part: MicroBatch, versions: Hashable, memory: object, run: Run) -> Tensor:
        """Return the losses of a micro-batch, by a graph if there is one for its shapes.

        Args:
            part: the micro-batch.
            versions: which versions of the weights the pass computes.
            memory: the same object as long as the pass reads the weights from the same memory.
            run: runs a micro-batch as usual.
        """
        inputs = part.inputs
        if inputs is None:
            return run(part)
        if memory is not self._memory:
            self.forget()
            self._memory = memory
        shapes = tuple((name, x.shape) for name, x in inputs.tensors.items())
        key = (inputs.kind, versions, shapes)
        self._seen[key] += 1
        recorded = self._recorded.get(key)
        if recorded is not None:
            return self._repeated(key, recorded, part, run)
        losses = run(part)
        if key not in self._recorded and self._seen[key] >= _RECORDED_AT:
            self._keep(key, part, inputs, run)
        return losses

    def forget(self) -> None:
        """Forget all graphs, because what they read has moved."""
        self._recorded.clear()
        self._seen.clear()
        self._memory = None
        self._record = self._recorder()

    def _repeated(self, key: Hashable, recorded: Recorded, part: MicroBatch, run: Run) -> Tensor:
        assert part.inputs is not None
        for name, x in part.inputs.tensors.items():
            recorded.inputs[name].copy_(x)
        recorded.replay()
        losses = recorded.losses.clone()  # the next pass writes to the same memory
        if recorded.comparisons:
            recorded.comparisons -= 1
            usual = run(part)
            if not _same(losses, usual):
                self._recorded[key] = None
                log.info("engine.graphs: not used for one shape of batches: its losses differ")
                return usual
        return losses

    def _keep(self, key: Hashable, part: MicroBatch, inputs: Inputs, run: Run) -> None:
        if len(self._recorded) >= _MOST_GRAPHS:
            rarest = min(self._recorded, key=lambda each: self._seen[each])
            # Otherwise many shapes that come in turns would all be recorded again and again.
            if self._seen[key] < 2 * self._seen[rarest]:
                return
            del self._recorded[rarest]
        own = inputs.at({name: x.clone() for name, x in inputs.tensors.items()})
        try:
            self._recorded[key] = self._record(replace(part, losses=own.copies, inputs=own), run)
        except (RuntimeError, UserError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                self.forget()
            self._recorded[key] = None
            log.info("engine.graphs: not used for one shape of batches: %s", error)
            log.debug("the pass that could not be recorded", exc_info=True)


def _same(one: Tensor, other: Tensor) -> bool:
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


class CudaRecorder:
    """Records a pass as a CUDA graph; all graphs share one pool of memory."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, part: MicroBatch, run: Run) -> Recorded:
        """Record a pass."""
        assert part.inputs is not None
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), _HostReads() as reads:
            run(part)  # what is done in a first pass only cannot be recorded
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with (
            _unnoticed(),
            torch.cuda.graph(graph, pool=self._pool, stream=stream),
            reads.repeated(),
        ):
            losses = run(part)
        self._pool = self._pool or graph.pool()
        return Recorded(part.inputs.tensors, losses, graph.replay)


class _HostReads(TorchFunctionMode):
    """Notes the values of tensors that the host reads in this context, to give them again.

    While a graph is recorded nothing is computed, so the host cannot read a tensor. It gets the
    values of an earlier pass on the same batch.
    """

    _NAMES = frozenset({"__bool__", "item", "__int__", "__float__", "__index__", "tolist"})

    def __init__(self) -> None:
        super().__init__()
        self._noted: list[Any] = []
        self._repeating = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Note or repeat a value; run anything else."""
        if getattr(func, "__name__", "") not in self._NAMES:
            return func(*args, **(kwargs or {}))
        if self._repeating:
            if not self._noted:
                raise RuntimeError("the model reads more values of tensors than it did before")
            return self._noted.pop(0)
        self._noted.append(func(*args, **(kwargs or {})))
        return self._noted[-1]

    @contextmanager
    def repeated(self) -> Iterator[None]:
        """Inside this context, reads return the noted values in their order."""
        self._repeating = True
        with self:
            yield


@contextmanager
def _unnoticed() -> Iterator[None]:
    """Inside this context, a model is not told that it is recorded.

    transformers builds another attention mask while it is recorded, with which attention is slower
    and rounds differently.
    """
    told = torch.cuda.is_current_stream_capturing
    torch.cuda.is_current_stream_capturing = lambda: False
    try:
        yield
    finally:
        torch.cuda.is_current_stream_capturing = told
