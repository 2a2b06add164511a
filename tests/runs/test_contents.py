"""Large files are recognized by their contents, and read only once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lozo_bench.config import digest
from lozo_bench.errors import UserError
from lozo_bench.runs import contents
from lozo_bench.runs.contents import check_contents, content_hashes


@pytest.fixture
def large(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "model" / "model.safetensors"
    path.parent.mkdir()
    path.write_bytes(bytes(100))
    return path


def test_only_files_that_the_digest_does_not_read_are_listed(large, monkeypatch):
    (large.parent / "config.json").write_text("{}")
    config = {"model": {"path": str(large.parent)}, "task": {"data_dir": "not there"}}
    assert digest.large_files(config) == []
    monkeypatch.setattr(digest, "_READ_WHOLE_BYTES", 50)
    assert digest.large_files(config) == [large]


def test_a_file_is_read_once_until_it_changes(large, monkeypatch):
    read = []
    original = contents._hash
    monkeypatch.setattr(contents, "_hash", lambda *of: read.append(of[0]) or original(*of))
    before = content_hashes([large])
    assert content_hashes([large]) == before
    assert read == [large]
    large.write_bytes(b"x" + bytes(99))
    os.utime(large, ns=(1, 1))
    after = content_hashes([large])
    assert after != before
    assert read == [large, large]
    with pytest.raises(UserError, match=r"model\.safetensors: its content is not the one"):
        check_contents(before, after)
    check_contents({}, after)  # a run of a former version


def test_a_damaged_cache_is_not_believed_and_none_is_needed(large, monkeypatch):
    before = content_hashes([large])
    (entry,) = (Path(os.environ["XDG_CACHE_HOME"]) / "lozo_bench").iterdir()
    entry.write_text(entry.read_text().replace(before[str(large)][:4], "0000"))
    assert content_hashes([large]) == before
    monkeypatch.setenv("XDG_CACHE_HOME", str(large))  # no folder can be made there
    assert content_hashes([large]) == before
