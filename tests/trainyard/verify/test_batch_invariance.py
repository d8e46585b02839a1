"""BatchInvariance and shapes, against runtimes that are wrong in one way each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer, models
from torch import Tensor, nn

from trainyard.artifacts.export_record import BatchInvariance
from trainyard.preprocess.base import Encoded, Inputs
from trainyard.preprocess.image import ImagePreprocessor
from trainyard.preprocess.text import TextPreprocessor
from trainyard.verify.batch_invariance import MAX_MOVE, Run, Sweep, make_cases, measure_invariance, moves, sweep

WORDS, WIDTH, CLASSES, PAD = 40, 12, 3, 7
Floats = NDArray[np.float32]


def text_preprocessor(max_length: int = 128, segments: bool = False) -> TextPreprocessor:
    return TextPreprocessor(Tokenizer(models.WordLevel({}, "?")), max_length, PAD, segments)


def texts(count: int = 32, longest: int = 40, segments: bool = False, seed: int = 0) -> list[Encoded]:
    """Token ids from 10 on, so that none is the padding's and some are never seen."""
    generator = np.random.default_rng(seed)
    rows = [generator.integers(10, WORDS, generator.integers(1, longest, endpoint=True)) for _ in range(count)]
    return [np.stack([row, row % 2] if segments else [row]).astype(np.int32) for row in rows]


def images(count: int = 32, seed: int = 0) -> list[Encoded]:
    """Neither dark nor bright."""
    return list(np.random.default_rng(seed).integers(80, 170, (count, 4, 4, 3), dtype=np.uint8))


class Texts:
    """Mean of the tokens' vectors, in 8 bits by a scale, then a matrix.

    Args:
        scale: What value is 127; by default the largest of the batch, as dynamic quantisation has it.
        masked: Whether the padding is left out of the mean.
    """

    def __init__(self, scale: float | None = None, masked: bool = True, bits: bool = True) -> None:
        generator = np.random.default_rng(1)
        self.vectors = generator.normal(size=(WORDS, WIDTH))
        self.matrix = generator.normal(size=(WIDTH, CLASSES))
        self.scale, self.masked, self.bits = scale, masked, bits
        self.seen: list[Inputs] = []

    def __call__(self, inputs: Inputs) -> Floats:
        self.seen.append(inputs)
        mask = inputs["attention_mask"][:, :, None]
        weights = mask if self.masked else np.ones_like(mask)
        x = (self.vectors[inputs["input_ids"]] * weights).sum(axis=1) / weights.sum(axis=1)
        if self.bits:
            unit = (self.scale or np.abs(x).max()) / 127
            x = np.rint(x / unit).clip(-127, 127) * unit
        return (x @ self.matrix).astype(np.float32)


class Images:
    """A matrix over the pixels, in as many steps as a scale leaves them."""

    def __init__(self, scale: float | None = None) -> None:
        self.matrix = np.random.default_rng(1).normal(size=(48, CLASSES)) / 48
        self.scale = scale
        self.seen: list[Inputs] = []

    def __call__(self, inputs: Inputs) -> Floats:
        self.seen.append(inputs)
        x = inputs["images"].reshape(-1, 48).astype(np.float64)
        unit = (self.scale or x.max()) / 15
        return (np.rint(x / unit) * unit @ self.matrix / 10).astype(np.float32)


def image_preprocessor() -> ImagePreprocessor:
    return ImagePreprocessor(4, 4)


def lengths_of(run: Texts) -> list[int]:
    return [inputs["input_ids"].shape[1] for inputs in run.seen]


def test_a_scale_by_batch_moves_with_the_neighbours() -> None:
    of_texts = measure_invariance(Texts(), texts(), text_preprocessor())
    of_images = measure_invariance(Images(), images(), image_preprocessor())

    assert of_texts.neighbours > 100 * MAX_MOVE
    assert of_texts.padding == 0.0, "alone, the same tokens have the same scale"
    assert of_images.neighbours > 100 * MAX_MOVE
    assert of_images.padding == 0.0
    assert moves(of_texts)
    assert moves(of_images)


def test_a_fixed_scale_does_not_move() -> None:
    assert measure_invariance(Texts(scale=3.0), texts(), text_preprocessor()) == BatchInvariance(
        neighbours=0.0, padding=0.0
    )
    assert measure_invariance(Images(scale=255), images(), image_preprocessor()) == BatchInvariance(
        neighbours=0.0, padding=0.0
    )
    assert not moves(measure_invariance(Texts(bits=False), texts(), text_preprocessor()))


