"""The example in the engine's README trains a model without Hydra."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "lozo_bench" / "engine" / "README.md"

# Packages that the engine must not need: a machine that only runs experiments may lack them.
BLOCKED = ["hydra", "omegaconf", "datasets", "wandb", "rich"]


def test_the_example_lowers_the_loss_without_hydra_and_the_other_optional_packages():
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    embedded = ROOT / "lozo_bench" / "models" / "embedded" / "tiny_opt"
    block = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED}))\n"
    loss = "float(model(**batch, labels=labels).loss)"
    begin = f"with torch.no_grad(): start = {loss}\n"
    end = f"with torch.no_grad(): print(start - {loss})\n"
    code = block + example.replace("facebook/opt-125m", str(embedded)) + end
    code = code.replace("zo = ZO", begin + "zo = ZO")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) > 0.05
