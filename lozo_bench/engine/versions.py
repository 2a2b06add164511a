"""Weights that are several versions of themselves, for as long as a model is being scored.

A `Versions` tensor stands in for a parameter of any Hugging Face model and holds no copy of it.
Where the model multiplies by it, looks rows up in it or scales with it, the result is computed for
G versions at once, the first dimension of the activations being G equal groups of rows:

    linear      y_g = x_g W^T + (x_g V) (U C_g)^T + b + z s_g
    embedding   y_g = W[ids_g] + (U[ids_g] C_g) V^T
    the rest    one version after another, with the version's own vector or matrix

Nothing is decided by the type of a module, so no model needs code of its own here, tied weights are
one tensor and hence one perturbation, and an operation met for the first time is still exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lozo_bench.engine.tensors import wide
from lozo_bench.errors import UserError


@dataclass(slots=True)
class Pass:
    """One pass through the model: ``groups`` versions, ``rows`` rows of input for all together."""

    groups: int = 1
    rows: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Thin:
    """What the versions make of a matrix W: ``keep`` W + U C_g V^T.

    ``U`` [m, a], ``V`` [n, b] and ``C`` [G, a, b] are float32 or wider.
    """

    U: Tensor
    V: Tensor
    C: Tensor
    keep: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """What the versions make of a vector p: p + z s_g; ``z`` [d, e], ``s`` [G, e], both wide."""

    z: Tensor
    s: Tensor


# On a CPU, so few columns are added faster one by one than by a matrix product.
_FEW = 8


class Versions(Tensor):
    """A parameter in G versions; its own data is the parameter's, shared."""

    change: Thin | Columns
    during: Pass

    @staticmethod
    def of(plain: Tensor, change: Thin | Columns, during: Pass) -> Versions:
        """The versions that ``change`` makes of ``plain``, in the pass described by ``during``."""
        made: Versions = Tensor._make_subclass(Versions, plain.detach())
        made.change, made.during = change, during
        return made

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute ``func`` for all versions."""
        with torch._C.DisableTorchFunctionSubclass():
            rule = _RULES.get(func)
            if rule is not None and not _is_activation(func, args, kwargs):
                return rule(*args, **(kwargs or {}))
            if _name(func) in _ABOUT_FORM:
                return func(*args, **(kwargs or {}))
            return _one_after_another(func, args, dict(kwargs or {}))


def _is_activation(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> bool:
    """Whether a weight stands where the rules expect what flows through the model."""
    first = args[0] if args else (kwargs or {}).get("input")
    return func in _BY_ACTIVATION and isinstance(first, Versions)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    change = weight.change if isinstance(weight, Versions) else None
    during = _pass_of(weight, bias)
    return _product(input, change, bias, during, lambda x, p: F.linear(x, _plain(weight), p))


def _addmm(b: Tensor, x: Tensor, W: Tensor, **scales: float) -> Tensor:
    """B + x W, as GPT-2's Conv1D has it: W is [in, out], the transpose of a linear layer's."""
    if scales or isinstance(x, Versions) or b.ndim != 1:
        one: Tensor = _one_after_another(torch.addmm, (b, x, W), scales)
        return one
    change = W.change if isinstance(W, Versions) else None
    if isinstance(change, Thin):
        change = Thin(U=change.V, V=change.U, C=change.C.mT, keep=change.keep)

    def plain(x: Tensor, p: Tensor | None) -> Tensor:
        return x @ _plain(W) if p is None else torch.addmm(p, x, _plain(W))

    return _product(x, change, b, _pass_of(W, b), plain)


def _product(
    x: Tensor,
    change: Thin | Columns | None,
    b: Tensor | None,
    during: Pass,
    plain: Callable[[Tensor, Tensor | None], Tensor],
) -> Tensor:
    """The plain product, then what the versions add to it, written into the same memory.

    The change of the bias rides along as one more column, of ones beside x V.
    """
    assert not isinstance(change, Columns)
    x = _in_groups(x, during)
    G, N = during.groups, x[..., 0].numel() // during.groups
    right, left = [], []  # y_g += right_g left_g
    if change is not None:
        # V^T laid out by its own rows: several times faster to multiply with on a CPU.
        xv = F.linear(x.reshape(-1, x.shape[-1]), change.V.T.to(x.dtype).contiguous())
        right.append(xv.view(G, N, -1))
        left.append(torch.matmul(change.C.mT, change.U.T).to(x.dtype))
    if isinstance(b, Versions):
        if G == 1 and b.dtype == wide(b.dtype):
            b = _vectors(b)[0]
        else:  # p + z s_g would differ by version, or lose z s_g to the rounding of p
            assert isinstance(b.change, Columns)
            right.append(x.new_ones(G, N, 1))
            left.append((b.change.s @ b.change.z.T)[:, None].to(x.dtype))
            b = _plain(b)
    y = plain(x if change is None or change.keep == 1 else x * change.keep, b)
    if right:
        _add_product(y, torch.cat(right, dim=2), torch.cat(left, dim=1))
    return y


def _add_product(y: Tensor, right: Tensor, left: Tensor) -> None:
    """y_g += right_g left_g in place; y of G N rows, right [G, N, k], left [G, k, m]."""
    groups = y.view(len(right), -1, y.shape[-1])
    k = right.shape[2]
    if y.device.type == "cpu" and k <= _FEW and y.dtype == wide(y.dtype):
        for i in range(k):
            groups.addcmul_(right[:, :, i, None], left[:, i, None])
    else:
        groups.baddbmm_(right, left)


def _embedding(input: Tensor, weight: Versions, *args: Any, **kwargs: Any) -> Tensor:
    ids, change, during = input, weight.change, weight.during
    assert isinstance(change, Thin)
    if during.groups > 1 and ids.ndim > 1 and len(ids) not in (1, during.rows):
        raise _not_apart(ids, during)  # a table of relative positions, say: [T, T]
    ids = _in_groups(ids, during)
    y: Tensor = F.embedding(ids, _plain(weight), *args, **kwargs)
    if change.keep != 1:
        y = y * change.keep
    u = change.U[ids.reshape(-1)]
    uc = torch.bmm(u.view(during.groups, -1, u.shape[-1]), change.C).to(y.dtype)
    _add_product(y, uc, change.V.T.to(y.dtype).contiguous().expand(during.groups, -1, -1))
    return y


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    during, shape = _pass_of(weight, bias), normalized_shape
    x = _in_groups(input, during)
    if during.groups == 1 and x.dtype == wide(x.dtype):
        w = None if weight is None else _vectors(weight)[0]
        return F.layer_norm(x, shape, w, None if bias is None else _vectors(bias)[0], eps)
    normal = F.layer_norm(x, shape, None, None, eps)
    return _scaled(normal, weight, bias, during.groups)


def _rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    during = _pass_of(weight)
    normal = F.rms_norm(_in_groups(input, during), normalized_shape, None, eps)
    return _scaled(normal, weight, None, during.groups)


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None, G: int) -> Tensor:
    """x_g w_g + b_g in wide precision, rounded once into x's own memory."""
    groups = x.view(G, -1, x.shape[-1])
    if weight is not None and bias is not None:
        torch.addcmul(_vectors(bias)[:, None], groups, _vectors(weight)[:, None], out=groups)
    elif weight is not None:
        torch.mul(groups, _vectors(weight)[:, None], out=groups)
    elif bias is not None:
        torch.add(groups, _vectors(bias)[:, None], out=groups)
    return x


