"""Where a model is and how it predicts words, told from names and config.json alone.

Light on purpose: a sweep is planned with this file, long before torch is imported.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lozo_bench.config import Kind, ModelConfig
from lozo_bench.errors import UserError, bad_data, bad_value, did_you_mean

EMBEDDED = Path(__file__).parent / "embedded"
PREFIX = "embedded:"

# How transformers ends the class names that config.json lists as "architectures".
_ENDINGS = {
    "ForMaskedLM": Kind.masked,
    "ForCausalLM": Kind.causal,
    "LMHeadModel": Kind.causal,  # GPT-2's older name for the same
    "ForSequenceClassification": Kind.classifier,
}


def locate(path: str) -> str:
    """A folder holding config.json, or a hub name where ``path`` is neither embedded nor local.

    Raises UserError for an unknown embedded model, a path that leads nowhere, and a folder
    without config.json.
    """
    if path.startswith(PREFIX):
        return str(_embedded(path.removeprefix(PREFIX)))
    folder = Path(path).expanduser()
    if not folder.exists() and not path.startswith(("/", ".", "~")):
        return path
    if not folder.is_dir():
        raise bad_value("model.path", path, "a folder; there is none at this place")
    if not (folder / "config.json").is_file():
        raise bad_value(
            "model.path",
            path,
            "a folder that holds a model's config.json, as written by save_pretrained or "
            "`hf download NAME --local-dir DIR`",
        )
    return str(folder)


def model_kind(config: ModelConfig) -> Kind | None:
    """How the model predicts words; ``auto`` is read from a local model's config.json.

    Never told from the name: /opt/models/llama is no OPT (spec lozo_mezo T2). None where ``auto``
    meets a hub name, whose config.json is not here to be read. Raises UserError where config.json
    does not say.
    """
    if config.kind is not Kind.auto:
        return config.kind
    file = Path(locate(config.path)) / "config.json"
    if not file.is_file():
        return None
    architectures = _architectures(file)
    kind = kind_of(architectures)
    if kind is None:
        raise unknown_kind(str(file), architectures)
    return kind


def kind_of(architectures: Sequence[str]) -> Kind | None:
    """The kind that the class names in config.json agree on; None where they say none or both."""
    said = {kind for name in architectures for end, kind in _ENDINGS.items() if name.endswith(end)}
    return said.pop() if len(said) == 1 else None


def unknown_kind(where: str, architectures: Sequence[str]) -> UserError:
    """What to tell whoever asked for ``model.kind=auto`` of a model that does not say."""
    return UserError(
        f"model.kind: given 'auto', but {where} lists the architectures {list(architectures)}, "
        "which name no language model; say model.kind=causal or model.kind=masked, "
        "or classifier, for a head of its own"
    )


def _embedded(name: str) -> Path:
    there = sorted(file.parent.name for file in EMBEDDED.glob("*/config.json"))
    if name not in there:
        choices = ", ".join(PREFIX + known for known in there) or "none, this copy holds no models"
        raise bad_value("model.path", PREFIX + name, choices + did_you_mean(name, there))
    return EMBEDDED / name


def _architectures(file: Path) -> list[str]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as err:
        raise bad_data(str(file), f"not valid JSON ({err}); fetch the model again") from err
    if not isinstance(content, dict):
        raise bad_data(str(file), "not a JSON object; fetch the model again")
    names = content.get("architectures") or []
    if not isinstance(names, list):
        raise bad_data(str(file), f"architectures: given {names!r}; allowed: a list of class names")
    return [str(name) for name in names]
