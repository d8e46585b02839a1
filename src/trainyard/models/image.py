"""What all image models have in common."""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field
from torch import nn

from trainyard.base.errors import UsageError
from trainyard.config.data import AnyData, ImagesConfig
from trainyard.models.base import ModelConfig, Task
from trainyard.models.classifier import Classifier, ImageClassifier
from trainyard.models.probe import run_on_meta
from trainyard.models.weights import State, find_weights, load_weights, read_weights, set_dropout
from trainyard.preprocess.base import Item
from trainyard.preprocess.image import ImagePreprocessor

Channel = Annotated[float, Field(ge=0, le=1)]
PositiveChannel = Annotated[float, Field(gt=0, le=1)]


class Parts(NamedTuple):
    """A network and its stages, as ``Classifier`` takes them."""

    network: nn.Module
    stages: Sequence[nn.Module]


class ImageModelConfig(ModelConfig):
    """The keys of every image model."""

    mean: tuple[Channel, Channel, Channel] = (0.485, 0.456, 0.406)
    """Mean of each channel in 0..1, taken off inside the model; by default ImageNet's."""
    std: tuple[PositiveChannel, PositiveChannel, PositiveChannel] = (0.229, 0.224, 0.225)
    """Standard deviation of each channel in 0..1, divided by inside the model; by default ImageNet's."""

    def known_names(self) -> list[str]:
        """What ``name`` may be: its default alone, unless the class says otherwise."""
        return [str(type(self).model_fields["name"].default)]

    @abstractmethod
    def assemble(self, size: int, classes: int) -> Parts:
        """Builds the network for images of ``size`` pixels, without pretrained weights.

        Raises:
            UsageError: the other keys don't go with ``name``.
        """

    def published_weights(self) -> State:
        """The weights that ``pretrained: true`` means.

        Raises:
            UsageError: there are none, or they can't be downloaded.
        """
        raise UsageError(f"model.name={self.name} has no published weights: set model.pretrained to false or a file")

    def replaceable_layers(self) -> tuple[str, ...]:
        """Layers besides the output layer that pretrained weights may not fit."""
        return ()

    def check(self, data: AnyData) -> None:
        """See ``ModelConfig``."""
        if not isinstance(data, ImagesConfig):
            raise UsageError(f"model.kind={self.kind} is for images: set data.kind=images, or another model.kind")
        self._check_name()
        if isinstance(self.pretrained, str):
            find_weights(self.pretrained)
        self._assemble_checked(data.image_size, classes=2)

    def preprocessor(self, data: AnyData, items: Sequence[Item]) -> ImagePreprocessor:
        """Images of ``data.image_size``; see ``ModelConfig``."""
        assert isinstance(data, ImagesConfig), "checked"
        return ImagePreprocessor(data.image_size, data.resize_to, *data.pixel_limits)

    def build(self, task: Task) -> Classifier:
        """See ``ModelConfig``; the output layer is a fresh one where the number of classes differs."""
        classifier = self.restore(task)
        if self.pretrained:
            published = self.pretrained is True
            state = self.published_weights() if published else read_weights(find_weights(str(self.pretrained)))
            replaceable = (classifier.output_layer()[0], *self.replaceable_layers())
            load_weights(classifier.network, state, replaceable, self.name if published else str(self.pretrained))
        return classifier

    def restore(self, task: Task, folder: Path | None = None) -> Classifier:
        """See ``ModelConfig``; an image model needs nothing from the folder."""
        self._check_name()
        assert isinstance(task.preprocessor, ImagePreprocessor)
        network, stages = self._assemble_checked(task.preprocessor.size, len(task.labels))
        if self.dropout is not None:
            set_dropout(network, self.dropout, self.name)
        return ImageClassifier(network, stages, self.mean, self.std)

    def _assemble_checked(self, size: int, classes: int) -> Parts:
        """Assembles, and runs the network on the meta device: shapes alone, so it costs nothing."""
        try:
            parts = self.assemble(size, classes)
            run_on_meta(parts.network, (1, 3, size, size))
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(
                f"model.name={self.name} can't take images of {size} pixels ({reason}): "
                "set data.image_size to what it was made for, often 224"
            ) from error
        return parts

    def _check_name(self) -> None:
        names = self.known_names()
        if self.name not in names:
            nearest = difflib.get_close_matches(self.name, names, n=1, cutoff=0)
            raise UsageError(f"model.name={self.name} is no model of kind {self.kind}; the nearest is {nearest[0]}")
