"""What must hold for every tuning: each YAML file in conf/tuning is tested automatically."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tiny_models import ALL, at_real_tokens, loaded, logits, rows

from lozo_bench.config.build import build
from lozo_bench.config.resolvers import register_resolver
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.errors import UserError
from lozo_bench.randomness.draws import Draws

CONF = Path(__file__).resolve().parents[2] / "conf"
FILES = sorted(path.stem for path in (CONF / "tuning").glob("*.yaml"))
# An adapter of another tuning, beside all weights; see test_two_level.py.
NAMES = [name for name in FILES if not name.startswith("two_level_")]
# Llama has no biases that could be trained.
CELLS = [(name, arch) for name in NAMES for arch in ALL if (name, arch) != ("bitfit", "llama")]
EVERY = pytest.mark.parametrize(("name", "arch"), CELLS)
LIKE_THE_PLAIN_MODEL = {"full", "bitfit", "head", "lora", "gated_lora", "shortcuts", "ia3"} | {
    "queries_keys"
}
LIKE_THE_PLAIN_MODEL |= {"rslora", "dora", "eva", "adalora", "sparse"}


def made(name, **changes):
    options = OmegaConf.to_container(OmegaConf.load(CONF / "tuning" / f"{name}.yaml"))
    return build(options | changes, "tuning")


def tuned(name, arch, seed=0, **changes):
    return made(name, **changes).tune(loaded(arch), Draws(seed))


@EVERY
def test_only_x_is_trainable_and_all_of_it_gets_a_gradient(name, arch):
    this = tuned(name, arch)
    inputs = rows()
    at_real_tokens(logits(this, **inputs), inputs).logsumexp(-1).sum().backward()
    for parameter_name, x in this.model.named_parameters():
        assert (this.X.get(parameter_name) is x) == x.requires_grad == (x.grad is not None)
    assert list(this.X) == [n for n, _ in this.model.named_parameters() if n in this.X]


@EVERY
def test_every_tensor_of_x_changes_the_logits(name, arch):
    this = tuned(name, arch)
    inputs = rows()
    with torch.no_grad():
        # LoRA's B starts at zero, so A would have no effect. A LayerNorm removes what adds the
        # same number to all units, as a shortcut whose B is constant does.
        for x in this.X.values():
            x += 0.1 * torch.arange(x.numel(), dtype=x.dtype).cos().view(x.shape)
        before = at_real_tokens(logits(this, **inputs), inputs)
        for parameter_name, x in this.X.items():
            kept = x.clone()
            x += torch.arange(1, x.numel() + 1, dtype=x.dtype).view(x.shape).remainder(7)
            after = at_real_tokens(logits(this, **inputs), inputs)
            x.copy_(kept)
            # A key's bias adds one number to all scores of a query; softmax ignores that.
            if not parameter_name.endswith(("k_proj.bias", "key.bias")):
                assert not torch.allclose(before, after, rtol=0, atol=1e-9), parameter_name


@EVERY
def test_initial_values_depend_on_the_seed_alone_and_torchs_generator_is_unchanged(name, arch):
    before = torch.random.get_rng_state()
    first, again = tuned(name, arch), tuned(name, arch)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.testing.assert_close(dict(first.X), dict(again.X), rtol=0, atol=0)
    if name in ("lora", "prefix", "prompt"):
        other = tuned(name, arch, seed=1)
        assert any(not torch.equal(x, other.X[key]) for key, x in first.X.items())


@EVERY
def test_the_logits_at_the_start_are_the_plain_models_if_the_method_says_so(name, arch):
    inputs = rows()
    plain = at_real_tokens(loaded(arch).model(**inputs).logits, inputs)
    start = at_real_tokens(logits(tuned(name, arch), **inputs), inputs)
    assert torch.equal(plain, start) == (name in LIKE_THE_PLAIN_MODEL)


@EVERY
def test_logits_have_one_more_position_per_virtual_token(name, arch):
    this = tuned(name, arch)
    assert logits(this, **rows()).shape[:2] == (2, 7 + this.virtual_tokens)
    assert this.virtual_tokens == {"prompt": 10, "deep_prompt": 50 + 1}.get(name, 0)


@EVERY
def test_padding_changes_nothing(name, arch):
    this = tuned(name, arch)
    both, short = rows((7, 4)), {key: x[1:, :4] for key, x in rows((7, 4)).items()}
    expected = at_real_tokens(logits(this, **short), short)
    torch.testing.assert_close(at_real_tokens(logits(this, **both), both)[7:], expected)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_can_be_positional(name):
    this = tuned(name, "opt")
    ids = rows((7,))["input_ids"]
    assert torch.equal(this.model(ids).logits, logits(this, input_ids=ids))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_new_parameters_are_float32_beside_half_precision(name, dtype):
    model = loaded("opt", dtype)
    old = {id(x) for x in model.model.parameters()}
    this = made(name).tune(model, Draws(0))
    assert {x.dtype for x in this.X.values() if id(x) not in old} <= {torch.float32}
    assert logits(this, **rows()).dtype is dtype
    assert this.model.dtype is dtype


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("full", "head")])
@pytest.mark.parametrize("optimizer", ["mezo", "lozo"])
def test_a_step_with_lr_0_does_not_change_the_losses(name, optimizer):
    this = tuned(name, "opt")
    inputs = rows()

    def losses(copies):
        with torch.no_grad():
            return at_real_tokens(logits(this, **inputs), inputs).logsumexp(-1).mean().view(1, 1)

    register_resolver()
    node = OmegaConf.create({"optimizer": OmegaConf.load(CONF / "optimizer" / f"{optimizer}.yaml")})
    node.rank, node.steps = {"value": 1}, 1
    options = OmegaConf.to_container(node, resolve=True)["optimizer"] | {"lr": 0.0}
    X = InPlace(this.X)
    stepped = build(options, "optimizer", X, Draws(0))
    before = losses(1)
    report = stepped.step(Score(X, [MicroBatch(1, 1, losses)]))
    X.flush()
    assert report.loss != float(before)  # the step did perturb X
    torch.testing.assert_close(losses(1), before)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_refused(name):
    with pytest.raises(UserError, match=r"^tuning\.depth: no such key"):
        made(name, depth=3)


@pytest.mark.parametrize(
    ("name", "option", "value", "allowed"),
    [
        ("lora", "r", 0, "a whole number >= 1"),
        ("lora", "alpha", 0.0, "a number > 0"),
        ("lora", "targets", "(", r"a regular expression \("),
        ("ia3", "inputs", "(", r"a regular expression \("),
        ("ia3", "outputs", "(", r"a regular expression \("),
        ("prefix", "tokens", 0, "a whole number >= 1"),
        ("prefix", "init", "zero", "one of real, random"),
        ("prompt", "tokens", 0, "a whole number >= 1"),
        ("deep_prompt", "tokens", 0, "a whole number >= 1"),
        ("deep_prompt", "layers", "last", "one of first, all"),
    ],
)
def test_an_option_out_of_range_is_refused(name, option, value, allowed):
    with pytest.raises(UserError, match=rf"^tuning\.{option}: given .*; allowed: {allowed}"):
        made(name, **{option: value})


@pytest.mark.parametrize(
    ("name", "option"), [("lora", "targets"), ("ia3", "inputs"), ("ia3", "outputs")]
)
def test_a_pattern_that_matches_no_layer_is_refused(name, option):
    expected = rf"^tuning\.{option}: given 'no'; allowed: part of a .*, such as model\.decoder\."
    with pytest.raises(UserError, match=expected):
        tuned(name, "opt", **{option: "no"})
