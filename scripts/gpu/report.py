"""The table for people: one row for each check, with the figure that matters and what is expected.

A check is ``ok`` or ``FAILED``. It is ``slow`` if all is right and a speed misses its goal, and
``skipped`` if there was too little time or memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from gpu.machine import Line

RATIO_GOAL, PUBLISHED_GOAL, KERNELS_GOAL = 1.05, 8.0, 4000
_WIDTHS = (15, 7, 84)


@dataclass(frozen=True, slots=True)
class Shown:
    """How the result of a check is shown.

    Args:
        figure: returns the figure that matters, with its unit.
        expected: what it should be.
        reached: whether the goal for the speed is reached.
    """

    figure: Callable[[Line], str]
    expected: str
    reached: Callable[[Line], bool] = lambda line: True


def header() -> str:
    """Return the first row of the table."""
    return _joined(("check", "", "found"), "expected")


def row(line: Line, judge_speed: bool = True) -> str:
    """Return a check's row; it says whether goals for the speed are reached if ``judge_speed``."""
    shown = _SHOWN.get(line["check"], _OTHER)
    if "skipped" in line:
        return _joined((line["check"], "skipped", str(line["skipped"])), "")
    try:
        figure, reached = shown.figure(line), shown.reached(line)
    except KeyError as missing:  # a check that failed half way, or a mode without room
        figure, reached = f"no {missing.args[0]}", False
    if line.get("ok") is False:
        found = str(line.get("error") or figure)
        at = f" ({line['at']})" if "at" in line else ""
        return _joined((line["check"], "FAILED", found + at), shown.expected)
    state = "ok" if reached or not judge_speed else "slow"
    return _joined((line["check"], state, figure), shown.expected)


def _joined(cells: Iterable[str], last: str) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)]
    return "  ".join([*padded, last]).rstrip()


def _step(line: Line) -> str:
    ms, ratio = line["ms"], line["ratio"]
    found = [
        f"{ms['answer_only']:.1f} ms = {ratio['answer_only']:.2f} of two forwards "
        f"({ratio['fused']:.2f} with all logits)"
    ]
    if "published_over_answer_only" in line:
        found.append(f"published {line['published_over_answer_only']:.1f}x")
    return ", ".join([*found, f"fold {line['fold_s']} s"] if "fold_s" in line else found)


def _long_reached(line: Line) -> bool:
    return bool(line["ratio"]["answer_only"] <= RATIO_GOAL)


def _sst2(line: Line) -> str:
    ms = line["ms"]
    return (
        f"{ms['answer_only']:.1f} ms, published {ms['published']:.1f} ms: "
        f"{line['published_over_answer_only']:.2f}x; two forwards {ms['two_forwards']:.1f} ms"
    )


def _sst2_reached(line: Line) -> bool:
    return bool(line["published_over_answer_only"] >= PUBLISHED_GOAL)


def _designs(line: Line) -> str:
    best = [
        min(ratio for name, ratio in ratios.items() if name not in ("linear_ms", "only_xv_40"))
        for ratios in line["ratio_to_linear"].values()
    ]
    return f"{min(best):.2f} to {max(best):.2f} of a linear layer, by its shape and tokens"


def _profile(line: Line) -> str:
    return "; ".join(
        f"{name}: {line[name]['kernels']} kernels, idle {line[name]['device_idle_ms']:.0f} of "
        f"{line[name]['wall_ms']:.0f} ms"
        for name in ("long", "sst2")
    )


def _profile_reached(line: Line) -> bool:
    return all(line[name]["kernels"] <= KERNELS_GOAL for name in ("long", "sst2"))


def _accuracy(line: Line) -> str:
    return f"test accuracy {line['test']:.3f}, {line['step_ms']:.1f} ms a step"


def _first_order(line: Line) -> str:
    kinds = {"None": "fp32", "bf16": "bf16", "fp16": "fp16"}
    found = [f"{kinds[kind]} {line[kind]['test']:.3f}" for kind in kinds if kind in line]
    return f"test accuracy {', '.join(found)}"


