"""The end of a run: weights are calibrated, written, scored from what was written, described and sealed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from trainyard.artifacts.bundle import FACTS, SCHEMA_VERSION, WEIGHTS, BundleFacts, Certainty, DataFacts
from trainyard.artifacts.drift import DriftReference
from trainyard.artifacts.manifest import write_manifest
from trainyard.artifacts.run import METRICS, PREDICTIONS
from trainyard.base.environment import describe_environment
from trainyard.base.files import atomic_folder, write_json, write_text
from trainyard.config.experiment import Experiment
from trainyard.config.load import dump_yaml
from trainyard.data.encoded import EncodedSplit, loader_workers
from trainyard.data.records import Dataset
from trainyard.evaluation.baseline import Baseline, measure_baseline
from trainyard.evaluation.calibration import fit_temperature
from trainyard.evaluation.evaluate import record_logits
from trainyard.evaluation.metrics import measure
from trainyard.evaluation.predict import predict_split
from trainyard.evaluation.predictions import Predictions, write_predictions
from trainyard.evaluation.shown import describe_answers
from trainyard.evaluation.threshold import certainty
from trainyard.heads.base import Head
from trainyard.heads.scores import Scores
from trainyard.models.base import Task
from trainyard.models.classifier import Classifier, fold_temperature
from trainyard.models.restore import restore_classifier
from trainyard.models.weights import tied_names, untied_state
from trainyard.report.card import CardFacts, model_card
from trainyard.report.figures import confusion_matrix, save_png
from trainyard.training.samples import drift_reference, write_samples

if TYPE_CHECKING:
    from trainyard.artifacts.bundle import Json

log = logging.getLogger(__name__)

BUNDLE = "bundle"
CONFUSION_MATRIX = "confusion_matrix.png"


@dataclass(frozen=True)
class Trained:
    """What training leaves behind."""

    experiment: Experiment
    dataset: Dataset
    task: Task
    classifier: Classifier
    val: EncodedSplit
    training: Json
    """Examples/s, seconds, epochs, processes, seed."""
    device: torch.device
    head: Head


@dataclass(frozen=True)
class Measured:
    """What the sealed model reached, and what it answered to the test split."""

    val: Scores
    test: Scores
    baseline: Baseline
    predictions: Predictions
    reference: DriftReference
    certainty: Certainty | None

    def metrics(self, training: Json) -> Json:
        """The content of ``metrics.json``."""
        return {
            "test": self.test.summary(),
            "val": self.val.summary(),
            "baseline": self.baseline.model_dump(mode="json"),
            **({"certain": self.certainty.model_dump()} if self.certainty else {}),
            "train": {key: training[key] for key in ("examples_per_second", "seconds", "epochs", "world_size")},
        }


def finish(run: Path, trained: Trained) -> Json:
    """Writes the bundle, the answers to the test split and ``metrics.json``; returns the latter."""
    torch.set_num_threads(torch.get_num_threads() * max(1, int(str(trained.training["local_processes"]))))
    with atomic_folder(run / BUNDLE) as folder:
        measured = seal(folder, trained)
    write_predictions(run / PREDICTIONS, measured.predictions)
    metrics = measured.metrics(trained.training)
    if measured.certainty and measured.certainty.threshold is None:
        log.warning(
            "no answers are right in %g of all cases for certain, so each is marked as uncertain: set a lower "
            "evaluation.target_accuracy, or a higher data.val_fraction", measured.certainty.target_accuracy,
        )  # fmt: skip
    write_json(run / METRICS, metrics)
    return metrics


def seal(folder: Path, trained: Trained) -> Measured:
    """Writes a bundle into an empty folder; returns what was measured of it.

    The test split is read here once, from the written bundle, by the code that ``evaluate`` runs.
    """
    temperature = _calibrate(trained)
    facts = _write_model(folder, trained, temperature)
    written = restore_classifier(folder, facts, trained.task.preprocessor)
    measured = _measure(written, trained)
    _describe(folder, facts, trained, written.cpu(), measured)
    write_manifest(folder)
    return measured


def _measure(model: Classifier, trained: Trained) -> Measured:
    experiment, preprocessor, labels = trained.experiment, trained.task.preprocessor, trained.task.labels
    train, test = trained.dataset.splits["train"], trained.dataset.splits["test"]
    val_logits = _validation_logits(model.to(trained.device), trained)
    val = measure(trained.head, val_logits, torch.from_numpy(trained.val.labels), labels)
    logits = record_logits(model, preprocessor, test, experiment.data, trained.device)
    scores = measure(trained.head, logits, torch.from_numpy(test.labels), labels)
    probabilities = trained.head.probabilities(logits.numpy())
    answers = describe_answers(test, preprocessor, experiment.data, labels, probabilities, experiment.report.samples)
    baseline = measure_baseline(train, test, preprocessor, experiment.data, answers.predicted)
    reference = drift_reference(test, probabilities, preprocessor, experiment.seed)
    certain = None
    if (target := experiment.evaluation.target_accuracy) is not None:
        guesses = trained.head.probabilities(val_logits.numpy())
        val_answers = guesses.max(axis=1), guesses.argmax(axis=1) == trained.val.labels
        certain = certainty(target, val_answers, (answers.confidence, answers.right))
    return Measured(val, scores, baseline, answers, reference, certain)


def _calibrate(trained: Trained) -> float:
    """Divides the temperature that suits the validation split into the output layer's weights."""
    model = trained.classifier.to(trained.device).eval()
    output, _ = model.output_layer()
    if any(name.startswith(f"{output}.") for pair in tied_names(model.network).items() for name in pair):
        log.warning("the output layer %s shares its weights with another: its probabilities stay uncalibrated", output)
        return 1.0
    logits = _validation_logits(model, trained)
    temperature = fit_temperature(logits, torch.from_numpy(trained.val.labels))
    fold_temperature(model, temperature)
    return temperature


