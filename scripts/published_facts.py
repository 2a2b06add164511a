"""The hyperparameters that the papers state; `scripts/published.py` writes them as config files.

The MeZO paper is arXiv 2305.17333, the LOZO paper arXiv 2410.07698. LOZO's Table 5 comes from a
transcription (playeriv65/zo-vllm). LOZO's table for RoBERTa-large was not available; the README and
the scripts of the published code take its place.

The papers search grids and do not say which of its points a task used. One rule chooses the point
that a file has, for every method: the example in the README of the authors' released code
(github.com/princeton-nlp/MeZO, github.com/optsuite/LOZO; ``large_models`` for OPT and
``medium_models`` for RoBERTa), if the task's grid has its value; otherwise the grid's first point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

ANSWERS = ("squad", "drop")
CHOICES = ("sst2", "rte", "cb", "boolq", "wsc", "wic", "multirc", "copa", "record")
LARGE_CHOICES = ("sst2", "rte", "boolq", "wsc", "wic")
KSHOT = tuple(f"{name}_kshot" for name in ("sst2", "sst5", "snli", "mnli", "rte", "trec"))
CLORA = tuple(
    f"{name}_clora" for name in ("sst2", "yelpp", "agnews", "dbpedia", "mrpc", "snli", "rte")
)
LLAMA = ("sst2", "wic", "copa", "squad", "winogrande")
LARGE = ("opt_30b", "opt_66b")
# Training rows. CB has 250 rows and COPA 400, of which 100 are dev rows. WSC has 554 rows, of which
# its "sane" split takes 100 as dev rows and its "published" split 500. Other tasks have 1000 rows
# to train on.
_TRAIN_ROWS = {"cb": 150, "copa": 300}
_WSC_ROWS = {"sane": 454, "published": 54}


@dataclass(frozen=True, slots=True)
class Grid:
    """A published grid as a sweep.

    Args:
        use: the overrides that stand before ``grid=NAME`` in the command.
        source: where the grid was published.
        choices: comma-separated values by config key.
    """

    use: str
    source: str
    choices: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Facts:
    """The hyperparameters of one method on some models and tasks.

    Args:
        tuning: an option of the group ``tuning``.
        optimizer: an option of the group ``optimizer``.
        models: options of the group ``model``.
        tasks: options of the group ``task``.
        grids: the names of the grids that the paper searched.
        source: where the values were published.
        here: a comment for the files: which values of the grid they have, and why.
        values: values by config key.
        of_task: returns further values, which depend on the task.
    """

    tuning: str
    optimizer: str
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    grids: tuple[str, ...]
    source: str
    here: str
    values: Mapping[str, str]
    of_task: Callable[[str], Mapping[str, str]] | None = None


def _lr(rates: str, **others: str) -> dict[str, str]:
    return {"optimizer.lr": rates, **{key.replace("__", "."): v for key, v in others.items()}}


def _zo_bench(rates: str, **others: str) -> dict[str, str]:
    return {**_lr(rates, **others), "steps": "20000", "eval_every": "500", "batch_size": "16"}


_OPT = "experiment=mezo_opt13b method="
_ROBERTA = "experiment=mezo_roberta_k16 method="
_TABLE_15, _TABLE_16 = "MeZO paper, Table 15 (RoBERTa-large)", "MeZO paper, Table 16 (OPT)"
_ZO_BENCH = "ZO-Bench (arXiv 2402.11592): all decades between the bounds in its sweep files"
_ZO = "model=opt_1_3b task=sst2 method="

GRIDS = {
    "lozo_opt": Grid(
        "experiment=lozo_opt13b method=lozo",
        "LOZO paper, Table 5 (OPT), from a transcription",
        _lr("1e-6,1e-7", optimizer__eps="1e-3,1e-4", rank__value="1,2,4", optimizer__nu="50,100"),
    ),
    "mezo_opt": Grid(
        f"{_OPT}mezo", f"{_TABLE_16}; all tasks except SQuAD and DROP", _lr("1e-6,1e-7")
    ),
    "mezo_opt_answers": Grid(
        f"{_OPT}mezo task=squad,drop", f"{_TABLE_16}; SQuAD and DROP", _lr("1e-6,5e-7,1e-7")
    ),
    "mezo_prefix_opt": Grid(
        f"{_OPT}mezo_prefix", f"{_TABLE_16}; all tasks except SQuAD and DROP", _lr("1e-2,1e-3")
    ),
    "mezo_prefix_opt_answers": Grid(
        f"{_OPT}mezo_prefix task=squad,drop", f"{_TABLE_16}; SQuAD and DROP", _lr("5e-2,1e-2,5e-3")
    ),
    "mezo_lora_opt": Grid(
        f"{_OPT}mezo_lora", f"{_TABLE_16}; all tasks except SQuAD and DROP", _lr("1e-4,5e-5")
    ),
    "mezo_lora_opt_answers": Grid(
        f"{_OPT}mezo_lora task=squad,drop", f"{_TABLE_16}; SQuAD and DROP", _lr("1e-4,5e-5,1e-5")
    ),
    "mezo_f1_opt": Grid(
        "experiment=mezo_nondiff_opt method=mezo", f"{_TABLE_16}; F1", _lr("1e-6,5e-6,1e-5")
    ),
    "mezo_prefix_f1_opt": Grid(
        "experiment=mezo_nondiff_opt method=mezo_prefix",
        f"{_TABLE_16}; F1",
        _lr("1e-1,5e-2,1e-2"),
    ),
    "ft_opt": Grid(f"{_OPT}ft", _TABLE_16, _lr("1e-5,5e-5,8e-5")),
    "head_opt": Grid(
        f"{_OPT}head task=copa,record,squad,drop", "MeZO paper, Appendix E.4", _lr("1e-4,5e-4")
    ),
    "mezo_roberta": Grid(f"{_ROBERTA}mezo", _TABLE_15, _lr("1e-7,1e-6,1e-5")),
    "mezo_lora_roberta": Grid(f"{_ROBERTA}mezo_lora_head", _TABLE_15, _lr("1e-5,5e-5,1e-4")),
    "mezo_prefix_roberta": Grid(f"{_ROBERTA}mezo_prefix", _TABLE_15, _lr("1e-2,5e-3,1e-3")),
    "mezo_adam_roberta": Grid(
        f"{_ROBERTA}mezo_adam",
        "MeZO paper, Table 7 (RoBERTa-large)",
        _lr("1e-6,1e-5,1e-4,5e-4,1e-3"),
    ),
    "ft_roberta_k16": Grid(f"{_ROBERTA}ft", _TABLE_15, _lr("1e-5,3e-5,5e-5", batch_size="2,4,8")),
    "ft_roberta_k512": Grid(
        "experiment=mezo_roberta_k512 method=ft",
        _TABLE_15,
        _lr("1e-5,3e-5,5e-5", batch_size="8,16,32"),
    ),
    "ft_sgd_roberta_k16": Grid(
        f"{_ROBERTA}ft_sgd", _TABLE_15, _lr("1e-4,5e-4,1e-3,5e-3,1e-2", batch_size="2,4,8")
    ),
    "ft_sgd_roberta_k512": Grid(
        "experiment=mezo_roberta_k512 method=ft_sgd",
        _TABLE_15,
        _lr("1e-4,5e-4,1e-3,5e-3,1e-2", batch_size="8,16,32"),
    ),
    "ft_prefix_roberta": Grid(
        f"{_ROBERTA}ft_prefix", _TABLE_15, _lr("1e-2,3e-2,5e-2", batch_size="8,16,32")
    ),
    "ft_lora_roberta": Grid(
        f"{_ROBERTA}ft_lora_head", _TABLE_15, _lr("1e-4,3e-4,5e-4", batch_size="4,8,16")
    ),
    "mezo_ablations": Grid(
        "experiment=mezo_ablations",
        "MeZO paper, Table 4 (RoBERTa-large, 10k forward passes)",
        _lr(
            "1e-5,1e-6,1e-7",
            optimizer__eps="1e-3,1e-5",
            optimizer__weight_decay="0,0.1",
            batch_size="16,64",
        ),
    ),
    "zo_bench_full": Grid(
        f"{_ZO}mezo",
        f"{_ZO_BENCH}; ZO-SGD and its variants, all weights",
        _zo_bench("1e-4,1e-5,1e-6,1e-7,1e-8", optimizer__eps="1e-2,1e-3,1e-4,1e-5"),
    ),
    "zo_bench_lora": Grid(
        f"{_ZO}mezo_lora",
        f"{_ZO_BENCH}; ZO-SGD, LoRA",
        _zo_bench("5e-3,1e-3,1e-4,1e-5,1e-6,1e-7", optimizer__eps="1e-2,1e-3,1e-4"),
    ),
    "zo_bench_prefix": Grid(
        f"{_ZO}mezo_prefix",
        f"{_ZO_BENCH}; ZO-SGD, prefix",
        _zo_bench("1e-2,1e-3,1e-4,1e-5,1e-6,1e-7,1e-8", optimizer__eps="1e-1,1e-2,1e-3,1e-4"),
    ),
    "zo_bench_prompt": Grid(
        f"{_ZO}mezo tuning=prompt",
        f"{_ZO_BENCH}; ZO-SGD, prompt",
        _zo_bench("1e-3,1e-4,1e-5,1e-6,1e-7,1e-8", optimizer__eps="1e-2,1e-3,1e-4"),
    ),
    "zo_bench_adam": Grid(
        f"{_ZO}mezo_adam",
        f"{_ZO_BENCH}; ZO-Adam: all weights, prefix or prompt",
        _zo_bench("1e-4,1e-5,1e-6,1e-7,1e-8", optimizer__eps="1e-2,1e-3,1e-4,1e-5"),
    ),
    "bilevel_zofo": Grid(
        "model=opt_1_3b task=rte method=bilevel_zofo_lora",
        "the sweep files of Bilevel-ZOFO's code (sweeps/single_task); 525 runs of one seed; lr_p "
        "follows lr",
        {
            "optimizer.lr_s": "1e-2,1e-3,1e-4,1e-5,1e-6",
            "optimizer.lr": "1e-4,1e-5,1e-6,1e-7,1e-8",
            "optimizer.lambda_": "1,10,1e2,1e3,1e4,1e5,1e6",
            "optimizer.inner_steps": "10,20,30",
            "steps": "1000",
            "eval_every": "500",
            "batch_size": "8",
        },
    ),
    "c_lora": Grid(
        "experiment=clora_main method=c_lora,f_lora",
        "no values per task are published; 1 is the default of C-LoRA's released code, 0.2 that of "
        "the example in the README of BBTv2's",
        {"optimizer.sigma": "1,0.5,0.2,0.1", "optimizer.alpha": "1,0.5,0.2,0.1"},
    ),
    "zo_bench_first_order": Grid(
        f"{_ZO}ft",
        f"{_ZO_BENCH}; SGD and Adam",
        _zo_bench("1e-2,1e-3,1e-4,1e-5,1e-6,1e-7,1e-8"),
    ),
}

_UNKNOWN = "The papers do not say which of these values a task used. This file has"
_MEZO_RUN = {
    "steps": "20000", "eval_every": "4000", "batch_size": "16", "schedule": "constant",
}  # fmt: skip
_KSHOT_RUN = {
    "steps": "100000", "eval_every": "10000", "batch_size": "64", "schedule": "constant",
}  # fmt: skip
# Batch size 8 is in the grids of k=16 and of k=512 and is that of the README's examples.
_KSHOT_FT = {"steps": "1000", "eval_every": "100", "batch_size": "8", "schedule": "linear"}
_LAST = {"task.select": "last"}
_MIXED = {"model.dtype": "fp32", "model.autocast": "fp16"}


def _zeroth(lr: str, eps: str, run: Mapping[str, str] = _MEZO_RUN) -> dict[str, str]:
    return {**run, "optimizer.lr": lr, "optimizer.eps": eps}


def _five_epochs(task: str) -> dict[str, str]:
    run = {"batch_size": "8", "schedule": "linear"}
    if task == "wsc":
        epochs = {split: -(-rows // 8) for split, rows in _WSC_ROWS.items()}
        five = {split: 5 * epoch for split, epoch in epochs.items()}
        return {"steps": _by_split(five), "eval_every": _by_split(epochs), **run}
    epoch = -(-_TRAIN_ROWS.get(task, 1000) // 8)
    return {"steps": str(5 * epoch), "eval_every": str(epoch), **run}


def _by_split(values: Mapping[str, int]) -> str:
    cases = ",".join(f"{split}:{value}" for split, value in values.items())
    return f"${{pick:${{task.split}},{{{cases}}}}}"


_README_OF_MEZO = f"{_UNKNOWN} that of the example in the README of MeZO's code"
_EXAMPLE = f"{_README_OF_MEZO}."
_SQUAD = f"{_README_OF_MEZO} for SQuAD; that for other tasks is not in this grid."
_FIRST = f"{_UNKNOWN} the first one, as the README of MeZO's code has no example for it."
_LAST_STEP = "The last step is tested, as in Appendix E.4."


def _mezo_opt(tuning: str, name: str, eps: str, lr: str, lr_answers: str) -> tuple[Facts, ...]:
    """Return the facts of MeZO on OPT-13B and larger; SQuAD and DROP have a separate grid."""
    answers = f"{name}_answers"
    values, others = _zeroth(lr, eps), _zeroth(lr_answers, eps)
    of_squad = _SQUAD if lr != lr_answers else _EXAMPLE
    small = (
        Facts(tuning, "mezo", ("opt_13b",), CHOICES, (name,), _TABLE_16, _EXAMPLE, values),
        Facts(tuning, "mezo", ("opt_13b",), ANSWERS, (answers,), _TABLE_16, of_squad, others),
    )
    if tuning == "lora":
        return small
    last, also = {**values, **_LAST}, {**others, **_LAST}
    here, here_squad = f"{_EXAMPLE} {_LAST_STEP}", f"{of_squad} {_LAST_STEP}"
    return (
        *small,
        Facts(tuning, "mezo", LARGE, LARGE_CHOICES, (name,), _TABLE_16, here, last),
        Facts(tuning, "mezo", LARGE, ("squad",), (answers,), _TABLE_16, here_squad, also),
    )


def _kshot(
    tuning: str, optimizer: str, grids: tuple[str, ...], here: str, values: Mapping[str, str]
) -> Facts:
    model = ("roberta_large",)
    return Facts(tuning, optimizer, model, KSHOT, grids, _TABLE_15, here, values)


_LOZO = {**_zeroth("1.0e-7", "1.0e-3"), "optimizer.nu": "50"}
_LOZO_HERE = (
    f"{_UNKNOWN} that of the example in the README of LOZO's code. Select its rank with rank=r2."
)
_LOZO_KSHOT = {**_zeroth("1.0e-7", "1.0e-3", _KSHOT_RUN), "optimizer.nu": "100"}
_README = "README of LOZO's code; the grid in the LOZO paper's Table 4 was not available"
_README_HERE = (
    "This file has the values of that README's example. Select its rank with rank=r4, as "
    "experiment=lozo_roberta_k16 does."
)
_LLAMA_HERE = "No grid for LLaMA was found. This file has the values of OPT-13B."
_BATCH = "batch size 8, which is in both grids"
_DECAY = (
    "Table 15 says weight decay 0.1, but the code that made Table 18 ignored it (until its commit "
    "552cb1b); this file has 0, which is what was run."
)
_HEAD = "the head too: set tuning.train_head=true, or use method=mezo_lora_head or ft_lora_head."

FACTS = (
    *_mezo_opt("full", "mezo_opt", "1.0e-3", "1.0e-7", "1.0e-7"),
    *_mezo_opt("prefix", "mezo_prefix_opt", "1.0e-1", "1.0e-3", "1.0e-2"),
    *_mezo_opt("lora", "mezo_lora_opt", "1.0e-2", "5.0e-5", "5.0e-5"),
    Facts(
        "full", "adamw", ("opt_13b",), (*CHOICES, *ANSWERS), ("ft_opt",), _TABLE_16,
        f"{_README_OF_MEZO}, and five epochs in mixed precision, as published.",
        {**_MIXED, "optimizer.lr": "1.0e-5", "optimizer.weight_decay": "0.0"}, _five_epochs,
    ),
    Facts(
        "head", "adamw", ("opt_13b",), ("copa", "record", *ANSWERS), ("head_opt",),
        "MeZO paper, Appendix E.4",
        f"{_FIRST} Five epochs in mixed precision, as published.",
        {**_MIXED, "model.untie_head": "true", "optimizer.lr": "1.0e-4"}, _five_epochs,
    ),
    Facts(
        "full", "lozo", ("opt_13b",), (*CHOICES, *ANSWERS), ("lozo_opt",),
        "LOZO paper, Table 5 (OPT), from a transcription", _LOZO_HERE, _LOZO,
    ),
    Facts(
        "full", "lozo", LARGE, (*LARGE_CHOICES, "squad"), ("lozo_opt",),
        "LOZO paper, Table 5 (OPT), from a transcription",
        f"{_LOZO_HERE} The last step is tested, as in the MeZO paper, Appendix E.4.",
        {**_LOZO, **_LAST},
    ),
    Facts(
        "full", "lozo", ("opt_1_3b",), ("sst2",), ("lozo_opt",),
        "LOZO paper, Appendix C.3; lr 1e-7 is from its author (github.com/optsuite/LOZO/issues/1)",
        "experiment=lozo_ablation sweeps rank and nu.", _LOZO,
    ),
    Facts("full", "lozo", ("llama2_7b",), LLAMA, (), "", _LLAMA_HERE, _LOZO),
    Facts(
        "full", "mezo", ("llama2_7b",), LLAMA, (), "", _LLAMA_HERE, _zeroth("1.0e-7", "1.0e-3")
    ),
    _kshot(
        "full", "mezo", ("mezo_roberta",), _EXAMPLE, _zeroth("1.0e-6", "1.0e-3", _KSHOT_RUN)
    ),
    _kshot(
        "lora", "mezo", ("mezo_lora_roberta",),
        f"{_EXAMPLE} {_DECAY} The published runs train {_HEAD}",
        {**_zeroth("1.0e-4", "1.0e-3", _KSHOT_RUN), "optimizer.weight_decay": "0.0"},
    ),
    _kshot(
        "prefix", "mezo", ("mezo_prefix_roberta",), _EXAMPLE,
        _zeroth("1.0e-2", "1.0e-1", _KSHOT_RUN),
    ),
    Facts(
        "full", "mezo_adam", ("roberta_large",), KSHOT, ("mezo_adam_roberta",),
        "MeZO paper, Table 7 (RoBERTa-large)", _FIRST, _zeroth("1.0e-6", "1.0e-3", _KSHOT_RUN),
    ),
    Facts(
        "full", "mezo_momentum", ("roberta_large",), KSHOT, (), "",
        "The values of LOZO's MeZO-M are not known. A learning rate of 1e-7 with beta 0.9 moves "
        "the weights as fast as MeZO's 1e-6 does.", _zeroth("1.0e-7", "1.0e-3", _KSHOT_RUN),
    ),
    Facts(
        "full", "lozo", ("roberta_large",), KSHOT, (), _README, _README_HERE, _LOZO_KSHOT,
    ),
    Facts(
        "full", "lozo_m", ("roberta_large",), KSHOT, (), _README,
        f"{_README_HERE} beta is that of the published script.",
        {**_LOZO_KSHOT, "optimizer.beta": "0.9"},
    ),
    _kshot(
        "full", "adamw", ("ft_roberta_k16", "ft_roberta_k512"),
        _EXAMPLE,
        {**_KSHOT_FT, "optimizer.lr": "1.0e-5", "optimizer.weight_decay": "0.0"},
    ),
    _kshot(
        "full", "sgd", ("ft_sgd_roberta_k16", "ft_sgd_roberta_k512"),
        f"{_FIRST} It has {_BATCH}.", {**_KSHOT_FT, "optimizer.lr": "1.0e-4"},
    ),
    _kshot(
        "lora", "adamw", ("ft_lora_roberta",),
        f"{_EXAMPLE} The published runs train {_HEAD}",
        {**_KSHOT_FT, "optimizer.lr": "1.0e-4"},
    ),
    _kshot(
        "prefix", "adamw", ("ft_prefix_roberta",), _EXAMPLE,
        {**_KSHOT_FT, "optimizer.lr": "1.0e-2"},
    ),
    Facts(
        "lora", "adamw", ("roberta_large", "gpt2_large", "gpt2_xl", "llama2_7b"), CLORA, (), "",
        "What C-LoRA's and BBTv2's baselines used is not published. This file has the values of "
        "MeZO's k-shot runs.", {**_KSHOT_FT, "optimizer.lr": "1.0e-4"},
    ),
    Facts(
        "deep_prompt", "bbt", ("roberta_large",), ("mrpc_clora", "snli_clora", "rte_clora"), (),
        "README of BBT's code (github.com/txsun1997/Black-Box-Tuning), with margin 2 (utils.py)",
        "It advises cross-entropy for the other tasks.", {"loss": "hinge", "hinge_margin": "2.0"},
    ),
    *(
        Facts(
            "deep_prompt", method, ("roberta_large",), ("dbpedia_clora",), (),
            "dataloaders/dataloader.py of BBT's code (github.com/txsun1997/Black-Box-Tuning)",
            "No full stop stands between the placeholders and the row.",
            {"tuning.separator": '""'},
        )
        for method in ("bbt", "bbt_v2")
    ),
)  # fmt: skip
