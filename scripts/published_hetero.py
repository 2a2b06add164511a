"""What HeteroLoRA's authors ran, as facts for `scripts/published.py`.

The paper is arXiv 2406.14956; its tables could not be obtained. The values are from the released
code and its logged runs, github.com/ZixiBenZhang/lora_global_synergies at commit 4345712.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from published_facts import Facts

# Training rows; Alpaca's are nine tenths of all.
_ROWS = {
    "mrpc_head": 3668, "rte_head": 2490, "sst2_head": 67349, "mnli_head": 392702,
    "qqp_head": 363846, "boolq_head": 9427, "cb_head": 250, "copa_head": 400, "alpaca": 46801,
}  # fmt: skip
_TASKS = tuple(_ROWS)
_ROBERTA = ("mrpc_head", "rte_head", "sst2_head", "mnli_head", "qqp_head")
_SOURCE = "HeteroLoRA's code and logged runs (github.com/ZixiBenZhang/lora_global_synergies)"
_ADAMW = {
    "schedule": "constant",
    "optimizer.weight_decay": "0.01",
    "optimizer.max_grad_norm": "null",
}
_EPOCHS = {"sst2_head": 10, "mnli_head": 5, "qqp_head": 7, "boolq_head": 10}
_SHORTCUT_EPOCHS = {**_EPOCHS, "boolq_head": 20}
_FULL_EPOCHS = {
    "sst2_head": 5, "mnli_head": 5, "qqp_head": 5, "boolq_head": 10, "alpaca": 10,
    "mrpc_head": 10, "rte_head": 10, "cb_head": 10, "copa_head": 10,
}  # fmt: skip
_FULL_BATCH = {"mrpc_head": 16, "rte_head": 16, "cb_head": 16, "copa_head": 16}

_LORA_LR = {
    "mrpc_head": "2.0e-4", "rte_head": "4.0e-4", "sst2_head": "1.0e-4", "mnli_head": "1.0e-4",
    "qqp_head": "2.0e-4", "boolq_head": "2.0e-4", "cb_head": "1.0e-3", "copa_head": "1.0e-3",
    "alpaca": "1.0e-4",
}  # fmt: skip
_GATED_LR = {**_LORA_LR, "mrpc_head": "3.0e-4", "rte_head": "2.0e-4"}
_SHORTCUT_LR = {**_LORA_LR, "rte_head": "2.0e-4"}
_FULL_LR = {
    "mrpc_head": "2.0e-5", "rte_head": "1.0e-5", "sst2_head": "1.0e-5", "mnli_head": "1.0e-5",
    "qqp_head": "1.0e-5", "boolq_head": "2.0e-5", "cb_head": "5.0e-5", "copa_head": "2.0e-5",
    "alpaca": "1.0e-5",
}  # fmt: skip
_ROBERTA_LORA_LR = {**_LORA_LR, "rte_head": "2.0e-4"}
_ROBERTA_FULL_LR = {**_FULL_LR, "mrpc_head": "1.0e-5", "mnli_head": "2.0e-5"}

_SELECTED = "Steps are whole epochs, each of which is evaluated."
_LORA_HERE = (
    f"{_SELECTED} RTE has the rate of the rank sweep; the baselines of five seeds had 3e-4. How "
    "many epochs MNLI had is not known; it has as many as full fine-tuning."
)
_NOT_RUN = (
    "The published runs with an allocation are of MRPC, RTE, SST-2, BoolQ and Alpaca; the other "
    "tasks have the rates of LoRA."
)


def _of_task(
    rates: Mapping[str, str],
    epochs: Mapping[str, int],
    batch: Mapping[str, int] | int,
    model: Mapping[str, str],
) -> Callable[[str], Mapping[str, str]]:
    """Return a function that gives the values of a task, in whole epochs."""

    def values(task: str) -> Mapping[str, str]:
        size = batch if isinstance(batch, int) else batch.get(task, 32)
        epoch = -(-_ROWS[task] // size)
        return {
            **{key: x for key, x in model.items() if task != "alpaca" or key != "model.kind"},
            "steps": str(epochs.get(task, 20) * epoch),
            "eval_every": str(epoch),
            "batch_size": str(size),
            "optimizer.lr": rates[task],
        }

    return values


_OPT = {"model.kind": "classifier", "model.bos_token": "null"}
_OTHER = {"model.kind": "classifier", "model.untie_head": "false"}


def _opt(tuning: str, here: str, of_task: Callable[[str], Mapping[str, str]]) -> Facts:
    return Facts(tuning, "adamw", ("opt_350m",), _TASKS, (), _SOURCE, here, _ADAMW, of_task)


def _roberta(tuning: str, here: str, of_task: Callable[[str], Mapping[str, str]]) -> Facts:
    return Facts(tuning, "adamw", ("roberta_large",), _ROBERTA, (), _SOURCE, here, _ADAMW, of_task)


FACTS = (
    _opt("full", _SELECTED, _of_task(_FULL_LR, _FULL_EPOCHS, _FULL_BATCH, _OPT)),
    _opt("lora", _LORA_HERE, _of_task(_LORA_LR, _EPOCHS, 8, _OPT)),
    _opt("gated_lora", f"{_SELECTED} {_NOT_RUN}", _of_task(_GATED_LR, _EPOCHS, 8, _OPT)),
    _opt("shortcuts", f"{_SELECTED} {_NOT_RUN}", _of_task(_SHORTCUT_LR, _SHORTCUT_EPOCHS, 8, _OPT)),
    _roberta("full", _SELECTED, _of_task(_ROBERTA_FULL_LR, _FULL_EPOCHS, _FULL_BATCH, _OTHER)),
    _roberta("lora", _LORA_HERE, _of_task(_ROBERTA_LORA_LR, _EPOCHS, 8, _OTHER)),
    *(
        _roberta(
            tuning,
            f"{_SELECTED} Not run by the authors: the rates of LoRA.",
            _of_task(_ROBERTA_LORA_LR, _EPOCHS, 8, _OTHER),
        )
        for tuning in ("gated_lora", "shortcuts")
    ),
)