def _engines(line: Line) -> str:
    return f"{line['engines_off']:.0e} between engines, {line['devices_off']:.0e} between devices"


def _attention(line: Line) -> str:
    kinds = {"as_it_is": "as it is", "with_cudnn": "with cuDNN"}
    return "; ".join(
        f"{words}: {line[kind]['first_ms']:.0f} ms, then {line[kind]['then_ms']:.2f}"
        for kind, words in kinds.items()
        if kind in line
    )


def _wrong(line: Line) -> str:
    wrong: dict[str, Any] = line["wrong"]
    return f"{len(wrong)} differ" if wrong else "no bit differs"


_LONG = f"at most {RATIO_GOAL}"
_SST2 = f"at least {PUBLISHED_GOAL:.0f}x"
_CPU = "the CPU's accuracy, 0.996, less 0.02"
_OTHER = Shown(lambda line: "", "")
_SHOWN = {
    "device": Shown(
        lambda line: (
            f"{line['bf16_tflops']:.0f} TFLOP/s in bf16, copy {line['copy_tb_s']:.2f} TB/s, "
            f"{line['us_per_launch']:.1f} us a launch"
        ),
        "H100: 755, 2.95, 10",
    ),
    "draws": Shown(
        lambda line: f"{_wrong(line)}, a 13B step's draws {line['ms_of_a_13b_steps_draws']:.1f} ms",
        "the recorded bits; H100: 1.4 ms",
    ),
    "kernel": Shown(
        lambda line: (
            f"{_wrong(line)}, z into bf16 weights "
            f"{line['speed']['torch.bfloat16']['gb_s']:.0f} GB/s"
        ),
        "the CPU's bits; H100: 810",
    ),
    "engines": Shown(_engines, "1e-10 in float64; 1e-6 between devices with eager attention"),
    "zero_lr": Shown(
        lambda line: f"weights unchanged in {', '.join(k for k in ('bf16', 'fp16') if k in line)}",
        "unchanged weights",
    ),
    "fold_bits": Shown(
        lambda line: f"{max(line['share_that_differs'].values()):.1e} of the weights differ",
        "less than 1e-3",
    ),
    "train": Shown(_accuracy, _CPU),
    "train_mezo": Shown(_accuracy, _CPU),
    "first_order": Shown(_first_order, _CPU),
    "team": Shown(lambda line: "two processes connected, added and ended", "both end"),
    "step_13b_long": Shown(_step, _LONG, _long_reached),
    "step_13b_sst2": Shown(_sst2, _SST2, _sst2_reached),
    "profile_13b": Shown(_profile, f"at most {KERNELS_GOAL} kernels", _profile_reached),
    "linear_designs": Shown(_designs, f"{_LONG} with many tokens"),
    "attention": Shown(
        _attention,
        "below 5 ms for a new shape",
        lambda line: bool(line["as_it_is"]["first_ms"] < 5),
    ),
    "graph_13b": Shown(
        lambda line: f"{line['replayed_ms']:.1f} ms as a graph, {line['eager_ms']:.1f} ms without",
        "what launching costs",
    ),
    "step_1b3_long": Shown(_step, "more, because launching costs more"),
    "step_1b3_sst2": Shown(_sst2, "less, because launching costs more"),
    "snapshot": Shown(
        lambda line: (
            f"state to the host {line['to_host_gb_s']:.1f} GB/s, fingerprint "
            f"{line['fingerprint_gb_s']:.2f} GB/s"
        ),
        "1 or more; 0.4 or more",
        lambda line: bool(line["to_host_gb_s"] >= 1 and line["fingerprint_gb_s"] >= 0.4),
    ),
    "step_30b": Shown(_step, _LONG, _long_reached),
    "step_66b": Shown(_step, _LONG, _long_reached),
}
