"""The matrices W_Q and W_K of each layer of a language model, found by the names of its weights."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lozo_bench.errors import UserError
from lozo_bench.optimizers.base import Weights
from lozo_bench.optimizers.blocks import blocks

_QUERIES = re.compile(r"\.(?:q_proj|query|query_proj|q_lin)\.weight$")
_KEYS = re.compile(r"\.(?:k_proj|key|key_proj|k_lin)\.weight$")
_QUERIES_KEYS_VALUES = re.compile(r"\.c_attn\.weight$")


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix [outputs, inputs] that is a weight, its transpose, or a slice of it.

    Args:
        name: of the weight.
        inputs: size of what it is multiplied by.
        outputs: size of the product.
        start: first of its outputs among those of the weight.
        whole: number of outputs of the weight.
        transposed: the weight is stored as [inputs, outputs], as in GPT-2.
    """

    name: str
    inputs: int
    outputs: int
    start: int
    whole: int
    transposed: bool


@dataclass(frozen=True, slots=True)
class Attention:
    """The matrices W_Q and W_K of one layer; ``name`` is the layer's."""

    name: str
    W_Q: Matrix
    W_K: Matrix


def attention_layers(X: Weights) -> list[Attention]:
    """Return the layers of a model, in order.

    Args:
        X: the weights by name; those of queries and keys must be among them.

    Raises:
        UserError: there are weights, but no layer with matrices of queries and keys; or there are
            others, which would not be trained.
    """
    found = [_attention(block, names, X) for block, names in blocks(X).items()]
    layers = [layer for layer in found if layer is not None]
    if X and not layers:
        raise UserError(
            "optimizer: it searches for changes of the queries and keys of each layer, and finds "
            "neither pairs such as q_proj and k_proj, or query and key, nor a c_attn among the "
            f"trained weights ({', '.join(list(X)[:3])}, ...); what to do: tuning=queries_keys, or "
            "another optimizer for this model"
        )
    used = {matrix.name for layer in layers for matrix in (layer.W_Q, layer.W_K)}
    if others := [name for name in X if name not in used]:
        raise UserError(
            f"optimizer: it changes queries and keys alone, and {others[0]} is to be trained, too; "
            "what to do: tuning=queries_keys, and no classifier, whose new head would stay random"
        )
    return layers


def _attention(block: str, names: list[str], X: Weights) -> Attention | None:
    queries = [name for name in names if _QUERIES.search(name)]
    keys = [name for name in names if _KEYS.search(name)]
    joint = [name for name in names if _QUERIES_KEYS_VALUES.search(name)]
    if len(queries) == len(keys) == 1:
        return Attention(block, _own(queries[0], X), _own(keys[0], X))
    if len(joint) == 1 and (W := X[joint[0]]).shape[1] == 3 * W.shape[0]:
        h = W.shape[0]  # the columns are those of the queries, the keys and the values
        parts = [Matrix(joint[0], h, h, start, 3 * h, transposed=True) for start in (0, h)]
        return Attention(block, *parts)
    return None


def _own(name: str, X: Weights) -> Matrix:
    m, n = X[name].shape
    return Matrix(name, inputs=n, outputs=m, start=0, whole=m, transposed=False)
