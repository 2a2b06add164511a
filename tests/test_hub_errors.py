"""What is said about errors of the hub's clients; `test_with_standin_hub` has the real ones."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from huggingface_hub.errors import RemoteEntryNotFoundError

from lozo_bench import hub

TOKEN = "hf_" + "t" * 34


class LocalProtocolError(Exception):
    """Named as in httpx, which quotes a header that it cannot send."""


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def test_a_header_that_the_http_library_quotes_does_not_show_the_token() -> None:
    error = LocalProtocolError(f"Illegal header value b'Bearer {TOKEN}'")
    text = hub.problem(error, "a/b", "model")
    assert text is not None
    assert TOKEN not in text
    assert "check HF_TOKEN" in text


def test_the_signature_of_an_address_is_not_shown() -> None:
    text = hub.without_token(f"403 for https://cdn.example/file?Signature=abc&Key=d ({TOKEN})")
    assert text == "403 for https://cdn.example/file ((token))"


def test_the_first_cause_counts_and_not_what_was_made_of_it() -> None:
    made = OSError("We couldn't connect to the hub")
    made.__cause__ = LocalProtocolError("Illegal header value")
    assert "cannot be sent" in str(hub.problem(made, "a/b", "model"))


def test_a_file_that_was_looked_for_in_vain_is_not_the_problem() -> None:
    absent, made = RemoteEntryNotFoundError.__new__(RemoteEntryNotFoundError), KeyError("x")
    made.__context__ = absent
    assert hub.problem(made, "a/b", "model") is None
    assert "has no such file" in str(hub.problem(absent, "a/b", "model"))


def test_an_error_that_is_not_about_the_hub_is_left_alone() -> None:
    assert hub.problem(ValueError("no such type"), "a/b", "model") is None


def test_only_files_that_were_just_downloaded_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    began = time.time()
    for name in ("0" * 64, "1" * 40):  # a SHA-256 that is wrong, and a name that is none
        (blobs / name).write_bytes(b"weights")
    os.utime(blobs / ("0" * 64), (began - 9, began - 9))
    assert hub.damaged_download("a/b", "model", began) is None
    assert hub.damaged_download("a/b", "model", began - 10) == "0" * 64
    assert [blob.name for blob in blobs.iterdir()] == ["1" * 40]
