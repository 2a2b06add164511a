"""In which order training rows come, and which of them go through the model together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from lozo_bench.data.batch import BatchLayout
from lozo_bench.randomness.draws import key_words
from lozo_bench.tasks.base import Encoded

# A forward pass with fewer tokens takes about as long as one with this many, because both read all
# weights once: with 184 tokens or more, a bf16 product on an H200 is limited by arithmetic and not
# by memory.
PASS_COSTS_TOKENS = 256


def token_shares(examples: Sequence[Encoded]) -> list[float]:
    """Return factors of the examples' mean losses that make the batch mean a mean over tokens.

    If example i of B has n_i answer tokens, its factor is n_i B / (n_1 + ... + n_B).
    """
    tokens = [len(example.answer[example.label]) for example in examples]
    return [count * len(tokens) / sum(tokens) for count in tokens]


def micro_batches(
    examples: Sequence[Encoded], layout: BatchLayout, at_most: int | None = None
) -> list[list[int]]:
    """Split a batch into micro-batches of examples of similar length.

    Args:
        examples: the examples of the batch.
        layout: without its ``scoring.buckets``, examples are not grouped by length.
        at_most: largest number of examples of a micro-batch; None: no limit.

    Returns:
        The indices of the examples of each micro-batch.
    """
    if not examples:
        return []
    if layout.scoring.buckets:
        groups = _buckets([max(map(len, example.rows)) for example in examples])
    else:
        groups = [list(range(len(examples)))]
    size = at_most or len(examples)
    return [group[i : i + size] for group in groups for i in range(0, len(group), size)]


def permuted(count: int, seed: int, role: str, name: str = "") -> list[int]:
    """Return a permutation of the row numbers below ``count`` that depends on its key only."""
    key = key_words(seed, role, name)
    order: list[int] = (
        np.random.Generator(np.random.Philox(key=list(key))).permutation(count).tolist()
    )
    return order


def shuffled(count: int, batch_size: int, seed: int, role: str = "order") -> Iterator[list[int]]:
    """Yield batches of indices below ``count`` without end, in a new permutation for each epoch.

    The last batch of an epoch may be smaller. The order of epoch e depends on (seed, role, e) only.
    """
    epoch = 0
    while True:
        order = permuted(count, seed, role, str(epoch))
        for start in range(0, count, batch_size):
            yield order[start : start + batch_size]
        epoch += 1


def taking_turns(
    rows: Mapping[str, Sequence[int]], batch_size: int, seed: int, each: int, role: str = "order"
) -> Iterator[list[int]]:
    """Yield batches without end to which the tasks contribute in turn, so many rows at a time.

    In every round each task has one turn, in a new order of the tasks; its own rows come in a new
    order in every epoch of its own. All of it depends on (seed, role) only.

    Args:
        rows: the rows of each task.
        batch_size: how many rows are in every batch.
        seed: of the run.
        each: how many rows a task contributes in its turn.
        role: of the batches.
    """
    names = [task for task, of in rows.items() if of]
    own = {task: shuffled(len(rows[task]), 1, seed, f"{role}/{task}") for task in names}
    turns = (names[n] for (n,) in shuffled(len(names), 1, seed, f"{role}/turns"))
    in_order = (rows[task][number] for task in turns for (number,) in islice(own[task], each))
    while True:
        yield list(islice(in_order, batch_size))


def _buckets(lengths: Sequence[int]) -> list[list[int]]:
    """Return the indices of the examples in length buckets, for the least total cost.

    A bucket costs (number of examples) * (longest length) tokens plus PASS_COSTS_TOKENS for its
    forward pass. The result is the exact minimum of the total over all ways to cut the examples,
    sorted by length, into buckets. The indices of a bucket are in ascending order.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    best: list[tuple[int, int]] = [(0, 0)]  # cost of the n shortest, start of their last bucket
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        best.append(
            min(
                (best[start][0] + (end - start) * longest + PASS_COSTS_TOKENS, start)
                for start in range(end)
            )
        )
    groups, end = [], len(order)
    while end:
        start = best[end][1]
        groups.append(sorted(order[start:end]))
        end = start
    return groups[::-1]
