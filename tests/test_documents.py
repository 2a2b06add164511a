"""The links and paths in the documents lead somewhere."""

from __future__ import annotations

import re

import documents
import pytest
import test_architecture

ROOT = documents.ROOT
IDS = [str(path.relative_to(ROOT)) for path in documents.DOCUMENTS]
TOP = {path.name for path in ROOT.iterdir()}
# A path of the repository in backticks: it has a slash or a suffix, and no placeholders.
PATH = re.compile(r"`([\w.*-]+(?:/[\w.*-]*)*)`")
# What stands in the documents but is created by running something.
CREATED = ("outputs", "wandb", "checkpoints", ".hydra", ".venv", "my_rows", "my_conf")


def is_old(line):
    """Whether a line is a row of CHANGELOG's table of moves, whose first column has old paths."""
    return line.strip().startswith("| `")


def without_old_paths(name, text):
    if name != "CHANGELOG.md":
        return text
    lines = [line.split("|", 2)[2] if is_old(line) else line for line in text.splitlines()]
    return "\n".join(lines)


def exists(document, path):
    """Whether a path exists, from the root, the document's folder or the package."""
    bases = (ROOT, document.parent, ROOT / "lozo_bench")
    return any(list(base.glob(path.rstrip("/"))) for base in bases)


@pytest.mark.parametrize("document", documents.DOCUMENTS, ids=IDS)
def test_every_relative_link_leads_to_a_file_and_a_heading(document):
    for target in re.findall(r"\]\(([^)]+)\)", documents.without_blocks(document)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, heading = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
            assert heading in slugs, target


@pytest.mark.parametrize("document", documents.DOCUMENTS, ids=IDS)
def test_every_path_in_backticks_exists(document):
    text = without_old_paths(document.name, documents.without_blocks(document))
    for path in PATH.findall(text):
        first = path.split("/")[0]
        is_path = "/" in path and (
            first in TOP or path.endswith((".py", ".yaml", ".sh", ".md", "/"))
        )
        if is_path and first not in CREATED and path not in NEW:
            assert exists(document, path), path


# Files that a document tells its reader to create.
NEW = {
    "conf/model/my_opt.yaml",
    "conf/optimizer/sign_lozo.yaml",
    "conf/task/tweets.yaml",
    "lozo_bench/optimizers/sign_lozo.py",
    # The names that stand for others:
    "conf/tuned/TUNING/OPTIMIZER-MODEL-TASK.yaml",
}


def first_cells(path):
    """What stands in backticks in the first cells of a document's tables."""
    rows = re.findall(r"^\| (`.*?) \|", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {name.rstrip("/") for row in rows for name in re.findall(r"`(.*?)`", row)}


def test_every_room_is_explained():
    rooms = {name.removesuffix(".py") for name in first_cells(ROOT / "lozo_bench/README.md")}
    assert rooms == set(test_architecture.ALLOWED)


def test_every_optimizer_and_every_published_table_is_listed():
    for folder, document in (("optimizer", "optimizers"), ("experiment", "tables")):
        text = (ROOT / f"lozo_bench/{document}/README.md").read_text(encoding="utf-8")
        for option in (ROOT / "conf" / folder).glob("*.yaml"):
            name = option.stem.replace("_k512", "_k16")  # two tables in one row
            assert f"`{name}`" in text or f"{folder}={name}`" in text or name == "smoke", name


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 220
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 100
