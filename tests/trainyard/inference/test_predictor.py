"""The predictor: lists of raw items in, labels with probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import FormatRow
from trainyard.artifacts.manifest import digest
from trainyard.base.errors import BundleError, ItemError, OutputError, UsageError
from trainyard.formats.eager import EagerRuntime
from trainyard.heads.base import Prediction
from trainyard.inference import selection
from trainyard.inference.predictor import WINDOW, Predictor
from trainyard.preprocess.base import Inputs, Item
from trainyard.preprocess.text import TextPreprocessor


@pytest.fixture(scope="module")
def bundle(digits_run: Path) -> Bundle:
    return Bundle.open(digits_run)


@pytest.fixture(scope="module")
def items(bundle: Bundle) -> list[Item]:
    return sorted((bundle.path / "samples" / "golden").iterdir())


def predictions(predictor: Predictor, items: list[Item], top_k: int = 10) -> list[Prediction]:
    answers = predictor.predict(items, top_k)
    assert all(isinstance(answer, Prediction) for answer in answers)
    return [answer for answer in answers if isinstance(answer, Prediction)]


@pytest.mark.parametrize(("top_k", "shown"), [(1, 1), (3, 3), (99, 10)])
def test_top_k_is_how_many_classes_are_told_best_first(
    bundle: Bundle, items: list[Item], top_k: int, shown: int
) -> None:
    for answer in predictions(Predictor(bundle), items, top_k):
        assert len(answer.top) == shown
        assert answer.top == sorted(answer.top, key=lambda pair: -pair[1])
        assert answer.top[0] == (answer.label, answer.probability)
        if shown == 10:
            assert sum(probability for _, probability in answer.top) == pytest.approx(1)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_the_batch_size_splits_the_work_and_changes_no_answer(
    bundle: Bundle, items: list[Item], batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = predictions(Predictor(bundle, batch_size=32), items)
    sizes = []
    logits = EagerRuntime.logits

    def record(self: EagerRuntime, inputs: Inputs) -> object:
        sizes.append(len(inputs["images"]))
        return logits(self, inputs)

    monkeypatch.setattr(EagerRuntime, "logits", record)

    answers = predictions(Predictor(bundle, batch_size=batch_size, warm_up=False), items)

    assert max(sizes) == batch_size
    assert sum(sizes) == len(items) == 16
    for one, other in zip(answers, expected, strict=True):
        assert one.label == other.label
        assert dict(one.top) == pytest.approx(dict(other.top), abs=1e-6)


def test_a_run_folder_does_as_well_as_an_open_bundle(digits_run: Path, bundle: Bundle, items: list[Item]) -> None:
    assert predictions(Predictor(digits_run), items) == predictions(Predictor(bundle), items)


def test_auto_takes_eager_where_there_is_nothing_else(bundle: Bundle, items: list[Item]) -> None:
    assert predictions(Predictor(bundle, "auto"), items) == predictions(Predictor(bundle, "eager"), items)


def test_the_device_is_where_the_model_runs(bundle: Bundle) -> None:
    runtime = Predictor(bundle, device="cpu")._runtime
    elsewhere = Predictor(bundle, device="meta", warm_up=False)._runtime

    assert {parameter.device.type for parameter in runtime.classifier.parameters()} == {"cpu"}
    assert {parameter.device.type for parameter in elsewhere.classifier.parameters()} == {"meta"}


def test_probabilities_are_those_of_the_answers(bundle: Bundle, items: list[Item]) -> None:
    predictor = Predictor(bundle, batch_size=5)

    probabilities = predictor.probabilities(items)

    assert probabilities.shape == (16, 10)
    assert probabilities.dtype == np.float32
    best = [predictor.bundle.labels[i] for i in probabilities.argmax(axis=1)]
    assert best == [answer.label for answer in predictions(predictor, items)]


def test_no_items_no_answers(bundle: Bundle) -> None:
    assert Predictor(bundle).predict([]) == []
    assert Predictor(bundle).probabilities([]).shape == (0, 10)


def test_bad_items_fail_alone_or_where_none_may_fail(bundle: Bundle, items: list[Item]) -> None:
    predictor = Predictor(bundle, batch_size=2)

    answers = predictor.predict([b"", b"", items[0], b"", items[1]])

    assert [isinstance(answer, ItemError) for answer in answers] == [True, True, False, True, False]
    for answer, other in zip((answers[2], answers[4]), predictions(predictor, items[:2], 3), strict=True):
        assert isinstance(answer, Prediction)
        assert dict(answer.top) == pytest.approx(dict(other.top), abs=1e-6)
    with pytest.raises(ItemError, match=r"^items\[33\]: the image can't be decoded"):
        predictor.probabilities([*[items[0]] * 33, b""])
    with pytest.raises(ItemError, match=r"^nowhere\.png: the image can't be decoded"):
        predictor.probabilities([items[0], Path("nowhere.png")])


def test_onnx_answers_as_eager_does(
    bare_run: Path, make_export: Callable[..., Path], row: Callable[..., FormatRow], onnx_file: Path, items: list[Item]
) -> None:
    make_export(row("onnx"), files={"model.onnx": onnx_file.read_bytes()})

    predictor = Predictor(bare_run, "onnx", threads=1, batch_size=5)

    assert predictor.deployed == (predictor.bundle.digest, "one", "onnx")
    assert Predictor(bare_run).format == "onnx"
    eager = Predictor(bare_run, "eager")
    assert eager.format == "eager"
    np.testing.assert_allclose(predictor.probabilities(items), eager.probabilities(items), atol=1e-5)


def test_an_export_is_chosen_by_its_id(
    bare_run: Path, make_export: Callable[..., Path], row: Callable[..., FormatRow], onnx_file: Path
) -> None:
    for id in ("one", "two"):
        make_export(row("onnx"), id=id, files={"model.onnx": onnx_file.read_bytes()})

    assert Predictor(bare_run).deployed.export == "two"
    assert Predictor(bare_run, export="one").deployed.export == "one"
    with pytest.raises(UsageError, match="there is no export three"):
        Predictor(bare_run, export="three")


def test_only_what_is_expected_answers(
    bare_run: Path, make_export: Callable[..., Path], row: Callable[..., FormatRow], onnx_file: Path
) -> None:
    folder = make_export(row("onnx"), files={"model.onnx": onnx_file.read_bytes()})
    own, export = digest(bare_run / "bundle"), digest(folder)

    assert Predictor(bare_run, expect=own).format == "eager"
    assert Predictor(bare_run, expect=export).format == "onnx"
    assert Predictor(bare_run, "eager", expect=export).format == "eager"
    with pytest.raises(UsageError, match="give the digest of the export for onnx"):
        Predictor(bare_run, "onnx", expect=own)
    with pytest.raises(BundleError, match="was expected"):
        Predictor(bare_run, expect="0" * 64)


def test_the_first_call_is_made_at_once_unless_it_is_not_wanted(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(EagerRuntime, "logits", lambda self, inputs: calls.append(len(inputs["images"])))

    Predictor(bundle)
    assert calls == [1]

    Predictor(bundle, warm_up=False)
    assert calls == [1]


class Counter:
    """A model whose logits tell which words a text holds; counts what it is given."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        self.shapes.append(inputs["input_ids"].shape)
        ids = inputs["input_ids"] * inputs["attention_mask"]
        return np.stack([(ids == token).sum(axis=1) for token in (1, 2, 3)], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def texts(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Predictor, Counter]]:
    """A predictor of texts made of three words, in batches of 4, and its model."""
    model, folder = Counter(), tmp_path_factory.mktemp("texts") / "bundle"
    tokenizer = Tokenizer(WordLevel({"[PAD]": 0, "a": 1, "b": 2, "c": 3}, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    facts = bundle.facts.model_copy(update={"labels": ["a", "b", "c"]})
    made = replace(bundle, path=folder, facts=facts)
    made.__dict__["preprocessor"] = TextPreprocessor(tokenizer, max_length=50)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "open_runtime", lambda *_: model)
        yield Predictor(made, batch_size=4), model


WORDS = st.lists(st.lists(st.sampled_from("abc"), max_size=12).map(" ".join), max_size=80)


@given(items=WORDS)
def test_texts_are_answered_in_their_order_whatever_their_lengths(
    items: list[str], texts: tuple[Predictor, Counter]
) -> None:
    predictor, model = texts
    model.shapes.clear()

    answers = predictor.predict(items, top_k=3)

    for item, answer in zip(items, answers, strict=True):
        if isinstance(answer, ItemError):
            assert not item
        else:
            alone = predictor.predict([item], top_k=3)[0]
            assert answer == alone
            assert isinstance(alone, Prediction)
            counts = {word: item.count(word) for word in "abc"}
            assert counts[answer.label] == max(counts.values())
    good = [item for item in items if item]
    rows = [alone for item in good for alone in predictor.probabilities([item])]
    np.testing.assert_array_equal(predictor.probabilities(good), np.reshape(rows, (-1, 3)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_no_answer_and_touches_no_other(
    texts: tuple[Predictor, Counter], value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, model = texts
    items: list[Item] = ["a", "b b", "c"]
    expected = predictor.predict(items)
    logits = model.logits

    def broken(inputs: Inputs) -> NDArray[np.float32]:
        rows = logits(inputs)
        rows[(inputs["input_ids"] == 2).any(axis=1), 0] = value
        return rows

    monkeypatch.setattr(model, "logits", broken)

    answers = predictor.predict(items)

    assert isinstance(answers[1], OutputError)
    assert answers[::2] == expected[::2]
    with pytest.raises(OutputError, match=r"items\[1\]: the model's output"):
        predictor.probabilities(items)


def test_scores_are_the_probabilities_or_the_error(texts: tuple[Predictor, Counter]) -> None:
    predictor, _ = texts

    first, bad, last = predictor.score(["a", "", "b"])

    assert isinstance(bad, ItemError)
    np.testing.assert_array_equal([first, last], predictor.probabilities(["a", "b"]))


def test_short_texts_are_not_padded_to_the_longest(texts: tuple[Predictor, Counter]) -> None:
    predictor, model = texts
    model.shapes.clear()

    predictor.predict(["a", "b " * 40] * (2 * WINDOW))

    assert model.shapes == [(4, 1)] * (WINDOW // 2) + [(4, 40)] * (WINDOW // 2)


def test_a_stream_is_read_as_far_as_it_is_answered(texts: tuple[Predictor, Counter]) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "abc"[read % 3]

    answers = texts[0].stream(endless(), top_k=1)

    first = [next(answers) for _ in range(3)]
    assert [answer.label for answer in first if isinstance(answer, Prediction)] == ["b", "c", "a"]
    assert read == WINDOW * 4
    for _ in range(WINDOW * 4):
        next(answers)
    assert read == 2 * WINDOW * 4