def test_a_mean_over_the_padding_moves_with_it() -> None:
    found = measure_invariance(Texts(masked=False, bits=False), texts(), text_preprocessor())

    assert found.padding > 100 * MAX_MOVE
    assert moves(found)


def test_padding_is_found_where_all_texts_are_of_one_length() -> None:
    """No neighbour brings any padding then."""
    of_one_length = [text[:, :3] for text in texts(60) if text.shape[1] >= 3]

    found = measure_invariance(Texts(masked=False, bits=False), of_one_length, text_preprocessor(max_length=16))

    assert found.padding > 100 * MAX_MOVE


@pytest.mark.parametrize("extreme", ["bright", "dark", "noisy"])
def test_extreme_neighbours_are_found_where_the_items_are_alike(extreme: str) -> None:
    def disturbed(inputs: Inputs) -> Floats:
        pixels = inputs["images"]
        signs = {
            "bright": (pixels == 255).all(axis=(1, 2, 3)),
            "dark": (pixels == 0).all(axis=(1, 2, 3)),
            "noisy": pixels.std(axis=(1, 2, 3)) > 60,
        }
        logits = Images(scale=255)(inputs)
        logits[:, 0] += 0.01 * bool(signs[extreme].any())
        return logits

    assert moves(measure_invariance(disturbed, images(), image_preprocessor()))


def test_a_neighbour_of_full_length_is_found() -> None:
    """Other texts are padded to its length in the batch: what moves here is a neighbour's tokens."""

    def disturbed(inputs: Inputs) -> Floats:
        logits = Texts(scale=3.0)(inputs)
        logits[:, 0] += 0.01 * (inputs["attention_mask"].sum(axis=1).max() == 128)
        return logits

    found = measure_invariance(disturbed, texts(), text_preprocessor())

    assert found.padding == 0.0
    assert moves(found)


@pytest.mark.parametrize("size", [2, 7, 32])
def test_a_fault_of_one_batch_size_is_found(size: int) -> None:
    def disturbed(inputs: Inputs) -> Floats:
        logits = Images(scale=255)(inputs)
        logits[-1, 0] += 0.01 * (len(logits) == size)
        return logits

    assert moves(measure_invariance(disturbed, images(), image_preprocessor()))


@pytest.mark.parametrize("length", [16, 64, 128, 200])
def test_a_fault_of_one_padded_length_is_found(length: int) -> None:
    def disturbed(inputs: Inputs) -> Floats:
        logits = Texts(scale=3.0)(inputs)
        alone = inputs["attention_mask"].shape == (1, length) and not inputs["attention_mask"].all()
        logits[:, 0] += 0.01 * alone
        return logits

    found = measure_invariance(disturbed, texts(), text_preprocessor(max_length=200))

    assert found.neighbours == 0.0
    assert found.padding > 100 * MAX_MOVE


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_not_finite_has_moved_all_the_way(value: float) -> None:
    def disturbed(inputs: Inputs) -> Floats:
        logits = Images(scale=255)(inputs)
        return np.full_like(logits, value) if len(logits) == 7 else logits

    found = measure_invariance(disturbed, images(), image_preprocessor())

    assert found.neighbours == 1.0
    assert moves(found)


@pytest.mark.parametrize(("neighbours", "padding"), [(2e-5, 0.0), (0.0, 2e-5)])
def test_neighbours_and_padding_both_count(neighbours: float, padding: float) -> None:
    assert moves(BatchInvariance(neighbours=neighbours, padding=padding))
    assert not moves(BatchInvariance(neighbours=MAX_MOVE, padding=MAX_MOVE))


def test_the_distance_is_that_of_a_probability_by_hand() -> None:
    """Logits (0, 0) alone and (0, ln 3) among others: one half becomes three quarters."""

    def disturbed(inputs: Inputs) -> Floats:
        logits = np.zeros((len(inputs["images"]), 2), np.float32)
        logits[:, 1] = np.log(3) * (len(logits) > 1)
        return logits

    assert measure_invariance(disturbed, images(), image_preprocessor()).neighbours == pytest.approx(0.25, abs=1e-6)


