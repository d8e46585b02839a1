"""The gate, against models that were broken on purpose: each is refused, and for the right reason."""

from __future__ import annotations

import copy
from dataclasses import astuple, dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tables import ALL, EXPORTED, FP32
from torch import Tensor, nn

from trainyard.artifacts.export_record import FormatName
from trainyard.base.errors import DataError
from trainyard.evaluation.intervals import wilson_interval
from trainyard.heads.single_label import SingleLabel
from trainyard.verify.gate import Gate, Verdict, judge

HEAD = SingleLabel()
CLASSES = ("red", "green", "blue")
LESS = [format for format in EXPORTED if format not in FP32]
Logits = NDArray[np.float32]


class Colours(nn.Module):
    """Tells which channel of an image is the brightest; takes pixels, and the mean off inside."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.5, 0.5, 0.5]))
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.output = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = images.float() / 255 - self.mean[:, None, None]
        return self.output(self.layers(x))


@dataclass
class Task:
    """A trained model with the split that formats of it are judged on."""

    model: Colours
    images: Tensor
    labels: NDArray[np.int64]

    def run(self, model: nn.Module) -> Logits:
        with torch.inference_mode():
            return model(self.images).numpy()

    def judge(self, format: FormatName, logits: Logits, gate: Gate | None = None) -> Verdict:
        return judge(HEAD, format, logits, self.run(self.model), self.labels, CLASSES, gate or Gate())


@pytest.fixture(scope="module")
def task() -> Task:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        labels = torch.arange(200) % 3
        images = torch.randint(0, 160, (200, 3, 6, 6), dtype=torch.uint8)
        images[torch.arange(200), labels] += 60
        model = Colours()
        optimizer = torch.optim.Adam(model.parameters(), 0.03)
        for _ in range(80):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    task = Task(model.eval(), images, labels.numpy())
    assert HEAD.scores(torch.tensor(task.run(model)), labels, CLASSES).accuracy > 0.95
    return task


def perturbed(model: Colours, noise: float) -> Colours:
    changed = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=noise)
    return changed


def in_8_bits(model: Colours) -> Colours:
    """As quantisation does to weights: a scale for each tensor, and 255 values."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in changed.parameters():
            scale = parameter.abs().max() / 127
            parameter.copy_((parameter / scale).round() * scale)
    return changed


@pytest.mark.parametrize("format", ALL)
def test_the_model_itself_passes_as_any_format(task: Task, format: FormatName) -> None:
    logits = task.run(task.model)
    scores = HEAD.scores(torch.tensor(logits), torch.tensor(task.labels), CLASSES)

    verdict = task.judge(format, logits)

    assert verdict.passed
    assert verdict.accuracy == scores.accuracy
    assert verdict.accuracy_interval == wilson_interval(scores.correct, 200)
    assert verdict.macro_f1 == scores.macro_f1
    assert (verdict.agreement, verdict.max_abs_diff) == (1.0, 0.0)


def test_weights_in_8_bits_pass_as_int8_and_not_as_fp32(task: Task) -> None:
    logits = task.run(in_8_bits(task.model))

    assert task.judge("onnx-int8", logits).reasons == ()
    assert any("a logit differs by" in reason for reason in task.judge("onnx", logits).reasons)


@pytest.mark.parametrize("format", FP32)
def test_slightly_perturbed_weights_are_refused_though_no_score_falls(task: Task, format: FormatName) -> None:
    verdict = task.judge(format, task.run(perturbed(task.model, 0.001)))

    assert verdict.accuracy is not None
    assert verdict.accuracy > 0.95
    assert verdict.reasons[-1] == f"a logit differs by {verdict.max_abs_diff:.2g} from eager's, and 0.001 is the most"


@pytest.mark.parametrize("format", EXPORTED)
def test_badly_perturbed_weights_are_refused_for_their_scores(task: Task, format: FormatName) -> None:
    reasons = " | ".join(task.judge(format, task.run(perturbed(task.model, 2.0))).reasons)

    assert "accuracy 0." in reasons
    assert "macro-F1 0." in reasons
    assert "of 200 examples get eager's class" in reasons


