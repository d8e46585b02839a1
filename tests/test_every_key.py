"""Every key that a config offers has a test that shows its effect; a key without one has no business in the config.

A key that all kinds of a section share stands here once, one of a single kind with its kind (``data.images.flip``).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.config.experiment import Experiment
from trainyard.models import model_configs

TESTS = Path(__file__).parent
KINDS: dict[str, list[type[BaseModel]]] = {"data": [ImagesConfig, TextsConfig], "model": [*model_configs()]}

LOOP_KEY = "training/test_loop.py::test_a_key_changes_the_result"
BERT_SHAPE = "models/test_transformer_models.py::test_from_scratch_keys_shape_the_network"
RNN_SHAPE = "models/test_rnn.py::test_keys_shape_the_network"

TESTED_BY = {
    "name": "training/test_presets.py::test_dry_run_goes_through_everything_with_few_batches",
    "seed": "training/test_run.py::test_the_seed_sets_the_initial_weights",
    "out": "test_cli.py::test_train_prints_the_run_folder_last",
    "data.path": "data/test_sources.py::test_a_missing_path_suggests_what_is_near",
    "data.subset": "data/test_hub.py::test_a_subset_is_chosen_by_name",
    "data.label": "data/test_examples.py::test_text_and_label_name_the_columns",
    "data.header": "data/test_examples.py::test_header_says_whether_the_first_row_is_an_example",
    "data.val_fraction": "data/test_splits.py::test_fractions_and_classes_are_in_proportion",
    "data.test_fraction": "data/test_splits.py::test_fractions_and_classes_are_in_proportion",
    "data.limit": "data/test_load.py::test_a_limit_reads_a_few_of_each_split",
    "data.max_bad": "data/test_load.py::test_unreadable_images_are_skipped_up_to_the_quota",
    "data.batch_size": LOOP_KEY,
    "data.cache": "data/test_encoded.py::test_texts_are_tokenised_once_for_their_content_and_tokenizer",
    "data.images.kind": "data/test_sources.py::test_embedded_data_of_the_other_kind_or_of_no_name_say_so",
    "data.images.image": "data/test_examples.py::test_tables_of_image_paths_are_relative_to_their_folder",
    "data.images.image_size": "models/test_image_models.py::test_preprocessor_follows_the_data",
    "data.images.resize": "data/test_encoded.py::test_images_are_alike_from_cache_and_files",
    "data.images.augment": "training/test_augment.py::test_augment_none_takes_the_centre",
    "data.images.flip": "training/test_augment.py::test_alternating_flips_show_each_side_every_other_epoch",
    "data.images.shift": "training/test_augment.py::test_no_flip_and_no_shift_change_nothing",
    "data.images.mixup": LOOP_KEY,
    "data.images.cutmix": LOOP_KEY,
    "data.images.cache_gb": "data/test_image_cache.py::test_what_is_larger_than_cache_gb_is_checked_once_and_not_kept",
    "data.images.workers": "data/test_encoded.py::test_workers_are_for_what_takes_time",
    "data.texts.kind": "data/test_sources.py::test_embedded_data_of_the_other_kind_or_of_no_name_say_so",
    "data.texts.text": "data/test_examples.py::test_several_columns_are_joined_by_a_space",
    "data.texts.pair": "data/test_examples.py::test_pair_keeps_two_columns_apart",
    "data.texts.max_length": "data/test_encoded.py::test_max_length_cuts_texts",
    "data.texts.bucket": "training/test_run.py::test_bucket_puts_texts_of_similar_length_together",
    "model.pretrained": "models/test_image_models.py::test_weights_from_a_file",
    "model.freeze": "training/test_run.py::test_freeze_trains_the_output_layer_only",
    "model.dropout": "models/test_image_models.py::test_dropout_is_set",
    "model.resnet.kind": "models/test_kinds.py::test_kind_discriminates",
    "model.resnet.name": "models/test_image_models.py::test_resnets",
    "model.resnet.stem": "models/test_image_models.py::test_stem",
    "model.resnet.mean": "models/test_image_models.py::test_images_are_normalised_inside",
    "model.resnet.std": "models/test_image_models.py::test_images_are_normalised_inside",
    "model.torchvision.kind": "models/test_kinds.py::test_kind_discriminates",
    "model.torchvision.name": "models/test_image_models.py::test_other_classifiers",
    "model.torchvision.mean": "models/test_image_models.py::test_images_are_normalised_inside",
    "model.torchvision.std": "models/test_image_models.py::test_images_are_normalised_inside",
    "model.bert.kind": "models/test_kinds.py::test_kind_discriminates",
    "model.bert.name": "models/test_transformer_models.py::test_hub_id_without_a_network",
    "model.bert.hidden_size": BERT_SHAPE,
    "model.bert.layers": BERT_SHAPE,
    "model.bert.heads": BERT_SHAPE,
    "model.bert.intermediate_size": BERT_SHAPE,
    "model.bert.vocab_size": BERT_SHAPE,
    "model.rnn.kind": "models/test_kinds.py::test_kind_discriminates",
    "model.rnn.name": RNN_SHAPE,
    "model.rnn.embedding_size": RNN_SHAPE,
    "model.rnn.hidden_size": RNN_SHAPE,
    "model.rnn.layers": RNN_SHAPE,
    "model.rnn.vocab_size": RNN_SHAPE,
    "optim.name": "training/test_optim.py::test_the_optimiser_is_fused",
    "optim.lr": "training/test_optim.py::test_the_factor_scales_each_groups_own_peak",
    "optim.momentum": LOOP_KEY,
    "optim.weight_decay": "training/test_optim.py::test_norms_and_biases_do_not_decay",
    "optim.layer_decay": "training/test_optim.py::test_rates_fall_from_stage_to_stage_towards_the_input",
    "optim.head_lr": "training/test_optim.py::test_rates_fall_from_stage_to_stage_towards_the_input",
    "optim.schedule": "training/test_optim.py::test_the_shapes_differ_and_their_warm_ups_have_defaults",
    "optim.warmup": "training/test_optim.py::test_a_schedule_rises_to_its_peak_and_falls_to_nothing",
    "optim.label_smoothing": LOOP_KEY,
    "optim.class_weights": "training/test_loop.py::test_balanced_weights_are_inverse_to_the_counts",
    "optim.balanced_sampling": "training/test_loop.py::test_balanced_sampling_draws_classes_alike",
    "optim.clip": LOOP_KEY,
    "optim.ema": "training/test_loop.py::test_the_average_is_what_is_validated_and_kept",
    "trainer.max_epochs": "training/test_loop.py::test_it_learns",
    "trainer.precision": "training/test_loop.py::test_precision_sets_the_type_of_activations",
    "trainer.devices": "test_end_to_end.py::test_two_processes_train_one_model",
    "trainer.strategy": "training/test_sharded.py::test_fsdp_is_refused_without_gpus_and_with_16_mixed",
    "trainer.accumulate": "training/test_loop.py::test_accumulated_batches_make_the_step_of_one_large_batch",
    "trainer.save_every": "training/test_loop.py::test_a_checkpoint_is_written_every_few_steps",
    "trainer.resume": "training/test_runs.py::test_auto_goes_on_with_the_newest_unfinished_run",
    "trainer.keep": "training/test_run.py::test_keep_chooses_the_weights_of_the_bundle",
    "trainer.monitor": "training/test_loop.py::test_the_monitor_judges_and_less_loss_is_better",
    "trainer.patience": "training/test_loop.py::test_patience_ends_training_early",
    "trainer.channels_last": "training/test_run.py::test_channels_last_lays_images_out_by_pixel_and_changes_no_answer",
    "trainer.compile": "training/test_run.py::test_compile_keeps_the_weights_names_and_the_result",
    "trainer.loggers": "training/test_observers.py::test_mlflow_knows_of_a_run_that_failed",
    "trainer.log_every": "training/test_observers.py::test_log_every_sets_the_points_of_the_curves",
    "trainer.preset": "training/test_presets.py::test_overfit_batch_learns_its_batch_by_heart",
    "trainer.threads": "training/test_run.py::test_threads_are_those_of_torch",
    "bundle.samples": "training/test_run.py::test_samples_false_leaves_them_out",
}


def keys() -> Iterator[str]:
    """All keys of a config, from its models."""
    for section, field in Experiment.model_fields.items():
        kinds = KINDS.get(section, [])
        if kinds:
            shared = set.intersection(*(set(kind.model_fields) for kind in kinds)) - {"kind", "name"}
            yield from (f"{section}.{key}" for key in shared)
            for kind in kinds:
                name = kind.model_fields["kind"].annotation.__args__[0]  # type: ignore[union-attr]
                yield from (f"{section}.{name}.{key}" for key in kind.model_fields if key not in shared)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from (f"{section}.{key}" for key in field.annotation.model_fields)
        else:
            yield section


@cache
def functions(file: str) -> dict[str, str]:
    """The source of each test function of a file, decorators included."""
    source = (TESTS / file).read_text(encoding="utf-8")
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name] = "\n".join(source.splitlines()[first - 1 : node.end_lineno])
    return found


def test_every_key_has_a_test() -> None:
    offered = set(keys())

    assert offered - set(TESTED_BY) == set(), "name in TESTED_BY the test that shows what each of these does"
    assert set(TESTED_BY) - offered == set(), "there are no such keys"


@pytest.mark.parametrize("key", TESTED_BY)
def test_the_test_is_there_and_names_the_key(key: str) -> None:
    file, _, name = TESTED_BY[key].partition("::")

    assert key.rpartition(".")[2] in functions(file)[name]
