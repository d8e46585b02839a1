"""The registry of models."""

from __future__ import annotations

from typing import Annotated, Union

import pydantic
import pytest
from toy.models import CnnConfig

from trainyard.base.errors import UsageError
from trainyard.config.kinds import kinds, model_classes, parse_model
from trainyard.models.base import ModelConfig


def test_every_kind_has_its_config() -> None:
    for kind, config in zip(kinds(), model_classes(), strict=True):
        assert issubclass(config, ModelConfig)
        assert config.model_fields["kind"].annotation.__args__ == (kind,)
        described = {key: field.description for key, field in config.model_fields.items()}
        assert all(described.values()), described


def test_kind_discriminates() -> None:
    union = Annotated[Union[tuple(model_classes())], pydantic.Field(discriminator="kind")]  # noqa: UP007 made at run time
    parsed = pydantic.TypeAdapter(union).validate_python({"kind": "cnn", "freeze": "backbone"})
    assert parsed == CnnConfig(kind="cnn", freeze="backbone")


def test_config_of_a_bundle_is_read_back() -> None:
    config = CnnConfig(kind="cnn", std=(0.5, 0.5, 0.5))
    assert parse_model(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("kind", ["resnets", None, 3])
def test_unknown_kind(kind: object) -> None:
    with pytest.raises(UsageError, match="it is one of cnn, torchvision, encoder"):
        parse_model({"kind": kind})
