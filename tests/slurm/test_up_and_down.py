"""The scripts that start and stop a SLURM for tests."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def up(folder, **settings):
    return subprocess.run(
        [SCRIPTS / "slurm_up.sh", folder],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **settings,
    )


def down(folder):
    subprocess.run([SCRIPTS / "slurm_down.sh", folder], check=True, timeout=100)


def daemons(folder):
    """Return the names of the daemons that were started for a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
        if f"SLURM_CONF={folder}/slurm.conf".encode() in environment:
            found.append((process / "comm").read_text().strip())
    return sorted(found)


def test_a_second_start_finds_the_running_slurm(slurm):
    before = daemons(slurm.folder)
    again = up(slurm.folder)
    assert again.returncode == 0
    assert again.stdout.startswith(f"export SLURM_CONF='{slurm.folder}/slurm.conf' PATH=")
    assert "it is already running" in again.stderr
    assert daemons(slurm.folder) == before


def test_start_cleans_up_after_a_crash_and_stop_ends_all_daemons(slurm, tmp_path):
    try:
        assert up(tmp_path).returncode == 0
        os.kill(int((tmp_path / "slurmctld.pid").read_text()), signal.SIGKILL)
        assert up(tmp_path).returncode == 0
        assert {"munged", "slurmctld", "slurmd"} <= set(daemons(tmp_path))
    finally:
        down(tmp_path)
    assert daemons(tmp_path) == []
    assert {"munged", "slurmctld", "slurmd"} <= set(daemons(slurm.folder))  # it must keep running


def test_the_reason_is_printed_when_slurm_cannot_be_started(slurm, tmp_path):
    nobody = up(tmp_path / "a", user="nobody", cwd="/")
    assert nobody.returncode == 77
    assert nobody.stderr == "slurm_up: root is needed, because slurmd starts jobs as their users\n"

    for name in ("bash", "id"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    bare = up(tmp_path / "a", env={"PATH": str(tmp_path)})
    assert bare.returncode == 77
    assert bare.stderr == (
        "slurm_up: slurmctld, slurmd or munged is missing, and there is no apt-get\n"
    )
