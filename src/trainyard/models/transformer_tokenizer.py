"""A transformer's tokenizer as our preprocessor, and what a bundle keeps of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast

from trainyard.base.errors import UsageError
from trainyard.models.transformer import build_network
from trainyard.preprocess.text import TextPreprocessor


def load_preprocessor(folder: Path, config: PreTrainedConfig, max_length: int) -> TextPreprocessor:
    """The tokenizer of a model's folder as a preprocessor.

    Raises:
        UsageError: the model can't take ``max_length`` tokens, or the tokenizer isn't one that we can keep.
    """
    with torch.device("meta"):  # the architecture without its weights
        network = build_network(config)
    limit = _position_limit(network)
    if limit is not None and max_length > limit:
        raise UsageError(f"{folder} takes texts of at most {limit} tokens: set data.max_length={limit} or less")
    tokenizer = _load_tokenizer(folder)
    size = cast(int, config.vocab_size)
    if tokenizer.backend_tokenizer.get_vocab_size() > size:
        raise UsageError(f"the tokenizer in {folder} has more tokens than its model ({size}): get both from one source")
    segments = "token_type_ids" in inspect.signature(network.forward).parameters
    segments = segments and getattr(config, "type_vocab_size", 0) > 1
    pad_id = _pad_id(config, tokenizer, folder)
    return TextPreprocessor(tokenizer.backend_tokenizer, max_length, pad_id, segments)


def _position_limit(network: nn.Module) -> int | None:
    """Most tokens that the network has positions for; ``None`` if it has no limit."""
    limits = [
        # RoBERTa and its kin count positions from the padding's id on.
        embedding.num_embeddings - (0 if embedding.padding_idx is None else embedding.padding_idx + 1)
        for name, embedding in network.named_modules()
        if isinstance(embedding, nn.Embedding) and name.endswith(("position_embeddings", "wpe"))
    ]
    stated = getattr(network.config, "max_position_embeddings", None)
    return min([*limits, *([stated] if isinstance(stated, int) and stated > 0 else [])], default=None)


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"the tokenizer in {folder} can't be loaded: {error}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UsageError(f"{folder} has no fast tokenizer (tokenizer.json), which serving needs: choose another model")
    return tokenizer


def _pad_id(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast, folder: Path) -> int:
    """The id that the model takes for padding; GPT-2 and its kin have none and get the end token's."""
    for candidate in (config.pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(candidate, int) and candidate >= 0:
            return candidate
    raise UsageError(f"the tokenizer in {folder} has neither a padding nor an end token: set pad_token in it")


def describe_tokenizer(preprocessor: TextPreprocessor, special_tokens: Mapping[str, str]) -> dict[str, object]:
    """The content of ``tokenizer_config.json``.

    The class is the one that takes ``tokenizer.json`` as it is; an architecture's own would build it anew.
    """
    segments = ["token_type_ids"] if preprocessor.segments else []
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": preprocessor.max_length,
        "model_input_names": ["input_ids", *segments, "attention_mask"],
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        **special_tokens,
        "pad_token": preprocessor.tokenizer.id_to_token(preprocessor.pad_id),
    }


def special_tokens(folder: Path) -> dict[str, str]:
    """Names and texts of a folder's special tokens, as ``tokenizer_config.json`` keeps them."""
    names = _load_tokenizer(folder).special_tokens_map
    return {name: str(token) for name, token in names.items() if not isinstance(token, list)}
