"""The blocks of a language model, told by the names of its parameters."""

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
    """A layer's name up to its number, ``embeddings``, ``head``, ``final norm`` or ``rest``.

    What is inside a layer, adapters too, belongs to it. An output layer that is tied to the
    embeddings is among them, as it has their name.
    """
    if (layer := _LAYER.search(name)) is not None:
        return name[: layer.end()]
    return next((kind for kind, pattern in _KINDS.items() if pattern.search(name)), REST)


def blocks(names: Iterable[str]) -> dict[str, list[str]]:
    """The names of each block; blocks in the order of their first parameters."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(block_of(name), []).append(name)
    return found


def layer_groups(names: Iterable[str]) -> dict[str, list[str]]:
    """The blocks that MeZO scales: embeddings, output head, each layer; the others are left out."""
    return {kind: some for kind, some in blocks(names).items() if kind not in (REST, "final norm")}
