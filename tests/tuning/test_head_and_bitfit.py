"""The tunings that add no parameters: which of the model's own weights they train."""

from __future__ import annotations

import pytest
from tiny_models import ALL, CAUSAL, classifier, loaded

from lozo_bench.errors import UserError
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.bitfit import BitFit
from lozo_bench.tuning.full import Full
from lozo_bench.tuning.head import Head, with_trainable_head
from lozo_bench.tuning.lora import Lora
from lozo_bench.tuning.prefix import Prefix

TUNINGS = [Full(), BitFit(), Lora(r=2, alpha=4.0, targets="q_proj|query"), Prefix(tokens=2)]


@pytest.mark.parametrize("arch", CAUSAL)
def test_a_causal_head_is_the_output_matrix(arch):
    assert list(Head().tune(loaded(arch), Draws(0)).X) == ["lm_head.weight"]


def test_a_masked_head_is_everything_named_lm_head():
    this = Head().tune(loaded("roberta"), Draws(0))
    assert set(this.X) == {n for n, _ in this.model.named_parameters() if "lm_head" in n}
    assert len(this.X) == 6


def test_a_classifiers_head_is_everything_behind_its_backbone():
    assert list(Head().tune(classifier("opt"), Draws(0)).X) == ["score.weight"]
    names = list(Head().tune(classifier("roberta"), Draws(0)).X)
    assert len(names) == 4
    assert all(name.startswith("classifier.") for name in names)


@pytest.mark.parametrize("arch", ["opt", "roberta"])
@pytest.mark.parametrize("tuning", TUNINGS, ids=lambda tuning: type(tuning).__name__)
def test_a_new_head_is_trained_with_every_tuning(arch, tuning):
    model = classifier(arch)
    alone = set(tuning.tune(classifier(arch), Draws(0)).X)
    both = with_trainable_head(tuning.tune(model, Draws(0)), model)
    assert set(both.X) == alone | set(Head().tune(classifier(arch), Draws(0)).X)
    trainable = [name for name, x in model.model.named_parameters() if x.requires_grad]
    assert list(both.X) == trainable


def test_the_head_of_a_language_model_is_not_added():
    model = loaded("opt")
    tuned = Lora(r=2, alpha=4.0, targets="q_proj").tune(model, Draws(0))
    assert with_trainable_head(tuned, model) is tuned


@pytest.mark.parametrize("arch", ALL)
def test_a_tied_head_is_refused(arch):
    with pytest.raises(UserError, match=r"^tuning=head: .* input embeddings.*untie_head=true"):
        Head().tune(loaded(arch, tie=True), Draws(0))


@pytest.mark.parametrize("arch", ["opt", "gpt2", "roberta"])
def test_bitfit_trains_every_vector_except_the_normalisation_scales(arch):
    this = BitFit().tune(loaded(arch), Draws(0))
    vectors = {n for n, x in this.model.named_parameters() if x.ndim == 1}
    assert set(this.X) == {n for n in vectors if not n.endswith("weight")}


def test_a_model_without_biases_is_refused():
    with pytest.raises(UserError, match=r"^tuning=bitfit: a LlamaForCausalLM has no biases"):
        BitFit().tune(loaded("llama"), Draws(0))


@pytest.mark.parametrize("tie", [False, True])
def test_full_trains_every_weight_and_tied_ones_once(tie):
    this = Full().tune(loaded("opt", tie=tie), Draws(0))
    assert this.all_weights
    assert {id(x) for x in this.X.values()} == {id(x) for x in this.model.parameters()}
    assert ("lm_head.weight" in this.X) != tie
