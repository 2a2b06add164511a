"""Run cells with one version of lozo_bench, all in this process.

python -P driver.py CELLS.json    (PYTHONPATH selects the version)

CELLS.json lists the cells, each with the ``folder`` for its outputs and the ``arguments`` of
`lozo-train`. What a cell prints goes into FOLDER/stdout.txt and FOLDER/stderr.txt. Standard output
has one JSON line when the package is imported, with the path of it, and one for each finished cell.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any


def run(cell: dict[str, Any], main: Any) -> dict[str, Any]:
    """Run a cell and return its exit code and the CPU seconds it took."""
    folder = Path(cell["folder"])
    folder.mkdir(parents=True)
    for name, descriptor in (("stdout.txt", 1), ("stderr.txt", 2)):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    sys.argv = ["lozo-train", *cell["arguments"]]
    began = time.process_time()
    code: Any = 0
    try:
        main()
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return {"code": code, "seconds": round(time.process_time() - began, 2)}


def drive() -> None:
    """Run all cells of the list."""
    replies = os.fdopen(os.dup(1), "w")
    cells = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    import lozo_bench
    from lozo_bench.train import main

    print(
        json.dumps({"package": str(Path(lozo_bench.__file__).resolve())}), file=replies, flush=True
    )
    for cell in cells:
        print(json.dumps(run(cell, main)), file=replies, flush=True)


if __name__ == "__main__":
    drive()
