"""The models: each kind is one file with a config class, and one line in ``KINDS``. Free of torch at import."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from trainyard.errors import UsageError
from trainyard.models.base import ModelConfig

KINDS: dict[str, str] = {
    "resnet": "trainyard.models.resnet:ResNetConfig",
    "torchvision": "trainyard.models.torchvision_model:TorchvisionConfig",
    "bert": "trainyard.models.bert:BertConfig",
    "rnn": "trainyard.models.rnn:RnnConfig",
}
"""Where the config class of each kind lies, as ``module:class``."""


def model_configs() -> list[type[ModelConfig]]:
    """The config classes of all registered kinds."""
    return [_config_class(kind) for kind in KINDS]


def parse_model(section: Mapping[str, object]) -> ModelConfig:
    """Reads a ``model`` section, as a bundle keeps it.

    Raises:
        UsageError: its kind isn't registered.
        pydantic.ValidationError: a key or value is wrong.
    """
    kind = section.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UsageError(f"model.kind {kind!r} isn't registered: it is one of {', '.join(KINDS)}")
    return _config_class(kind).model_validate(dict(section))


def _config_class(kind: str) -> type[ModelConfig]:
    module, _, name = KINDS[kind].partition(":")
    config: type[ModelConfig] = getattr(importlib.import_module(module), name)
    return config
