"""The rules of the API, one by one: where each is shown. What needs a laboratory is in tests/cluster/test_rules.py.

A rule that another file shows already is not shown twice: the table names the test, and a test looks that it is there.
"""

import ast
import functools
import inspect
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import DataConversionWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.metrics import f1_score, make_scorer, mean_absolute_error
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler, TargetEncoder
from torch import nn

import h3lab as h3
from h3lab.errors import DataError, ModelError, SpecMismatch, UnknownName, Untrusted, UsageError
from h3lab.feeds.feed import Feed
from h3lab.preparing.prepare import prepare

#: The heading of a rule → the rule in a few words → the test that shows it; without a file, it is one of this file.
RULES: dict[str, dict[str, str]] = {
    "Columns": {
        "a string selects a 1-D column, a list a 2-D table": "test_pipeline.test_it_is_a_column_transformer",
        "a worker of text is cloned for each column": (
            "test_pipeline.test_a_list_of_text_columns_is_vectorised_column_by_column"
        ),
        "the repr shows what is cloned": "test_pipeline.test_the_text_is_the_code_and_says_what_is_cloned",
        "a worker that changes the number of rows is named": (
            "test_pipeline.test_a_worker_that_changes_the_rows_is_named"
        ),
        "a random state that is None follows from the seed": (
            "test_preparing.test_random_states_follow_from_the_seed_and_the_place"
        ),
        "rows that a target encoder is fitted on are cross-fitted": (
            "test_a_target_encoder_encodes_its_own_rows_as_fit_transform_does"
        ),
        "and are so on a lab": "cluster.test_rules.test_a_target_encoder_on_the_lab_is_as_here",
        "join=concat gives one matrix": "test_pipeline.test_it_is_a_column_transformer",
        "join=blocks keeps a dict": "test_pipeline.test_blocks_can_stay_apart_in_their_own_type",
        "join=blocks calls the model with keywords": "test_join_blocks_calls_the_model_with_keywords",
        "join=blocks is one matrix to an estimator": "test_an_estimator_gets_blocks_side_by_side",
        "source= is refused as long as blocks of several sources are not joined": (
            "test_preparing.test_wrong_sources_are_refused_at_once"
        ),
        "dtype= stores a cast": "test_dtype_stores_a_cast",
    },
    "Label and task": {
        "a regressor decides, on a lab": "cluster.test_rules.test_a_regressor_decides_the_task_on_the_lab_as_here",
        "a regressor decides the task of whole numbers": "test_a_regressor_decides_that_whole_numbers_are_quantities",
        "a classifier decides the task of floats": "test_a_classifier_decides_that_whole_floats_are_classes",
        "else the label does": "test_preparing.test_the_label_decides_the_task",
        "else the label does, in arrays": "test_arrays.test_strings_booleans_categories_and_integers_are_classes",
        "task= wins over both": "test_task_wins_over_the_label_and_the_model",
        "task= wins, in arrays": "test_arrays.test_task_wins",
        "the repr shows it": "test_the_repr_shows_task_and_classes",
        "more than 100 integer classes are questioned": "test_preparing.test_many_whole_numbers_are_questioned",
        "more than 100 integer classes are questioned, in arrays": "test_arrays.test_many_integers_are_doubted",
        "a Spec has these fields": "test_the_fields_of_a_spec",
        "answers are the labels of the source": "test_actor.test_answers_are_labels_as_in_the_source",
        "weight= a column": "test_a_weight_column_weighs_as_sample_weight_does",
        "class_weight= balanced or a dict": "test_class_weight_is_scikit_learns",
        "sample_weight in fit": "test_sample_weight_in_fit_is_scikit_learns",
        "several targets": "test_several_targets_have_a_column_each",
        "sparse and dense rows": "test_sparse_rows_teach_the_same_as_dense_ones",
        "a column of labels is taken as 1-D and said": "test_a_column_of_labels_is_said_to_be_taken_as_one_dimension",
    },
    "Raw or prepared": {
        "raw rows in every form": "test_raw_rows_come_in_any_form_and_any_order",
        "or a feed": "test_actor.test_raw_rows_in_every_form",
        "labels beside raw rows": "test_actor.test_labels_beside_the_rows",
        "a bare array where the pipeline was fitted on arrays": (
            "test_actor.test_arrays_through_a_pipeline_that_was_fitted_on_arrays"
        ),
        "else an array is refused": "test_a_bare_array_is_refused_with_what_to_pass",
        "the label column may be absent": "test_the_label_column_may_be_absent",
    },
    "Who holds what was learned": {
        "lab.train works on a copy": "cluster.test_rules.test_lab_train_works_on_a_copy",
        "wait and stop load the result": "cluster.test_runs.test_wait_loads_the_result_into_the_actor_that_was_passed",
        "run.actor is the newest snapshot": "test_run.test_the_newest_snapshot_answers_until_there_is_a_result",
        "the passed actor says what to do": (
            "cluster.test_rules.test_the_passed_actor_says_what_to_do_while_its_run_trains"
        ),
        "native is the trained module on the CPU": (
            "test_torch.test_asking_in_between_leaves_dropout_on_and_native_off"
        ),
        "native is the trained estimator": "test_sklearn.test_native_is_fitted_on_the_labels_as_they_stand",
        "to_sklearn is a plain Pipeline": "test_saving.test_a_plain_pipeline_has_the_same_answers",
        "a fitted native model predicts and teaches": (
            "test_sklearn.test_a_fitted_estimator_answers_and_teaches_at_once"
        ),
        "training starts fresh": "test_actor.test_fit_forgets_what_was_learned",
        "start= continues": "test_training.test_start_continues_with_what_another_learned",
        "start= a run continues": "cluster.test_runs.test_start_continues_from_a_run",
        "start= of what does not fit is refused at once": "test_a_start_that_does_not_fit_is_refused_at_once",
        "start= where a fit forgets it is refused": "test_a_start_that_a_fit_would_forget_is_refused",
        "start= a forest goes on growing": "test_a_forest_goes_on_from_where_another_stopped",
        "whatever takes an actor takes a run": "cluster.test_rules.test_whatever_takes_an_actor_takes_a_run",
    },
    "The pipeline is optional on an actor": {
        "training on a feed adopts its pipeline": "test_actor.test_training_on_a_feed_takes_over_its_pipeline",
        "a different one is an error naming the worker": "test_another_pipeline_is_an_error_that_names_the_worker",
        "the user's own objects are never changed": "test_prepare_and_train_never_change_the_users_own_objects",
    },
    "Names": {
        "runs are numbered": "test_folder.test_numbers_count_from_one",
        "numbers are claimed once": "test_folder.test_a_number_is_given_once",
        "attach by name, number, or the last": "test_folder.test_runs_are_found_by_name_number_and_age",
        "a name that still trains": (
            "cluster.test_runs.test_wrong_values_and_names_are_refused_before_anything_starts"
        ),
        "replace=True": "cluster.test_runs.test_replace_ends_the_run_of_that_name",
        "Lab joins what runs": "cluster.test_lab.test_a_cell_executed_twice_joins_what_runs",
        "controls of a finished run change nothing": "test_run.test_controls_change_nothing_once_it_has_ended",
    },
    "Waiting": {
        "wait ends with its time": "test_run.test_waiting_ends_with_its_time",
        "wait raises the remote error": "test_run.test_a_failed_run_raises_with_the_remote_traceback",
        "Ctrl-C ends the waiting, not the run": (
            "cluster.test_starting.test_an_interrupt_ends_the_waiting_and_not_the_run_and_stop_all_ends_both"
        ),
        "controls return when confirmed": (
            "cluster.test_contract.test_a_new_setting_holds_from_the_step_it_is_confirmed_at"
        ),
        "controls are recorded while no rank lives": "test_run.test_controls_are_recorded_while_no_rank_lives",
        "stop ends a queued run": "cluster.test_runs.test_stop_ends_a_queued_run",
        "a run is iterated": "cluster.test_runs.test_following_a_run_gives_every_record_once",
        "a training says how to iterate it": "test_training.test_its_repr_says_how_to_iterate_it",
    },
    "Training settings": {
        "the arguments and their defaults": "test_arguments_and_defaults_are_the_contracts",
        "are on the actor and overridden for one run": "test_settings_of_the_actor_are_overridden_for_one_run",
        "batch_size is global": "test_training.test_a_rank_gets_its_share_of_every_batch",
        "metrics are scorers or functions": "test_metrics_are_scorers_or_functions_and_name_their_columns",
        "a metric that cannot be measured is refused": "test_a_metric_that_cannot_be_measured_is_refused_at_once",
        "the columns of records": "test_training.test_a_record_a_step_and_validation_in_the_last_of_an_epoch",
        "soft_loss and hard_loss": "test_transfer.test_a_step_tells_both_parts_and_their_sum",
        "with patience the best epoch is kept": "test_training.test_with_patience_the_best_epoch_is_kept",
        "with patience the best epoch is kept, in a run": (
            "cluster.test_rules.test_with_patience_the_best_epoch_is_what_comes_back"
        ),
        "monitor rises or falls": "test_a_monitored_metric_rises_unless_its_name_says_loss_or_error",
        "splits are stable when rows are added": "test_source.test_a_row_keeps_its_side_when_rows_are_added",
        "splits of files are stable when rows are added": "test_a_split_of_files_is_stable_when_rows_are_added",
        "an empty side is an error": "test_source.test_an_empty_side_is_an_error",
        "keys do not depend on the parts": "test_source.test_keys_do_not_depend_on_the_cut",
        "stratified splits are exact": "test_source.test_a_stratified_split_is_exact",
        "validation= a fraction of a feed says what it shares": (
            "test_a_fraction_of_a_feed_says_that_it_shares_the_preprocessing"
        ),
        "it is refused where a worker saw the labels": (
            "test_actor.test_a_split_of_a_feed_is_refused_where_a_worker_saw_the_labels"
        ),
        "validation rows of raw data do not enter the fit": (
            "test_actor.test_rows_to_validate_on_do_not_enter_the_fit"
        ),
        "build a module keeps its weights": "test_torch.test_a_given_module_is_copied_and_its_weights_are_kept",
        "optimizer a function": "test_an_optimizer_of_ones_own_is_torchs",
        "scheduler multiplies what set(lr=) sets": ("test_torch.test_what_set_lr_sets_is_multiplied_by_the_schedule"),
        "loss a name or a function": "test_torch.test_losses_of_a_classification",
        "step of one's own": "test_torch.test_a_step_of_ones_own",
        "precision": "test_torch.test_bfloat16_computes_in_it_and_keeps_parameters_in_float32",
        "clip_norm": "test_torch.test_clip_norm_bounds_an_update",
        "accumulate": "test_torch.test_pieces_add_up_to_the_whole_batch",
        "compile": "test_torch.test_a_compiled_network_learns_the_same",
        "device": "test_torch.test_a_device_that_is_not_there",
        "the same seed gives the same bits": (
            "test_training.test_the_same_seed_gives_the_same_bits_and_another_gives_others"
        ),
        "a run has the bits of the local loop": (
            "cluster.test_contract.test_the_remote_run_has_the_same_bits_as_the_local_loop"
        ),
        "prepare's choices where data is raw": (
            "test_guess.test_training_on_raw_rows_leaves_out_those_without_a_label_and_counts_them"
        ),
        "snapshot_every": "cluster.test_rules.test_snapshot_every_counts_steps",
    },
    "Distill": {
        "the arguments and their defaults": "test_arguments_and_defaults_are_the_contracts",
        "the loss": "test_transfer.test_it_is_kl_from_teacher_to_student_times_t_squared_as_mean_over_rows",
        "hard=None is 1 - soft": "test_transfer.test_hard_is_what_soft_leaves_unless_it_is_given",
        "its weights and temperature are steered": "test_distills_weights_and_temperature_are_steered",
        "teacher an actor": "test_transfer.test_students_of_both_worlds_follow_teachers_of_both",
        "teacher a run": "cluster.test_runs.test_distilling_from_a_run",
        "teachers with weights": ("test_transfer.test_several_teachers_teach_as_a_mixture_of_their_probabilities"),
        "teacher a function of raw rows": "test_transfer.test_the_label_is_not_shown_to_a_function",
        "the feed's own pipeline reads the feed": (
            "test_transfer.test_a_teacher_with_the_feeds_own_pipeline_reads_the_feed"
        ),
        "another pipeline reads raw rows by key": (
            "test_transfer.test_a_teacher_with_a_pipeline_of_its_own_reads_the_raw_rows"
        ),
        "answers are stored once": "test_transfer.test_answers_are_kept_for_the_next_student",
        "a source that cannot be read again": "test_transfer.test_rows_in_memory_are_asked_for",
        "source= takes what read takes": "test_source_of_distill_takes_a_path",
    },
    "Doors": {
        "wherever a source goes, so does what read takes": "test_raw_rows_come_in_any_form_and_any_order",
        "to=None stores under the home, a relative to at the notebook": (
            "cluster.test_rules.test_to_is_the_home_or_resolves_against_the_notebook"
        ),
        "arrays, targets and len": "test_the_doors_of_a_feed_agree",
        "frame": "test_feed.test_frame_shows_the_first_rows",
        "torch": "test_feed.test_torch_reads_it_in_batches",
        "arrow": "test_feed.test_arrow_holds_all_rows",
        "an epoch sees each row once": "test_epochs.test_an_epoch_sees_each_row_once",
        "open_feed takes types": "test_what_has_no_name_is_said_when_it_is_prepared",
        "load takes build": "test_saving.test_a_network_of_ones_own_needs_its_function",
        "load takes types": "test_saving.test_types_of_ones_own_are_asked_for",
        "a pipeline with a lambda still trains": "cluster.test_rules.test_a_pipeline_with_a_lambda_trains",
    },
    "Ending": {
        "with waits, and stops what it started": (
            "cluster.test_starting.test_leaving_ends_what_was_started_and_waits_for_its_runs"
        ),
        "an exception stops its runs": ("cluster.test_lab.test_leaving_with_an_exception_stops_the_runs_begun_in_it"),
        "a dying kernel stops nothing": (
            "cluster.test_contract.test_a_killed_kernel_leaves_its_run_and_a_new_one_finds_every_record"
        ),
        "close refuses while runs train": "cluster.test_lab.test_close_refuses_while_runs_train",
        "runs and delete": "cluster.test_runs.test_runs_lists_and_delete_removes",
        "leases are visible and extended": "cluster.test_lab.test_a_lease_can_be_extended",
    },
}


