"""The wheel contains conf/ and the embedded models and works outside the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The folder into which a freshly built wheel is unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)),
        ],
        check=True,
        capture_output=True,
        timeout=100,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_every_config_embedded_model_and_part_of_the_report_is_in_the_wheel(unpacked):
    same = ("lozo_bench/models/embedded", "lozo_bench/report/assets")
    for source, place in (("conf", "lozo_bench/conf"), *((folder, folder) for folder in same)):
        wanted = {path.relative_to(ROOT / source) for path in (ROOT / source).rglob("*.*")}
        there = {path.relative_to(unpacked / place) for path in (unpacked / place).rglob("*.*")}
        assert wanted == there


def test_an_unpacked_wheel_uses_its_own_conf_folder(unpacked, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lozo_bench.train", "--info", "searchpath"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert f"file://{unpacked / 'lozo_bench' / 'conf'}" in done.stdout


def test_the_wheel_declares_the_console_script(unpacked):
    (entry,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert "lozo-train = lozo_bench.train:main" in entry.read_text()
