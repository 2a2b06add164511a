"""LoRA is compared with its formula, and which parameters it trains."""

from __future__ import annotations

import pytest
import torch
from tiny_models import ALL, classifier, loaded, logits, rows

from lozo_bench.errors import UserError
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.lora import Lora

TARGETS = r"\.(q_proj|v_proj|query|value|c_attn)$"


def lora(arch, seed=0, r=3, alpha=6.0, dtype=torch.float64, tie=False, **options):
    model = loaded(arch, dtype, tie)
    return Lora(r=r, alpha=alpha, targets=TARGETS, **options).tune(model, Draws(seed))


@pytest.mark.parametrize("arch", ALL)
def test_the_logits_are_those_of_the_weights_with_BA_added(arch):
    this = lora(arch)
    with torch.no_grad():
        for name, x in this.X.items():
            if "lora_B" in name:
                x.copy_(Draws(1).normal("B", 0, {name: tuple(x.shape)}, dtype=x.dtype)[name])
    plain = loaded(arch).model
    for name, A in this.X.items():
        if "lora_A" in name:
            weight = plain.get_submodule(name.split(".lora_A")[0]).weight
            BA = 2.0 * this.X[name.replace("lora_A", "lora_B")] @ A  # alpha / r = 2
            weight.data += BA.T if arch == "gpt2" else BA
    torch.testing.assert_close(logits(this, **rows()), plain(**rows()).logits)


@pytest.mark.parametrize("arch", ALL)
def test_A_starts_uniform_and_B_starts_at_zero(arch):
    A, B = ([x for n, x in lora(arch, r=200).X.items() if part in n] for part in ("_A.", "_B."))
    assert not any(x.any() for x in B)
    for x in A:
        bound = x.shape[1] ** -0.5
        assert 0.98 * bound < x.max() < bound
        assert -bound <= x.min() < -0.98 * bound
        # The variance of kaiming_uniform with a = sqrt(5) is 1/(3n).
        assert float(x.detach().var()) == pytest.approx(bound**2 / 3, rel=0.1)
    assert not torch.equal(A[0], A[1])


@pytest.mark.parametrize("arch", ALL)
def test_queries_and_values_have_an_adapter(arch):
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in lora(arch).X}
    queries_and_values = {"opt": {"q_proj", "v_proj"}, "roberta": {"query", "value"}}
    queries_and_values |= {"gpt2": {"c_attn"}, "llama": {"q_proj", "v_proj"}}
    assert layers == queries_and_values[arch]


def test_train_head_also_trains_robertas_head_as_in_mezos_code():
    names = {n for n in lora("roberta", train_head=True).X if ".lora_" not in n}
    parts = {"dense.weight", "dense.bias", "layer_norm.weight", "layer_norm.bias", "bias"}
    assert names == {f"lm_head.{part}" for part in parts | {"decoder.weight"}}


def test_train_head_also_trains_a_classifiers_head():
    this = Lora(r=3, alpha=6.0, targets=TARGETS, train_head=True).tune(classifier("opt"), Draws(0))
    assert [n for n in this.X if ".lora_" not in n] == ["score.weight"]


def test_train_head_with_a_tied_head_is_refused():
    with pytest.raises(
        UserError, match=r"^tuning\.train_head: .*what to do: model\.untie_head=true"
    ):
        lora("opt", tie=True, train_head=True)
