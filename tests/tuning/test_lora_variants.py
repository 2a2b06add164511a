"""rsLoRA, DoRA and AdaLoRA are compared with their formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from tiny_models import ALL, Words, loaded, logits, rows

from lozo_bench.models.adapter import read_adapter
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.adalora import AdaLora
from lozo_bench.tuning.dora import Dora
from lozo_bench.tuning.rslora import RsLora
from lozo_bench.tuning.save import save_tuned
from lozo_bench.tuning.start import tune

TARGETS = r"\.(q_proj|v_proj|query|value|c_attn)$"


def moved(kind, arch, r=4, alpha=6.0):
    """Return a tuned model with random A, B and, if it has them, magnitudes."""
    this = kind(r=r, alpha=alpha, targets=TARGETS).tune(loaded(arch), Draws(0))
    with torch.no_grad():
        for name, x in this.X.items():
            x += 0.3 * Draws(1).normal("moved", 0, {name: tuple(x.shape)}, dtype=x.dtype)[name]
    return this


def adapted(this, arch, change):
    """Return the plain model with ``change(W, B A, magnitudes)`` in place of each adapted W."""
    plain = loaded(arch).model
    for name, A in this.X.items():
        if "lora_A" in name:
            layer = name.split(".lora_A")[0]
            BA = this.X[name.replace("lora_A", "lora_B")] @ A
            m = this.X.get(f"{layer}.lora_magnitude_vector.default.weight")
            W = plain.get_submodule(layer).weight
            W.data = change(W.data.T, BA, m).T if arch == "gpt2" else change(W.data, BA, m)
    return plain


@pytest.mark.parametrize("arch", ALL)
def test_rslora_multiplies_BA_by_alpha_over_the_root_of_r(arch):
    this = moved(RsLora, arch)
    plain = adapted(this, arch, lambda W, BA, m: W + 6.0 / 4**0.5 * BA)
    torch.testing.assert_close(logits(this, **rows()), plain(**rows()).logits)


@pytest.mark.parametrize("arch", ALL)
def test_dora_gives_each_output_a_trained_norm(arch):
    this = moved(Dora, arch)

    def change(W, BA, m):
        V = W + 6.0 / 4 * BA
        return m[:, None] * V / V.square().sum(1, keepdim=True).sqrt()

    plain = adapted(this, arch, change)
    torch.testing.assert_close(logits(this, **rows()), plain(**rows()).logits)


@pytest.mark.parametrize("arch", ALL)
def test_adalora_adds_a_decomposed_matrix(arch):
    this, plain = moved(AdaLora, arch), loaded(arch).model
    for name, Q in this.X.items():
        if "lora_A" in name:
            E, P = (this.X[name.replace("lora_A", part)] for part in ("lora_E", "lora_B"))
            W = plain.get_submodule(name.split(".lora_A")[0]).weight
            delta = 6.0 / 4 * P @ torch.diag(E[:, 0]) @ Q
            W.data += delta.T if arch == "gpt2" else delta
    # peft divides by r + 1e-5.
    torch.testing.assert_close(logits(this, **rows()), plain(**rows()).logits, rtol=0, atol=1e-4)


def test_doras_magnitudes_start_as_the_norms_and_the_norm_has_no_gradient():
    start = Dora(r=4, alpha=6.0, targets=TARGETS).tune(loaded("opt"), Draws(0))
    layer = "model.decoder.layers.0.self_attn.q_proj"
    W = loaded("opt").model.get_submodule(layer).weight
    norms = start.X[f"{layer}.lora_magnitude_vector.default.weight"]
    torch.testing.assert_close(norms.data, W.data.norm(dim=1), rtol=0, atol=1e-15)

    this = moved(Dora, "opt")
    A, B, m = (
        this.X[f"{layer}.{part}.default.weight"]
        for part in ("lora_A", "lora_B", "lora_magnitude_vector")
    )
    logits(this, **rows()).logsumexp(-1).sum().backward()

    # By hand, with the norm |V| as a constant: dL/d(BA) = (alpha / r) m / |V| dL/dW', and
    # dL/dm = the sum over inputs of dL/dW' V / |V|.
    def change(W, BA, m):
        V = W + 6.0 / 4 * BA
        return (m / V.norm(dim=1))[:, None] * V

    plain = adapted(this, "opt", lambda W, BA, m: change(W, BA, m).detach())
    plain(**rows()).logits.logsumexp(-1).sum().backward()
    G = plain.get_submodule(layer).weight.grad
    V = (W + 6.0 / 4 * B @ A).detach()
    scale = (m / V.norm(dim=1)).detach()[:, None]
    torch.testing.assert_close(B.grad, 1.5 * (scale * G) @ A.detach().T)
    torch.testing.assert_close(m.grad, (G * V).sum(1) / V.norm(dim=1))


class Tokenizer(Words):
    def save_pretrained(self, folder):
        """Write nothing."""


@pytest.mark.parametrize("kind", [RsLora, Dora, AdaLora])
def test_training_continues_from_a_saved_adapter(kind, tmp_path):
    this = moved(kind, "opt")
    trained = replace(loaded("opt"), model=this.model, tokenizer=Tokenizer())
    assert save_tuned(trained, tmp_path) == "adapter"
    fresh = replace(loaded("opt"), adapter=read_adapter(tmp_path, ""))
    _, tuned = tune(kind(r=4, alpha=6.0, targets=TARGETS), fresh, Draws(5))
    torch.testing.assert_close(dict(tuned.X), dict(this.X), rtol=0, atol=0)
    torch.testing.assert_close(logits(tuned, **rows()), logits(this, **rows()), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # from peft
@pytest.mark.parametrize("kind", [RsLora, Dora, AdaLora])
def test_a_saved_adapter_can_be_loaded_by_peft(kind, tmp_path):
    this = moved(kind, "opt")
    save_tuned(replace(loaded("opt"), model=this.model, tokenizer=Tokenizer()), tmp_path)
    read = PeftModel.from_pretrained(loaded("opt").model, tmp_path).eval()
    torch.testing.assert_close(read(**rows()).logits, logits(this, **rows()))
