"""The full data that a protocol takes its rows from: two files, or a data set on the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lozo_bench.tasks.files import read_full
from lozo_bench.tasks.hub import Hub
from lozo_bench.tasks.rows import Layout, Row, labelled


@dataclass(frozen=True, slots=True)
class Full:
    """All labelled rows of the train and test split, their ``layout``, and ``where`` they are."""

    train: list[Row]
    test: list[Row]
    layout: Layout
    where: str


def read_both(
    folder: str | None,
    key: str,
    files: Mapping[str, str],
    layout: Layout,
    hub: Hub | None,
    instead: str,
) -> Full:
    """The rows of ``folder`` if it is given, else of ``hub``.

    ``key`` is the config key that names the folder, ``files`` the train and the test file in it,
    ``instead`` what to do without a hub. Raises UserError naming file and line.
    """
    if folder is not None:
        rows = {split: read_full(folder, files[split], key, layout) for split in ("train", "test")}
        where = folder
    else:
        assert hub is not None
        layout, where = hub.layout(layout), f"hub:{hub.path}"
        rows = {"train": hub.read(hub.train, instead), "test": hub.read(hub.test, instead)}
    return Full(labelled(rows["train"], layout), labelled(rows["test"], layout), layout, where)
