"""SYNFLOW: sum |A * dR/dA| + sum |B * dR/dB| in the model of the absolute values of all weights.

Word embeddings are replaced by ones. R is the sum of the logits, as in the paper of SynFlow, or the
loss of a batch, as released with HeteroLoRA. Layer norms, softmaxes and activations stay. As with
SNIP, all scores are 0 while B = 0 (see `snip.py`).

Source: Tanaka et al., arXiv 2006.05467; Zhang et al., arXiv 2406.14956; released code,
importance_testing/synflow.py:114-200.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lozo_bench.allocation.by_gradient import differentiate
from lozo_bench.allocation.snip import Saliency
from lozo_bench.allocation.taps import observed
from lozo_bench.engine.score import Score
from lozo_bench.errors import bad_value
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.low_rank_modules import LowRankModule

_POSITIONS = 8  # of the made-up row; with a single one, attention would not read the queries


class Synflow(Saliency):
    """Scores a module by how much flows through it in a model without negative weights.

    Args:
        flow: R: ``logits``: their sum, for one row of ones; ``loss``: the loss of a batch of
            training rows, whose words are replaced by ones.
    """

    batches: int | None = 1

    def __init__(self, *, flow: Literal["logits", "loss"]) -> None:
        if flow not in ("logits", "loss"):
            raise bad_value("flow", flow, "logits or loss")
        super().__init__()
        self.flow = flow

    def scores(
        self, modules: Sequence[LowRankModule], batches: Sequence[Score], draws: Draws, number: int
    ) -> Tensor:
        """See `Proxy`."""
        (batch,) = batches
        batch.engine.flush()
        model: Any = batch.engine.model
        with observed(modules, self.observe) as sums, without_signs(model), words_are_ones(model):
            if self.flow == "loss":
                differentiate(batch)
            else:
                _differentiate_logits(model)
        return self.scores_of(modules, sums)


@contextmanager
def without_signs(model: nn.Module) -> Iterator[None]:
    """Inside this context, weights are their absolute values; afterwards all bits are as before."""
    state = {x.data_ptr(): x for x in model.state_dict().values() if x.is_floating_point()}
    negative = [(x, x.signbit()) for x in state.values()]
    try:
        for x, _ in negative:
            x.abs_()
        yield
    finally:
        for x, was_negative in negative:
            x.copy_(torch.where(was_negative, -x, x))


@contextmanager
def words_are_ones(model: Any) -> Iterator[None]:
    """Inside this context, the embeddings of all words are ones."""
    embeddings: nn.Module = model.get_input_embeddings()
    hook = embeddings.register_forward_hook(lambda layer, args, output: torch.ones_like(output))
    try:
        yield
    finally:
        hook.remove()


def _differentiate_logits(model: Any) -> None:
    """Differentiate the sum of the logits of one row, without leaving gradients."""
    word = next(i for i in range(3) if i != model.config.pad_token_id)
    row = torch.full((1, _POSITIONS), word, device=model.device)
    trained = [x for x in model.parameters() if x.requires_grad]
    try:
        model(input_ids=row, attention_mask=torch.ones_like(row)).logits.sum().backward()
    finally:
        for x in trained:
            x.grad = None
