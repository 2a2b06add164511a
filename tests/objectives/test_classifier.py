"""A classifier head's scores equal the model's on single rows, and both engines train it alike."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    OPTConfig,
    OPTForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from lozo_bench.data.batch import BatchLayout
from lozo_bench.data.collate import collate
from lozo_bench.engine import Draws, Folder, Fused
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.score import Score
from lozo_bench.objectives.classifier import classifier_scorer
from lozo_bench.objectives.losses import OptionObjective
from lozo_bench.optimizers.lozo import Lozo
from lozo_bench.tasks.base import Encoded

CLASSES = 3
SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_labels": CLASSES,
    "pad_token_id": 1,
}
GPT2 = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "num_labels": CLASSES}
MAKERS = {
    "opt": lambda: OPTForSequenceClassification(
        OPTConfig(**SIZES, ffn_dim=32, word_embed_proj_dim=16)
    ),
    "gpt2": lambda: GPT2ForSequenceClassification(
        GPT2Config(**GPT2, pad_token_id=1, bos_token_id=0, eos_token_id=0)
    ),
    "llama": lambda: LlamaForSequenceClassification(LlamaConfig(**SIZES, intermediate_size=32)),
    "roberta": lambda: RobertaForSequenceClassification(
        RobertaConfig(**SIZES, intermediate_size=32)
    ),
}
ROWS = ((5, 6, 7, 8, 9), (11, 12), (14, 15, 16))
EXAMPLES = [Encoded(rows=(row,), answer=((0,),), label=n % CLASSES) for n, row in enumerate(ROWS)]
LAYOUT = BatchLayout(pad_id=1, label_ids=tuple(range(CLASSES)))


def model(kind: str, dtype: torch.dtype = torch.float64):
    """Make a model whose weights are the same in every call: they come from keyed draws."""
    made = MAKERS[kind]().to(dtype).eval()
    shapes = {name: tuple(x.shape) for name, x in made.named_parameters()}
    noise = Draws(3).normal("init", 0, shapes, dtype=torch.float64)
    with torch.no_grad():
        for name, x in made.named_parameters():
            x.copy_(0.2 * noise[name] + (x.ndim == 1 and "norm" in name.lower()))
    return made


def one_by_one(of) -> torch.Tensor:
    return torch.cat([of(input_ids=torch.tensor([row])).logits for row in ROWS])


@pytest.mark.parametrize("kind", MAKERS)
def test_scores_are_the_heads_logits_of_each_row_whatever_the_padding(kind: str) -> None:
    of = model(kind)
    batch = collate(EXAMPLES, LAYOUT)
    assert (batch.size, batch.options, batch.labels.tolist()) == (3, CLASSES, [0, 1, 2])
    with torch.no_grad():
        wanted = one_by_one(of)
        # Llama's normalisation computes in float32.
        rtol, atol = (1e-4, 1e-6) if kind == "llama" else (1e-10, 1e-12)
        torch.testing.assert_close(classifier_scorer(of)(batch), wanted, rtol=rtol, atol=atol)
        twice = classifier_scorer(of)(batch.repeat(2))
        torch.testing.assert_close(twice, wanted.repeat(2, 1), rtol=rtol, atol=atol)
    assert (wanted[0] - wanted[1]).abs().min() > 1e-3  # the rows have different scores


def test_the_loss_is_the_cross_entropy_of_the_classes() -> None:
    of = model("roberta")
    prepared = OptionObjective(classifier_scorer(of), LAYOUT, torch.device("cpu")).prepare(
        EXAMPLES, None
    )
    with torch.no_grad():
        wanted = F.cross_entropy(one_by_one(of), torch.tensor([0, 1, 2]), reduction="none")
        torch.testing.assert_close(prepared.micro_batch.losses(1)[0], wanted)
    assert prepared.tokens == sum(map(len, ROWS))


def test_a_wrapper_is_called_instead_of_the_model() -> None:
    of, calls = model("opt"), []

    def wrapper(**inputs: torch.Tensor):
        calls.append(sorted(inputs))
        return of(**inputs)

    classifier_scorer(of, wrapper)(collate(EXAMPLES, LAYOUT))
    assert calls == [["attention_mask", "input_ids", "use_cache"]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_of_half_precision_logits_are_float32(dtype: torch.dtype) -> None:
    scores = classifier_scorer(model("opt", dtype))(collate(EXAMPLES, LAYOUT))
    assert scores.dtype == torch.float32


@pytest.mark.parametrize("kind", ["opt", "gpt2", "roberta"])
def test_both_engines_train_a_head_alike(kind: str) -> None:
    ends = []
    for fused in (False, True):
        of = model(kind)
        X = dict(of.named_parameters())
        before = {name: x.detach().clone() for name, x in X.items()}
        engine = Fused(of, X, Folder("nearest", Draws(0))) if fused else InPlace(X)
        optimizer = Lozo(engine, Draws(1), lr=1e-2, eps=1e-3, rank=2, nu=4)
        scorer = classifier_scorer(of)
        batch = (
            OptionObjective(scorer, LAYOUT, torch.device("cpu")).prepare(EXAMPLES, None).micro_batch
        )
        for _ in range(6):
            optimizer.step(Score(engine, [batch]))
        with torch.no_grad():
            engine.flush()
        moved = {name: x.detach() - before[name] for name, x in X.items()}
        assert all(moved[name].any() for name in X if name.split(".")[0] in ("score", "classifier"))
        ends.append(torch.cat([x.flatten() for x in moved.values()]))
    assert (ends[1] - ends[0]).norm() < 1e-10 * ends[0].norm()
