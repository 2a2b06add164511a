"""A real SLURM on this machine, started once; tests are skipped where it is not available."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from cluster import Slurm

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    up = subprocess.run(
        [SCRIPTS / "slurm_up.sh", folder], capture_output=True, text=True, check=False, timeout=120
    )
    if up.returncode == 77:
        pytest.skip(up.stderr.splitlines()[-1])
    assert up.returncode == 0, up.stderr
    environment = os.environ | {
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        "OMP_NUM_THREADS": "1",
    }
    slurm = Slurm(folder, environment)
    yield slurm
    slurm.kill_all()
    subprocess.run([SCRIPTS / "slurm_down.sh", folder], check=True, timeout=100)
