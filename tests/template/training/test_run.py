"""What the keys do on their way from the config to the module, the processes and the bundle."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from trainyard.artifacts.bundle import Bundle
from trainyard.base.errors import UsageError
from trainyard.config.experiment import TrainerConfig
from trainyard.config.load import load_experiment
from trainyard.data.encoded import encode_split
from trainyard.data.load import load_dataset
from trainyard.preprocess.image import ImagePreprocessor
from trainyard.training.checkpoint import read_checkpoint
from trainyard.training.loop import TrainingLoop
from trainyard.training.processes import start_fabric, uses_gpu
from trainyard.training.run import build_model

from my_project.task import Task, class_weights
from my_project.train import Config, make_task, train

DigitsExperiment = Callable[..., Config]
LABELS = np.array([0, 0, 0, 1])
CONFIGS = Path(__file__).parents[3] / "configs"


def build(config: Config) -> Task:
    model = build_model(config, ("a", "b", "c"), ImagePreprocessor(8, 8))
    return make_task(config, model, LABELS, 3)


def state(task: Task) -> dict[str, Tensor]:
    return task.model.network.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_seed_sets_the_initial_weights(digits_experiment: DigitsExperiment) -> None:
    first = build(digits_experiment())
    torch.rand(3)
    again = build(digits_experiment())
    other = build(Config.model_validate(digits_experiment().model_dump() | {"seed": 7}))

    assert same(state(first), state(again))
    assert not same(state(first), state(other))


def test_freeze_trains_the_output_layer_only(digits_experiment: DigitsExperiment) -> None:
    def trainable(freeze: str) -> set[str]:
        network = build(digits_experiment(model={"freeze": freeze})).model.network
        return {name for name, parameter in network.named_parameters() if parameter.requires_grad}

    assert trainable("backbone") == {"fc.weight", "fc.bias"}
    assert len(trainable("none")) > 50


def test_channels_last_lays_images_out_by_pixel_and_changes_no_answer(digits_experiment: DigitsExperiment) -> None:
    plain, other = (build(digits_experiment(trainer={"channels_last": on})).eval() for on in (False, True))
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    layouts = []
    other.model.network.layer2.register_forward_hook(
        lambda *hook: layouts.append(hook[2].is_contiguous(memory_format=torch.channels_last))
    )

    with torch.no_grad():
        torch.testing.assert_close(plain(images=images), other(images=images), rtol=1e-4, atol=1e-5)

    weights = [weight for weight in other.parameters() if weight.ndim == 4 and weight.shape[-1] > 1]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert layouts == [True]


def test_class_weights_need_one_for_each_class(digits_experiment: DigitsExperiment) -> None:
    with pytest.raises(UsageError, match="optim.class_weights has 2 weights for 3 classes"):
        build(digits_experiment(optim={"class_weights": [1.0, 2.0]}))

    task = build(digits_experiment(optim={"class_weights": [1.0, 2.0, 3.0]}))
    torch.testing.assert_close(task.class_weights, torch.tensor([1.0, 2.0, 3.0]))


def test_balanced_weights_of_a_class_without_examples_are_finite(digits_experiment: DigitsExperiment) -> None:
    weights = class_weights(digits_experiment(optim={"class_weights": "balanced"}).optim, LABELS, 3)

    assert weights is not None
    torch.testing.assert_close(weights[:2], torch.tensor([4 / 9, 4 / 3]))
    assert torch.isfinite(weights).all()


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted as Linux does")
def test_a_step_reuses_the_memory_of_the_step_before(restored_threads: None) -> None:
    start_fabric(TrainerConfig(devices="cpu", threads=1))

    def step() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            tensors = [torch.ones(2**20) for _ in range(8)]
            tensors.clear()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    step()
    assert step() < 8 * 1024, "ten times 32 MB have 80 times as many pages"


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_are_those_of_torch(restored_threads: None, threads: int) -> None:
    start_fabric(TrainerConfig(devices="cpu", threads=threads))

    assert torch.get_num_threads() == threads


def test_by_default_the_processes_of_a_machine_share_its_cores(
    restored_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)

    start_fabric(TrainerConfig(devices="cpu"))

    assert torch.get_num_threads() == 8


def test_devices_cpu_leaves_the_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert start_fabric(TrainerConfig(devices="cpu", threads=1)).device == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    assert uses_gpu(TrainerConfig())
    assert uses_gpu(TrainerConfig(devices=2))
    assert not uses_gpu(TrainerConfig(devices="cpu"))


def test_a_model_that_cannot_work_is_told_before_the_data_is_read(digits_experiment: DigitsExperiment) -> None:
    with pytest.raises(UsageError, match="model.name=resnet19"):
        train(digits_experiment(data={"path": "no-data"}, model={"name": "resnet19"}))


def test_a_wrong_resume_is_told_before_the_data_is_read(digits_experiment: DigitsExperiment, tmp_path: Path) -> None:
    missing = digits_experiment(data={"path": str(tmp_path / "no-data")}, trainer={"resume": str(tmp_path / "no-run")})

    with pytest.raises(UsageError, match="no-run isn't a run folder"):
        train(missing)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_keep_chooses_the_weights_of_the_bundle(digits_experiment: DigitsExperiment, keep: str) -> None:
    run = train(digits_experiment(trainer={"keep": keep, "max_epochs": 3}, optim={"lr": 1e-6}))

    checkpoint = read_checkpoint(run / "checkpoints" / f"{keep}.ckpt")["model"]
    bundle = load_file(run / "bundle" / "model.safetensors")
    # The temperature lies in the output layer.
    assert same(
        {name: tensor for name, tensor in checkpoint.items() if not name.startswith("fc.")},
        {name: tensor for name, tensor in bundle.items() if not name.startswith("fc.")},
    )


def test_samples_false_leaves_them_out(digits_experiment: DigitsExperiment, digits_run: Path) -> None:
    tree = digits_experiment(trainer={"max_epochs": 1}).model_dump() | {"bundle": {"samples": False}}
    run = train(Config.model_validate(tree))

    assert (digits_run / "bundle" / "samples" / "golden.jsonl").is_file()
    assert not (run / "bundle" / "samples").exists()
    assert Bundle.open(run).facts.drift_reference


def test_streamed_images_give_the_same_model_as_cached_ones(
    digits_experiment: DigitsExperiment, digits_run: Path
) -> None:
    streamed = train(digits_experiment(data={"cache_gb": 0, "workers": 2}))

    one, other = (load_file(run / "bundle" / "model.safetensors") for run in (digits_run, streamed))
    assert same(one, other)


def padded_share(bucket: bool, tmp_path: Path) -> float:
    words = ["data.limit=400", "data.batch_size=8", f"data.bucket={bucket}", f"data.cache={tmp_path}",
             "model.vocab_size=300", "trainer.devices=cpu", "trainer.threads=1"]  # fmt: skip
    experiment = load_experiment(CONFIGS / "tickets_bert.yaml", words)
    dataset = load_dataset(experiment.data, experiment.seed)
    preprocessor = experiment.model.preprocessor(experiment.data, dataset.splits["train"].items)
    split = encode_split(dataset.splits["train"], preprocessor, experiment.data, training=True)
    task = make_task(experiment, build_model(experiment, dataset.classes, preprocessor), split.labels, 4)
    fabric = start_fabric(experiment.trainer)
    loop = TrainingLoop(fabric, task, experiment, split, split, dataset.classes, tmp_path)
    masks = [split.batch(batch)["attention_mask"] for batch in loop._epoch_batches(0)]
    return 1 - sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks)


def test_bucket_puts_texts_of_similar_length_together(tmp_path: Path, restored_threads: None) -> None:
    assert padded_share(True, tmp_path) < padded_share(False, tmp_path) / 3


@pytest.mark.slow
def test_compile_keeps_the_weights_names_and_the_result(
    digits_experiment: DigitsExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[object] = []
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, *a, **k: compiled.append(self) or compile_module(self, *a, **k)
    )

    # With a small rate, so that rounding isn't amplified from step to step.
    one, other = (
        read_checkpoint(train(digits_experiment(optim={"lr": 1e-3}, trainer={"compile": on})) / "checkpoints/last.ckpt")
        for on in (False, True)
    )

    assert len(compiled) == 1
    assert list(one["model"]) == list(other["model"])
    assert not any("_orig_mod" in name for name in other["model"])
    for name, tensor in one["model"].items():
        torch.testing.assert_close(tensor, other["model"][name], rtol=1e-3, atol=1e-4)
