"""Where the files that belong to the package are."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
# Inside the package when installed from a wheel, beside it in a checkout.
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir())
EMBEDDED = PACKAGE / "models" / "embedded"
PREFIX = "embedded:"
