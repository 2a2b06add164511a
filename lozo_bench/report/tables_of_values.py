"""What many runs have in common is in a report once: values of configs, environments, pictures."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lozo_bench.errors import UserError
from lozo_bench.runs.files import read_file
from lozo_bench.runs.outcome import ALLOCATION, BILEVEL, SEARCH

_TITLES = {
    ALLOCATION: "How often each module was on",
    SEARCH: "How the search went",
    BILEVEL: "How the two problems went",
}
_FIGURE_BYTES = 400_000
_ALL_FIGURES_BYTES = 8_000_000


class Values:
    """The configs of all runs: each key once, and each value of a key once."""

    def __init__(self) -> None:
        self._places: dict[str, dict[str, int]] = {}

    def add(self, config: Iterable[tuple[str, Any]]) -> list[int]:
        """Keep a config; return for each key where its value is, -1 if the config has none."""
        found = {}
        for key, value in config:
            values = self._places.setdefault(key, {})
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            found[key] = values.setdefault(text, len(values))
        return [found.get(key, -1) for key in self._places]

    def kept(self) -> list[Any]:
        """Return each key with its values."""
        return [[key, list(values)] for key, values in self._places.items()]


class Environments:
    """The machines and versions with which runs were made, each once."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def add(self, environment: Mapping[str, Any]) -> int:
        """Keep an environment and return where it is."""
        text = json.dumps(environment, sort_keys=True, default=str)
        return self._places.setdefault(text, len(self._places))

    def kept(self) -> list[Any]:
        """Return the environments."""
        return [json.loads(text) for text in self._places]


class Figures:
    """The pictures that runs have drawn of themselves, as data URIs, up to a size."""

    def __init__(self) -> None:
        self._uris: dict[str, int] = {}
        self._bytes = 0

    def of(self, folder: Path) -> list[dict[str, Any]]:
        """Return title and place of each picture of a run, or why a picture is left out."""
        found = []
        for name, title in _TITLES.items():
            try:
                data = read_file(folder / name)
            except UserError as error:
                found.append({"title": title, "left_out": str(error)})
                continue
            if data is not None:
                found.append({"title": title, **self._add(folder / name, data)})
        return found

    def _add(self, path: Path, data: bytes) -> dict[str, Any]:
        uri = f"data:image/svg+xml;base64,{base64.b64encode(data).decode()}"
        if uri not in self._uris:
            if len(data) > _FIGURE_BYTES or self._bytes + len(uri) > _ALL_FIGURES_BYTES:
                return {"left_out": f"too large to be in this file; it is in {path}"}
            self._bytes += len(uri)
            self._uris[uri] = len(self._uris)
        return {"image": self._uris[uri]}

    def kept(self) -> list[str]:
        """Return the pictures."""
        return list(self._uris)