@functools.cache
def names_in(module: str) -> list[str]:
    tree = ast.parse((Path(__file__).parent / f"{module.replace('.', '/')}.py").read_text())
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def test_every_rule_is_shown_by_a_test_that_is_there() -> None:
    shown = [name if "." in name else f"test_rules.{name}" for rules in RULES.values() for name in rules.values()]
    missing = [name for name in shown if name.rpartition(".")[2] not in names_in(name.rpartition(".")[0])]
    assert missing == []
    own = {f"{module}.{name}" for module in ("test_rules", "cluster.test_rules") for name in names_in(module)}
    assert own - set(shown) == {"test_rules.test_every_rule_is_shown_by_a_test_that_is_there"}


# ---- What the tests are made of


def table(rows: int = 240, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    found = pd.DataFrame({"a": rng.normal(size=rows), "b": rng.normal(2, 3, rows), "c": rng.choice(list("xyz"), rows)})
    score = found.a + 0.3 * found.b + (found.c == "x") + rng.normal(0, 0.3, rows)
    found["stars"] = np.clip(np.round(score + 3), 1, 5).astype(int)
    found["price"] = score.to_numpy()
    found["answer"] = np.where(score > 1, "yes", "no")
    found["trust"] = rng.random(rows) * (found.c != "z")
    return found


def numbers(label: str | None = "answer", *workers: Any, **settings: Any) -> h3.Pipeline:
    return h3.Pipeline(h3.Preprocessor("n", ["a", "b"], *(workers or (StandardScaler(),))), label=label, **settings)


def scaled(rows: pd.DataFrame) -> np.ndarray:
    return StandardScaler().fit_transform(rows[["a", "b"]])


def linear(spec: Any) -> nn.Module:
    return nn.Linear(spec.features, spec.outputs)


def net(name: str = "net", build: Any = linear, **settings: Any) -> h3.Actor:
    return h3.Actor(name, h3.TorchModel(build, lr=0.01), **{"epochs": 2, **settings})


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    return (X[:300] / 16).astype(np.float32), y[:300]


# ---- Columns


@pytest.mark.parametrize("label", ["answer", "stars", "price"])
def test_a_target_encoder_encodes_its_own_rows_as_fit_transform_does(label: str, tmp_path: Path) -> None:
    rows = table()
    pipeline = h3.Pipeline(h3.Preprocessor("city", ["c"], TargetEncoder(), StandardScaler()), label=label)
    feed = prepare(pipeline, rows, to=tmp_path / "feed")
    state = feed.pipeline.state
    before = np.random.get_state()
    np.random.seed(state.how[0]["cross_fitted"])
    expected = clone(state.stages["city"][0][0]).fit_transform(rows[["c"]], rows[label])
    np.random.set_state(before)
    np.testing.assert_allclose(feed.arrays()[0], StandardScaler().fit_transform(expected), atol=1e-12)
    # Rows that it is applied to are encoded by all labels, also in a folder where the others are stored.
    fitted = state.stages["city"][0][0]
    np.testing.assert_allclose(fitted.encodings_[0], TargetEncoder().fit(rows[["c"]], rows[label]).encodings_[0])
    plain = prepare(feed.pipeline, rows, to=tmp_path / "feed").arrays()[0]
    np.testing.assert_allclose(plain, feed.pipeline.transform(rows).x)
    assert np.abs(plain - feed.arrays()[0]).max() > 1e-6
    np.testing.assert_array_equal(prepare(pipeline, rows, to=tmp_path / "feed").arrays()[0], feed.arrays()[0])


class Towers(nn.Module):
    """Takes each block by its name, in no order."""

    def __init__(self, spec: Any) -> None:
        super().__init__()
        self.city = nn.Linear(spec.blocks["city"].shape[0], spec.outputs)
        self.n = nn.Linear(spec.blocks["n"].shape[0], spec.outputs)

    def forward(self, *, city: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return self.city(city) + self.n(n)


def both(join: Any) -> h3.Pipeline:
    return h3.Pipeline(
        h3.Preprocessor("n", ["a", "b"], StandardScaler()),
        h3.Preprocessor("city", ["c"], OneHotEncoder(sparse_output=False)),
        label="answer",
        join=join,
    )


def test_join_blocks_calls_the_model_with_keywords() -> None:
    rows = table()
    actor = net(build=Towers, pipeline=both("blocks")).fit(rows)
    with torch.no_grad():
        given = {"n": scaled(rows), "city": OneHotEncoder(sparse_output=False).fit_transform(rows[["c"]])}
        expected = actor.native(**{name: torch.tensor(x, dtype=torch.float32) for name, x in given.items()})
    np.testing.assert_allclose(actor.logits(rows), expected.numpy(), atol=1e-6)
    assert actor.score(rows) == (actor.predict(rows) == rows.answer).mean()


def test_an_estimator_gets_blocks_side_by_side() -> None:
    rows = table()
    apart, joined = (h3.Actor(join, LogisticRegression(), both(join)).fit(rows) for join in ("blocks", "concat"))
    np.testing.assert_array_equal(apart.native.coef_, joined.native.coef_)
    np.testing.assert_array_equal(apart.predict_proba(rows), joined.predict_proba(rows))


def test_dtype_stores_a_cast(tmp_path: Path) -> None:
    rows = table()
    feed = prepare(numbers(dtype="float32"), rows, to=tmp_path)
    assert h3.open_feed(tmp_path).arrays()[0].dtype == np.float32 == feed.pipeline.transform(rows).x.dtype
    np.testing.assert_array_equal(feed.arrays()[0], scaled(rows).astype(np.float32))
    assert feed.spec.blocks["n"].dtype == "float32"


# ---- Label and task


def test_a_regressor_decides_that_whole_numbers_are_quantities() -> None:
    rows = table()
    expected = Ridge().fit(scaled(rows), rows.stars)
    feed = prepare(numbers("stars"), rows)
    assert feed.spec.task == "classification"
    for actor in (
        h3.Actor("feed", Ridge()).fit(feed),
        h3.Actor("raw", Ridge(), numbers("stars")).fit(rows),
        h3.Actor("fitted", Ridge(), feed.pipeline).fit(rows),
        h3.Actor("arrays", Ridge()).fit(scaled(rows), rows.stars),
    ):
        asked = scaled(rows) if actor.name == "arrays" else rows
        np.testing.assert_allclose(actor.predict(asked), expected.predict(scaled(rows)), atol=1e-12)
        truth = (rows.stars,) if actor.name == "arrays" else ()
        assert actor.score(asked, *truth) == pytest.approx(expected.score(scaled(rows), rows.stars))
        assert actor.task == "regression" and not hasattr(actor, "classes_")
    held = prepare(feed.pipeline, table(seed=1))
    record = list(h3.train(h3.Actor("held", Ridge()), feed, validation=held, metrics=["r2"]))[-1]
    assert record["val_r2"] == pytest.approx(expected.score(feed.pipeline.transform(table(seed=1)).x, held.arrays()[1]))
    many = pd.DataFrame({"a": np.arange(300.0), "b": np.arange(300.0), "stars": np.arange(300)})
    h3.Actor("many", Ridge(), numbers("stars")).fit(many)  # three hundred classes would be a warning


def test_a_classifier_decides_that_whole_floats_are_classes() -> None:
    rows = table()
    rows["high"] = (rows.stars > 3).astype(float)
    expected = LogisticRegression().fit(scaled(rows), rows.high)
    feed = prepare(numbers("high"), rows)
    assert feed.spec.task == "regression"
    for actor in (
        h3.Actor("feed", LogisticRegression()).fit(feed),
        h3.Actor("raw", LogisticRegression(), numbers("high")).fit(rows),
    ):
        np.testing.assert_array_equal(actor.predict(rows), expected.predict(scaled(rows)))
        assert actor.classes_.tolist() == [0.0, 1.0] and actor.score(feed) == expected.score(scaled(rows), rows.high)
    with pytest.raises(DataError, match=r"continuous|Use an estimator for that"):
        h3.Actor("quantities", LogisticRegression()).fit(prepare(numbers("price"), rows))


def test_task_wins_over_the_label_and_the_model() -> None:
    rows = table()
    assert prepare(numbers("stars", task="regression"), rows).spec.task == "regression"
    feed = prepare(numbers("stars", task="classification"), rows)
    with pytest.raises(SpecMismatch, match="Ridge is a regressor, and the data is classification, 5 classes"):
        h3.Actor("ridge", Ridge()).fit(feed)
    with pytest.raises(SpecMismatch, match="LogisticRegression is a classifier, and the data is regression"):
        h3.Actor("classes", LogisticRegression(), numbers("stars", task="regression")).fit(rows)


def test_the_repr_shows_task_and_classes() -> None:
    rows = table()
    feed = prepare(numbers("stars"), rows)
    assert "classification, 5 classes" in repr(feed) and "classification, 5 classes" in repr(feed.pipeline)
    assert "classification, 2 classes" in repr(h3.Actor("a", LogisticRegression(), numbers()).fit(rows))
    assert "regression" in repr(prepare(numbers("price"), rows))


def test_the_fields_of_a_spec(digits: Any) -> None:
    spec = prepare(both("concat"), table()).spec
    assert (spec.task, spec.features, spec.shape, spec.outputs) == ("classification", 5, (5,), 2)
    assert (spec.classes, spec.labels) == (2, ("no", "yes"))
    assert {name: block.shape for name, block in spec.blocks.items()} == {"n": (2,), "city": (3,)}
    spec = prepare(numbers("price"), table()).spec
    assert (spec.task, spec.outputs, spec.classes, spec.labels) == ("regression", 1, None, None)
    X, y = digits
    spec = Feed.of(X.reshape(-1, 1, 8, 8), y).spec
    assert (spec.features, spec.shape, spec.outputs, spec.labels) == (64, (1, 8, 8), 10, tuple(range(10)))


def test_a_weight_column_weighs_as_sample_weight_does() -> None:
    rows = table()
    expected = LogisticRegression().fit(scaled(rows), rows.answer, rows.trust)
    actor = h3.Actor("weighted", LogisticRegression(), numbers(weight="trust")).fit(rows)
    np.testing.assert_allclose(actor.native.coef_, expected.coef_, atol=1e-12)
    assert actor.score(rows) == pytest.approx(expected.score(scaled(rows), rows.answer, rows.trust))
    # A network's loss is the weighted mean over the batch; its gradient is checked by hand.
    feed = prepare(numbers(weight="trust", dtype="float32"), rows)
    one = net(epochs=1, batch_size=len(rows), seed=3)
    record = next(h3.train(one, feed))
    torch.manual_seed(3)
    batch = next(feed.epoch(1, batch_size=len(rows), seed=3))
    start = h3.TorchModel(linear)
    start.build(feed.spec, 3)
    logits = start.native(torch.from_numpy(batch.x))
    losses = nn.functional.cross_entropy(logits, torch.from_numpy(batch.y), reduction="none")
    assert record["loss"] == pytest.approx((losses * torch.from_numpy(batch.weight)).mean().item(), rel=1e-6)


@pytest.mark.parametrize("asked", ["balanced", {"yes": 5.0}, {"yes": 5.0, "no": 0.5}])
def test_class_weight_is_scikit_learns(asked: Any) -> None:
    rows = table().query("answer == 'yes' or a > 0")
    expected = LogisticRegression(class_weight=asked).fit(scaled(rows), rows.answer)
    actor = h3.Actor("weighted", LogisticRegression(), numbers())
    list(h3.train(actor, rows, class_weight=asked))
    np.testing.assert_allclose(actor.native.coef_, expected.coef_, atol=1e-12)
    with pytest.raises(UnknownName, match="no class 'maybe'"):
        h3.train(actor, rows, class_weight={"maybe": 2})
    with pytest.raises(UsageError, match="no classes"):
        h3.train(h3.Actor("r", Ridge(), numbers("price")), rows, class_weight="balanced")


def test_sample_weight_in_fit_is_scikit_learns() -> None:
    rows = table()
    weight = rows.trust.to_numpy()
    expected = LogisticRegression().fit(scaled(rows), rows.answer, weight)
    arrays = h3.Actor("arrays", LogisticRegression()).fit(scaled(rows), rows.answer, sample_weight=weight)
    raw = h3.Actor("raw", LogisticRegression(), numbers(None)).fit(rows[["a", "b"]], rows.answer, sample_weight=weight)
    for actor in (arrays, raw):
        np.testing.assert_allclose(actor.native.coef_, expected.coef_, atol=1e-12)


def test_several_targets_have_a_column_each() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 3))
    Y = X @ rng.normal(size=(3, 2)) + 1.0
    expected = LinearRegression().fit(X, Y)
    actor = h3.Actor("plain", LinearRegression()).fit(X, Y)
    np.testing.assert_allclose(actor.predict(X), expected.predict(X), atol=1e-12)
    assert actor.spec_.outputs == 2 and actor.score(X, Y) == pytest.approx(expected.score(X, Y))
    deep = h3.Actor("deep", h3.TorchModel(linear, lr=0.1), epochs=100).fit(X, Y)
    assert deep.predict(X).shape == (120, 2) and deep.score(X, Y) > 0.999
    losses = deep.evaluate(X, Y)
    assert losses["loss"] == pytest.approx(np.square(deep.predict(X) - Y).mean(), rel=1e-5)


