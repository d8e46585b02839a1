"""The example in docs/adding-a-model.md works as it is printed."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

import trainyard.models
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.errors import UsageError
from trainyard.models import KINDS, model_configs, parse_model
from trainyard.models.base import ModelConfig, Task
from trainyard.models.classifier import fold_temperature

DOCUMENT = Path(__file__).parents[2] / "docs" / "adding-a-model.md"
MODULE = "trainyard.models.tiny_cnn"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModelConfig:
    """Registers the document's model, and reads the document's config."""
    text = DOCUMENT.read_text(encoding="utf-8")
    file, line, config = re.findall(r"```(?:python|yaml)\n(.*?)```", text, flags=re.DOTALL)
    module = ModuleType(MODULE)
    monkeypatch.setitem(sys.modules, MODULE, module)
    exec(compile(file, str(DOCUMENT), "exec"), module.__dict__)
    monkeypatch.setattr(trainyard.models, "KINDS", dict(KINDS))
    exec(line, {"KINDS": trainyard.models.KINDS})
    return parse_model(yaml.safe_load(config)["model"])


def test_example_is_registered(example: ModelConfig) -> None:
    assert type(example) in model_configs()
    assert example.kind == "tiny_cnn"


def test_example_trains_a_step_and_is_restored(example: ModelConfig, tmp_path: Path) -> None:
    preprocessor = example.preprocessor(ImagesConfig(kind="images", path="unused", image_size=16), [])
    task = Task(("a", "b", "c"), preprocessor)
    classifier = example.build(task)
    assert classifier.network[0][0].out_channels == 16
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    classifier(images).logsumexp(dim=1).sum().backward()
    assert all(parameter.grad is not None for parameter in classifier.parameters())

    restored = example.restore(task, tmp_path)
    restored.network.load_state_dict(classifier.network.state_dict())
    logits = classifier.eval()(images)
    assert torch.equal(restored.eval()(images), logits)
    fold_temperature(restored, 2.0)
    torch.testing.assert_close(restored(images), logits / 2)


def test_example_refuses_what_it_cannot_do(example: ModelConfig) -> None:
    with pytest.raises(UsageError, match="is for images"):
        example.preprocessor(TextsConfig(kind="texts", path="unused"), [])
    with pytest.raises(UsageError, match="no pretrained weights"):
        example.model_copy(update={"pretrained": True}).preprocessor(ImagesConfig(kind="images", path="unused"), [])