@pytest.mark.parametrize("format", EXPORTED)
def test_two_swapped_classes_are_refused_for_accuracy_and_agreement(task: Task, format: FormatName) -> None:
    logits = task.run(task.model)[:, [1, 0, 2]]

    reasons = task.judge(format, logits).reasons

    assert reasons[0].startswith("accuracy 0.3")
    assert "is below 99 % of eager's" in reasons[0]
    assert any(reason.endswith(f"and {100 if (format in FP32) else 98} % must") for reason in reasons)


@pytest.mark.parametrize("format", EXPORTED)
def test_a_wrong_mean_is_refused_for_accuracy_and_agreement(task: Task, format: FormatName) -> None:
    wrong = copy.deepcopy(task.model)
    wrong.mean = torch.tensor([0.0, 0.5, 0.9])

    reasons = " | ".join(task.judge(format, task.run(wrong)).reasons)

    assert "is below 99 % of eager's" in reasons
    assert "examples get eager's class" in reasons


@pytest.mark.parametrize("format", EXPORTED)
def test_a_frozen_batch_dimension_is_a_reason_and_no_crash(task: Task, format: FormatName) -> None:
    verdict = task.judge(format, task.run(task.model)[:4])

    assert verdict == Verdict(reasons=("its logits are 4 x 3 where eager's are 200 x 3",))


@pytest.mark.parametrize("format", EXPORTED)
def test_a_constant_output_is_refused(task: Task, format: FormatName) -> None:
    reasons = task.judge(format, np.ones((200, 3), np.float32)).reasons

    assert reasons[0].startswith("accuracy 0.335 is below 99 %")
    assert "examples get eager's class" in reasons[2]
    assert reasons[-1].startswith("its logits hardly depend on the example: they vary by 0, eager's by ")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("format", EXPORTED)
def test_what_is_not_finite_is_refused_without_figures(task: Task, format: FormatName, value: float) -> None:
    logits = task.run(task.model)
    logits[[3, 5, 5], [0, 1, 2]] = value

    verdict = task.judge(format, logits)

    assert verdict == Verdict(reasons=("its logits are not finite for 2 of 200 examples",))
    assert not verdict.passed


def test_a_constant_output_is_refused_where_eager_always_prefers_one_class() -> None:
    """All scores and all classes are the same then, but the probabilities are lost."""
    chance = np.linspace(1, 3, 50, dtype=np.float32)
    reference = np.stack([chance, np.zeros_like(chance)], axis=1)
    constant = np.tile(reference.mean(axis=0), (50, 1))
    labels = np.repeat([0, 1], [49, 1])

    verdict = judge(HEAD, "onnx-int8", constant, reference, labels, ("good", "bad"), Gate())

    assert (verdict.agreement, verdict.accuracy) == (1.0, 0.98)
    assert verdict.reasons == ("its logits hardly depend on the example: they vary by 0, eager's by 2",)


def test_a_constant_eager_model_may_have_constant_formats() -> None:
    reference = np.tile(np.array([0.3, 0.1], np.float32), (10, 1)) + np.linspace(0, 1e-6, 10, dtype=np.float32)[:, None]

    for format in ALL:
        assert judge(HEAD, format, np.tile(reference[:1], (10, 1)), reference, np.arange(10) % 2, "ab", Gate()).passed


@pytest.mark.parametrize(("right", "passed"), [(99, True), (98, False)])
def test_the_bound_of_the_scores_is_a_share_of_eagers(right: int, passed: bool) -> None:
    labels = np.arange(100) % 2
    reference = np.eye(2, dtype=np.float32)[labels]
    logits = np.eye(2, dtype=np.float32)[np.where(np.arange(100) < right, labels, 1 - labels)]

    verdict = judge(HEAD, "onnx-int8", logits, reference, labels, "ab", Gate())

    assert verdict.agreement == right / 100
    assert [reason for reason in verdict.reasons if "accuracy" in reason] == (
        [] if passed else ["accuracy 0.98 is below 99 % of eager's 1"]
    )