def test_sparse_rows_teach_the_same_as_dense_ones() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(40)]
    rows = pd.DataFrame({"text": [" ".join(rng.choice(words, 5)) for _ in range(150)]})
    rows["answer"] = rows.text.str.contains("w1").map({True: "yes", False: "no"})
    dense = FunctionTransformer(lambda x: x.toarray(), accept_sparse=True)

    def recipe(*workers: Any) -> h3.Pipeline:
        return h3.Pipeline(h3.Preprocessor("t", "text", CountVectorizer(), *workers), label="answer", dtype="float64")

    feeds = [prepare(recipe(), rows), prepare(recipe(dense), rows)]
    assert sparse.issparse(feeds[0].arrays()[0]) and not sparse.issparse(feeds[1].arrays()[0])
    for make in (lambda: h3.Actor("l", LogisticRegression()), net):
        one, two = (make().fit(feed) for feed in feeds)
        np.testing.assert_allclose(one.logits(feeds[0]), two.logits(feeds[1]), atol=1e-6)


def test_a_column_of_labels_is_said_to_be_taken_as_one_dimension(digits: Any) -> None:
    X, y = digits
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        actor = h3.Actor("plain", LogisticRegression(max_iter=300)).fit(X, y[:, None])
    assert actor.predict(X).shape == y.shape
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        feed = Feed.of(X, y[:, None].astype(float))
    assert feed.spec.task == "regression" and feed.targets().shape == y.shape


