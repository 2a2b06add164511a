"""Every experiment runs at a tiny scale and fills its table.

Experiments with the same models and data share a test. Cells that differ only in numbers share a
run: a number does not decide which code runs, and each cell's numbers are checked.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections import defaultdict

import pytest
from omegaconf import OmegaConf, open_dict

from lozo_bench.config.paths import CONF
from lozo_bench.runs.outcome import RESULT
from lozo_bench.tables.cells import Sweep, compose_runs, configs
from lozo_bench.tables.table import build_table
from lozo_bench.training.plan import plan_cell
from lozo_bench.training.run import run

# Tables that are narrowed to a few tables, which are filled completely. In the large ones, every
# method runs on one task of each kind (options, generated answers) and every task with one method.
# The others differ from an experiment that runs in full only by a number, a model's name or the
# source of the rows.
NARROWED = {
    "lozo_opt13b": [["task=sst2,squad"], ["method=mezo"]],
    "mezo_opt13b": [["task=sst2,squad"]],
    "lozo_roberta_k16": [["task=sst2_kshot"], ["method=mezo"]],
    "mezo_roberta_k16": [["task=sst2_kshot"]],
    "roberta_k512": [["task=sst2_kshot"]],
    "opt30b_66b": [["model=opt_66b", "task=wsc,squad"]],
    "superglue": [["task=wsc"]],
    "llama": [["task=sst2,squad"]],
    "ablations": [["task=sst2_kshot"], ["variant=n1"]],
    "one_point": [["task=sst2_kshot"], ["variant=spsa_20k"]],
    "prefix_init": [["task=sst2_kshot"], ["variant=prefix_real"]],
    "nondiff": [["task=trec_kshot"]],
    "memory": [["model=opt_66b"]],
    "time": [["model=opt_66b", "batch_size=8"]],
    "zo_bench": [["tuning=lora"], ["optimizer=forward_grad"]],
    "zo_bench_tasks": [["task=winogrande", "tuning=lora", "optimizer=mezo"]],
    "zo_bench_sparsity": [["optimizer.resample_every=10", "optimizer.sparsity=0.1,0.9"]],
    "zo_bench_blocks": [["task=sst2"]],
    "bbt": [["task=sst2_kshot", "seed=s13"]],
    "clora_main": [["task=sst2_clora"], ["task=dbpedia_clora", "method=zero_shot"]],
    "clora_gpt2": [["model=gpt2_xl", "task=mrpc_clora", "method=c_lora"]],
    "clora_llama": [["task=sst2_clora", "method=f_lora"]],
    "clora_memory_time": [["model=roberta_large", "method=ft,c_lora"]],
    "clora_dimension": [["task=sst2_clora", "method=f_lora", "optimizer.intrinsic_dim=52,500"]],
    "clora_init": [["task=sst2_clora", "method=f_lora", "variant=clora_scaled,clora_random"]],
    "clora_rank": [["task=sst2_clora", "method=f_lora", "rank=r2"]],
    "hetero_baselines": [["task=copa_head,alpaca", "method=ft_lora"]],
    "hetero_rank": [["task=mrpc_head", "tuning.r=2"]],
    "hetero_main": [
        ["task=mrpc_head", "variant=hetero_combined_r8"],
        ["task=alpaca", "variant=hetero_shortcuts_r2"],
    ],
    "hetero_roberta": [["task=mrpc_head", "method=hetero_shortcuts"]],
    "hetero_proxies": [["allocation=snip", "allocation.when=static"]],
    "hetero_interval": [["task=mrpc_head", "allocation.mode=separated", "allocation.every=0.5"]],
    "hetero_rank_shortcuts": [["task=mrpc_head", "tuning.r=2"]],
    "hetero_shortcut_rank": [["task=mrpc_head", "tuning.shortcut_r=1"]],
    "hetero_shortcut_alpha": [["tuning.shortcut_alpha=4", "optimizer.lr=0.0002"]],
    "hetero_placement": [["variant=hetero_on_q_v_w1_w2"]],
    "bilevel_single": [["task=wic", "method=bilevel_zofo_prompt,bome"]],
    "bilevel_prompts": [["task=copa", "method=bilevel_zofo_lora"]],
    "bilevel_lambda": [["task=cb", "optimizer.lambda_=100"]],
    "bilevel_multitask": [["method=zero_shot,bilevel_zofo_multitask"]],
    "bilevel_memory_time": [["method=mezo,bilevel_zofo_lora"]],
    "equal_cost": [
        ["variant=equal_queries", "method=lozo,ft", "model.dtype=bf16"],
        ["variant=equal_seconds", "method=c_lora", "model.dtype=fp32"],
    ],
    "half_precision": [["model.dtype=bf16"]],
    "bilevel_inner": [["task=cb", "optimizer.inner_steps=10"]],
}


def groups():
    """Group the experiments that have a table by their name without the paper's prefix.

    Those of C-LoRA are one group, because most of their cells are the same, as are HeteroLoRA's and
    Bilevel-ZOFO's.
    """
    found = defaultdict(list)
    for path in sorted((CONF / "experiment").glob("*.yaml")):
        if OmegaConf.select(OmegaConf.load(path), "table.title"):
            name = path.stem.removeprefix("lozo_").removeprefix("mezo_")
            paper = name.partition("_")[0]
            grouped = paper in ("clora", "hetero", "bilevel")
            found[paper if grouped else name].append(path.stem)
    return dict(found)


@pytest.fixture(scope="module")
def run_all(tmp_path_factory):
    """Run every cell, in this process, and return the sweep: run_all(overrides)."""
    kept = tmp_path_factory.mktemp("results")
    results = {}

    def run_or_check(config, folder):
        kind = without_numbers(config)
        if kind in results:
            plan_cell(config, folder)
            shutil.copy(results[kind], folder / RESULT)
        else:
            run(config, folder)
            results[kind] = shutil.copy(folder / RESULT, kept / f"{len(results)}.json")

    def all_cells(overrides):
        runs = []
        table, _, composed = compose_runs(overrides)
        for cell, config in composed:
            runs.append(cell)
            if not (cell.folder / RESULT).exists():
                cell.folder.mkdir(parents=True)
                alone = copy.deepcopy(config)
                with open_dict(alone):
                    del alone["hydra"]
                run_or_check(alone, cell.folder)
        return Sweep(table, runs, "")

    return all_cells


def without_numbers(config):
    """Return a text of the config in which all numbers are equal; without names of experiments."""

    def changed(node):
        if isinstance(node, dict):
            return {key: changed(value) for key, value in node.items()}
        if isinstance(node, list):
            return [changed(value) for value in node]
        return 0 if isinstance(node, int | float) and not isinstance(node, bool) else node

    plain = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    del plain["sweep"], plain["table"], plain["model"]["name"]
    return json.dumps(changed(plain))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("group", groups())
def test_the_cells_of_a_table_run_and_fill_it(group, run_all, tmp_path):
    common = [
        "scale=tiny",
        "rank=r2",
        "eval_every=2",
        f"hydra.sweep.dir={tmp_path}",
    ]
    cases = [
        (experiment, narrowed)
        for experiment in groups()[group]
        for narrowed in NARROWED.get(experiment) or NARROWED.get(group, [[]])
    ]
    for experiment, narrowed in cases:
        by_rank = experiment in ("lozo_ablation", "clora_rank")
        swept = [text for text in common if text != "rank=r2" or not by_rank]
        with configs(CONF):
            table = build_table([run_all([f"experiment={experiment}", *swept, *narrowed])])
        assert table.missing == []
        assert len(table.entries) == len(table.rows) * len(table.columns)
        assert all(len(entry.tests) == entry.seeds for entry in table.entries.values())
