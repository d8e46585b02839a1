"""Transformers' sequence classifiers behind our interface: building, loading, stages, what a bundle keeps."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig
from transformers.utils import logging as transformers_logging

from trainyard.base.errors import UsageError
from trainyard.base.files import write_json
from trainyard.models.classifier import Classifier

logger = logging.getLogger(__name__)

TOKENIZER_CONFIG = "tokenizer_config.json"
SHOWN_KEYS = 3


class TransformerClassifier(Classifier):
    """A transformers sequence classifier.

    Args:
        network: A model that ``AutoModelForSequenceClassification`` makes.
        tokenizer_config: The content of ``tokenizer_config.json``, for a bundle.
    """

    def __init__(self, network: nn.Module, tokenizer_config: Mapping[str, object]) -> None:
        super().__init__(network, transformer_stages(network))
        cast(PreTrainedConfig, network.config).use_cache = False  # it is for generating text
        self.tokenizer_config = dict(tokenizer_config)

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Gives logits ``[batch, classes] float32`` for ``[batch, length] int64`` inputs."""
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.network(input_ids=input_ids, attention_mask=attention_mask, **segments)
        return cast(Tensor, output.logits).float()

    def save_config(self, folder: Path, labels: Sequence[str]) -> None:
        """Writes ``config.json`` and ``tokenizer_config.json``, with which the folder is a plain Hugging Face model."""
        config = cast(PreTrainedConfig, self.network.config)
        set_labels(config, labels)
        config.architectures = [type(self.network).__name__]
        config.save_pretrained(folder)
        write_json(folder / TOKENIZER_CONFIG, self.tokenizer_config)


def transformer_stages(network: nn.Module) -> list[nn.Module]:
    """Embeddings, each layer, and what follows them (pooler and output layer).

    The layers are the longest ``nn.ModuleList``; in a network without one, only the last child is told apart.
    """
    lists = [(name, child) for name, child in network.named_modules() if isinstance(child, nn.ModuleList)]
    embeddings = nn.Identity()  # empty: parameters in no stage count to the first
    if not lists:
        return [embeddings, list(network.children())[-1]]
    prefix, layers = max(lists, key=lambda item: len(item[1]))
    parameters = list(network.named_parameters())
    last = max(i for i, (name, _) in enumerate(parameters) if name.startswith(f"{prefix}."))
    return [embeddings, *layers, nn.ParameterList(parameter for _, parameter in parameters[last + 1 :])]


def set_labels(config: PreTrainedConfig, labels: Sequence[str]) -> None:
    """Puts the classes into a config, which fixes the size of the output."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    config.problem_type = "single_label_classification"


def set_dropout(config: PreTrainedConfig, probability: float) -> None:
    """Sets all dropout probabilities of a config, whatever its architecture calls them.

    Raises:
        UsageError: there is none.
    """
    named = {key: value for key, value in config.to_dict().items() if "dropout" in key or key.endswith("pdrop")}
    keys = [key for key, value in named.items() if type(value) in (int, float)]
    if not keys:
        raise UsageError(f"{config.model_type} has no dropout: leave model.dropout out")
    for key in keys:
        setattr(config, key, probability)


def load_config(folder: Path) -> PreTrainedConfig:
    """Reads ``config.json``.

    Raises:
        UsageError: transformers doesn't know the architecture.
    """
    try:
        config = cast(PreTrainedConfig, AutoConfig.from_pretrained(folder))
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{folder} is no model that transformers {transformers.__version__} knows: {error}") from error
    return config


def build_network(config: PreTrainedConfig) -> nn.Module:
    """Builds a classifier with fresh weights.

    Raises:
        UsageError: the architecture has no sequence classifier.
    """
    try:
        network: nn.Module = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    except ValueError as error:
        raise UsageError(f"transformers has no sequence classifier for {config.model_type}: choose another") from error
    return network


def load_network(folder: Path, config: PreTrainedConfig) -> nn.Module:
    """Builds a classifier with a folder's weights; the layers behind the encoder may be missing or of other sizes.

    Raises:
        UsageError: the weights don't fit the config.
    """
    with _without_report():
        try:
            network, info = AutoModelForSequenceClassification.from_pretrained(
                folder, config=config, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(f"the weights in {folder} can't be loaded ({reason}): get them again") from error
    fresh = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    head = {id(parameter) for parameter in transformer_stages(network)[-1].parameters()}
    parameters = dict(network.named_parameters())
    serious = [key for key in fresh if id(parameters.get(key)) not in head]
    if serious:
        raise UsageError(
            f"the weights in {folder} don't fit its config.json, {len(serious)} tensors are missing or of other shapes "
            f"({', '.join(serious[:SHOWN_KEYS])}): get the folder again"
        )
    if fresh:
        logger.info("%s: these start afresh: %s", folder, ", ".join(fresh))
    return cast(nn.Module, network)


@contextmanager
def _without_report() -> Iterator[None]:
    """Without transformers' progress bar and its table of fresh output layers: ours is one line."""
    reporter = logging.getLogger("transformers.modeling_utils")
    bars = transformers_logging.is_progress_bar_enabled()
    reporter.addFilter(_is_no_report)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        reporter.removeFilter(_is_no_report)
        if bars:
            transformers_logging.enable_progress_bar()


def _is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()