# ---- Raw or prepared


def test_raw_rows_come_in_any_form_and_any_order(tmp_path: Path) -> None:
    rows = table()
    actor = h3.Actor("raw", LogisticRegression(), both("concat")).fit(rows)
    expected, score = actor.logits(prepare(actor.pipeline_, rows)), actor.score(rows)
    path = tmp_path / "rows.parquet"
    rows[["trust", "answer", "c", "b", "a"]].to_parquet(path)
    turned = rows[["answer", "c", "b", "a", "stars"]]
    forms = {
        "frame": turned,
        "arrow": pa.Table.from_pandas(turned),
        "source": h3.read(turned),
        "dicts": turned.to_dict("records"),
        "path": path,
        "text": str(path),
        "paths": [path],
    }
    for name, form in forms.items():
        np.testing.assert_array_equal(actor.logits(form), expected, err_msg=name)
        assert actor.score(form) == score == actor.evaluate(form)["accuracy"], name
        other = h3.Actor("again", LogisticRegression(), both("concat"))
        record = list(h3.train(other, form, validation=form))[-1]
        assert record["val_accuracy"] == score, name
        np.testing.assert_array_equal(other.logits(rows), expected, err_msg=name)


def test_a_bare_array_is_refused_with_what_to_pass() -> None:
    actor = h3.Actor("raw", LogisticRegression(), numbers()).fit(table())
    for ask in (actor.predict, actor.predict_proba, actor.score, actor.evaluate):
        with pytest.raises(UsageError, match=r"Pass a DataFrame, an Arrow table, a Source or a list of dicts"):
            ask(scaled(table()))


