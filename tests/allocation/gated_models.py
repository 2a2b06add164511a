"""Small gated models in float64, and runs of an optimizer with an allocation on them."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from lozo_bench.allocation.allocate import ByScore
from lozo_bench.allocation.base import Length
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch, ScoredBatch
from lozo_bench.engine.score import Score
from lozo_bench.optimizers.adamw import AdamW
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import Tuned
from lozo_bench.tuning.gates import Gates
from lozo_bench.tuning.low_rank_modules import low_rank_modules

OPTIONS = {
    "proxy": {"_target_": "lozo_bench.allocation.grad_norm.GradNorm"},
    "when": "dynamic",
    "every": 1.0,
    "mode": "combined",
    "budget": 0.25,
    "budget_parameters": None,
    "allocate": "gates",
    "normalise": "none",
    "score": "separate",
    "batches": 2,
}
PROXIES = {
    "constant": "constant.Constant",
    "grad_norm": "grad_norm.GradNorm",
    "snip": "snip.Snip",
    "synflow": "synflow.Synflow",
    "alpha_test": "alpha_test.AlphaTest",
    "dense_gradient": "dense_gradient.DenseGradient",
}


class Block(nn.Module):
    """Adds a function of two projections to its input."""

    def __init__(self, width):
        super().__init__()
        self.q_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return x + nn.functional.softsign(self.q_proj(x)) + nn.functional.softsign(self.v_proj(x))


class Stack(nn.Module):
    """Blocks between an embedding and two logits."""

    def __init__(self, layers, width):
        super().__init__()
        self.config = SimpleNamespace(pad_token_id=1)
        self.device = torch.device("cpu")
        self.embeddings = nn.Embedding(11, width)
        self.layers = nn.ModuleList(Block(width) for _ in range(layers))
        self.head = nn.Linear(width, 2)

    def get_input_embeddings(self):
        return self.embeddings

    def forward(self, input_ids, attention_mask=None):
        x = self.embeddings(input_ids)
        for layer in self.layers:
            x = layer(x)
        return SimpleNamespace(logits=self.head(x.mean(1)))


def stack(layers=3, width=4, r=2, alpha=4.0, B=0.0, scale=0.5):
    """Return a gated stack; its B have entries of the size ``B``."""
    model = Stack(layers, width).double()
    inject_adapter_in_model(LoraConfig(r=r, lora_alpha=alpha, target_modules=r".*_proj"), model)
    values = Draws(5)
    for name, x in model.named_parameters():
        draw = values.normal("weights", 0, {name: tuple(x.shape)}, dtype=x.dtype)[name]
        x.data = draw * (B if "lora_B" in name else scale)
        x.requires_grad_("lora_" in name)
    gates = Gates(low_rank_modules(model))
    X = {name: x for name, x in model.named_parameters() if x.requires_grad}
    return Tuned(X, model.eval(), all_weights=False, extras=gates.extras, gates=gates)


def part(model, number):
    """Return the micro-batch of this number: four rows of three words."""
    words = torch.arange(12).view(4, 3) * (2 * number + 1) % 11
    labels = (words.sum(1) + number) % 2

    def losses(copies):
        logits = model(words.repeat(copies, 1)).logits
        found = nn.functional.cross_entropy(logits, labels.repeat(copies), reduction="none")
        return found.view(copies, 4)

    return MicroBatch(size=4, tokens=12, losses=losses)


class Run:
    """An optimizer with an allocation on a stack.

    Args:
        options: of the allocation that differ from OPTIONS; ``proxy`` may be a name.
        tuned: the stack.
        epoch: the steps of an epoch.
        optimizer: makes the optimizer from an engine.
    """

    def __init__(self, tuned=None, *, epoch=1, optimizer=None, seed=0, **options):
        self.tuned = tuned or stack()
        self.engine = InPlace(self.tuned.X, self.tuned.model, self.tuned.extras)
        make = optimizer or (lambda engine: AdamW(engine, Draws(0), lr=0.01, autocast=None))
        allocation = ByScore(**OPTIONS | with_proxy(options))
        around = allocation.around
        epochs = {"": epoch, "allocation": 2}
        self.inner = make(self.engine)
        self.optimizer = around(
            self.inner, self.engine, self.tuned, Draws(seed), Length(99, epochs)
        )
        self.made, self.scored, self.events = 0, [], []

    @property
    def gates(self):
        return self.tuned.gates

    def score(self, check=lambda: None):
        """Return the score of the next step."""
        self.made += 1
        taken = iter(range(100, 200))

        def stream(name):
            self.scored.append(name)
            return ScoredBatch([part(self.tuned.model, next(taken))])

        batch = [part(self.tuned.model, self.made)]
        return Score(self.engine, batch, streams=stream, check=check)

    def steps(self, count):
        """Make steps; return the events of their allocations."""
        found = []
        for _ in range(count):
            found += [dict(e.values) for e in self.optimizer.step(self.score()).events]
        self.events += found
        return found


def with_proxy(options):
    name = options.get("proxy")
    if not isinstance(name, str):
        return options
    own = {"synflow": {"flow": "logits"}, "alpha_test": {"tolerance": 0.005}}.get(name, {})
    return options | {"proxy": {"_target_": f"lozo_bench.allocation.{PROXIES[name]}", **own}}
