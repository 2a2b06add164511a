"""A tensor that represents several versions of one weight during a forward pass.

A `Versions` tensor replaces a parameter of a model while candidates are scored. It shares the
memory of the parameter. The model runs on G copies of a batch, one for each version, stacked along
the first dimension: the activations consist of G equal groups of rows. Wherever the model
multiplies by the weight, looks up rows in it or scales with it, the result is computed for all
versions g = 1, ..., G at once:

    linear      y_g = x_g W^T + (x_g V) (U C_g)^T + b + z s_g
    embedding   y_g = W[ids_g] + (U[ids_g] C_g) V^T
    others      version by version, with the vector or matrix of each version formed

Torch calls `Versions.__torch_function__` for every operation on the tensor. Nothing depends on the
type of a module. Therefore no model needs code of its own here, a tied weight is one tensor and
gets one perturbation, and operations without a rule are still exact, only slower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lozo_bench.engine.formed import (
    embedded,
    formed_now,
    is_worth_forming,
    times_formed,
)
from lozo_bench.engine.norm_kernels import has_norm_kernel, layer_norm, rms_norm
from lozo_bench.engine.prepared import (
    PreparedMatrix,
    PreparedVector,
    add_embedding,
    add_linear,
    add_product,
    add_transposed,
)
from lozo_bench.engine.tensors import wide
from lozo_bench.errors import UserError


@dataclass(slots=True)
class ForwardPass:
    """One forward pass.

    Attributes:
        versions: how many versions of the weights it computes.
        rows: how many rows of input they have together.
        keep: factor of every matrix whose versions are prepared (weight decay that is not yet
            written to it).
    """

    versions: int = 1
    rows: int = 1
    keep: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class LowRankChange:
    """The versions of a matrix W: keep W + U C_g V^T.

    Attributes:
        U: left factors [m, a], float32 or float64.
        V: right factors [n, b], likewise.
        C: cores [G, a, b], likewise.
        keep: factor of W (weight decay that is not yet written to W).
    """

    U: Tensor
    V: Tensor
    C: Tensor
    keep: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class VectorChange:
    """The versions of a vector p: p + z s_g; ``z`` [d, e] and ``s`` [G, e], float32 or float64."""

    z: Tensor
    s: Tensor


Change = LowRankChange | VectorChange | PreparedMatrix | PreparedVector


class Versions(Tensor):
    """G versions of a parameter; the tensor's own data is the parameter's memory."""

    change: Change
    forward_pass: ForwardPass

    @staticmethod
    def of(plain: Tensor, change: Change, forward_pass: ForwardPass) -> Versions:
        """Return the versions of ``plain`` that ``change`` describes."""
        versions: Versions = Tensor._make_subclass(Versions, plain.detach())
        versions.change, versions.forward_pass = change, forward_pass
        return versions

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute the torch function ``func`` for all versions."""
        with torch._C.DisableTorchFunctionSubclass():
            rule = _RULES.get(func)
            if rule is not None and not _weight_as_activation(func, args, kwargs):
                return rule(*args, **(kwargs or {}))
            if _name(func) in _METADATA:
                return func(*args, **(kwargs or {}))
            return _version_by_version(func, args, dict(kwargs or {}))


