"""Muon: what is orthogonalised, how far a step goes, what AdamW keeps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from trainyard.models.classifier import Classifier
from trainyard.training.muon import ADAM_RMS, Muon, is_matrix, orthogonalize

from my_project.task import OptimConfig, Task

CONFIG = OptimConfig(name="muon", lr=0.01, weight_decay=0.1, momentum=0.9)


class SmallConvNet(Classifier):
    def __init__(self) -> None:
        stem, middle, head = nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)), nn.Linear(6, 2)
        super().__init__(nn.ModuleDict({"stem": stem, "middle": middle, "head": head}), [stem, middle, head])

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        raise NotImplementedError


def with_gradients(classifier: Classifier) -> Classifier:
    generator = torch.Generator().manual_seed(0)
    for parameter in classifier.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return classifier


@given(
    rows=st.integers(1, 40), columns=st.integers(1, 40), scale=st.sampled_from([1e-4, 1.0, 1e4]), seed=st.integers(0)
)
def test_an_orthogonalised_matrix_keeps_its_vectors_and_not_its_values(
    rows: int, columns: int, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed % 2**32)
    left, _ = torch.linalg.qr(torch.randn(rows, rows, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(columns, columns, generator=generator))
    rank = min(rows, columns)
    values = torch.linspace(0.2, 1, rank) * scale

    result = orthogonalize(left[:, :rank] @ torch.diag(values) @ right[:, :rank].T)

    rotated = left[:, :rank].T @ result @ right[:, :rank]
    assert result.shape == (rows, columns)
    torch.testing.assert_close(rotated, torch.diag(rotated.diag()), atol=1e-4, rtol=0)
    assert 0.65 < rotated.diag().min() <= rotated.diag().max() < 1.25


def test_nothing_becomes_of_a_zero_gradient() -> None:
    assert torch.equal(orthogonalize(torch.zeros(3, 5)), torch.zeros(3, 5))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((4, 3), True), ((4, 3, 3, 3), True), ((4, 1, 3, 3), True), ((4,), False), ((4, 1, 1), False), ((1, 8), False)],
)
def test_what_is_a_matrix(shape: tuple[int, ...], expected: bool) -> None:
    assert is_matrix(torch.zeros(shape)) == expected


def test_only_the_matrices_between_the_first_stage_and_the_last_are_orthogonalised() -> None:
    classifier = SmallConvNet()
    [orthogonal] = [group for group in Task(classifier, CONFIG).parameter_groups() if group["orthogonal"]]

    assert [id(parameter) for parameter in orthogonal["params"]] == [id(classifier.network["middle"][0].weight)]
    assert not any(group["orthogonal"] for group in Task(classifier, OptimConfig(name="adamw")).parameter_groups())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_step_of_a_matrix_has_the_size_of_adamws_and_forgets_the_gradients_size(layout: torch.memory_format) -> None:
    moved = []
    for scale in (1.0, 1000.0):
        classifier = with_gradients(SmallConvNet())
        weight = classifier.network["middle"][0].weight
        weight.data = weight.data.to(memory_format=layout)
        weight.grad = scale * weight.grad.to(memory_format=layout)
        before = weight.detach().clone()
        Task(classifier, CONFIG).optimizer().step()
        moved.append(weight.detach() - before * (1 - CONFIG.lr * CONFIG.weight_decay))

    assert moved[0].square().mean().sqrt() == pytest.approx(ADAM_RMS * CONFIG.lr, rel=0.25)
    torch.testing.assert_close(moved[0], moved[1])


def test_the_rest_is_updated_as_by_adamw() -> None:
    ours, theirs = SmallConvNet(), SmallConvNet()
    theirs.load_state_dict(ours.state_dict())
    adamw = OptimConfig(name="adamw", lr=CONFIG.lr, weight_decay=CONFIG.weight_decay)
    for classifier, config in ((ours, CONFIG), (theirs, adamw)):
        optimizer = Task(classifier, config).optimizer()
        for _ in range(3):
            with_gradients(classifier)
            optimizer.step()

    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6) == (name != "network.middle.0.weight"), name


def test_momentum_carries_a_matrix_on() -> None:
    weight = nn.Parameter(torch.eye(2))
    optimizer = Muon([{"params": [weight], "weight_decay": 0.0, "orthogonal": True}], lr=0.1, momentum=0.9)
    for gradient in (torch.eye(2), torch.zeros(2, 2)):
        weight.grad = gradient
        before = weight.detach().clone()
        optimizer.step()

    assert (weight.detach() - before).diag().max() < -0.01