@given(
    count=st.integers(1, 40), longest=st.integers(1, 200), room=st.integers(0, 400), segments=st.booleans(),
    seed=st.integers(0, 2**31),
)  # fmt: skip
@settings(max_examples=30)
def test_whatever_the_texts_the_cost_is_bounded_and_the_inputs_are_sound(
    count: int, longest: int, room: int, segments: bool, seed: int
) -> None:
    encoded = texts(count, longest, segments, seed)
    longest = max(text.shape[1] for text in encoded)
    max_length = longest + room
    run = Texts(scale=3.0)

    found = measure_invariance(run, encoded, text_preprocessor(max_length, segments))

    known = {PAD, *np.concatenate([text[0] for text in encoded]).tolist()}
    assert found == BatchInvariance(neighbours=0.0, padding=0.0)
    assert len(run.seen) <= 150
    assert {len(inputs["input_ids"]) for inputs in run.seen} == {1, 2, 7, 32}
    assert max(lengths_of(run)) == max_length
    # All are of the full length anyway where the items are.
    full = [len(inputs["input_ids"]) for inputs in run.seen if inputs["input_ids"].shape[1] == max_length]
    assert room == 0 or (len(full) <= 6 and max(full) <= 7)
    for inputs in run.seen:
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        assert set(inputs) == {"input_ids", "attention_mask", *(["token_type_ids"] if segments else [])}
        assert {array.shape for array in inputs.values()} == {ids.shape}
        assert {array.dtype for array in inputs.values()} == {np.dtype(np.int64)}
        assert set(ids.flat) <= known
        assert (ids[mask == 0] == PAD).all()
        assert (mask[:, 0] == 1).all()
        assert (np.diff(mask, axis=1) <= 0).all()
        assert not segments or not inputs["token_type_ids"][mask == 0].any()


@given(count=st.integers(1, 40), seed=st.integers(0, 2**31))
@settings(max_examples=30)
def test_every_image_is_in_batches_of_every_size_the_same_each_time(count: int, seed: int) -> None:
    encoded = images(count, seed)
    first, second = Images(scale=255), Images(scale=255)
    measure_invariance(first, encoded, image_preprocessor())
    measure_invariance(second, encoded, image_preprocessor())

    assert len(first.seen) <= 150
    for size in (1, 2, 7, 32):
        batches = [inputs["images"] for inputs in first.seen if len(inputs["images"]) == size]
        present = {image.tobytes() for batch in batches for image in batch}
        assert {image.transpose(2, 0, 1).tobytes() for image in encoded[:32]} <= present
    for one, other in zip(first.seen, second.seen, strict=True):
        assert (one["images"] == other["images"]).all()


def test_neighbours_are_not_those_of_the_data() -> None:
    """Data often lies in order of its classes, so that neighbours there are alike."""
    encoded = images()
    run = Images(scale=255)
    measure_invariance(run, encoded, image_preprocessor())

    place = {image.transpose(2, 0, 1).tobytes(): i for i, image in enumerate(encoded)}
    batches = [[place.get(image.tobytes(), -1) for image in inputs["images"]] for inputs in run.seen]
    sevens = [batch for batch in batches if len(batch) == 7]
    assert all(np.ptp(batch) > 7 for batch in sevens)
    assert len({frozenset(batch) for batch in sevens}) == len(sevens)


class Pooled(nn.Module):
    """A torch model of texts, for real exporters."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Embedding(WORDS, WIDTH)
        self.output = nn.Linear(WIDTH, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.unsqueeze(-1).float()
        return self.output((self.vectors(input_ids) * mask).sum(dim=1) / mask.sum(dim=1))


def as_run(model: nn.Module) -> Run:
    def run(inputs: Inputs) -> Floats:
        with torch.inference_mode():
            return model(*(torch.from_numpy(inputs[name]) for name in ("input_ids", "attention_mask"))).numpy()

    return run


def exported(dynamic: Sequence[int]) -> Run:
    """The same model through ``torch.export``, with only these dimensions dynamic."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Pooled().eval()
    inputs = text_preprocessor().collate([text[:, :16] for text in texts() if text.shape[1] >= 16][:4])
    example = tuple(map(torch.from_numpy, inputs.values()))
    dimension = {axis: torch.export.Dim(("batch", "length")[axis], min=1, max=512) for axis in dynamic}
    return as_run(torch.export.export(model, example, dynamic_shapes=(dimension, dimension)).module())


@pytest.fixture(scope="module")
def eager() -> Run:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return as_run(Pooled().eval())


