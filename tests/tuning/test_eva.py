"""EVA is compared with principal components that are computed in another way."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from tiny_models import ALL, Words, at_real_tokens, classifier, loaded, logits, rows

from lozo_bench.errors import UserError
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import StartBatch
from lozo_bench.tuning.eva import Eva
from lozo_bench.tuning.save import save_tuned
from lozo_bench.tuning.start import tune

TARGETS = r"\.(q_proj|v_proj|fc2|down_proj|query|value|dense|c_attn|c_proj)$"
LENGTHS = (9, 7, 12, 5)


def batch(lengths=LENGTHS):
    each = rows(lengths)
    each["input_ids"] = (each["input_ids"] * 7 % 37 + 3).where(each["attention_mask"] == 1, 1)
    return StartBatch(**each, losses=lambda: torch.zeros(len(lengths)))


def started(model, seen, **options):
    tuning = Eva(**{"r": 3, "alpha": 6.0, "targets": TARGETS} | options)
    _, tuned = tune(tuning, model, Draws(0))
    return tuned.start(tuned, seen)


def decomposed(arch, layers):
    """Return the shares of variance and the eigenvectors of the inputs' covariance."""
    seen, model = {}, loaded(arch).model
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: seen.update({name: args[0]})
        )
        for name in layers
    ]
    inputs = batch()
    model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask)
    for hook in hooks:
        hook.remove()
    found = {}
    for name, x in seen.items():
        values, vectors = torch.linalg.eigh(
            x.flatten(0, -2)[inputs.attention_mask.flatten() == 1].T.cov()
        )
        found[name] = (values / values.sum()).flip(0).detach(), vectors.flip(1).T.detach()
    return found


@pytest.mark.parametrize("arch", ALL)
def test_the_components_that_explain_most_become_A(arch):
    tuned = started(loaded(arch), [batch()])
    A = {n.split(".lora_A")[0]: x for n, x in tuned.X.items() if "lora_A" in n}
    names = [n for n, _ in loaded(arch).model.named_modules() if re.search(TARGETS, n)]
    found = decomposed(arch, names)
    shares = sorted((-float(v), i) for i, n in enumerate(names) for v in found[n][0][:6])
    best = [names[i] for _, i in shares[: 3 * len(names)]]
    ranks = {n: best.count(n) for n in names}
    assert {n: len(x) for n, x in A.items()} == {n: k for n, k in ranks.items() if k}
    assert len(set(ranks.values())) > 1  # else this would test nothing
    for name, x in A.items():
        expected = found[name][1][: len(x)]
        sign = (x * expected).sum(1, keepdim=True).sign()
        torch.testing.assert_close(sign * x, expected, rtol=0, atol=1e-6)
    layers = [m for _, m in tuned.model.named_modules() if hasattr(m, "lora_A")]
    assert {m.scaling["default"] for m in layers} == {2.0}
    inputs = rows()
    plain = at_real_tokens(loaded(arch).model(**inputs).logits, inputs)
    assert torch.equal(at_real_tokens(logits(tuned, **inputs), inputs), plain)


def test_with_rho_1_all_ranks_are_r_and_the_same_rows_give_the_same_bits():
    batches = [batch(), batch((8, 8, 3)), batch((2,)), batch((11, 4))]
    one, two = (started(loaded("opt"), batches, rho=1.0) for _ in range(2))
    assert {len(x) for n, x in one.X.items() if "lora_A" in n} == {3}
    torch.testing.assert_close(dict(one.X), dict(two.X), rtol=0, atol=0)
    fewer = started(loaded("opt"), batches, rho=1.0, batches=1)
    assert any(not torch.equal(x, fewer.X[n]) for n, x in one.X.items())


def test_a_classifiers_head_is_still_trained_and_torchs_generator_unchanged():
    before = torch.random.get_rng_state()
    tuned = started(classifier("opt"), [batch()])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [n for n in tuned.X if ".lora_" not in n] == ["score.weight"]
    assert {n for n, x in tuned.model.named_parameters() if x.requires_grad} == set(tuned.X)


def test_too_few_tokens_are_refused_in_one_line():
    with pytest.raises(UserError, match=r"^tuning\.r: .* only 4 tokens of training rows; what to"):
        started(loaded("opt"), [batch((4,))])
    with pytest.raises(UserError, match=r"^rho: given 0\.5; allowed: a number >= 1"):
        Eva(r=3, alpha=1.0, targets="q", rho=0.5)


class Tokenizer(Words):
    def save_pretrained(self, folder):
        """Write nothing."""


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # from peft
def test_a_saved_adapter_with_its_ranks_can_be_loaded_by_peft(tmp_path):
    tuned = started(loaded("opt"), [batch()])
    assert len({len(x) for n, x in tuned.X.items() if "lora_A" in n}) > 1
    with torch.no_grad():
        for x in tuned.X.values():
            x += 0.1
    save_tuned(replace(loaded("opt"), model=tuned.model, tokenizer=Tokenizer()), tmp_path)
    read = PeftModel.from_pretrained(loaded("opt").model, tmp_path).eval()
    torch.testing.assert_close(read(**rows()).logits, logits(tuned, **rows()))
