"""Errors while a model's files are read: which become a UserError, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lozo_bench.errors import UserError
from lozo_bench.models.reading import reading


def test_running_out_of_memory_is_not_blamed_on_the_files(tmp_path: Path) -> None:
    with pytest.raises(torch.OutOfMemoryError), reading(str(tmp_path)):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_an_error_without_a_message_is_described_by_its_type(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\(EOFError: EOFError\)"), reading(str(tmp_path)):
        raise EOFError


def test_a_hub_model_of_unknown_type_is_not_called_unreachable() -> None:
    with pytest.raises(UserError) as error, reading("a/b"):
        raise ValueError("no such type.\nUpdate.")
    assert (
        "cannot load 'a/b' from the Hugging Face hub or its cache (ValueError: no such type)"
        in (str(error.value))
    )
    assert "hf download" not in str(error.value)


def test_a_package_that_is_missing_is_named_in_one_line() -> None:
    with pytest.raises(UserError) as error, reading("a/b"):
        raise ImportError("\nThis tokenizer requires the NEEDED library\nbut it was not found.\n")
    assert str(error.value) == (
        "model.path: a/b needs a package that is not installed here or is too old (This tokenizer "
        "requires the NEEDED library but it was not found.); what to do: install it, or choose "
        "another model"
    )
