"""Turn every error of reading a model's files into a one-line UserError."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from lozo_bench import hub
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

    Raises:
        UserError: a file cannot be read, or one that was downloaded meanwhile came damaged.
    """
    began = time.time()
    try:
        yield
        _check_downloads(path, began)
    except UserError:
        raise
    except ImportError as err:
        message = " ".join(str(err).split())[:_LONGEST_MESSAGE]
        raise UserError(
            f"model.path: {path} needs a package that is not installed here or is too old "
            f"({message}); what to do: install it, or choose another model"
        ) from err
    except Exception as err:
        # The tokenizers library, which is written in Rust, raises a plain Exception. Subclasses of
        # Exception that are not listed (out of memory) are not about the files.
        problem = None if Path(path).is_dir() else hub.problem(err, path, "model")
        if problem is not None:
            raise UserError(f"model.path: {problem}") from err
        if isinstance(err, _UNREADABLE) or type(err) is Exception:
            _check_downloads(path, began)
            raise _user_error(path, err) from err
        raise


def check_access(path: str) -> None:
    """Check that this machine may read a model on the hub, unless its config.json is in the cache.

    Args:
        path: a folder, for which nothing is checked, or a hub name.

    Raises:
        UserError: the hub does not give the model, or cannot be reached.
    """
    with reading(path):
        if Path(path).is_dir() or hub.is_offline():
            return
        if not isinstance(try_to_load_from_cache(path, "config.json"), str):
            hub.ask_once(path, "model", "config.json")


def _check_downloads(path: str, since: float) -> None:
    if Path(path).is_dir():
        return
    damaged = hub.damaged_download(path, "model", since)
    if damaged is not None:
        raise UserError(
            f"model.path: {damaged} of {path!r} was damaged on its way from the hub (its SHA-256 "
            "differs) and has been removed from the cache; what to do: run the same command again"
        )


def _user_error(path: str, err: Exception) -> UserError:
    reason = (str(err).strip().splitlines() or [type(err).__name__])[0].rstrip(".")
    reason = hub.without_token(reason)
    if Path(path).is_dir():
        return UserError(
            f"model.path: cannot load {path} ({type(err).__name__}: {reason}); allowed: a complete "
            "folder as written by save_pretrained or `hf download NAME --local-dir DIR`"
        )
    return UserError(
        f"model.path: cannot load {path!r} from the Hugging Face hub or its cache "
        f"({type(err).__name__}: {reason}); allowed: a repository with config.json, weights and a "
        f"tokenizer; what to do: check the name, or `hf cache verify {path}` if it was complete"
    )
