"""What holds at the edges, one row for each promise, with the test that proves it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

EDGES = {
    # Fine-tuning
    "a pretrained model has the defaults of fine-tuning": "launcher/config/test_fine_tuning.py::"
    "test_a_pretrained_model_has_the_values_of_fine_tuning",
    "header and run folder name the pretrained model": "launcher/config/test_fine_tuning.py::"
    "test_header_and_run_folder_name_the_folder",
    "data.seq_len is cut to the context with a note": "launcher/config/test_fine_tuning.py::"
    "test_a_default_length_is_cut_to_the_context_with_a_note",
    "JSON arrays": "models/language/test_json_array.py::test_an_array_gives_the_rows_of_json_lines",
    "compressed JSON Lines, CSV and text": "models/language/test_corpus.py::"
    "test_compressed_files_give_the_same_records",
    "Parquet": "models/language/test_parquet.py::test_a_table_gives_the_rows_of_json_lines",
    "content as a list of parts": "models/language/test_corpus.py::"
    "test_content_may_be_a_list_of_texts",
    "an empty validation split names the share to type": "models/common/test_split.py::"
    "test_an_empty_validation_split_is_an_error_with_the_line_to_type",
    "weights that do not cover config.json": "models/language/test_pretrained.py::"
    "test_weights_that_do_not_cover_the_configuration_are_refused",
    "a model that is not causal": "models/language/test_pretrained.py::"
    "test_a_model_that_is_not_causal_is_refused",
    "a broken chat template": "models/language/test_tokenizers.py::"
    "test_a_broken_chat_template_is_an_error_that_names_its_file",
    "a pretrained folder that moved": "runs/test_lora.py::test_a_pretrained_folder_may_move",
    "a task of a script, one process": "runs/test_custom_models.py::"
    "test_a_task_of_a_script_trains_in_one_process",
    "a task of a script, two processes": "runs/test_custom_models.py::"
    "test_a_task_of_a_script_trains_in_two_processes",
    # After training
    "predict text": "launcher/test_predict.py::"
    "test_a_run_a_checkpoint_an_export_and_the_last_stage_give_one_answer",
    "predict masks": "models/event_seg/test_prediction.py::"
    "test_each_window_of_the_length_in_training_has_a_mask",
    "predict waveforms and peaks": "models/abr/test_prediction.py::"
    "test_a_table_without_labels_gives_those_of_each_response",
    "predict a translated page": "models/doc_translation/test_prediction.py::"
    "test_each_image_has_the_translation_of_a_batch_with_the_data",
    "predict sentences from EEG": "models/eeg_text/test_prediction.py::"
    "test_sentences_are_those_of_a_batch_with_the_data",
    "the last line fits the family": "launcher/run/test_prepare.py::"
    "test_a_completed_run_says_what_its_family_can_do_next",
    "result.model()": "runs/test_python_use.py::test_the_result_gives_the_trained_model",
    "launcher.SettingsError": "runs/test_python_use.py::"
    "test_invalid_arguments_raise_with_the_text_of_the_command_line",
    "Ctrl-C ends a loop of runs": "runs/test_python_use.py::"
    "test_ctrl_c_saves_the_run_and_ends_a_loop_of_runs",
    "--version": "launcher/cli/test_parser.py::"
    "test_the_version_of_the_program_and_of_each_library_is_printed",
    "help COMMAND": "launcher/cli/test_parser.py::test_help_takes_a_command",
    "explain finds a setting by its last part": "launcher/test_explain.py::"
    "test_an_unknown_key_is_an_error_with_the_nearest_match",
    "more processes than cores": "launcher/config/test_adapt.py::"
    "test_more_processes_than_cores_are_a_warning",
    "two modes": "launcher/cli/test_parser.py::test_two_modes_are_an_error",
    # Paths and folders
    "paths are kept absolute": "launcher/config/test_paths.py::"
    "test_the_settings_of_a_run_name_the_same_data_from_every_folder",
    "the same file by another path needs no --reset": "launcher/run_folder/test_resume.py::"
    "test_the_same_data_by_another_path_needs_no_reset",
    "verify --data": "launcher/test_verify.py::test_data_that_moved_is_named_by_an_option",
    "empty values": "launcher/cli/test_parser.py::test_an_empty_value_is_an_error",
    "--out replaces no file of the user": "launcher/run_folder/test_run_folder.py::"
    "test_a_folder_with_a_file_of_the_user_is_refused_and_stays_as_it_was",
    "--max-steps on a completed run": "launcher/run_folder/test_resume.py::"
    "test_a_length_that_a_completed_run_has_reached_is_answered",
    "a completed run without checkpoints": "launcher/run_folder/test_resume.py::"
    "test_a_completed_run_without_checkpoints_says_so",
    "a pickle gets the lines that export it": "models/abr/readers/test_files.py::"
    "test_a_pickle_is_refused_with_the_lines_that_export_it_to_a_table",
    # Faults
    "no secret in any output or file": "runs/test_secrets.py::"
    "test_a_secret_is_in_no_output_and_no_file",
    "signals at any moment of the start": "runs/test_startup_signals.py::"
    "test_a_signal_at_any_moment_of_the_start_ends_the_run",
    "SIGHUP saves": "runs/test_ends.py::test_closing_the_terminal_saves_the_run",
    "pipes and devices as settings": "launcher/config/test_settings_file.py::"
    "test_a_file_that_would_never_be_read_is_refused_at_once",
    "pipes as data": "models/common/test_data_files.py::"
    "test_a_pipe_is_refused_without_being_opened",
    "files that claim a terabyte": "models/common/test_hdf5.py::"
    "test_a_claim_of_a_terabyte_is_found",
    "a checkpoint without permission": "launcher/run_folder/test_checkpoint_search.py::"
    "test_a_checkpoint_without_permission_is_named_and_no_older_one_found",
    "folders that cannot be written to": "launcher/base/test_disk.py::"
    "test_an_unwritable_folder_is_an_error_before_anything_starts",
    "too little room for a checkpoint": "runs/test_python_use.py::"
    "test_a_disk_without_room_for_a_checkpoint_is_found_before_training",
    "images of more pixels than a page has": "models/doc_translation/test_dota.py::"
    "test_an_incomplete_png_is_an_error_or_skipped",
    "values that no instrument gives": "models/abr/readers/test_files.py::"
    "test_values_that_no_instrument_gives_make_a_bad_row",
    "a damaged split.json": "models/common/test_split.py::"
    "test_a_damaged_split_is_one_error_that_says_what_to_do",
    "damaged result.json and metrics.jsonl": "launcher/run_folder/test_records.py::"
    "test_every_command_names_the_damaged_file_once_and_writes_nothing",
    "verify with nothing compared": "launcher/test_verify_result.py::"
    "test_checkpoints_without_tensors_are_not_identical",
    "a goal that no metric gives": "models/test_custom.py::"
    "test_a_goal_that_measure_does_not_return_is_found",
    "samples without an index": "models/test_custom.py::"
    "test_samples_without_a_length_or_an_index_are_refused",
    "a loss that is not a scalar": "models/test_custom.py::"
    "test_a_wrong_measure_is_found_with_file_and_line",
    "a wrong type in settings of a task": "launcher/config/test_custom_config.py::"
    "test_a_default_of_another_type_than_declared_is_an_error_with_its_line",
    "a mean instead of a sum": "runs/test_custom_models.py::"
    "test_a_mean_instead_of_a_sum_ends_the_run_before_its_first_step",
    "a frozen rank": "launcher/run/test_supervisor.py::"
    "test_a_frozen_rank_is_named_with_its_stack_and_not_the_one_that_noticed",
    "a full disk below stdout": "runs/test_ends.py::"
    "test_a_full_disk_below_stdout_does_not_change_how_a_run_ends",
    "control codes of names and data": "training/logging/test_printable.py::"
    "test_no_output_passes_control_codes_on",
    "the last state of the progress bar": "training/logging/test_console_reporter.py::"
    "test_the_bar_is_up_to_date_below_lasting_lines_and_at_the_end",
    "a settings file of an original, converted": "launcher/test_convert.py::"
    "test_each_line_of_the_input_is_a_line_of_the_output",
    "a converted file trains": "launcher/test_convert.py::test_the_written_file_passes_a_dry_run",
    "a whole file of an original as --config": "launcher/test_convert.py::"
    "test_a_run_with_a_whole_file_of_an_original_is_one_error_with_the_command",
    "a hundred bad inputs": "runs/test_hundred_bad_inputs.py::"
    "test_a_bad_input_is_one_error_and_nothing_is_written",
}


@pytest.mark.parametrize("edge", EDGES)
def test_an_edge_has_its_test(edge: str) -> None:
    file, _, name = EDGES[edge].partition("::")
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
