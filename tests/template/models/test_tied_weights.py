"""Transformers whose encoder and decoder share their embeddings: trained to the end, sealed and opened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.samples import golden_samples
from trainyard.models.restore import open_classifier
from trainyard.training.checkpoint import read_checkpoint

from my_project.train import Config, train

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
TEXTS = [f"word number {number} of the {kind}" for number in range(40) for kind in ("first", "second")]


def t5(vocabulary: int) -> transformers.PreTrainedConfig:
    return transformers.T5Config(
        vocab_size=vocabulary, d_model=32, d_ff=64, d_kv=16, num_layers=2, num_heads=2, pad_token_id=0, eos_token_id=3,
        decoder_start_token_id=0,
    )  # fmt: skip


def bart(vocabulary: int) -> transformers.PreTrainedConfig:
    return transformers.BartConfig(
        vocab_size=vocabulary, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=40, pad_token_id=0,
        bos_token_id=2, eos_token_id=3, decoder_start_token_id=3, forced_eos_token_id=3,
    )  # fmt: skip


def pretrained(folder: Path, make_config: Callable[[int], transformers.PreTrainedConfig]) -> Path:
    """A model with random weights in the hub's layout."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=SPECIAL))
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    torch.manual_seed(0)
    config = make_config(tokenizer.get_vocab_size())
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def experiment(folder: Path, model: Path) -> Config:
    table = folder / "texts.jsonl"
    rows = [{"text": text, "label": text.split()[-1]} for text in TEXTS]
    table.write_text("\n".join(map(json.dumps, rows)))
    data = {"kind": "texts", "path": str(table), "max_length": 16, "batch_size": 8, "cache": str(folder / "cache")}
    trainer = {"max_epochs": 2, "devices": "cpu", "threads": 1, "loggers": []}
    return Config.model_validate(
        {"name": "tied", "out": folder / "runs", "data": data, "trainer": trainer,
         "model": {"kind": "bert", "pretrained": str(model)}, "optim": {"name": "adamw", "lr": 1e-3, "ema": 0.9}}
    )  # fmt: skip


@pytest.mark.parametrize("make_config", [t5, bart])
def test_they_are_trained_sealed_and_opened(
    make_config: Callable[[int], transformers.PreTrainedConfig], tmp_path: Path
) -> None:
    run = train(experiment(tmp_path, pretrained(tmp_path / "model", make_config)))

    # Each tensor once, and of those that training saved.
    trained = read_checkpoint(run / "checkpoints" / "best.ckpt")["model"]
    sealed = load_file(run / "bundle" / "model.safetensors")
    tied = trained.keys() - sealed.keys()
    assert {name.rpartition(".embed_tokens")[1] for name in tied} == {".embed_tokens"}
    assert len(tied) == 2
    kept = {name: tensor for name, tensor in sealed.items() if "classification_head.out_proj" not in name}
    assert all(torch.equal(tensor, trained[name]) for name, tensor in kept.items())
    # Opening it has it answer golden requests as it did before.
    bundle = Bundle.open(run)
    network = open_classifier(bundle).network
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in trained.items() if name in tied)
    # transformers opens it, too, and answers the same.
    _, info = transformers.AutoModelForSequenceClassification.from_pretrained(bundle.path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    pipe = transformers.pipeline("text-classification", str(bundle.path), truncation=True)
    for sample in golden_samples(bundle.path):
        [answer] = pipe(sample.item)
        assert answer["score"] == pytest.approx(max(sample.probabilities), abs=1e-5)