def test_the_label_column_may_be_absent() -> None:
    rows = table()
    actor = h3.Actor("raw", LogisticRegression(), numbers()).fit(rows)
    bare = rows[["b", "a"]]
    np.testing.assert_array_equal(actor.predict(bare), actor.predict(rows))
    assert actor.score(bare, rows.answer) == actor.score(rows)
    with pytest.raises(UsageError, match="pass y, or rows with the label's column"):
        actor.score(bare)


# ---- Who holds what was learned


def test_a_start_that_does_not_fit_is_refused_at_once(digits: Any) -> None:
    X, y = digits
    wide = net("wide", lambda spec: nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 10))).fit(X, y)
    with pytest.raises(ModelError, match=r"start='wide' does not fit this model.*weight is not in the module"):
        h3.train(net(), (X, y), start=wide)
    letters = net("letters").fit(X, np.asarray(list("abcdefghij"))[y])
    with pytest.raises(SpecMismatch, match=r"start='letters' has learned .*'a'.* continues with the classes"):
        h3.train(net(), (X, y), start=letters)
    with pytest.raises(UsageError, match="expected an actor that has learned, or a run"):
        h3.train(net(), (X, y), start=net("empty"))
    begun = h3.train(net(), (X, y), start=(same := net("same").fit(X, y)), lr=0.0)
    next(begun)
    np.testing.assert_array_equal(begun.actor.logits(X), same.logits(X))


