"""What Bilevel-ZOFO's authors ran on OPT, as facts for `scripts/published.py`.

The paper is arXiv 2502.03604; its tables could not be obtained. The values are from the released
sweep files, github.com/Peiran225/bilevel_ZOFO at commit d2a89bd: sweeps/single_task_seeds, and for
SST-2, which is not there, those of commit 82da555. They are the same for OPT-1.3B and OPT-13B.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from published_facts import Facts

# Of each task: the learning rate of s, that of theta and p, lambda, and T.
_Values = tuple[str, str, str, str]
_LORA: dict[str, _Values] = {
    "boolq": ("1.0e-4", "1.0e-4", "1.0e+6", "30"),
    "cb": ("1.0e-3", "1.0e-5", "1.0e+5", "30"),
    "copa": ("1.0e-4", "1.0e-7", "1.0e+6", "30"),
    "drop": ("1.0e-6", "1.0e-4", "1.0", "10"),
    "multirc": ("1.0e-4", "1.0e-7", "1.0e+3", "30"),
    "rte": ("1.0e-4", "1.0e-7", "1.0e+4", "30"),
    "record": ("1.0e-5", "1.0e-6", "10.0", "30"),
    "squad": ("1.0e-4", "1.0e-7", "1.0e+3", "30"),
    "wic": ("1.0e-4", "1.0e-7", "1.0e+6", "30"),
    "wsc": ("1.0e-5", "1.0e-7", "1.0e+4", "30"),
    "winogrande": ("1.0e-4", "1.0e-8", "1.0e+3", "30"),
}
_PREFIX: dict[str, _Values] = {
    "boolq": ("1.0e-2", "1.0e-4", "10.0", "30"),
    "cb": ("1.0e-2", "1.0e-8", "1.0e+6", "30"),
    "copa": ("1.0e-3", "1.0e-8", "1.0e+5", "30"),
    "drop": ("1.0e-2", "1.0e-6", "1.0e+3", "30"),
    "multirc": ("1.0e-2", "1.0e-6", "1.0e+2", "30"),
    "rte": ("1.0e-2", "1.0e-4", "10.0", "30"),
    "record": ("1.0e-4", "1.0e-7", "1.0e+5", "30"),
    "squad": ("1.0e-2", "1.0e-7", "1.0e+5", "30"),
    "wic": ("1.0e-2", "1.0e-7", "1.0e+3", "30"),
    "wsc": ("1.0e-3", "1.0e-4", "1.0e+3", "30"),
    "winogrande": ("1.0e-3", "1.0e-8", "1.0e+2", "30"),
}
_PROMPT: dict[str, _Values] = {
    "boolq": ("1.0e-2", "1.0e-6", "1.0e+4", "30"),
    "cb": ("1.0e-2", "1.0e-5", "10.0", "30"),
    "copa": ("1.0e-2", "1.0e-8", "1.0e+4", "30"),
    "drop": ("1.0e-2", "1.0e-6", "1.0e+3", "30"),
    "multirc": ("1.0e-2", "1.0e-7", "1.0e+6", "30"),
    "rte": ("1.0e-2", "1.0e-6", "1.0e+5", "30"),
    "record": ("1.0e-5", "1.0e-4", "1.0e+6", "10"),
    "squad": ("1.0e-2", "1.0e-7", "1.0e+4", "30"),
    "wic": ("1.0e-2", "1.0e-5", "1.0e+3", "30"),
    "wsc": ("1.0e-4", "1.0e-7", "1.0e+5", "30"),
    "winogrande": ("1.0e-3", "1.0e-4", "1.0e+6", "20"),
}
_SST2: dict[str, _Values] = {"sst2": ("1.0e-4", "1.0e-4", "1.0e+4", "10")}

_SOURCE = "the sweep files of Bilevel-ZOFO's code (github.com/Peiran225/bilevel_ZOFO, d2a89bd)"
_HERE = (
    "Its Adam gives theta and p one learning rate and keeps two moments of the size of theta; with "
    "optimizer.upper=sgd, lambda multiplies a step of theta, so lr must be lower. Published runs "
    "train on 666 + 334 rows, select the step on these 334 and test on 1,000 rows, prompts on 100; "
    "here the step is selected on dev rows that nothing is trained on."
)
_RUN = {
    "steps": "5000",
    "eval_every": "500",
    "schedule": "constant",
    "optimizer.lr_p": "${optimizer.lr}",
    "optimizer.upper": "adam",
    "optimizer.fd": "forward",
    "optimizer.eps": "1.0e-3",
    "optimizer.step_counting": "published",
}
_ANSWERS = ("squad", "drop")


def _of_task(values: Mapping[str, _Values]) -> Callable[[str], Mapping[str, str]]:
    """Return a function that gives the values of a task."""

    def of(task: str) -> Mapping[str, str]:
        lr_s, lr, lambda_, inner_steps = values[task]
        return {
            "optimizer.lr": lr,
            "optimizer.lr_s": lr_s,
            "optimizer.lambda_": lambda_,
            "optimizer.inner_steps": inner_steps,
            **({"task.max_length": "256"} if task in _ANSWERS else {}),
        }

    return of


def _facts(
    adapter: str, model: str, batch: str, values: Mapping[str, _Values], source: str, train_as: str
) -> Facts:
    run = {**_RUN, "batch_size": batch, "task.train_as": train_as}
    grids = ("bilevel_zofo",)
    return Facts(
        f"two_level_{adapter}", "bilevel_zofo", (model,), tuple(values), grids, source, _HERE, run,
        _of_task(values),
    )  # fmt: skip


_MULTITASK = {
    **_RUN,
    "eval_every": "1000",
    "batch_size": "16",
    "optimizer.lr": "1.0e-4",
    "optimizer.lr_s": "1.0e-4",
    "optimizer.lambda_": "1.0e+4",
    "optimizer.inner_steps": "10",
    "optimizer.upper_rows": "0.3334",
    "optimizer.tasks_per_step": "1",
}
_ADAPTERS = {"lora": _LORA, "prefix": _PREFIX, "prompt": _PROMPT}
FACTS = (
    *(
        _facts(adapter, model, batch, values, _SOURCE, "language_model")
        for adapter, values in _ADAPTERS.items()
        for model, batch in (("opt_1_3b", "8"), ("opt_13b", "1"))
    ),
    _facts(
        "lora", "opt_1_3b", "16", _SST2, f"{_SOURCE.replace('d2a89bd', '82da555')}",
        "classification",
    ),
    Facts(
        "two_level_lora", "bilevel_zofo_multitask", ("opt_1_3b",), ("bilevel_clf_same",), (),
        f"{_SOURCE}, sweeps/multitask/clf_same", "Of the 1,500 rows, 500 are of the upper problem.",
        _MULTITASK,
    ),
)  # fmt: skip
