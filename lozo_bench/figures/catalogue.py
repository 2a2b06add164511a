"""The figures of the papers: from which experiments, and how they are drawn."""

from __future__ import annotations

from lozo_bench.config.schema import Shown
from lozo_bench.errors import UserError, did_you_mean
from lozo_bench.figures.bars import Bars
from lozo_bench.figures.costs import TimeAndMemory
from lozo_bench.figures.heat import Frequencies, LoggedFrequencies
from lozo_bench.figures.lines import Lines
from lozo_bench.figures.losses import Losses
from lozo_bench.figures.page import Page
from lozo_bench.figures.panel import Source
from lozo_bench.figures.spectra import SingularValues

_CLORA_TASKS = {"sst2_clora": "SST-2", "agnews_clora": "AG's News", "snli_clora": "SNLI"}
_BOTH = "method=mezo,lozo"


def _clora(experiment: str, x: str, below: str) -> tuple[Lines, ...]:
    return tuple(
        Lines(title, Source(experiment, (f"task={task}",)), x, below)
        for task, title in _CLORA_TASKS.items()
    )


def _frequencies(variant: str, title: str, task: str = "mrpc_head") -> Frequencies:
    return Frequencies(
        title, Source("hetero_main", (f"variant={variant}", f"task={task}", "seed=s13"))
    )


FIGURES = {
    "lozo_singular_values": Page(
        "LOZO, Figure 1: singular values of gradients by step and by layer",
        (
            SingularValues("by step", Source("lozo_singular_values"), "step"),
            SingularValues("by layer", Source("lozo_singular_values"), "layer"),
        ),
        same_axes=True,
    ),
    "lozo_roberta_k16": Page(
        "LOZO, Figure 2: accuracy and peak memory, RoBERTa-large, k = 16",
        (
            Bars("accuracy", Source("lozo_roberta_k16")),
            Bars("memory", Source("lozo_roberta_k16"), Shown.memory),
        ),
        columns=1,
        width=8.0,
    ),
    "lozo_loss": Page(
        "LOZO, Figure 3: training loss of LOZO and MeZO, OPT-13B, 30B and 66B",
        (
            Losses("SQuAD, OPT-13B", Source("lozo_opt13b", ("task=squad", _BOTH))),
            Losses(
                "SST-2, OPT-30B",
                Source("lozo_opt30b_66b", ("model=opt_30b", "task=sst2", _BOTH)),
            ),
            Losses("WiC, OPT-66B", Source("lozo_opt30b_66b", ("model=opt_66b", "task=wic", _BOTH))),
        ),
    ),
    "lozo_ablation": Page(
        "LOZO, Figure 4: training loss by rank and by nu, OPT-1.3B, SST-2",
        (
            Losses("rank, nu = 50", Source("lozo_ablation", ("optimizer.nu=50",)), "rank"),
            Losses("nu, r = 2", Source("lozo_ablation", ("rank=r2",)), "optimizer.nu"),
        ),
        same_axes=True,
    ),
    "mezo_memory": Page(
        "MeZO, Figure 3: peak memory by the size of OPT",
        (Bars("MultiRC", Source("mezo_memory"), Shown.memory, groups_are_rows=True, log=True),),
        width=8.0,
    ),
    "mezo_time": Page(
        "MeZO, Table 23 as a figure: seconds per step by the size of OPT",
        (Bars("MultiRC", Source("mezo_time"), Shown.seconds_per_step, log=True),),
        width=8.0,
    ),
    "zo_bench": Page(
        "ZO-Bench: accuracy and peak memory of its methods, OPT-1.3B, SST-2",
        (
            Bars("accuracy", Source("zo_bench")),
            Bars("memory", Source("zo_bench"), Shown.memory),
        ),
        columns=1,
        width=8.0,
    ),
    "hetero_frequency": Page(
        "HeteroLoRA, Figures 4 and 5: how often each module is on, OPT-350M, MRPC",
        (
            _frequencies("hetero_combined_r8", "combined"),
            LoggedFrequencies("combined, authors' logs", "mrpc_combined"),
            _frequencies("hetero_separated_r8", "separated"),
            LoggedFrequencies("separated, authors' logs", "mrpc_separated"),
        ),
        columns=1,
        width=8.0,
    ),
    "hetero_frequency_sst2": Page(
        "HeteroLoRA, as Figures 4 to 6: how often each module is on, OPT-350M, SST-2",
        (
            _frequencies("hetero_combined_r8", "combined", "sst2_head"),
            LoggedFrequencies("combined, authors' logs", "sst2_combined"),
        ),
        columns=1,
        width=8.0,
    ),
    "clora_dimension": Page(
        "C-LoRA: accuracy by the dimension of the search",
        _clora("clora_dimension", "optimizer.intrinsic_dim", "dimension d"),
        same_axes=True,
    ),
    "clora_rank": Page(
        "C-LoRA: accuracy by the rank of its modules",
        _clora("clora_rank", "rank", "rank r"),
        same_axes=True,
    ),
    "clora_init": Page(
        "C-LoRA: accuracy by how its projections are drawn",
        _clora("clora_init", "variant", "projections"),
        same_axes=True,
    ),
    "bilevel_memory_time": Page(
        "Bilevel-ZOFO, Figure 1: training time against peak memory, OPT-1.3B",
        (TimeAndMemory("RTE", Source("bilevel_memory_time")),),
        width=5.0,
    ),
}


def figure_named(name: str) -> Page:
    """Return the figure of this name.

    Raises:
        UserError: there is none.
    """
    if name not in FIGURES:
        raise UserError(
            f"{name}: no such figure{did_you_mean(name, list(FIGURES))}; there are: "
            f"{', '.join(FIGURES)}"
        )
    return FIGURES[name]