def test_a_start_that_a_fit_would_forget_is_refused(digits: Any) -> None:
    X, y = digits
    start = h3.Actor("before", LogisticRegression(max_iter=300)).fit(X, y)
    with pytest.raises(UsageError, match=r"LogisticRegression\(\).*learns in one fit.*warm_start=True"):
        h3.train(h3.Actor("after", LogisticRegression()), (X, y), start=start)
    warm = h3.Actor("warm", LogisticRegression(max_iter=300, warm_start=True))
    list(h3.train(warm, (X, y), start=start))
    assert warm.native.n_iter_[0] < start.native.n_iter_[0]
    descent = h3.Actor("descent", SGDClassifier(loss="log_loss"), epochs=1).fit(X, y)
    first = next(h3.train(clone(descent), (X, y), start=descent))
    assert first["loss"] < next(h3.train(clone(descent), (X, y)))["loss"]


def test_a_forest_goes_on_from_where_another_stopped(digits: Any) -> None:
    from sklearn.ensemble import RandomForestClassifier

    X, y = digits
    start = h3.Actor("three", RandomForestClassifier(3, warm_start=True)).fit(X, y)
    more = h3.Actor("more", RandomForestClassifier(3, warm_start=True))
    assert len(list(h3.train(more, (X, y), start=start, epochs=2))) == 2
    assert len(more.native.estimators_) == 5
    for before, after in zip(start.native.estimators_, more.native.estimators_, strict=False):
        np.testing.assert_array_equal(before.tree_.threshold, after.tree_.threshold)


# ---- The pipeline is optional on an actor


def test_another_pipeline_is_an_error_that_names_the_worker() -> None:
    feed = prepare(numbers("answer", StandardScaler()), table())
    mine = numbers("answer", StandardScaler(with_mean=False))
    expected = r"worker 1 of block 'n' is StandardScaler\(with_mean=False\), in the feed StandardScaler\(\)"
    with pytest.raises(SpecMismatch, match=expected):
        h3.train(h3.Actor("a", LogisticRegression(), mine), feed)
    list(h3.train(h3.Actor("a", LogisticRegression(), numbers()), feed))
    list(h3.train(h3.Actor("a", LogisticRegression(), feed.pipeline), feed))


def test_prepare_and_train_never_change_the_users_own_objects(digits: Any) -> None:
    rows, (X, y) = table(), digits
    X, y, before = X.copy(), y.copy(), rows.copy()
    scaler, module, forest = StandardScaler(), nn.Linear(64, 10), SGDClassifier(loss="log_loss")
    pipeline = numbers("answer", scaler)
    written, weights = repr(pipeline), {name: value.clone() for name, value in module.state_dict().items()}
    feed = prepare(pipeline, rows)
    h3.Actor("raw", LogisticRegression(), pipeline).fit(rows)
    distill = h3.Distill(net("teacher").fit(X, y), soft=0.5)
    student = h3.Actor("student", model := h3.TorchModel(module, lr=0.1), epochs=3)
    training = h3.train(student, (X, y), transfer=distill, lr=0.01, epochs=1, validation=0.2)
    for _ in training:
        training.settings = training.settings.replace(soft=0.1)
    h3.Actor("plain", forest).fit(X, y)
    assert not hasattr(scaler, "mean_") and not hasattr(forest, "coef_") and not hasattr(model, "module_")
    assert repr(pipeline) == written and not pipeline.fitted and feed.pipeline is not pipeline
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    assert (student.epochs, model.lr, distill.soft, student.model) == (3, 0.1, 0.5, model)
    pd.testing.assert_frame_equal(rows, before)
    np.testing.assert_array_equal(X, digits[0])
    np.testing.assert_array_equal(y, digits[1])


# ---- Training settings


def defaults(call: Any) -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(call).parameters.items() if p.default is not p.empty}