def test_a_rare_class_that_gets_lost_is_refused_for_macro_f1_alone() -> None:
    labels = np.repeat([0, 1], [990, 10])
    reference = np.eye(2, dtype=np.float32)[labels]
    logits = reference.copy()
    logits[-5:] = [1, 0]

    verdict = judge(HEAD, "onnx-int8", logits, reference, labels, ("usual", "rare"), Gate())

    assert verdict.reasons == ("macro-F1 0.8321 is below 99 % of eager's 1",)


@pytest.mark.parametrize(("corrected", "passed"), [(2, True), (3, False)])
def test_an_int8_format_must_agree_even_where_it_is_right_and_eager_is_wrong(corrected: int, passed: bool) -> None:
    labels = np.arange(100) % 2
    predicted = np.where(np.arange(100) < 10, 1 - labels, labels)
    reference = np.eye(2, dtype=np.float32)[predicted]
    logits = np.eye(2, dtype=np.float32)[np.where(np.arange(100) < corrected, labels, predicted)]

    verdict = judge(HEAD, "aoti-int8", logits, reference, labels, "ab", Gate())

    assert verdict.accuracy == 0.9 + corrected / 100
    assert verdict.agreement == 1 - corrected / 100
    assert verdict.reasons == (() if passed else ("only 97 of 100 examples get eager's class, and 98 % must",))


def test_a_tie_of_an_fp32_format_is_forgiven_within_the_bound_and_an_error_beyond_it_is_not() -> None:
    labels = np.arange(200) % 2
    reference = np.eye(2, dtype=np.float32)[labels]
    reference[0] = [0.0014, 0.0]  # both logits move by 0.0008: the gap is more than one such step, less than two
    logits = reference + np.array([-0.0008, 0.0008], np.float32)

    within = judge(HEAD, "onnx", logits, reference, labels, "ab", Gate())
    beyond = judge(HEAD, "onnx", logits, reference, labels, "ab", Gate(max_abs_diff=0.0005))
    int8 = judge(HEAD, "onnx-int8", logits, reference, labels, "ab", Gate())

    assert within.passed
    assert (within.accuracy, within.agreement) == (0.995, 1.0)
    assert (beyond.accuracy, beyond.agreement) == (0.995, 0.995)
    assert int8.agreement == 0.995, "of int8, every example counts"
    assert beyond.reasons == (
        "only 199 of 200 examples get eager's class, and 100 % must",
        "a logit differs by 0.0008 from eager's, and 0.0005 is the most",
    )


def test_a_small_split_is_told_by_its_interval_and_not_refused_for_it() -> None:
    verdict = judge(HEAD, "onnx", *[np.eye(2, dtype=np.float32)] * 2, np.arange(2), "ab", Gate())

    assert verdict.passed
    assert verdict.accuracy_interval == wilson_interval(2, 2)
    assert verdict.accuracy_interval[0] < 0.4


def test_eagers_own_faults_are_no_verdict_on_a_format() -> None:
    good, bad = np.eye(2, dtype=np.float32), np.full((2, 2), np.nan, np.float32)

    with pytest.raises(DataError, match="not finite for 2 of 2"):
        judge(HEAD, "onnx", good, bad, np.arange(2), "ab", Gate())
    with pytest.raises(DataError, match="no examples"):
        judge(HEAD, "onnx", good[:0], good[:0], np.arange(0), "ab", Gate())


def test_the_bounds_are_those_that_the_export_tells_of() -> None:
    assert Gate().to_dict() == {"metric_share": 0.99, "int8_agreement": 0.98, "max_abs_diff": 0.001}


Split = tuple[Logits, NDArray[np.int64]]


@st.composite
def splits(draw: st.DrawFn) -> Split:
    """Logits on a grid, so that ties and near ties are common, with any labels."""
    seed, examples, classes = draw(st.integers(0, 2**31)), draw(st.integers(1, 60)), draw(st.integers(2, 6))
    generator = np.random.default_rng(seed)
    steps = draw(st.sampled_from([1e-4, 7e-4, 0.1, 1.0, 100.0]))
    logits = generator.integers(-20, 20, (examples, classes)) * steps
    return logits.astype(np.float32), generator.integers(0, classes, examples)