def _validation_logits(model: Classifier, trained: Trained) -> torch.Tensor:
    data = trained.experiment.data
    return predict_split(
        lambda inputs: model(**inputs),
        trained.val,
        batch_size=data.batch_size,
        device=trained.device,
        workers=loader_workers(trained.val, data),
    )


def _write_model(folder: Path, trained: Trained, temperature: float) -> BundleFacts:
    """Writes weights, architecture and preprocessor; what must be measured is still missing in the facts."""
    experiment, dataset, task = trained.experiment, trained.dataset, trained.task
    save_file(untied_state(trained.classifier.network), folder / WEIGHTS, metadata={"format": "pt"})
    # It makes the file for its owner alone; who may read the folder, as a container's user, is to read this too.
    (folder / WEIGHTS).chmod(folder.stat().st_mode & 0o666)
    task.preprocessor.save(folder)
    trained.classifier.save_config(folder, task.labels)
    data = experiment.data.model_dump(mode="json") | {"path": dataset.location}
    return BundleFacts(
        schema_version=SCHEMA_VERSION,
        name=experiment.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        task=f"{task.preprocessor.kind}-{trained.head.name}",
        model=experiment.model.model_dump(mode="json") | {"pretrained": False},
        preprocess=task.preprocessor.to_dict(),
        labels=list(task.labels),
        temperature=1.0,
        fitted_temperature=temperature,
        metrics={},
        training=trained.training,
        environment=describe_environment(),
        data=DataFacts(
            config=data, location=dataset.location, fingerprint=dataset.fingerprint, report=dataset.report.to_dict()
        ),
        drift_reference={},
    )


def _describe(folder: Path, facts: BundleFacts, trained: Trained, classifier: Classifier, measured: Measured) -> None:
    """Adds what was measured: facts, samples, the model card and its figure."""
    experiment, dataset, task = trained.experiment, trained.dataset, trained.task
    train, seed = dataset.splits["train"], experiment.seed
    scores: Json = {"val": measured.val.to_dict(), "test": measured.test.to_dict()}
    facts = facts.model_copy(
        update={
            "metrics": scores,
            "drift_reference": measured.reference.model_dump(),
            "certainty": measured.certainty,
        }
    )
    write_json(folder / FACTS, facts.model_dump(mode="json"))
    if experiment.bundle.samples:
        write_samples(folder, train, dataset.splits["test"], task.preprocessor, classifier, task.labels, seed)
    save_png(confusion_matrix(measured.test, task.labels), folder / CONFUSION_MATRIX)
    write_text(folder / "README.md", model_card(_card_facts(folder, facts, experiment, measured)))


def _card_facts(folder: Path, facts: BundleFacts, experiment: Experiment, measured: Measured) -> CardFacts:
    return CardFacts(
        name=facts.name,
        modality=facts.kind,
        model=f"{experiment.model.kind} {experiment.model.name}",
        hugging_face=(folder / "config.json").is_file(),
        classes=tuple(facts.labels),
        data=facts.data.report,
        test=measured.test,
        val=measured.val,
        baseline=measured.baseline,
        temperature=facts.fitted_temperature,
        certainty=facts.certainty,
        training=facts.training,
        config=dump_yaml(experiment),
        environment=facts.environment,
    )