def test_a_sound_export_runs_every_shape(eager: Run) -> None:
    found = sweep(exported([0, 1]), make_cases(eager, texts(), text_preprocessor(512)))

    assert found.failures == ()
    assert found.max_abs_diff < 1e-6


def test_a_frozen_batch_dimension_is_named_with_the_runtimes_own_words(eager: Run) -> None:
    failures = sweep(exported([1]), make_cases(eager, texts(), text_preprocessor(512))).failures

    assert len(failures) == 16, "its batch of 4 is none of ours"
    assert failures[10].startswith("batch 7 x length 128 fails: ")
    assert "4" in failures[10].partition("fails: ")[2]
    assert all("\n" not in failure for failure in failures)


def test_a_frozen_length_fails_at_all_others(eager: Run) -> None:
    failures = sweep(exported([0]), make_cases(eager, texts(), text_preprocessor(512))).failures

    shapes = [failure.partition(" fails: ")[0] for failure in failures]
    assert shapes == [f"batch {size} x length {length}" for size in (1, 2, 7, 32) for length in (1, 128, 512)]


@pytest.mark.parametrize("size", [1, 2, 7, 32])
@pytest.mark.parametrize("length", [1, 16, 128, 300])
def test_a_difference_at_one_shape_alone_is_found(size: int, length: int) -> None:
    def wrong(inputs: Inputs) -> Floats:
        logits = Texts(scale=3.0)(inputs)
        logits[-1, 1] += 0.25 * (inputs["input_ids"].shape == (size, length))
        return logits

    found = sweep(wrong, make_cases(Texts(scale=3.0), texts(), text_preprocessor(300)))

    assert found == Sweep(pytest.approx(0.25, abs=1e-5), f"batch {size} x length {length}", ())


def test_the_padding_within_a_batch_is_part_of_the_sweep() -> None:
    cases = make_cases(Texts(bits=False), texts(), text_preprocessor())

    assert sweep(Texts(bits=False, masked=False), cases).max_abs_diff > 0.01
    assert all(case.inputs["attention_mask"][0].all() for case in cases)


def test_images_are_swept_over_the_batches_alone() -> None:
    cases = make_cases(Images(scale=255), images(5), image_preprocessor())

    assert [case.name for case in cases] == ["batch 1", "batch 2", "batch 7", "batch 32"]
    assert [len(case.inputs["images"]) for case in cases] == [1, 2, 7, 32]
    assert sweep(Images(scale=255), cases) == Sweep(0.0, "batch 1", ())


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (lambda logits: logits[:1], "batch 2 fails: the logits' shape is (1, 3) where eager's is (2, 3)"),
        (lambda logits: logits * np.nan, "batch 1 fails: the logits are not finite"),
    ],
)
def test_a_broken_output_is_a_failure(fault: type, failure: str) -> None:
    cases = make_cases(Images(scale=255), images(), image_preprocessor())

    assert sweep(lambda inputs: fault(Images(scale=255)(inputs)), cases).failures[0] == failure


@pytest.mark.parametrize(
    ("error", "words"), [(RuntimeError("\nno kernel\nat line 3"), "no kernel"), (KeyError(), "KeyError")]
)
def test_an_error_is_told_in_one_line(error: Exception, words: str) -> None:
    def crashing(inputs: Inputs) -> Floats:
        raise error

    found = sweep(crashing, make_cases(Images(scale=255), images(), image_preprocessor()))

    assert found == Sweep(0.0, "", tuple(f"batch {size} fails: {words}" for size in (1, 2, 7, 32)))


@given(max_length=st.integers(1, 600), segments=st.booleans(), seed=st.integers(0, 2**31))
@settings(max_examples=25)
def test_no_case_is_longer_than_the_model_takes(max_length: int, segments: bool, seed: int) -> None:
    encoded = texts(3, min(max_length, 20), segments, seed)

    cases = make_cases(Texts(scale=3.0), encoded, text_preprocessor(max_length, segments))

    shapes = [case.inputs["input_ids"].shape for case in cases]
    lengths = sorted({min(length, max_length) for length in (1, 16, 128, 512)})
    assert shapes == [(size, length) for size in (1, 2, 7, 32) for length in lengths]
    known = {PAD, *np.concatenate([text[0] for text in encoded]).tolist()}
    assert all(set(case.inputs["input_ids"].flat) <= known for case in cases)
    assert sweep(Texts(scale=3.0), cases).max_abs_diff == 0.0
