"""What every classifier can do: freezing, telling its stages, taking a temperature in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.models import VisionTransformer

from trainyard.base.errors import UsageError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.config.kinds import parse_model
from trainyard.models.base import Task
from trainyard.models.classifier import Classifier, ImageClassifier, fold_temperature
from trainyard.models.torchvision import network_stages

TEXTS = ["the refund is late", "good movie", "bad"] * 3
IMAGE_MODELS = {
    "resnet20": {"kind": "resnet"},
    "resnet18": {"kind": "resnet"},
    "mobilenet_v3_small": {"kind": "torchvision"},
    "squeezenet1_1": {"kind": "torchvision"},
}
TRANSFORMERS = ("bert", "distilbert", "roberta", "gpt2")


def image_classifier(name: str) -> tuple[Classifier, dict[str, torch.Tensor]]:
    config = parse_model(IMAGE_MODELS[name] | {"name": name})
    preprocessor = config.preprocessor(ImagesConfig(kind="images", path="unused", image_size=32), [])
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    return config.build(Task(("a", "b", "c"), preprocessor)), {"images": images}


def text_classifier(section: dict[str, object]) -> tuple[Classifier, dict[str, torch.Tensor]]:
    config = parse_model(section)
    preprocessor = config.preprocessor(TextsConfig(kind="texts", path="unused", max_length=16), TEXTS)
    inputs = preprocessor.collate([preprocessor.encode(text) for text in TEXTS])
    torch.manual_seed(0)
    classifier = config.build(Task(("a", "b", "c"), preprocessor))
    return classifier, {name: torch.from_numpy(array) for name, array in inputs.items()}


def check_folding(classifier: Classifier, inputs: dict[str, torch.Tensor]) -> None:
    classifier.eval()
    with torch.no_grad():
        _, output = classifier.output_layer()
        torch.nn.init.normal_(output.weight, std=0.1)  # some are made with zeros
        if output.bias is not None:
            torch.nn.init.ones_(output.bias)
        before = classifier(**inputs)
        fold_temperature(classifier, 2.5)
        after = classifier(**inputs)
    assert before.abs().max() > 0
    torch.testing.assert_close(after, before / 2.5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", list(IMAGE_MODELS))
def test_temperature_folds_into_image_models(name: str) -> None:
    check_folding(*image_classifier(name))


def test_temperature_folds_into_a_vision_transformer() -> None:
    network = VisionTransformer(
        image_size=32, patch_size=16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=3
    )
    classifier = ImageClassifier(network, network_stages(network), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert classifier.stage_count == 5  # patches, two blocks, norm, head
    check_folding(classifier, {"images": torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)})


@pytest.mark.parametrize("architecture", TRANSFORMERS)
def test_temperature_folds_into_transformers(tiny_model: Callable[[str], Path], architecture: str) -> None:
    check_folding(*text_classifier({"kind": "bert", "pretrained": str(tiny_model(architecture))}))


@pytest.mark.parametrize("section", [{"kind": "bert"}, {"kind": "rnn", "name": "lstm"}, {"kind": "rnn", "name": "gru"}])
def test_temperature_folds_into_text_models_from_scratch(section: dict[str, object]) -> None:
    check_folding(*text_classifier(section))


def test_frozen_backbone_trains_the_output_only() -> None:
    classifier, _ = image_classifier("resnet20")
    classifier.freeze_backbone()
    trained = [name for name, parameter in classifier.network.named_parameters() if parameter.requires_grad]
    assert trained == ["fc.weight", "fc.bias"]


def test_frozen_transformer_trains_what_follows_the_layers(tiny_model: Callable[[str], Path]) -> None:
    classifier, _ = text_classifier({"kind": "bert", "pretrained": str(tiny_model("bert"))})
    classifier.freeze_backbone()
    trained = [name for name, parameter in classifier.network.named_parameters() if parameter.requires_grad]
    assert trained == ["bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"]


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_batch_norms_keep_their_statistics(frozen: bool) -> None:
    classifier, inputs = image_classifier("resnet20")
    if frozen:
        classifier.freeze_backbone()
    before = classifier.network.bn1.running_mean.clone()
    torch.nn.ModuleList([classifier]).train()  # as a LightningModule does it
    classifier(**inputs)
    assert torch.equal(classifier.network.bn1.running_mean, before) == frozen
    assert classifier.training
    assert not classifier.eval().network.bn1.training


def test_missing_output_layer_is_named() -> None:
    class Headless(Classifier):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images

    with pytest.raises(UsageError, match=r"holds no nn.Linear or nn.Conv2d"):
        Headless(torch.nn.BatchNorm1d(3), [torch.nn.BatchNorm1d(3)]).output_layer()