def test_arguments_and_defaults_are_the_contracts() -> None:
    assert defaults(h3.Actor) == {
        "pipeline": None,
        "epochs": 10,
        "batch_size": 64,
        "validation": None,
        "patience": None,
        "monitor": "val_loss",
        "metrics": None,
        "seed": 0,
    }
    assert defaults(h3.TorchModel) == {
        "lr": None,  # 1e-3, or what a LightningModule says of itself
        "optimizer": None,  # "adam", or a LightningModule's own
        "loss": None,
        "scheduler": None,
        "step": None,
        "device": None,
        "precision": "float32",
        "clip_norm": None,
        "accumulate": 1,
        "compile": False,
    }
    assert defaults(h3.Pipeline) == {
        "label": None,
        "task": None,
        "weight": None,
        "join": "concat",
        "dtype": None,
        "seed": 0,
    }
    assert defaults(h3.Preprocessor) == {"source": None}
    assert defaults(h3.Lab) == {"engines": None, "profile": None, "cluster": None}
    prepared = {"to": None, "label": None, "on_null_label": "error"}
    assert prepared.items() <= defaults(h3.Lab.prepare).items()
    trained = {"ranks": 1, "transfer": None, "start": None, "replace": False}
    trained |= {"class_weight": None, "snapshot_every": None}
    assert trained.items() <= defaults(h3.Lab.train).items()
    distilled = {"temperature": 4.0, "soft": 0.9, "hard": None, "loss": "kl"}
    assert distilled.items() <= defaults(h3.Distill).items()


def test_settings_of_the_actor_are_overridden_for_one_run(digits: Any) -> None:
    X, y = digits
    actor = net(epochs=3, batch_size=100, validation=0.2, metrics=["f1_macro"], seed=5)
    once = h3.train(actor, (X, y), epochs=1, batch_size=50, validation=(X, y), metrics=[], seed=6, lr=0.5)
    assert (once.epochs, once.options.batch_size, once.options.seed, once.settings.lr) == (1, 50, 6, 0.5)
    assert {"val_loss", "val_accuracy"} == {name for name in list(once)[-1] if name.startswith("val_")}
    again = h3.train(actor, (X, y))
    assert (again.epochs, again.options.batch_size, again.options.seed, again.settings.lr) == (3, 100, 5, 0.01)
    with pytest.raises(UnknownName, match="Did you mean 'patience'"):
        h3.train(actor, (X, y), patiense=3)


def wrong(y: Any, predicted: Any) -> float:
    """How many answers are wrong."""
    return float((y != predicted).sum())


def test_metrics_are_scorers_or_functions_and_name_their_columns(digits: Any) -> None:
    X, y = digits
    scorer = make_scorer(f1_score, average="macro")
    actor = net(epochs=1, metrics=["balanced_accuracy", wrong, scorer])
    record = list(h3.train(actor, (X, y), validation=(X, y)))[-1]
    predicted = actor.predict(X)
    assert record["val_wrong"] == (predicted != y).sum()
    assert record["val_f1_score"] == pytest.approx(f1_score(y, predicted, average="macro"))
    assert record["val_balanced_accuracy"] == actor.evaluate(X, y)["balanced_accuracy"]
    text = net(epochs=1, metrics=[wrong]).fit(X, np.asarray(list("abcdefghij"))[y])
    assert text.evaluate(X, np.asarray(list("abcdefghij"))[y])["wrong"] < len(y)  # labels as in the source, not codes
    turned = make_scorer(mean_absolute_error, greater_is_better=False)
    ridge = h3.Actor("ridge", Ridge(), metrics=turned).fit(X, y.astype(float))
    assert ridge.evaluate(X, y.astype(float))["neg_mean_absolute_error"] < 0


def test_a_metric_that_cannot_be_measured_is_refused_at_once(digits: Any) -> None:
    X, y = digits
    with pytest.raises(UsageError, match=r"'roc_auc' cannot be measured on classification, 10 classes.*multi_class"):
        h3.train(net(metrics=["roc_auc"]), (X, y))
    h3.train(net(metrics=["roc_auc", "average_precision"]), (X, y > 4))
    h3.train(net(metrics=["roc_auc_ovr", "neg_log_loss", "f1_macro", "matthews_corrcoef"]), (X, y))
    h3.train(net(metrics=["r2", "neg_mean_squared_log_error", "d2_absolute_error_score"]), (X, y.astype(float)))
    with pytest.raises(UnknownName, match="Did you mean 'f1_macro'"):
        h3.train(net(metrics=["f1_makro"]), (X, y))
    margins = h3.Actor("margins", RidgeClassifier(), metrics=["roc_auc_ovr"])
    with pytest.raises(UsageError, match=r"'roc_auc_ovr' cannot be measured.*predict_proba"):
        h3.train(margins, (X, y))
    h3.train(margins, (X, y), metrics=["accuracy", "f1_macro"])
    with pytest.raises(UsageError, match="the column 'lambda' would have two"):
        h3.train(net(metrics=[lambda y, p: 0.0, lambda y, p: 1.0]), (X, y))

    def broken(y: Any, predicted: Any) -> float:
        raise ArithmeticError("no such thing")

    with pytest.raises(UsageError, match=r"'broken' cannot be measured.*no such thing.*broken\(y, predicted\)"):
        list(h3.train(net(metrics=[broken]), (X, y), validation=0.2))


@pytest.mark.parametrize(
    ("monitor", "values", "best"),
    [
        ("val_rmse", [3.0, 1.0, 2.0, 2.5], 1.0),
        ("val_poisson_deviance", [3.0, 1.0, 2.0, 2.5], 1.0),
        ("val_perplexity", [3.0, 1.0, 2.0, 2.5], 1.0),
        ("val_gain", [1.0, 3.0, 2.0, 2.5], 3.0),
        ("val_neg_mean_absolute_error", [-3.0, -1.0, -2.0, -2.5], -1.0),
    ],
)
def test_a_monitored_metric_rises_unless_its_name_says_loss_or_error(
    monitor: str, values: list[float], best: float, digits: Any
) -> None:
    X, y = digits
    given = iter(values)

    def metric(y: Any, predicted: Any) -> float:
        return next(given)

    metric.__name__ = monitor.removeprefix("val_")
    actor = net(epochs=9, patience=2, monitor=monitor, metrics=[metric], validation=(X, y))
    ends: dict[float, np.ndarray] = {}
    for record in h3.train(actor, (X, y)):
        if monitor in record:
            ends[record[monitor]] = actor.logits(X)
    assert list(ends) == values
    np.testing.assert_array_equal(actor.logits(X), ends[best])


