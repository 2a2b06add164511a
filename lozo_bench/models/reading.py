"""Turn every error of reading a model's files into a one-line UserError."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from lozo_bench.errors import UserError

# Found by trial: what transformers 5.23 raises for absent, truncated and corrupt files of each
# kind.
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
_LONGEST_MESSAGE = 300


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn errors that ``from_pretrained(path)`` raises about the files into a UserError.

    The message says what to do. Errors that are not about the files pass through unchanged.
    """
    try:
        yield
    except ImportError as err:
        message = " ".join(str(err).split())[:_LONGEST_MESSAGE]
        raise UserError(
            f"model.path: {path} needs a package that is not installed here or is too old "
            f"({message}); what to do: install it, or choose another model"
        ) from err
    except Exception as err:
        # The tokenizers library, which is written in Rust, raises a plain Exception. Subclasses of
        # Exception that are not listed (out of memory) are not about the files.
        if isinstance(err, _UNREADABLE) or type(err) is Exception:
            raise _user_error(path, err) from err
        raise


def _user_error(path: str, err: Exception) -> UserError:
    reason = (str(err).strip().splitlines() or [type(err).__name__])[0].rstrip(".")
    if Path(path).is_dir():
        return UserError(
            f"model.path: cannot load {path} ({type(err).__name__}: {reason}); allowed: a complete "
            "folder as written by save_pretrained or `hf download NAME --local-dir DIR`"
        )
    if isinstance(err, OSError):
        return UserError(
            f"model.path: {path!r} is not a folder on this machine and could not be read from the "
            f"Hugging Face hub or its cache ({reason}); what to do: run "
            f"`hf download {path} --local-dir DIR` on a machine that can reach the hub, copy DIR "
            "to this machine, and set model.path=DIR"
        )
    return UserError(
        f"model.path: cannot load {path!r} from the Hugging Face hub "
        f"({type(err).__name__}: {reason})"
    )
