"""Write a prefix or a soft prompt in peft's format too, where plain peft computes the same.

peft puts a prefix into the cache, so that a row's first token has the position that follows the
prefix. Here, a row keeps its own positions (`prefix.py`). The difference is made up for:

* Keys with rotary positions are turned by as many positions as the prefix has tokens. Attention
  depends on the difference of two positions only.
* If a model adds learned embeddings of positions, no keys can do this. Beside the adapter, a copy
  of the model is written, in ``base``, whose table of positions begins that much later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PrefixTuningConfig, PromptTuningConfig, TaskType
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from lozo_bench.config.schema import Kind
from lozo_bench.models.check import word_embeddings
from lozo_bench.models.load import Loaded
from lozo_bench.tuning.prefix import Pair, plain_attention
from lozo_bench.tuning.prompt import SoftPrompt

BASE = "base"
_WEIGHTS = "adapter_model.safetensors"
_LIMITS = ("max_position_embeddings", "n_positions")


def write_for_peft(loaded: Loaded, trained: set[str], out: Path) -> bool:
    """Write what was trained to the folder ``out``, if peft has a format for it.

    Args:
        loaded: the model.
        trained: the names of all trained parameters.
        out: the folder.

    Returns:
        Whether it was written.
    """
    model = loaded.model
    prompt = getattr(model, "soft_prompt", None)
    if isinstance(prompt, SoftPrompt) and trained == {"soft_prompt.words"}:
        _write_prompt(loaded, prompt, out)
        return True
    pairs = {n: module.prefix for n, module in model.named_modules() if _has_pair(module)}
    own = {f"{name}.prefix.{key}" for name in pairs for key in ("keys", "values")}
    layers = getattr(model.config, "num_hidden_layers", None)
    if loaded.kind is not Kind.causal or trained != own or len(pairs) != layers:
        return False
    return _write_prefix(loaded, list(pairs.values()), out)


def _has_pair(module: nn.Module) -> bool:
    return isinstance(getattr(module, "prefix", None), Pair)


def _write_prompt(loaded: Loaded, prompt: SoftPrompt, out: Path) -> None:
    config = PromptTuningConfig(
        num_virtual_tokens=len(prompt.words), token_dim=prompt.words.shape[1], **_of_model(loaded)
    )
    config.save_pretrained(str(out))
    save_file({"prompt_embeddings": _on_cpu(prompt.words)}, out / _WEIGHTS)


def _write_prefix(loaded: Loaded, pairs: list[Pair], out: Path) -> bool:
    model = loaded.model
    tokens, width = pairs[0].keys.shape
    heads = _key_value_heads(model)
    table, rotary = _position_table(model), getattr(model.base_model, "rotary_emb", None)
    if any(pair.keys.shape != (tokens, width) for pair in pairs) or width % heads:
        return False
    if (table is None) == (rotary is None):
        return False
    keys = [_on_cpu(_turned(pair.keys, heads, rotary)) for pair in pairs]
    layers = [x for key, pair in zip(keys, pairs, strict=True) for x in (key, pair.values)]
    where = _of_model(loaded)
    if table is not None:
        _write_base(model, table, tokens, out / BASE)
        loaded.tokenizer.save_pretrained(out / BASE)
        where["base_model_name_or_path"] = str((out / BASE).resolve())
    config = PrefixTuningConfig(
        num_virtual_tokens=tokens, token_dim=width, num_attention_heads=heads, **where
    )
    config.save_pretrained(str(out))
    save_file({"prompt_embeddings": torch.cat([_on_cpu(x) for x in layers], 1)}, out / _WEIGHTS)
    return True


def _of_model(loaded: Loaded) -> dict[str, Any]:
    """Return what peft's config says of the model. FEATURE_EXTRACTION passes on all outputs."""
    causal = loaded.kind is Kind.causal
    return {
        "task_type": TaskType.CAUSAL_LM if causal else TaskType.FEATURE_EXTRACTION,
        "num_layers": loaded.model.config.num_hidden_layers,
        "num_transformer_submodules": 1,
        "base_model_name_or_path": str(getattr(loaded.model.config, "_name_or_path", "")),
        "inference_mode": True,
    }


def _key_value_heads(model: PreTrainedModel) -> int:
    config = model.config
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def _position_table(model: PreTrainedModel) -> nn.Embedding | None:
    """Return the learned embeddings of positions: the only table besides that of the words."""
    words = word_embeddings(model)
    tables = [
        module
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module.weight is not words
    ]
    return tables[0] if len(tables) == 1 else None


@torch.no_grad()
def _turned(keys: Tensor, heads: int, rotary: Any) -> Tensor:
    """Return keys [tokens, width] as if each stood ``tokens`` positions later."""
    if rotary is None:
        return keys
    x = keys.detach().view(len(keys), heads, -1)
    cos, sin = rotary(x, torch.tensor([[len(keys)]], device=x.device))
    cos, sin = cos[0].to(x), sin[0].to(x)
    n = cos.shape[-1]
    half = torch.cat([-x[..., n // 2 : n], x[..., : n // 2]], -1)
    turned = torch.cat([x[..., :n] * cos + half * sin, x[..., n:]], -1)
    return turned.flatten(1)


def _write_base(model: PreTrainedModel, table: nn.Embedding, tokens: int, out: Path) -> None:
    """Write the model without its prefix, with a table of positions that begins later."""
    weights = {n: x for n, x in model.state_dict().items() if ".prefix." not in n}
    (name,) = (n for n, module in model.named_modules() if module is table)
    later = torch.cat(
        [table.weight.new_zeros(tokens, table.weight.shape[1]), table.weight.detach()]
    )
    weights[f"{name}.weight"] = later
    limits = {key: getattr(model.config, key) for key in _LIMITS if hasattr(model.config, key)}
    with plain_attention(model):
        try:
            for key, limit in limits.items():
                setattr(model.config, key, limit + tokens)
            model.save_pretrained(out, state_dict=weights)
        finally:
            for key, limit in limits.items():
                setattr(model.config, key, limit)


def _on_cpu(x: Tensor) -> Tensor:
    return x.detach().to("cpu", copy=True).contiguous()
