"""Transformers' classifiers: pretrained ones of several architectures, and BERT from scratch."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from trainyard.base.errors import UsageError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.models.base import Task
from trainyard.models.transformer import TransformerClassifier
from trainyard.preprocess.base import load_preprocessor
from trainyard.preprocess.text import TextPreprocessor

from my_project.models.bert import BertConfig

TinyModel = Callable[..., Path]
POSITIONS = 40  # as conftest.py makes them
ARCHITECTURES = ("bert", "distilbert", "roberta", "gpt2")
LABELS = ("billing", "crash", "other")
TEXTS = ["The refund is late!", "good movie", "bad"]
ODD_TEXTS = [
    "Café naïve ÅNGSTRÖM",
    "emoji 🙂👩‍👩‍👧 and 東京",
    "control \x00\x07\u200b\ufeff characters\t\r\n",
    "...",
    "\x00",
    " leading and trailing  spaces ",
    "[SEP] </s> <|endoftext|> ##s",
    "word" * 60,
    "the refund is late " * 40,
    "e\u0301 \u0627\u0644 ﬁ ½",
]


def data(max_length: int = 16) -> TextsConfig:
    return TextsConfig(kind="texts", path="unused", max_length=max_length)


def build(config: BertConfig, items: list[str] = TEXTS) -> tuple[TransformerClassifier, Task]:
    preprocessor = config.preprocessor(data(), items)
    task = Task(LABELS, preprocessor)
    torch.manual_seed(1)
    classifier = config.build(task).eval()
    assert isinstance(classifier, TransformerClassifier)
    return classifier, task


def logits(classifier: torch.nn.Module, task: Task, texts: list[str]) -> torch.Tensor:
    inputs = task.preprocessor.collate([task.preprocessor.encode(text) for text in texts])
    with torch.no_grad():
        return classifier(**{name: torch.from_numpy(array) for name, array in inputs.items()})


def write_bundle(classifier: TransformerClassifier, task: Task, folder: Path) -> Path:
    folder.mkdir()
    save_file(classifier.network.state_dict(), folder / "model.safetensors")
    task.preprocessor.save(folder)
    classifier.save_config(folder, task.labels)
    return folder


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_token_ids_are_those_of_transformers(tiny_model: TinyModel, architecture: str, legacy: bool) -> None:
    folder = tiny_model(architecture, legacy)
    preprocessor = BertConfig(kind="bert", pretrained=str(folder)).preprocessor(data(), [])
    assert isinstance(preprocessor, TextPreprocessor)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in [*TEXTS, *ODD_TEXTS, ("the refund", "is late"), ("the refund " * 20, "is late " * 20)]:
        pair = text if isinstance(text, tuple) else (text,)
        expected = theirs(*pair, truncation=True, max_length=16)
        assert preprocessor.encode(text)[0].tolist() == expected["input_ids"], text
        if preprocessor.segments:
            assert preprocessor.encode(text)[1].tolist() == expected["token_type_ids"], text


def test_token_ids_of_any_text(tiny_model: TinyModel) -> None:
    folder = tiny_model("bert")
    preprocessor = BertConfig(kind="bert", pretrained=str(folder)).preprocessor(data(), [])
    theirs = transformers.AutoTokenizer.from_pretrained(folder)

    @settings(max_examples=60, deadline=None)
    @given(st.text().filter(str.strip))
    def same_ids(text: str) -> None:
        assert preprocessor.encode(text)[0].tolist() == theirs(text, truncation=True, max_length=16)["input_ids"]

    same_ids()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_bert_takes_segments(tiny_model: TinyModel, architecture: str) -> None:
    preprocessor = BertConfig(kind="bert", pretrained=str(tiny_model(architecture))).preprocessor(data(), [])
    inputs = preprocessor.collate([preprocessor.encode(("the", "refund"))])
    assert ("token_type_ids" in inputs) == (architecture == "bert")


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "scratch"])
def test_bundle_is_a_hugging_face_folder(tiny_model: TinyModel, tmp_path: Path, architecture: str) -> None:
    scratch = architecture == "scratch"
    config = BertConfig(kind="bert", pretrained=False if scratch else str(tiny_model(architecture)))
    classifier, task = build(config, TEXTS * 3)
    folder = write_bundle(classifier, task, tmp_path / "bundle")
    ours = logits(classifier, task, TEXTS)
    assert ours.shape == (len(TEXTS), len(LABELS))
    assert ours.dtype == torch.float32

    model, info = transformers.AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        theirs = model.eval()(**tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")).logits
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)
    assert tokenizer.model_max_length == 16

    pipe = transformers.pipeline("text-classification", str(folder), truncation=True)
    texts = [*TEXTS, "the refund is late " * 40]
    answers = [pipe(text)[0] for text in texts]
    probabilities = torch.softmax(logits(classifier, task, texts), dim=1)
    assert [answer["label"] for answer in answers] == [LABELS[i] for i in probabilities.argmax(dim=1)]
    for answer, probability in zip(answers, probabilities.amax(dim=1).tolist(), strict=True):
        assert answer["score"] == pytest.approx(probability, abs=1e-5)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "scratch"])
def test_restore_gives_the_same_answers(tiny_model: TinyModel, tmp_path: Path, architecture: str) -> None:
    scratch = architecture == "scratch"
    config = BertConfig(kind="bert", pretrained=False if scratch else str(tiny_model(architecture)), dropout=0.2)
    classifier, task = build(config, TEXTS * 3)
    folder = write_bundle(classifier, task, tmp_path / "bundle")
    loaded = Task(LABELS, load_preprocessor(task.preprocessor.to_dict(), folder))
    restored = BertConfig(kind="bert", name="any").restore(loaded, folder).eval()
    restored.network.load_state_dict(classifier.network.state_dict())
    assert torch.equal(logits(restored, loaded, TEXTS), logits(classifier, task, TEXTS))
    again = write_bundle(restored, loaded, tmp_path / "again")
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
        assert (again / name).read_text(encoding="utf-8") == (folder / name).read_text(encoding="utf-8")
        assert str(tmp_path) not in (folder / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_does_not_change_the_answer(tiny_model: TinyModel, architecture: str) -> None:
    classifier, task = build(BertConfig(kind="bert", pretrained=str(tiny_model(architecture))))
    together = logits(classifier, task, TEXTS)
    alone = torch.cat([logits(classifier, task, [text]) for text in TEXTS])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("architecture", "fresh"), [("bert", "classifier"), ("gpt2", "score")])
def test_fresh_layers_are_named_in_one_line(
    tiny_model: TinyModel,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    architecture: str,
    fresh: str,
) -> None:
    folder = tiny_model(architecture)
    caplog.set_level(logging.INFO)
    capfd.readouterr()
    build(BertConfig(kind="bert", pretrained=str(folder)))
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("trainyard")]
    assert len(ours) == 1
    assert f"start afresh: {fresh}" in ours[0]
    assert capfd.readouterr().err == ""


def test_fine_tuned_output_layer_is_kept_or_replaced(tiny_model: TinyModel, tmp_path: Path) -> None:
    classifier, task = build(BertConfig(kind="bert", pretrained=str(tiny_model("bert"))))
    folder = write_bundle(classifier, task, tmp_path / "bundle")
    same, _ = build(BertConfig(kind="bert", pretrained=str(folder)))
    assert torch.equal(same.output_layer()[1].weight, classifier.output_layer()[1].weight)
    other = BertConfig(kind="bert", pretrained=str(folder)).build(Task(("a", "b"), task.preprocessor))
    assert other.output_layer()[1].weight.shape == (2, 16)
    assert torch.equal(other.network.bert.pooler.dense.weight, classifier.network.bert.pooler.dense.weight)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_stages_are_embeddings_layers_and_head(tiny_model: TinyModel, architecture: str) -> None:
    classifier, _ = build(BertConfig(kind="bert", pretrained=str(tiny_model(architecture))))
    assert classifier.stage_count == 4
    stages = [classifier.stage_of(name) for name, _ in classifier.network.named_parameters()]
    assert stages == sorted(stages)
    assert set(stages) == {0, 1, 2, 3}
    assert classifier.stage_of(f"{classifier.output_layer()[0]}.weight") == 3


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "scratch"])
def test_every_weight_is_trained(tiny_model: TinyModel, architecture: str) -> None:
    """DDP waits for ever for a weight that gets no gradient."""
    pretrained = False if architecture == "scratch" else str(tiny_model(architecture))
    classifier, task = build(BertConfig(kind="bert", pretrained=pretrained))
    inputs = task.preprocessor.collate([task.preprocessor.encode(text) for text in TEXTS])
    classifier.train()(**{name: torch.from_numpy(array) for name, array in inputs.items()}).sum().backward()
    assert [name for name, parameter in classifier.named_parameters() if parameter.grad is None] == []


def test_dropout_reaches_every_layer(tiny_model: TinyModel) -> None:
    for architecture in ARCHITECTURES:
        classifier, _ = build(BertConfig(kind="bert", pretrained=str(tiny_model(architecture)), dropout=0.35))
        assert {m.p for m in classifier.network.modules() if isinstance(m, torch.nn.Dropout)} == {0.35}


def test_from_scratch_keys_shape_the_network() -> None:
    config = BertConfig(kind="bert", hidden_size=24, layers=3, heads=4, intermediate_size=20, vocab_size=100)
    classifier, task = build(config, TEXTS * 3)
    made = classifier.network.config
    assert (made.hidden_size, made.num_hidden_layers, made.num_attention_heads, made.intermediate_size) == (
        24,
        3,
        4,
        20,
    )
    assert made.vocab_size == task.preprocessor.tokenizer.get_vocab_size() <= 100
    assert made.id2label == dict(enumerate(LABELS))
    assert made._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("architecture", "limit"), [("bert", POSITIONS), ("roberta", POSITIONS - 2), ("gpt2", POSITIONS)]
)
def test_texts_longer_than_the_model_takes(tiny_model: TinyModel, architecture: str, limit: int) -> None:
    config = BertConfig(kind="bert", pretrained=str(tiny_model(architecture)))
    with pytest.raises(UsageError, match=f"data.max_length={limit}"):
        config.check(data(limit + 1))
    task = Task(LABELS, config.preprocessor(data(limit), []))
    assert logits(config.build(task).eval(), task, ["refund " * 200]).isfinite().all()


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer.json", "config.json"])
def test_incomplete_folder(tiny_model: TinyModel, missing: str) -> None:
    folder = tiny_model("bert")
    (folder / "vocab.txt").unlink()
    (folder / missing).unlink()
    with pytest.raises(UsageError, match=f"has no {missing}"):
        BertConfig(kind="bert", pretrained=str(folder)).check(data())


def test_weights_of_another_size(tiny_model: TinyModel) -> None:
    folder = tiny_model("bert")
    settings_ = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(settings_ | {"hidden_size": 32}), encoding="utf-8")
    with pytest.raises(UsageError, match=r"don't fit its config.json.*bert\."):
        build(BertConfig(kind="bert", pretrained=str(folder)))


def test_tokenizer_with_more_tokens_than_the_model(tiny_model: TinyModel) -> None:
    folder = tiny_model("bert")
    settings_ = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(settings_ | {"vocab_size": 20}), encoding="utf-8")
    with pytest.raises(UsageError, match="more tokens than its model"):
        build(BertConfig(kind="bert", pretrained=str(folder)))


def test_hub_id_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    config = BertConfig(kind="bert", name="nobody/nothing", pretrained=True)
    with pytest.raises(UsageError, match="nobody/nothing is neither a folder here nor to be had") as caught:
        config.check(data())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"pretrained": True}, "set model.name=google-bert"),
        ({"name": "roberta-base"}, "set model.pretrained=true"),
        ({"pretrained": "here", "hidden_size": 64}, "model.hidden_size is for a model from scratch"),
        ({"pretrained": "./nowhere"}, "is no model folder"),
    ],
)
def test_wrong_keys(keys: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BertConfig(kind="bert", **keys).check(data())


def test_heads_that_do_not_divide_the_width() -> None:
    with pytest.raises(UsageError, match=r"model\.heads=3 doesn't divide"):
        BertConfig(kind="bert", heads=3).check(data())


def test_images_are_refused() -> None:
    with pytest.raises(UsageError, match="is for texts"):
        BertConfig(kind="bert").check(ImagesConfig(kind="images", path="unused"))
