"""The full data that a protocol takes its rows from: two files, or a data set on the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lozo_bench.errors import bad_value
from lozo_bench.tasks.files import read_full
from lozo_bench.tasks.hub import Hub
from lozo_bench.tasks.rows import Layout, Row, labelled

INSTEAD = "use task.data_dir=DIR (a folder with the full data)"


@dataclass(frozen=True, slots=True)
class Full:
    """All labelled rows of the train and test split, their ``layout``, and ``where`` they are."""

    train: list[Row]
    test: list[Row]
    layout: Layout
    where: str


def check_places(data_dir: str | None, files: Mapping[str, str], hub: object) -> None:
    """Raise BadValueError unless there are a train and a test file, and a place to read them from.

    The keys are relative to ``task.source``.
    """
    if set(files) != {"train", "test"}:
        raise bad_value("files", files, "a file name without extension for train and test")
    if data_dir is None and hub is None:
        raise bad_value("hub", hub, f"a data set on the hub; or {INSTEAD}")


def read_both(
    folder: str | None,
    key: str,
    files: Mapping[str, str],
    layout: Layout,
    hub: Hub | None,
    instead: str,
    test_layout: Layout | None = None,
) -> Full:
    """The rows of ``folder`` if it is given, else of ``hub``.

    ``key`` is the config key that names the folder, ``files`` the train and the test file in it,
    ``instead`` what to do without a hub. ``test_layout`` is the test file's, where its columns are
    others. Raises UserError naming file and line.
    """
    if folder is not None:
        layouts = {"train": layout, "test": test_layout or layout}
        rows = {split: read_full(folder, files[split], key, layouts[split]) for split in layouts}
        where = folder
    else:
        assert hub is not None
        layout, where = hub.layout(layout), f"hub:{hub.path}"
        rows = {"train": hub.read(hub.train, instead), "test": hub.read(hub.test, instead)}
    return Full(labelled(rows["train"], layout), labelled(rows["test"], layout), layout, where)
