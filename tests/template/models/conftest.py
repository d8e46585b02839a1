"""Tiny models in the hub's layout, made from their configs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from string import ascii_lowercase

import pytest
import torch
import transformers
from tokenizers import ByteLevelBPETokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "refund", "is", "late", "good", "bad", "movie", "token", "##s", "##ing", "cafe", "東", "京", "!", "."]
WORDPIECES = [*SPECIAL, *WORDS, *ascii_lowercase, *(f"##{letter}" for letter in ascii_lowercase)]
BYTE_LEVEL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
POSITIONS = 40

TinyModel = Callable[..., Path]


def wordpiece_tokenizer(folder: Path, model_type: str) -> None:
    vocab = {piece: i for i, piece in enumerate(WORDPIECES)}
    kind = transformers.BertTokenizer if model_type == "bert" else transformers.DistilBertTokenizer
    kind(vocab=vocab, model_max_length=POSITIONS).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDPIECES) + "\n", encoding="utf-8")


def byte_level_tokenizer(folder: Path, model_type: str) -> None:
    special = BYTE_LEVEL if model_type == "roberta" else ["<|endoftext|>"]
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(["the refund is late", "good movie"] * 3, 300, 2, False, special)
    tokenizer.save_model(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = [tuple(line.split()) for line in (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]]
    kind = transformers.RobertaTokenizer if model_type == "roberta" else transformers.GPT2Tokenizer
    kind(vocab=vocab, merges=merges).save_pretrained(folder)


def tiny_config(model_type: str) -> transformers.PreTrainedConfig:
    bert_like = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": POSITIONS,
        "initializer_range": 0.5,
    }
    if model_type == "bert":
        return transformers.BertConfig(vocab_size=len(WORDPIECES), **bert_like)
    if model_type == "roberta":
        return transformers.RobertaConfig(vocab_size=300, type_vocab_size=1, **bert_like)
    if model_type == "distilbert":
        sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "initializer_range": 0.5}
        return transformers.DistilBertConfig(
            vocab_size=len(WORDPIECES), max_position_embeddings=POSITIONS, pad_token_id=0, **sizes
        )
    assert model_type == "gpt2"
    return transformers.GPT2Config(
        vocab_size=300, n_positions=POSITIONS, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )


@pytest.fixture
def tiny_model(tmp_path: Path) -> TinyModel:
    """Makes a folder with a tiny ``bert``, ``distilbert``, ``roberta`` or ``gpt2`` without an output layer.

    ``legacy``: with the vocabulary files alone, as the older models on the hub have them.
    """

    def make(model_type: str, legacy: bool = False) -> Path:
        folder = tmp_path / model_type
        torch.manual_seed(0)
        transformers.AutoModel.from_config(tiny_config(model_type)).save_pretrained(folder)
        add_tokenizer = wordpiece_tokenizer if model_type in ("bert", "distilbert") else byte_level_tokenizer
        add_tokenizer(folder, model_type)
        if legacy:
            (folder / "tokenizer.json").unlink()
            (folder / "tokenizer_config.json").unlink()
        return folder

    return make