def names(logits: Logits) -> list[str]:
    return [f"class {i}" for i in range(logits.shape[1])]


@given(splits(), st.sampled_from(ALL), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=60)
def test_equal_outputs_always_pass(
    split: Split, format: FormatName, share: float, agreement: float, max_abs_diff: float
) -> None:
    logits, labels = split

    assert (
        judge(HEAD, format, logits, logits, labels, names(logits), Gate(share, agreement, max_abs_diff)).reasons == ()
    )


@given(splits(), st.sampled_from(FP32), st.integers(0, 2**31), st.floats(0, 1e-3))
@settings(max_examples=100)
def test_within_the_bound_an_fp32_format_disagrees_on_ties_alone(
    split: Split, format: FormatName, seed: int, noise: float
) -> None:
    """What ``_agreeing`` says in words: a gap that closed was at most twice the largest difference."""
    reference, labels = split
    signs = np.random.default_rng(seed).choice([-1, 1], reference.shape)
    logits = (reference + noise * signs).astype(np.float32)

    verdict = judge(HEAD, format, logits, reference, labels, names(logits), Gate())

    rows, ours, eagers = np.arange(len(labels)), logits.argmax(1), reference.argmax(1)
    gaps = reference[rows, eagers].astype(np.float64) - reference[rows, ours]
    assert verdict.max_abs_diff is not None
    assert (gaps[ours != eagers] <= 2 * verdict.max_abs_diff).all()
    if verdict.max_abs_diff <= 1e-3:
        assert verdict.agreement == 1.0
        assert not any("eager's class" in reason or "a logit differs" in reason for reason in verdict.reasons)


@given(splits(), st.sampled_from(EXPORTED), st.integers(0, 2**31), st.floats(2e-3, 10))
@settings(max_examples=100)
def test_the_figures_are_those_by_hand_and_the_reasons_follow_from_them(
    split: Split, format: FormatName, seed: int, noise: float
) -> None:
    reference, labels = split
    logits = (reference + noise * np.random.default_rng(seed).choice([-1, 1], reference.shape)).astype(np.float32)
    eager = HEAD.scores(torch.tensor(reference), torch.tensor(labels), names(reference))

    verdict = judge(HEAD, format, logits, reference, labels, names(logits), Gate())

    agreement = np.mean([a.argmax() == b.argmax() for a, b in zip(logits, reference, strict=True)])
    reasons = " | ".join(verdict.reasons)
    assert verdict.accuracy == pytest.approx(np.mean(logits.argmax(1) == labels))
    assert verdict.agreement == pytest.approx(agreement)
    assert verdict.max_abs_diff == np.abs(logits.astype(np.float64) - reference).max()
    assert verdict.accuracy is not None
    assert verdict.macro_f1 is not None
    assert ("accuracy" in reasons) == (verdict.accuracy < 0.99 * eager.accuracy - 1e-9)
    assert ("macro-F1" in reasons) == (verdict.macro_f1 < 0.99 * eager.macro_f1 - 1e-9)
    assert ("eager's class" in reasons) == (agreement < (1 if (format in FP32) else 0.98) - 1e-9)
    assert ("a logit differs" in reasons) == (format in FP32)


@given(
    splits(),
    st.sampled_from(EXPORTED),
    st.lists(st.floats(width=32), min_size=1, max_size=9),
    st.lists(st.integers(0, 5), max_size=3),
)
@settings(max_examples=100)
def test_no_output_crashes_the_gate(split: Split, format: FormatName, values: list[float], shape: list[int]) -> None:
    reference, labels = split

    other = np.resize(np.array(values, np.float32), reference.shape)
    verdict = judge(HEAD, format, other, reference, labels, names(reference), Gate())
    assert (None in astuple(verdict)) == (not np.isfinite(other).all())
    assert verdict.passed or all(verdict.reasons)

    if tuple(shape) != reference.shape:
        [reason] = judge(HEAD, format, np.zeros(shape, np.float32), reference, labels, names(reference), Gate()).reasons
        assert "where eager's are" in reason
