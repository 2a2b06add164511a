"""SPEFT's scores and masks are compared with hand-computed ones."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from tiny_models import ALL, Words, classifier, loaded, logits, rows
from torch.nn import functional as F

from lozo_bench.errors import UserError
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import StartBatch
from lozo_bench.tuning.save import save_tuned
from lozo_bench.tuning.sparse import Sparse
from lozo_bench.tuning.start import tune

TARGETS = r"(q_proj|fc2|query|output\.dense|c_proj|down_proj)$"
LABELS = torch.tensor([5, 9])


def losses(model, inputs):
    return F.cross_entropy(model(**inputs).logits[:, 2], LABELS, reduction="none")


def batches(model, lengths=((7, 4), (5, 6))):
    for each in lengths:
        inputs = rows(each)
        yield StartBatch(**inputs, losses=lambda inputs=inputs: losses(model, inputs))


def started(arch="opt", **options):
    model = loaded(arch)
    tuning = Sparse(**{"density": 0.05, "targets": TARGETS, "examples": 4} | options)
    tuned = tuning.tune(model, Draws(0))
    return tuned.start(tuned, batches(model.model)) if tuned.start else tuned


def gradients(arch, count=4):
    """Return each layer's weight and the gradients of single rows, of a plain model."""
    model = loaded(arch).model
    names = [n for n, _ in model.named_modules() if re.search(TARGETS, n)]
    weights = {n: model.get_submodule(n).weight for n in names}
    found = {n: [] for n in names}
    each = [loss for lengths in ((7, 4), (5, 6)) for loss in losses(model, rows(lengths))]
    for loss in each[:count]:
        for n, W in weights.items():
            found[n] += torch.autograd.grad(loss, W, retain_graph=True)
    return {n: (W.detach(), torch.stack(found[n])) for n, W in weights.items()}


SCORES = {
    "gradient": lambda W, each: each.mean(0).abs(),
    "snip": lambda W, each: (each.mean(0) * W).abs(),
    "force": lambda W, each: -each.mean(0) * W,
    "taylor": lambda W, each: (each.mean(0) * W) ** 2,
    "fisher": lambda W, each: (each**2).mean(0),
    "magnitude": lambda W, each: W.abs(),
}


def chosen(tuned):
    return {n.removeprefix("places/"): x.tolist() for n, x in tuned.extras.tensors.items()}


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("arch", ["opt", "gpt2"])
def test_the_entries_with_the_largest_scores_are_trained(score, arch):
    scores = {n: SCORES[score](*x).flatten() for n, x in gradients(arch).items()}
    order = torch.cat(list(scores.values())).sort(descending=True).values
    limit = order[round(0.05 * len(order)) - 1]
    expected = {n: (x >= limit).nonzero()[:, 0].tolist() for n, x in scores.items()}
    tuned = started(arch, score=score)
    assert chosen(tuned) == expected
    sizes = {n.split(".param")[0]: len(x) for n, x in tuned.X.items()}
    assert sizes == {n: len(places) for n, places in expected.items() if places}


def test_by_layer_each_has_the_same_density_and_fewer_rows_can_be_asked_for():
    tuned = started(group="layer", examples=3)
    for name, (W, each) in gradients("opt", count=3).items():
        best = each.mean(0).abs().flatten().topk(round(0.05 * W.numel())).indices
        assert chosen(tuned)[name] == sorted(best.tolist())


@pytest.mark.parametrize("arch", ALL)
def test_the_logits_are_those_of_the_weights_with_the_values_added(arch):
    tuned, plain = started(arch), loaded(arch).model
    with torch.no_grad():
        for name, x in tuned.X.items():
            x += Draws(1).normal("moved", 0, {name: tuple(x.shape)}, dtype=x.dtype)[name]
            W = plain.get_submodule(name.split(".param")[0]).weight
            W.view(-1)[chosen(tuned)[name.split(".param")[0]]] += x
    torch.testing.assert_close(logits(tuned, **rows()), plain(**rows()).logits)


class Tokenizer(Words):
    pad_token = "<pad>"

    def get_added_vocab(self):
        return {"<pad>": 1}

    def save_pretrained(self, folder):
        """Write nothing."""


def test_the_whole_model_is_saved_with_the_values_in_its_weights(tmp_path):
    tuned = started()
    with torch.no_grad():
        for x in tuned.X.values():
            x += 1.0
    before = logits(tuned, **rows())

    saved = replace(loaded("opt"), model=tuned.model, tokenizer=Tokenizer())
    assert save_tuned(saved, tmp_path) == "weights"
    again = type(tuned.model).from_pretrained(tmp_path, dtype=torch.float64).eval()
    torch.testing.assert_close(again(**rows()).logits, before)


def test_a_classifiers_head_is_still_trained():
    model = classifier("opt")
    _, tuned = tune(Sparse(density=0.05, targets=TARGETS, examples=4), model, Draws(0))

    def several():
        inputs = rows()
        labels = torch.tensor([0, 1])
        yield StartBatch(
            **inputs,
            losses=lambda: F.cross_entropy(model.model(**inputs).logits, labels, reduction="none"),
        )

    tuned = tuned.start(tuned, several())
    assert [n for n in tuned.X if "parametrizations" not in n] == ["score.weight"]
    assert {n for n, x in tuned.model.named_parameters() if x.requires_grad} == set(tuned.X)
    assert all(x.grad is None for x in tuned.model.parameters())


def test_a_tied_layer_and_options_out_of_range_are_refused_in_one_line():
    with pytest.raises(UserError, match=r"^tuning\.targets: lm_head is tied to model\.decoder\."):
        Sparse(density=0.1, targets="lm_head$").tune(loaded("opt", tie=True), Draws(0))
    with pytest.raises(UserError, match=r"^density: given 0\.0; allowed: a number above 0 and up"):
        Sparse(density=0.0, targets="q")
