"""The blocks of a language model, recognised by the names of its parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.\d+(?=\.)")
_KINDS = {
    "embeddings": re.compile(r"embed|(?:^|\.)w[tp]e\."),
    "head": re.compile(r"(?:^|\.)(?:lm_head|cls|score|classifier)\."),
    "final norm": re.compile(r"norm|(?:^|\.)ln_f\.", re.IGNORECASE),
}
REST = "rest"


def block_of(name: str) -> str:
    """Return the block to which the parameter ``name`` belongs.

    A block is a layer, named by the parameter's name up to the layer's number, or one of
    ``embeddings``, ``head``, ``final norm`` and ``rest``. Everything inside a layer belongs to that
    layer, including adapters. An output layer that is tied to the embeddings belongs to the
    embeddings, because it has their name.
    """
    if (layer := _LAYER.search(name)) is not None:
        return name[: layer.end()]
    return next((kind for kind, pattern in _KINDS.items() if pattern.search(name)), REST)


def layer_number(block: str) -> int | None:
    """Return the number of a layer, given the name of its block; None if it is not a layer."""
    number = block.rpartition(".")[2]
    return int(number) if number.isdecimal() else None


def blocks(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the parameter names of each block; blocks are in the order of their first names."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(block_of(name), []).append(name)
    return found


def layer_groups(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the blocks that MeZO scales: the embeddings, the output head and each layer.

    The final norm and the parameters in no known block are left out.
    """
    return {
        block: members
        for block, members in blocks(names).items()
        if block not in (REST, "final norm")
    }