def _rows(W: Versions, index: Any) -> Any:
    """W[index] for rows of a matrix or entries of a vector: the versions of what is picked."""
    plain = _plain(W)[index]
    rows = W.ndim == plain.ndim and not isinstance(index, tuple)
    match W.change:
        case Thin(U, V, C, keep) if rows and W.ndim == 2:
            return Versions.of(plain, Thin(U[index], V, C, keep), W.during)
        case Columns(z, s) if rows:
            return Versions.of(plain, Columns(z[index], s), W.during)
    return _one_after_another(Tensor.__getitem__, (W, index), {})


def _one_after_another(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Any other operation: each version by itself on its own rows, and the results joined.

    A single version is simply formed, whatever the operation. Several need activations among the
    arguments to be told apart by; without, a vector (w.float(), 1 + w) stays in versions, and
    anything else is refused.
    """
    given = [*_flat(args), *_flat(list(kwargs.values()))]
    tensors = [a for a in given if isinstance(a, Tensor)]
    versions = [a for a in tensors if isinstance(a, Versions)]
    during = versions[0].during

    def of_version(g: int, sliced: bool) -> Any:
        def own(a: Any) -> Any:
            if isinstance(a, Versions):
                return _value(a, g)
            if isinstance(a, (list, tuple)):
                return type(a)(map(own, a))
            if sliced and isinstance(a, Tensor) and a.ndim > 1:
                return _in_groups(a, during).chunk(during.groups)[g]
            return a

        return func(*map(own, args), **{key: own(a) for key, a in kwargs.items()})

    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    if during.groups == 1:
        one = of_version(0, sliced=False)
        alone = len(versions) == len(tensors)
        return one.to(dtype) if isinstance(one, Tensor) and not alone else one
    if len(versions) < len(tensors):
        return torch.cat([of_version(g, sliced=True) for g in range(during.groups)]).to(dtype)
    plain = func(*map(_plain, args), **{key: _plain(a) for key, a in kwargs.items()})
    if len(versions) > 1 or not isinstance(plain, Tensor) or plain.ndim != 1:
        raise UserError(
            f"engine.candidates_per_forward: the model uses a weight in torch's {_name(func)}, "
            "which has no rule for several versions at once; candidates_per_forward=1 has them one "
            "by one, and engine.mode=in_place works for every model"
        )
    each = torch.stack([of_version(g, sliced=False) - plain for g in range(during.groups)], dim=1)
    return Versions.of(
        plain, Columns(each.to(wide(each.dtype)), torch.eye(len(each.T)).to(each)), during
    )


def _flat(arguments: Sequence[Any]) -> list[Any]:
    """The arguments, and what is in lists and tuples among them."""
    return [
        a for given in arguments for a in (given if isinstance(given, (list, tuple)) else [given])
    ]


def _in_groups(x: Tensor, during: Pass) -> Tensor:
    """Activations whose first dimension is G equal groups; one row for all becomes a row each.

    Raises:
        UserError: the rows cannot be told apart.
    """
    if x.shape[0] % during.groups == 0:
        return x
    if x.shape[0] == 1:
        return x.expand(during.rows, *x.shape[1:])
    raise _not_apart(x, during)


def _not_apart(x: Tensor, during: Pass) -> UserError:
    return UserError(
        f"engine.candidates_per_forward: the model works on {x.shape[0]} rows where "
        f"{during.groups} candidates have {during.rows}; candidates_per_forward=1 tells them apart"
    )


def _pass_of(*weights: Tensor | None) -> Pass:
    return next(w.during for w in weights if isinstance(w, Versions))


def _plain(a: Any) -> Any:
    """The parameter itself; what is no parameter is left as it is."""
    return a.as_subclass(Tensor) if isinstance(a, Versions) else a


def _value(w: Versions, g: int) -> Tensor:
    """Version g of a weight, formed: only for operations that have no rule of their own."""
    match w.change:
        case Thin(U, V, C, keep):
            product = U @ C[g] @ V.T
            formed: Tensor = _plain(w) * keep + product.view(w.shape)
            return formed.to(w.dtype)
        case Columns():
            return _vectors(w)[g]


def _vectors(p: Tensor) -> Tensor:
    """Every version of a vector, [G, d], in float32 or wider."""
    plain: Tensor = _plain(p).to(wide(p.dtype))
    if not isinstance(p, Versions):
        return plain[None]
    assert isinstance(p.change, Columns)
    return plain + p.change.s @ p.change.z.T


def _name(func: Callable[..., Any]) -> str:
    """The name of a function, or of the property that a getter gets."""
    name = getattr(func, "__name__", str(func))
    return str(getattr(func.__self__, "__name__", name)) if name == "__get__" else str(name)  # type: ignore[attr-defined]


_RULES: dict[Callable[..., Any], Callable[..., Any]] = {
    F.linear: _linear,
    torch.addmm: _addmm,
    F.embedding: _embedding,
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    torch.rms_norm: _rms_norm,
    Tensor.__getitem__: _rows,
}

_BY_ACTIVATION = set(_RULES) - {Tensor.__getitem__, torch.addmm}

# What a model may ask of a weight without using its values.
_ABOUT_FORM = {
    "shape", "dtype", "device", "ndim", "layout", "names", "requires_grad", "is_leaf", "grad",
    "is_cuda", "is_cpu", "is_mps", "is_xpu", "is_meta", "is_sparse", "is_quantized", "is_nested",
    "size", "dim", "numel", "nelement", "stride", "is_contiguous", "is_floating_point",
    "is_complex", "element_size", "get_device", "__len__", "__repr__", "__hash__", "data_ptr",
}  # fmt: skip
