"""Nodes are started one by one, each with its own command: before training, all must mean the same job."""

from __future__ import annotations

from torch import distributed

from trainyard.base.errors import UsageError
from trainyard.config.experiment import Experiment
from trainyard.config.load import flatten
from trainyard.config.section import dotted_keys_that_change
from trainyard.data.records import Dataset
from trainyard.training.processes import many_processes


def check_same_job(experiment: Experiment, dataset: Dataset) -> None:
    """Compares config and data of all processes; with different ones they would wait for each other, or learn nonsense.

    Raises:
        UsageError: they differ; raised in every process.
    """
    if not many_processes():
        return
    own = dotted_keys_that_change(experiment, "nothing", "place")
    mine = {key: value for key, value in flatten(experiment.model_dump(mode="json")).items() if key not in own}
    mine["the data's content"] = dataset.fingerprint
    jobs: list[dict[str, object]] = [{} for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(jobs, mine)
    missing = object()
    keys = {key for job in jobs for key in job}
    differing = sorted(key for key in keys if any(job.get(key, missing) != jobs[0].get(key, missing) for job in jobs))
    if differing:
        raise UsageError(
            f"the processes of this job differ in {', '.join(differing)}; "
            "start every node with the same config and data"
        )
