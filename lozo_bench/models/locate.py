"""Find a model's folder and its kind from names and config.json alone.

This file imports neither torch nor transformers: the launcher plans a sweep with it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lozo_bench.config.paths import EMBEDDED, PREFIX
from lozo_bench.config.run_folder import run_folder
from lozo_bench.config.schema import Kind, ModelConfig
from lozo_bench.errors import UserError, bad_data, bad_value, did_you_mean

# The endings of the transformers class names that config.json lists under "architectures".
ADAPTER_CONFIG = "adapter_config.json"  # peft's
MOVED = "moved.safetensors"  # the trained tensors of a prefix or a soft prompt, see tuning/save.py
_ENDINGS = {
    "ForMaskedLM": Kind.masked,
    "ForCausalLM": Kind.causal,
    "LMHeadModel": Kind.causal,  # GPT-2's older name of a causal model
    "ForSequenceClassification": Kind.classifier,
}


def locate(path: str) -> str:
    """Return the model's folder, or ``path`` itself if it is a Hugging Face hub name.

    Args:
        path: ``embedded:NAME``, a local folder, or a hub name. A path that does not exist counts as
            a hub name unless it begins with ``/``, ``.`` or ``~``. For the folder of a run, it is
            the folder to which its model is written when a run starts from it.

    Raises:
        UserError: the embedded model is unknown, the path does not exist or is a file, or the
            folder has no config.json.
    """
    if path.startswith(PREFIX):
        return str(_embedded(path.removeprefix(PREFIX)))
    folder = Path(path).expanduser()
    if not folder.exists() and not path.startswith(("/", ".", "~")):
        return path
    if not folder.is_dir():
        raise bad_value("model.path", path, "a folder; there is none at this path")
    if _is_adapter(folder) and not (folder / "config.json").is_file():
        raise bad_value(
            "model.path",
            path,
            f"the model that this adapter was trained on; and set model.adapter={path} beside it",
        )
    if (run := run_folder(path)) is not None:
        return str(run.exported(adapter=False))
    if not (folder / "config.json").is_file():
        raise bad_value(
            "model.path",
            path,
            "a folder that contains a model's config.json, as written by save_pretrained or "
            "`hf download NAME --local-dir DIR`",
        )
    return str(folder)


def locate_adapter(config: ModelConfig) -> Path | None:
    """Return the folder of ``model.adapter``, or None if it is null.

    transformers puts an adapter that lies in a model's folder on top of the weights. This is
    refused here, unless ``model.adapter`` asks for it: a merged model, beside which its adapter was
    left, would get it twice.

    Raises:
        UserError: the folder contains no adapter, or the model's folder contains one.
    """
    folder = None if config.adapter is None else Path(config.adapter).expanduser()
    if folder is not None and (run := run_folder(str(folder))) is not None:
        if run.trained_weights:
            raise UserError(
                f"model.adapter: {run.folder} trained weights of the model, and no adapter; what "
                f"to do: model.path={run.folder}"
            )
        folder = run.exported(adapter=True)
    elif folder is not None and not _is_adapter(folder):
        raise bad_value(
            "model.adapter",
            config.adapter,
            f"a run, or a folder with {ADAPTER_CONFIG} and adapter_model.safetensors, as written "
            f"by peft or lozo-export, or with {MOVED}; of the hub: `hf download NAME --local-dir "
            "DIR`",
        )
    left = Path(locate(config.path)) / ADAPTER_CONFIG
    if left.is_file() and (folder is None or folder.resolve() != left.parent.resolve()):
        raise adapter_beside(str(left), str(left.parent))
    return folder


def adapter_beside(file: str, folder: str, first: str = "") -> UserError:
    """Return the error for an adapter that nobody asked for, beside the weights of a whole model.

    Args:
        file: the adapter's config.
        folder: the value of ``model.adapter`` that asks for it.
        first: what must be done before.
    """
    return UserError(
        f"model.path: {file} is an adapter beside a whole model, which transformers would put on "
        f"top of the weights; what to do: {first}if it is part of the weights already, move it "
        f"away with its adapter_model file, else ask for it with model.adapter={folder}"
    )


def model_kind(config: ModelConfig) -> Kind | None:
    """Return ``model.kind``; for ``auto``, read it from a local model's config.json.

    The kind is never guessed from the model's name: MeZO's code tests whether "opt" is a substring
    of the name, which is also true for /opt/models/llama.

    Returns:
        The kind, or None for ``auto`` and a hub name, whose config.json is not on this machine.

    Raises:
        UserError: config.json is damaged or does not name a kind.
    """
    if config.kind is not Kind.auto:
        return config.kind
    if (run := run_folder(config.path)) is not None:
        theirs = run.model
        return model_kind(replace(config, path=theirs["path"], kind=Kind[theirs["kind"]]))
    file = Path(locate(config.path)) / "config.json"
    if not file.is_file():
        return None
    architectures = _architectures(file)
    kind = kind_of(architectures)
    if kind is None:
        raise unknown_kind(str(file), architectures)
    return kind


def kind_of(architectures: Sequence[str]) -> Kind | None:
    """Return the kind that the class names in config.json agree on.

    Return None if no name has a kind or if the names contradict each other.
    """
    kinds = {kind for name in architectures for end, kind in _ENDINGS.items() if name.endswith(end)}
    return kinds.pop() if len(kinds) == 1 else None


def unknown_kind(where: str, architectures: Sequence[str]) -> UserError:
    """Return the error for ``model.kind=auto`` with a model whose config.json names no kind.

    Args:
        where: the config.json file or the hub name.
        architectures: the class names that it lists.
    """
    return UserError(
        f"model.kind: given 'auto', but {where} lists the architectures {list(architectures)}, "
        "which name no language model; what to do: set model.kind=causal, model.kind=masked, "
        "or model.kind=classifier for a model with a classifier head"
    )


def _is_adapter(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (ADAPTER_CONFIG, MOVED))


def _embedded(name: str) -> Path:
    known = sorted(file.parent.name for file in EMBEDDED.glob("*/config.json"))
    if name not in known:
        choices = ", ".join(PREFIX + x for x in known) or "none: this installation has no models"
        raise bad_value("model.path", PREFIX + name, choices + did_you_mean(name, known))
    return EMBEDDED / name


def _architectures(file: Path) -> list[str]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as err:
        raise bad_data(
            str(file), f"not valid JSON ({err}); what to do: download the model again"
        ) from err
    if not isinstance(content, dict):
        raise bad_data(str(file), "not a JSON object; what to do: download the model again")
    names = content.get("architectures") or []
    if not isinstance(names, list):
        raise bad_data(str(file), f"architectures: given {names!r}; allowed: a list of class names")
    return [str(name) for name in names]