def test_a_split_of_files_is_stable_when_rows_are_added(tmp_path: Path) -> None:
    rows = table(600)
    rows["row"] = range(600)
    path = tmp_path / "rows.csv"

    def side(count: int, group: str) -> set[int]:
        rows[:count].to_csv(path, index=False)
        train, test = h3.read(path).split(test=0.25, seed=3)
        held = {n for table in test.tables(["row"]) for n in table.column("row").to_pylist()}
        rest = {n for table in train.tables(["row"]) for n in table.column("row").to_pylist()}
        assert held | rest == set(range(count)) and not held & rest
        return held if group == "test" else rest

    for group in ("test", "train"):
        assert side(400, group) == {n for n in side(600, group) if n < 400}
    assert 0.2 < len(side(600, "test")) / 600 < 0.3


def test_a_fraction_of_a_feed_says_that_it_shares_the_preprocessing(digits: Any) -> None:
    rows = table()
    feed = prepare(numbers(), rows)
    with pytest.warns(UserWarning, match=r"0.25.*share its preprocessing \(StandardScaler\).*split the source"):
        h3.train(net(), feed, validation=0.25)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        h3.train(net(), digits, validation=0.25)  # nothing was prepared
        h3.train(net(pipeline=numbers()), rows, validation=0.25)  # split before anything was fitted
        h3.train(net(), feed, validation=prepare(feed.pipeline, table(seed=1)))
        doubled = numbers("answer", FunctionTransformer(np.abs))
        h3.train(net(), prepare(doubled, rows), validation=0.25)  # nothing was learned
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for _ in range(3):
            h3.train(net(), feed, validation=0.375)
    assert len(told) == 1


def test_an_optimizer_of_ones_own_is_torchs(digits: Any) -> None:
    X, y = digits
    actor = net(epochs=1, batch_size=100)
    actor.model.set_params(optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr, momentum=0.5))
    list(h3.train(actor, feed := Feed.of(X, y), seed=2))
    fresh = h3.TorchModel(linear)
    fresh.build(feed.spec, 2)
    module = fresh.native.train()
    optimizer = torch.optim.SGD(module.parameters(), 0.01, momentum=0.5)
    for batch in feed.epoch(1, batch_size=100, seed=2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(torch.from_numpy(batch.x)), torch.from_numpy(batch.y)).backward()
        optimizer.step()
    for name, value in module.state_dict().items():
        assert torch.equal(value, actor.native.state_dict()[name])


# ---- Distill


def test_distills_weights_and_temperature_are_steered(digits: Any) -> None:
    X, y = digits
    teacher = net("teacher", epochs=5).fit(X, y)
    training = h3.train(
        net(), (X, y), transfer=h3.Distill(teacher, temperature=2.0, soft=0.5), batch_size=300, epochs=4
    )
    first = next(training)
    assert first["loss"] == pytest.approx(0.5 * first["soft_loss"] + 0.5 * first["hard_loss"], rel=1e-6)
    training.settings = training.settings.replace(soft=0.25, temperature=8.0)
    logits = torch.from_numpy(training.actor.logits(X))
    second = next(training)
    soft = nn.functional.kl_div(
        (logits / 8).log_softmax(1), (torch.from_numpy(teacher.logits(X)) / 8).log_softmax(1),
        reduction="batchmean", log_target=True,
    )  # fmt: skip
    assert second["soft_loss"] == pytest.approx(64 * soft.item(), rel=1e-4)
    assert second["loss"] == pytest.approx(0.25 * second["soft_loss"] + 0.75 * second["hard_loss"], rel=1e-6)


def test_source_of_distill_takes_a_path(tmp_path: Path) -> None:
    rows = table()
    rows.to_parquet(tmp_path / "rows.parquet")
    teacher = h3.Actor("teacher", LogisticRegression(), both("concat")).fit(rows)
    feed = prepare(numbers(), h3.read(tmp_path / "rows.parquet"))
    list(h3.train(student := net(), feed, transfer=h3.Distill(teacher, source=tmp_path / "rows.parquet")))
    list(h3.train(again := net(), feed, transfer=h3.Distill(teacher, source=h3.read(str(tmp_path / "rows.parquet")))))
    np.testing.assert_array_equal(student.logits(feed), again.logits(feed))


# ---- Doors


def test_the_doors_of_a_feed_agree() -> None:
    rows = table()
    feed = prepare(both("concat"), rows)
    X, y = feed.arrays()
    assert len(feed) == len(rows) == len(X) and y.tolist() == rows.answer.tolist()
    frame = feed.frame(7)
    assert frame["answer"].tolist() == y[:7].tolist()
    np.testing.assert_array_equal(frame.drop(columns="answer").to_numpy(), X[:7])
    arrow = feed.arrow()
    np.testing.assert_array_equal(np.stack(arrow.column("x").to_pylist()), X)
    assert arrow.column("answer").to_pylist() == y.tolist()
    tensors = feed.torch()
    np.testing.assert_array_equal(np.stack([tensors[i][0] for i in range(5)]), X[:5])
    assert [feed.spec.labels[int(tensors[i][1])] for i in range(5)] == y[:5].tolist()


def doubled(x: Any) -> Any:
    return 2 * x


def test_what_has_no_name_is_said_when_it_is_prepared(tmp_path: Path) -> None:
    rows = table()
    with pytest.warns(UserWarning, match=r"h3.open_feed cannot open it later: in block 'n' .*<lambda> has no name"):
        feed = prepare(numbers("answer", FunctionTransformer(lambda x: 2 * x)), rows, to=tmp_path / "lambda")
    assert h3.Actor("a", LogisticRegression()).fit(feed).predict(rows).shape == (len(rows),)
    with pytest.raises(ModelError, match="has no name by which another process finds it"):
        h3.open_feed(tmp_path / "lambda")
    for _ in range(2):  # a cell that is executed twice gives a feed with its pipeline each time
        feed = prepare(numbers("answer", FunctionTransformer(doubled)), rows, to=tmp_path / "named")
        np.testing.assert_array_equal(feed.pipeline.transform(rows).x, 2 * rows[["a", "b"]])
    with pytest.raises(Untrusted, match=r"types=\[doubled\]"):
        h3.open_feed(tmp_path / "named")
    opened = h3.open_feed(tmp_path / "named", types=[doubled])
    np.testing.assert_array_equal(opened.pipeline.transform(rows).x, opened.arrays()[0])
