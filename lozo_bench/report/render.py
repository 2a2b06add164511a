"""Puts data, style and scripts into one HTML file that needs nothing else."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).parent / "assets"
_STYLES = ("uPlot.min.css", "page.css", "parts.css")
_SCRIPTS = (
    "dom.js", "format.js", "state.js", "tables.js", "curves.js", "chart.js", "overview.js",
    "sweep.js", "run.js", "page.js",
)  # fmt: skip
# What could end the script element, or the line of a script, is written as an escape.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def as_json(report: Mapping[str, Any]) -> str:
    """Return a report as JSON that can stand in a script element, whatever its texts are."""
    text = json.dumps(report, separators=(",", ":"), ensure_ascii=True, default=str)
    return text.translate(_ESCAPES)


def as_html(report: Mapping[str, Any], watched: bool = False) -> str:
    """Return the page with all its data.

    Args:
        report: what `collect` returned.
        watched: whether the page asks its server for newer data.
    """
    parts = {
        "title": html.escape(f"{report['root']} - lozo_bench"),
        "watched": "true" if watched else "false",
        "style": "\n".join(map(_asset, _STYLES)),
        "plot": _asset("uPlot.iife.min.js"),
        "plot_licence": _asset("uPlot.LICENSE"),
        "script": "\n".join(map(_asset, _SCRIPTS)),
        "data": as_json(report),
    }
    # In one pass, so that nothing within a part is taken for a place.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("page.html"))


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8").strip()
