"""Run folders and which run is gone on with."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from trainyard.base.errors import UsageError
from trainyard.base.files import write_json
from trainyard.config.experiment import Experiment
from trainyard.training.runs import find_run, has_same_data, new_run


def open_run(experiment: Experiment) -> Path:
    """As a run does it."""
    return find_run(experiment) or new_run(experiment)


def experiment(out: Path, **trainer: object) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "trial",
            "out": out,
            "trainer": trainer,
            "data": {"kind": "images", "path": "embedded:digits"},
            "model": {"kind": "cnn"},
        }
    )


def test_each_run_has_a_folder_of_its_own_and_latest_points_at_the_newest(tmp_path: Path) -> None:
    first, second = open_run(experiment(tmp_path)), open_run(experiment(tmp_path))

    assert first != second
    assert (tmp_path / "trial" / "latest").resolve() == second.resolve()
    assert (second / "config.yaml").is_file()


def test_auto_starts_a_run_where_there_is_none(tmp_path: Path) -> None:
    assert open_run(experiment(tmp_path, resume="auto")).is_dir()


def test_auto_goes_on_with_the_newest_unfinished_run(tmp_path: Path) -> None:
    older, newer, finished = (open_run(experiment(tmp_path)) for _ in range(3))
    write_json(finished / "metrics.json", {})

    assert open_run(experiment(tmp_path, resume="auto")) == newer
    assert open_run(experiment(tmp_path, resume=str(older))) == older


def test_auto_leaves_runs_of_another_config_alone_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = open_run(experiment(tmp_path))

    with caplog.at_level(logging.WARNING):
        run = open_run(experiment(tmp_path, resume="auto", max_epochs=3))

    assert run != other
    assert "trainer.max_epochs" in caplog.text


def test_what_does_not_change_the_result_may_differ(tmp_path: Path) -> None:
    run = open_run(experiment(tmp_path, log_every=5))

    assert open_run(experiment(tmp_path, resume=str(run), log_every=1, save_every=7)) == run


@pytest.mark.parametrize("kind", ["missing", "finished", "other"])
def test_a_run_that_cannot_be_gone_on_with_is_refused(tmp_path: Path, kind: str) -> None:
    run = open_run(experiment(tmp_path))
    if kind == "finished":
        write_json(run / "metrics.json", {})
    resume = str(tmp_path / "none") if kind == "missing" else str(run)
    wanted = experiment(tmp_path, resume=resume, max_epochs=99 if kind == "other" else 10)
    sentence = {"missing": "isn't a run folder", "finished": "is finished", "other": "other values of trainer.max_ep"}

    with pytest.raises(UsageError, match=sentence[kind]):
        open_run(wanted)


def test_a_run_whose_data_changed_is_left_alone_or_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = open_run(experiment(tmp_path))
    assert has_same_data(run, "new", explicit=True), "killed before it wrote what its data was"
    write_json(run / "data_report.json", {"fingerprint": "old"})

    assert has_same_data(run, "old", explicit=True)
    assert not has_same_data(run, "new", explicit=False)
    assert "the data changed" in caplog.text
    with pytest.raises(UsageError, match="the data changed since the run"):
        has_same_data(run, "new", explicit=True)


def test_an_unwritable_place_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError, match="can't be made"):
        open_run(experiment(tmp_path / "file"))