def _weight_as_activation(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> bool:
    """Return whether a weight is passed where the rule of ``func`` expects activations."""
    first = args[0] if args else (kwargs or {}).get("input")
    return func in _ACTIVATION_FIRST and isinstance(first, Versions)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    change = weight.change if isinstance(weight, Versions) else None
    forward_pass = _forward_pass_of(weight, bias)
    if isinstance(change, PreparedMatrix):
        x = _grouped_rows(input, forward_pass)
        if change.formed is not None:
            return times_formed(x, change.formed.mT, _vectors_or_none(bias))
        if is_worth_forming(change, x[..., 0].numel()):
            b = None if bias is None else _vectors(bias)[0]
            return F.linear(x, formed_now(_plain(weight), change, forward_pass.keep), b)
        y = F.linear(_kept(x, forward_pass), _plain(weight), _plain(bias))
        add_linear(y, x, change, _prepared(bias))
        return y
    return _product(input, change, bias, forward_pass, lambda x, p: F.linear(x, _plain(weight), p))


def _addmm(b: Tensor, x: Tensor, W: Tensor, **scales: float) -> Tensor:
    """B + x W, used by GPT-2's Conv1D: W is [in, out], the transpose of a linear layer's weight."""
    if scales or isinstance(x, Versions) or b.ndim != 1:
        one: Tensor = _version_by_version(torch.addmm, (b, x, W), scales)
        return one
    change = W.change if isinstance(W, Versions) else None
    if isinstance(change, PreparedMatrix):
        forward_pass = _forward_pass_of(W)
        x = _grouped_rows(x, forward_pass)
        if change.formed is not None:
            return times_formed(x, change.formed, _vectors(b))
        y = torch.addmm(_plain(b), _kept(x, forward_pass), _plain(W))
        add_transposed(y, x, change, _prepared(b))
        return y
    if isinstance(change, LowRankChange):
        change = LowRankChange(U=change.V, V=change.U, C=change.C.mT, keep=change.keep)

    def plain(x: Tensor, p: Tensor | None) -> Tensor:
        return x @ _plain(W) if p is None else torch.addmm(p, x, _plain(W))

    return _product(x, change, b, _forward_pass_of(W, b), plain)


def _product(
    x: Tensor,
    change: Change | None,
    b: Tensor | None,
    forward_pass: ForwardPass,
    plain: Callable[[Tensor, Tensor | None], Tensor],
) -> Tensor:
    """Return the product with the plain weight plus the versions' changes, added in place.

    The change of the bias is one more low-rank column: ones beside x V.

    Args:
        x: activations [rows, ..., n].
        change: the versions of the weight, as a matrix [m, n]; None for a plain weight.
        b: the bias [m], or None.
        forward_pass: the forward pass.
        plain: plain(x, b), the product of x with the plain weight plus the bias b.
    """
    assert change is None or isinstance(change, LowRankChange)
    x = _grouped_rows(x, forward_pass)
    G, N = forward_pass.versions, x[..., 0].numel() // forward_pass.versions
    right, left = [], []  # y_g += right_g left_g
    if change is not None:
        # A contiguous V^T makes the product several times faster on a CPU.
        xv = F.linear(x.reshape(-1, x.shape[-1]), change.V.T.to(x.dtype).contiguous())
        right.append(xv.view(G, N, xv.shape[-1]))
        left.append(torch.matmul(change.C.mT, change.U.T).to(x.dtype))
    if isinstance(b, Versions):
        if G == 1 and b.dtype == wide(b.dtype):
            b = _vectors(b)[0]
        else:  # p + z s_g differs between versions, or its rounding to p's dtype would lose z s_g
            right.append(x.new_ones(G, N, 1))
            left.append(_change_of_vector(b)[:, None].to(x.dtype))
            b = _plain(b)
    y = plain(x if change is None or change.keep == 1 else x * change.keep, b)
    if right:
        add_product(y, torch.cat(right, dim=2), torch.cat(left, dim=1))
    return y


def _embedding(input: Tensor, weight: Versions, *args: Any, **kwargs: Any) -> Tensor:
    ids, change, forward_pass = input, weight.change, weight.forward_pass
    assert isinstance(change, (LowRankChange, PreparedMatrix))
    if forward_pass.versions > 1 and ids.ndim > 1 and len(ids) not in (1, forward_pass.rows):
        # ids is not a batch, but for example a table of relative positions, [T, T].
        raise _rows_mismatch(ids, forward_pass)
    ids = _grouped_rows(ids, forward_pass)
    if isinstance(change, PreparedMatrix) and change.formed is not None:
        return embedded(ids, change.formed, *args, **kwargs)
    y: Tensor = F.embedding(ids, _plain(weight), *args, **kwargs)
    if isinstance(change, PreparedMatrix):
        y = _kept(y, forward_pass)
        add_embedding(y, ids, change)
        return y
    if change.keep != 1:
        y = y * change.keep
    G = forward_pass.versions
    u = change.U[ids.reshape(-1)].view(G, ids.numel() // G, change.U.shape[1])
    uc = torch.bmm(u, change.C).to(y.dtype)
    add_product(y, uc, change.V.T.to(y.dtype).contiguous().expand(G, -1, -1))
    return y


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    forward_pass, shape = _forward_pass_of(weight, bias), normalized_shape
    if len(shape) != 1:  # its weight is a matrix, or has more dimensions
        one: Tensor = _version_by_version(F.layer_norm, (input, shape, weight, bias, eps), {})
        return one
    x = _grouped_rows(input, forward_pass)
    if forward_pass.versions == 1 and x.dtype == wide(x.dtype):
        w = None if weight is None else _vectors(weight)[0]
        return F.layer_norm(x, shape, w, None if bias is None else _vectors(bias)[0], eps)
    if has_norm_kernel(x):
        w, b = _vectors_or_none(weight), _vectors_or_none(bias)
        return layer_norm(x, w, b, forward_pass.versions, eps)
    normal = F.layer_norm(x, shape, None, None, eps)
    return _scaled(normal, weight, bias, forward_pass.versions)


def _rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    if len(normalized_shape) != 1:  # as in `_layer_norm`
        one: Tensor = _version_by_version(F.rms_norm, (input, normalized_shape, weight, eps), {})
        return one
    forward_pass = _forward_pass_of(weight)
    x = _grouped_rows(input, forward_pass)
    if eps is not None and has_norm_kernel(x):
        w = None if weight is None else _vectors(weight)
        return rms_norm(x, w, forward_pass.versions, eps)
    normal = F.rms_norm(x, normalized_shape, None, eps)
    return _scaled(normal, weight, None, forward_pass.versions)


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None, G: int) -> Tensor:
    """Return x_g w_g + b_g, computed in float32 or float64 and rounded once.

    It overwrites x, unless x is differentiated.
    """
    groups = x.view(G, -1, x.shape[-1])
    w, b = (None if p is None else _vectors(p)[:, None] for p in (weight, bias))
    out = None if _differentiated(x) else groups
    if w is not None and b is not None:
        groups = torch.addcmul(b, groups, w, out=out)
    elif w is not None:
        groups = torch.mul(groups, w, out=out)
    elif b is not None:
        groups = torch.add(groups, b, out=out)
    return groups.to(x.dtype).view(x.shape)


def _differentiated(x: Tensor) -> bool:
    """Return whether operations on x are recorded for a backward pass."""
    return torch.is_grad_enabled() and x.requires_grad


def _mul(a: Any, b: Any) -> Any:
    """Return the product of a vector's versions with activations [rows, ..., d], rounded once."""
    p, x = (a, b) if isinstance(a, Versions) else (b, a)
    if p.ndim != 1 or isinstance(x, Versions) or not isinstance(x, Tensor) or x.ndim < 2:
        return _version_by_version(torch.mul, (a, b), {})
    if x.shape[-1] != len(p) or not x.is_floating_point():
        return _version_by_version(torch.mul, (a, b), {})
    x, G = _grouped_rows(x, p.forward_pass), p.forward_pass.versions
    dtype, groups = torch.promote_types(x.dtype, p.dtype), x.reshape(G, -1, len(p))
    if _differentiated(x):
        return (groups * _vectors(p)[:, None]).to(dtype).view(x.shape)
    y = x.new_empty(x.shape, dtype=dtype)
    torch.mul(groups, _vectors(p)[:, None], out=y.view(groups.shape))
    return y


def _getitem(W: Versions, index: Any) -> Any:
    """Return W[index]; selected rows of a matrix or entries of a vector remain `Versions`."""
    plain = _plain(W)[index]
    rows = W.ndim == plain.ndim and not isinstance(index, tuple)
    match W.change:
        case LowRankChange(U, V, C, keep) if rows and W.ndim == 2:
            return Versions.of(plain, LowRankChange(U[index], V, C, keep), W.forward_pass)
        case VectorChange(z, s) if rows:
            return Versions.of(plain, VectorChange(z[index], s), W.forward_pass)
        case PreparedMatrix() if rows and W.ndim == 2:
            return Versions.of(plain, W.change.rows(index), W.forward_pass)
        case PreparedVector(change, values) if rows:
            chosen = PreparedVector(change[:, index], values[:, index])
            return Versions.of(plain, chosen, W.forward_pass)
    return _version_by_version(Tensor.__getitem__, (W, index), {})


def _version_by_version(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Compute any other operation for one version after another and concatenate the results.

    If there is only one version, its value is formed and any operation works. Several versions need
    activations among the arguments, whose rows belong to one version each. Without activations, an
    operation on a single vector (w.float(), 1 + w) returns `Versions` again; any other operation is
    refused.

    Raises:
        UserError: the operation cannot be computed for several versions.
    """
    given = [*_flattened(args), *_flattened(list(kwargs.values()))]
    tensors = [a for a in given if isinstance(a, Tensor)]
    versions = [a for a in tensors if isinstance(a, Versions)]
    forward_pass = versions[0].forward_pass
    G = forward_pass.versions

    def of_version(g: int, sliced: bool) -> Any:
        def own(a: Any) -> Any:
            if isinstance(a, Versions):
                return _value(a, g)
            if isinstance(a, (list, tuple)):
                return type(a)(map(own, a))
            if sliced and isinstance(a, Tensor) and a.ndim > 1:
                return _grouped_rows(a, forward_pass).chunk(G)[g]
            return a

        return func(*map(own, args), **{key: own(a) for key, a in kwargs.items()})

    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    if G == 1:
        one = of_version(0, sliced=False)
        alone = len(versions) == len(tensors)
        return one.to(dtype) if isinstance(one, Tensor) and not alone else one
    if len(versions) < len(tensors):
        return torch.cat([of_version(g, sliced=True) for g in range(G)]).to(dtype)
    plain = func(*map(_plain, args), **{key: _plain(a) for key, a in kwargs.items()})
    if len(versions) > 1 or not isinstance(plain, Tensor) or plain.ndim != 1:
        raise _refused(func)
    each = torch.stack([of_version(g, sliced=False) - plain for g in range(G)], dim=1)
    return Versions.of(
        plain,
        VectorChange(each.to(wide(each.dtype)), torch.eye(len(each.T)).to(each)),
        forward_pass,
    )


def _refused(func: Callable[..., Any]) -> UserError:
    return UserError(
        f"engine.candidates_per_forward: the model uses a weight in torch's {_name(func)}, "
        "which cannot be computed for several candidates at once; candidates_per_forward=1 "
        "scores them one by one, and engine.mode=in_place works for every model"
    )


def _flattened(arguments: Sequence[Any]) -> list[Any]:
    """Return the arguments, with the elements of lists and tuples in place of these."""
    return [
        a for given in arguments for a in (given if isinstance(given, (list, tuple)) else [given])
    ]


def _grouped_rows(x: Tensor, forward_pass: ForwardPass) -> Tensor:
    """Return activations whose first dimension consists of G equal groups of rows.

    A single row that all rows of the batch share is expanded to one row for each.

    Raises:
        UserError: the number of rows is not a multiple of the number of versions.
    """
    if x.shape[0] % forward_pass.versions == 0:
        return x
    if x.shape[0] == 1:
        return x.expand(forward_pass.rows, *x.shape[1:])
    raise _rows_mismatch(x, forward_pass)


def _rows_mismatch(x: Tensor, forward_pass: ForwardPass) -> UserError:
    return UserError(
        f"engine.candidates_per_forward: an operation of the model has {x.shape[0]} rows, but the "
        f"{forward_pass.versions} candidates together have {forward_pass.rows}, so its rows cannot "
        "be assigned to candidates; set candidates_per_forward=1 for this model"
    )


def _kept(x: Tensor, forward_pass: ForwardPass) -> Tensor:
    """Return x times the factor of the matrices."""
    return x if forward_pass.keep == 1 else x * forward_pass.keep


def _forward_pass_of(*weights: Tensor | None) -> ForwardPass:
    return next(w.forward_pass for w in weights if isinstance(w, Versions))


def _plain(a: Any) -> Any:
    """Return the plain parameter of a `Versions` tensor, and any other value unchanged."""
    return a.as_subclass(Tensor) if isinstance(a, Versions) else a


def _value(w: Versions, g: int) -> Tensor:
    """Form version g of a weight, for operations without a rule."""
    match w.change:
        case LowRankChange(U, V, C, keep):
            product = U @ C[g] @ V.T
            formed: Tensor = _plain(w) * keep + product.view(w.shape)
            return formed.to(w.dtype)
        case PreparedMatrix():
            return w.change.value(_plain(w), g, w.forward_pass.keep)
        case _:
            return _vectors(w)[g]


def _vectors(p: Tensor) -> Tensor:
    """Return every version of a vector, [G, d], in float32 or float64; [1, d] of a plain vector."""
    if isinstance(p, Versions) and isinstance(p.change, PreparedVector):
        return p.change.values
    plain: Tensor = _plain(p).to(wide(p.dtype))
    return plain + _change_of_vector(p) if isinstance(p, Versions) else plain[None]


def _vectors_or_none(p: Tensor | None) -> Tensor | None:
    return None if p is None else _vectors(p)


def _change_of_vector(p: Versions) -> Tensor:
    """Return what every version adds to a vector, [G, d], in float32 or float64."""
    if isinstance(p.change, PreparedVector):
        return p.change.change
    assert isinstance(p.change, VectorChange)
    return p.change.s @ p.change.z.T


def _prepared(b: Tensor | None) -> PreparedVector | None:
    """Return the versions of a bias in prepared form; None of a plain one."""
    if not isinstance(b, Versions):
        return None
    if isinstance(b.change, PreparedVector):
        return b.change
    return PreparedVector(_change_of_vector(b), _vectors(b))


def _name(func: Callable[..., Any]) -> str:
    """Return the name of a function; for the getter of a property, the name of the property."""
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
    Tensor.__getitem__: _getitem,
    torch.mul: _mul,
    Tensor.mul: _mul,
    Tensor.__mul__: _mul,
    Tensor.__rmul__: _mul,
}

_ACTIVATION_FIRST = {
    *(F.linear, F.embedding),
    *(F.layer_norm, torch.layer_norm, F.rms_norm, torch.rms_norm),
}

# Functions and properties that do not use the values of a weight: they return the plain result.
_METADATA = {
    "shape", "dtype", "device", "ndim", "layout", "names", "requires_grad", "is_leaf", "grad",
    "is_cuda", "is_cpu", "is_mps", "is_xpu", "is_meta", "is_sparse", "is_quantized", "is_nested",
    "size", "dim", "numel", "nelement", "stride", "is_contiguous", "is_floating_point",
    "is_complex", "element_size", "get_device", "__len__", "__repr__", "__hash__", "data_ptr",
}  # fmt: skip
