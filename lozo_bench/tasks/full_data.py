"""The full data from which a protocol draws its rows: two files, or a data set on the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lozo_bench.errors import bad_value
from lozo_bench.tasks.files import read_full
from lozo_bench.tasks.hub import Hub
from lozo_bench.tasks.layout import Layout
from lozo_bench.tasks.rows import Row, labelled

ALTERNATIVE = "use task.data_dir=DIR (a folder with the full data)"


@dataclass(frozen=True, slots=True)
class FullData:
    """All labelled rows of a data set.

    Attributes:
        train: The rows of the train split.
        test: The rows of the test split.
        layout: What the columns of the rows contain.
        where: The folder or the hub data set of the rows, for error messages.
    """

    train: list[Row]
    test: list[Row]
    layout: Layout
    where: str


def check_full_data(data_dir: str | None, files: Mapping[str, str], hub: object) -> None:
    """Check that the arguments of a source say where its full data is.

    Raises:
        BadValueError: ``files`` does not name a train and a test file, or neither a folder nor a
            hub data set is given. The key is relative to ``task.source``.
    """
    if set(files) != {"train", "test"}:
        raise bad_value("files", files, "a file name without extension for train and test")
    if data_dir is None and hub is None:
        raise bad_value("hub", hub, f"a data set on the hub; or {ALTERNATIVE}")


def read_full_data(
    folder: str | None,
    key: str,
    files: Mapping[str, str],
    layout: Layout,
    hub: Hub | None,
    alternative: str,
    test_layout: Layout | None = None,
) -> FullData:
    """Read the full data from ``folder`` if it is given, else from ``hub``.

    Args:
        folder: The folder with the two files, or None.
        key: The config key that names the folder, for error messages.
        files: The names of the ``train`` and ``test`` files without extension.
        layout: What the columns of the files contain.
        hub: The data set on the hub, if no folder is given.
        alternative: What the user can do if the hub cannot be read, for error messages.
        test_layout: The layout of the test file, if it differs from ``layout``.

    Raises:
        UserError: A row is malformed; the message names file and line.
    """
    if folder is not None:
        layouts = {"train": layout, "test": test_layout or layout}
        rows = {split: read_full(folder, files[split], key, layouts[split]) for split in layouts}
        where = folder
    else:
        assert hub is not None
        layout, where = hub.layout(layout), f"hub:{hub.path}"
        rows = {"train": hub.read(hub.train, alternative), "test": hub.read(hub.test, alternative)}
    return FullData(labelled(rows["train"], layout), labelled(rows["test"], layout), layout, where)
