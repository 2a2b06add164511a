"""What is wrong when the Hugging Face hub or its cache cannot be read, and what to do about it.

huggingface_hub is imported where it is used: a run that reads only local files does not need it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Kind = Literal["model", "dataset"]

_NAMES = {"model": "model", "dataset": "data set"}
_LOG_IN = "set HF_TOKEN or run `hf auth login`"
_AGAIN = "run the same command again"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE is set, so that nothing but the cache is read."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def ask_once(repo: str, kind: Kind, file: str, revision: str | None = None) -> None:
    """Ask the hub for a file's size, once and with a time limit, so that errors show at once.

    Without it the clients repeat a request that fails, for 23 seconds if the hub is unavailable and
    for minutes if it does not answer or limits the number of requests.

    Raises:
        Exception: what the client raises; see `problem`. A file that the repository does not have
            is an error too.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repo, file, repo_type=kind, revision=revision)
    get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)


def cached_commit(repo: str, kind: Kind, revision: str) -> str | None:
    """Return the commit that a revision was when it was last read; a commit is itself."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    if _COMMIT.fullmatch(revision):
        return revision
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type=kind)
    file = folder / "refs" / revision
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def damaged_download(repo: str, kind: Kind, since: float) -> str | None:
    """Find a downloaded file that is not what the hub has, and remove it from the cache.

    The clients compare only sizes. The cache names a large file by its SHA-256.

    Args:
        repo: the name on the hub.
        kind: what it is.
        since: only files that were downloaded after this time (seconds of the epoch) are read.

    Returns:
        The name of the file, or None if there is no such file.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type=kind)
    for blob in sorted(folder.glob("blobs/*")):
        if not _SHA256.fullmatch(blob.name) or blob.stat().st_mtime < since:
            continue
        with blob.open("rb") as content:
            right = hashlib.file_digest(content, "sha256").hexdigest() == blob.name
        if not right:
            links = [
                link for link in folder.glob("snapshots/*/**/*") if link.resolve() == blob.resolve()
            ]
            blob.unlink()
            return links[0].name if links else blob.name
    return None


def problem(error: BaseException, repo: str, kind: Kind) -> str | None:
    """Return what is wrong with ``repo`` and what to do, on one line and without a token.

    Args:
        error: what a client of the hub raised. The errors that it was raised from are looked at,
            too, because transformers and datasets replace the client's by their own.
        repo: the name on the hub.
        kind: what it is.

    Returns:
        None if the error is not about the hub, its cache or the way to it.
    """
    from huggingface_hub.errors import RemoteEntryNotFoundError

    for cause in _chain(error):
        text = _problem(cause, repo, kind)
        if text is not None:
            return without_token(text)
    if isinstance(error, RemoteEntryNotFoundError):
        return f"the {_NAMES[kind]} {repo!r} on the Hugging Face hub has no {_file(error)}"
    return None


def not_cached(repo: str, kind: Kind, detail: str = "") -> str:
    """Return what is wrong and what to do if HF_HUB_OFFLINE is set and the cache lacks ``repo``."""
    from huggingface_hub import constants

    return (
        f"{repo!r} is not a folder on this machine, HF_HUB_OFFLINE is set, and the {_NAMES[kind]}"
        f"{detail} is not, or not all of it, in the cache {constants.HF_HOME}; what to do: check "
        "the name, unset HF_HUB_OFFLINE if this machine can reach the hub, or "
        f"{_elsewhere(repo, kind)}"
    )


