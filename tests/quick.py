"""Which cases of a test `make test` leaves to `make test-all`.

Some tests repeat one behaviour for many methods, models, moments or damages. `make test` runs the
first few cases of each; the others are marked ``thorough``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

# The number of cases that `make test` runs of a test, by the test's file and name.
QUICK = {
    "config/test_loader.py::test_a_config_is_the_one_that_hydra_composes": 30,
    "config/test_conf.py::test_every_option_composes_to_a_config_that_passes_all_checks": 90,
    "launch/test_local.py::test_after_a_signal_running_cells_save_and_no_other_cell_begins": 1,
    "optimizers/test_bilevel_zofo.py::test_the_mean_estimate_is_the_gradient_of_the_penalty": 1,
    "parallel/test_allocation.py::test_two_processes_choose_the_modules_of_one_by_losses_alone": 1,
    "parallel/test_team.py::test_when_one_process_gets_a_signal_all_stop_in_the_same_step": 1,
    "parallel/test_trajectory.py::test_several_processes_make_the_run_of_one": 5,
    "parallel/test_trajectory.py::test_two_processes_search_as_one": 1,
    "scripts/test_attack_folders.py::test_a_sample_of_damages_leads_to_no_wrong_result": 1,
    "scripts/test_chaos.py::test_killed_runs_end_with_the_result_of_an_undisturbed_run": 1,
    "scripts/test_compare_versions.py"
    "::test_an_update_scaled_by_a_ten_millionth_is_found_in_the_runs_that_have_it": 0,
    "scripts/test_count_launches.py"
    "::test_a_step_of_lozo_starts_few_kernels_and_copies_next_to_nothing": 2,
    "scripts/test_published.py"
    "::test_a_cell_uses_its_values_and_the_command_line_overrides_them": 16,
    "test_with_standin_hub.py"
    "::test_a_model_that_cannot_be_read_is_one_line_that_says_what_to_do": 5,
    "test_with_standin_hub.py"
    "::test_a_data_set_that_cannot_be_read_is_one_line_that_says_what_to_do": 5,
    "training/test_bilevel_run.py::test_a_run_stopped_at_any_check_resumes_to_the_same_bits": 3,
    "training/test_bilevel_run.py::test_the_export_is_the_model_that_was_tested": 2,
    "training/test_killed_search.py::test_a_search_killed_between_ask_and_tell_goes_on_bitwise": 1,
    "training/test_modes.py::test_the_command_at_the_top_of_a_method_file_runs": 12,
    "training/test_replay.py::test_the_log_alone_rebuilds_every_kept_state_bit_for_bit": 5,
    "training/test_resume.py"
    "::test_a_checkpoint_of_the_best_step_also_serves_as_the_tested_weights": 2,
    "training/test_resume.py::test_a_damaged_checkpoint_is_skipped_for_the_one_before": 2,
    "training/test_resume.py::test_a_run_stopped_at_any_check_resumes_to_the_same_result": 3,
    "training/test_resume.py::test_a_run_stopped_by_a_signal_can_be_resumed": 1,
    "training/test_resume.py::test_a_run_that_gives_up_does_so_at_the_same_step": 1,
    "training/test_resume.py::test_a_run_with_a_damaged_journal_resumes_before_the_damage": 2,
    "training/test_run.py::test_an_embedded_model_gets_clearly_better_at_reviews": 1,
    "training/test_run.py::test_every_built_in_task_runs_on_both_embedded_models": 2,
    "training/test_search_adapter.py::test_plain_peft_loads_what_was_tested": 1,
    "training/test_toy_method.py"
    "::test_stopped_anywhere_again_and_again_it_ends_with_the_same_bits": 5,
    "tuning/test_checkpointed.py::test_gradients_are_the_same_with_checkpointing": 21,
}


def thorough(names: Iterable[str]) -> list[bool]:
    """Return for each case, named ``FILE::TEST[CASE]``, whether it is left to `make test-all`."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        test = name.partition("[")[0]
        seen[test] += 1
        found.append(test in QUICK and seen[test] > QUICK[test])
    return found
