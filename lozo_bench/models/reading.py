"""One sentence for every way in which a model's files can fail to be read."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from lozo_bench.errors import UserError

# What transformers 5.23 was seen to raise for absent, truncated and garbled files of each sort.
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    pickle.UnpicklingError,
    SafetensorError,
    StrictDataclassError,
)


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn what ``from_pretrained(path)`` raises about the files into a UserError with a remedy."""
    try:
        yield
    except Exception as err:
        # The tokenizers library, written in Rust, raises a bare Exception; its subclasses that are
        # not listed (out of memory, a missing package) are not about the files.
        if isinstance(err, _UNREADABLE) or type(err) is Exception:
            raise _told(path, err) from err
        raise


def _told(path: str, err: Exception) -> UserError:
    reason = (str(err).strip().splitlines() or [type(err).__name__])[0].rstrip(".")
    if Path(path).is_dir():
        return UserError(
            f"model.path: cannot load {path} ({type(err).__name__}: {reason}); allowed: a complete "
            "folder as written by save_pretrained or `hf download NAME --local-dir DIR`"
        )
    if isinstance(err, OSError):
        return UserError(
            f"model.path: {path!r} is no folder here and could not be had from the Hugging Face "
            f"hub or its cache ({reason}); what to do: on a machine that reaches the hub run "
            f"`hf download {path} --local-dir DIR`, bring DIR here, and say model.path=DIR"
        )
    return UserError(
        f"model.path: cannot load {path!r} of the Hugging Face hub ({type(err).__name__}: {reason})"
    )