def without_token(text: str) -> str:
    """Return the text without the token of this machine and the signatures of addresses.

    The HTTP library quotes a header that it refuses to send, with the token in it.
    """
    from huggingface_hub import get_token

    text = _QUERY.sub(r"\1", text)
    token = get_token()
    return text.replace(token, "(token)") if token else text


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the first causes first: an error, and what it was raised from before it."""
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield from _chain(cause)
    yield error


def _problem(error: BaseException, repo: str, kind: Kind) -> str | None:
    from huggingface_hub import errors

    name = f"{_NAMES[kind]} {repo!r}"
    match error:
        case errors.GatedRepoError():
            return _gated(repo, kind)
        case errors.RepositoryNotFoundError():
            return (
                f"{repo!r} is not a folder on this machine, and the Hugging Face hub has no "
                f"{_NAMES[kind]} of this name, or this account may not see it; what to do: check "
                f"the name{_private()}"
            )
        case errors.RevisionNotFoundError():
            return f"the {name} on the Hugging Face hub has no such branch, tag or commit"
        case errors.RemoteEntryNotFoundError():
            return None  # a file that was looked for in vain, before what went wrong
        case errors.HFValidationError():
            return f"{repo!r} is neither a folder on this machine nor a name on the hub: {error}"
        case errors.HfHubHTTPError():
            return _answered(error.response, name, kind)
        case errors.OfflineModeIsEnabled() | errors.LocalEntryNotFoundError():
            return not_cached(repo, kind) if is_offline() else None
        case errors.FileMetadataError():
            return f"the {name} cannot be read: {error}"
        case UnicodeEncodeError():
            return f"a request for the {name} cannot be sent ({error}); what to do: check HF_TOKEN"
        case RuntimeError() if "scripts are no longer supported" in str(error):
            return (
                f"the {name} is a program on the branch main, which datasets does not run ({error}"
                "); what to do: read the hub's conversion of it with "
                "+task.source.hub.revision=refs/convert/parquet"
            )
    return _no_answer(error, name, repo, kind)


def _gated(repo: str, kind: Kind) -> str:
    from huggingface_hub import constants, get_token

    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo}"
    begin = f"the {_NAMES[kind]} {repo!r} on the Hugging Face hub is gated"
    if get_token() is None:
        return f"{begin}; what to do: accept its licence at {page}, then {_LOG_IN}"
    return (
        f"{begin} and the account of this machine's token has no access; what to do: accept its "
        f"licence at {page} with that account (a fine-grained token also needs the permission to "
        "read gated repositories)"
    )


def _private() -> str:
    from huggingface_hub import get_token

    if get_token() is None:
        return f"; for a private one {_LOG_IN}"
    return "; for a private one use a token of an account that may read it"


def _file(error: BaseException) -> str:
    found = re.search(r"/resolve/[^/\s]+/([^\s?]+)", str(error))
    return found[1].rstrip(".") if found else "such file"


def _answered(response: object, name: str, kind: Kind) -> str:
    """Return the problem for an answer with an error status that has no meaning of its own."""
    status = getattr(response, "status_code", None)
    if status == 401:
        return (
            "the Hugging Face hub refuses this machine's token; what to do: set HF_TOKEN to a "
            "valid one (or run `hf auth login`), or unset it for a public repository"
        )
    if status == 429:
        return (
            f"the Hugging Face hub limits this machine's requests (status 429) and did not give "
            f"the {name}; what to do: wait {_wait(response)}, then {_AGAIN}"
            f"{_token_advice()}{_cache_advice()}"
        )
    if isinstance(status, int) and status >= 500:
        return (
            f"the Hugging Face hub has a problem of its own (status {status}) and did not give the "
            f"{name}; what to do: {_AGAIN} later{_cache_advice()}"
        )
    return f"the Hugging Face hub did not give the {name} (status {status}){_cache_advice()}"


def _wait(response: object) -> str:
    headers = getattr(response, "headers", {})
    reset = re.search(r"\bt=(\d+)", headers.get("ratelimit", ""))
    seconds = reset[1] if reset else headers.get("retry-after")
    return f"{seconds} seconds" if seconds else "some minutes"


def _token_advice() -> str:
    from huggingface_hub import get_token

    return "" if get_token() else f" (with an account the limit is higher: {_LOG_IN})"


def _no_answer(error: BaseException, name: str, repo: str, kind: Kind) -> str | None:
    """Return the problem for an error of the HTTP library.

    Its classes are known by their names, because each version of huggingface_hub has another
    library: requests, httpx, httpx2.
    """
    from huggingface_hub import constants

    names = {base.__name__ for base in type(error).__mro__}
    if "TimeoutException" in names:
        return (
            f"the Hugging Face hub did not answer in time when asked for the {name}; what to do: "
            f"{_AGAIN}, or with HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT set to more than "
            f"{constants.HF_HUB_DOWNLOAD_TIMEOUT} seconds{_cache_advice()}"
        )
    if "ConnectError" in names or "ProxyError" in names:
        return (
            f"cannot reach {constants.ENDPOINT} for the {name} ({error}); what to do: "
            f"{_elsewhere(repo, kind)}{_cache_advice()}"
        )
    if "LocalProtocolError" in names:
        return f"a request for the {name} cannot be sent ({error}); what to do: check HF_TOKEN"
    if "TransportError" in names or "Consistency check failed" in str(error):
        return (
            f"the download of the {name} broke off ({str(error).splitlines()[0]}); what to do: "
            f"{_AGAIN}; files that are complete are not downloaded again"
        )
    return None


def _elsewhere(repo: str, kind: Kind) -> str:
    if kind == "model":
        return (
            f"run `hf download {repo} --local-dir DIR` on a machine that can reach the hub, copy "
            "DIR to this machine, and set model.path=DIR"
        )
    return "run the command once on a machine that can reach the hub and copy its cache (HF_HOME)"


def _cache_advice() -> str:
    return "; or set HF_HUB_OFFLINE=1 to use what was downloaded earlier"
