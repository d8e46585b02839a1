"""The ranking of layers by what int8 does to them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from trainyard.artifacts.bundle import Bundle
from trainyard.base.cpu import this_cpu
from trainyard.formats.making.conv1d import as_linear
from trainyard.formats.source import Graph, Source
from trainyard.models.classifier import ImageClassifier
from trainyard.preprocess.image import ImagePreprocessor
from trainyard.verify import int8_search as sensitivity
from trainyard.verify.int8_search import quantisable_layers, rank_layers

PREFIX = "classifier.network."
LAYERS = ["0", "3", "5", "7"]


class Shared(nn.Module):
    """A layer that is called twice, beside one whose weight others use, and one that rests."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(16, 16)
        self.borrowed = nn.Linear(16, 16)
        self.resting = nn.Linear(16, 16)
        self.lstm = nn.LSTM(16, 16, batch_first=True)
        self.output = nn.Linear(16, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.twice(self.twice(images.flatten(1)[:, :16]))
        x, _ = self.lstm(nn.functional.linear(x, self.borrowed.weight).unsqueeze(1))
        return cast(Tensor, self.output(x[:, 0]))


def source_of(network: nn.Module, output: nn.Module) -> Source:
    random = np.random.default_rng(0)
    return Source(
        graph=Graph(ImageClassifier(network, [output], [0.5] * 3, [0.25] * 3), ["images"]).eval(),
        names=("images",),
        calibration=list(random.integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)),
        bundle=cast(Bundle, SimpleNamespace(preprocessor=ImagePreprocessor(size=8, resize=8))),
        cpu=this_cpu(),
    )


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(72, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3),
    )  # fmt: skip


def spoil_weight(layer: nn.Module) -> None:
    """One huge weight for each output, on an input that is switched off: the other weights lose their steps."""
    with torch.no_grad():
        layer.weight[:, 0] = 300.0


@pytest.mark.parametrize("index", [3, 5, 7])
def test_outlier_weights_are_ranked_first(index: int) -> None:
    network = chain()
    spoil_weight(network[index])
    if index > 3:  # what comes before gives nothing to the huge weights
        network[index - 2].weight.data[0], network[index - 2].bias.data[0] = 0.0, -1.0
    else:
        network[0].weight.data[0], network[0].bias.data[0] = 0.0, -1.0
    source = source_of(network, network[7])
    assert rank_layers(source)[0] == f"{PREFIX}{index}"


def test_outlier_activations_are_ranked_first() -> None:
    network = chain()
    with torch.no_grad():
        network[3].bias[0] = 5000.0  # the input of layer 5 has one huge value, to which it gives no weight
        network[5].weight[:, 0] = 0.0
    assert rank_layers(source_of(network, network[7]))[0] == f"{PREFIX}5"


def test_all_layers_are_ranked_alike_each_time() -> None:
    network = chain()
    source = source_of(network, network[7])
    first = rank_layers(source)
    assert sorted(first) == [f"{PREFIX}{name}" for name in LAYERS]
    assert rank_layers(source) == first


def test_the_model_stays_as_it_is() -> None:
    network = chain()
    source = source_of(network, network[7])
    before = {name: parameter.clone() for name, parameter in source.graph.named_parameters()}
    storage = {name: parameter.data_ptr() for name, parameter in source.graph.named_parameters()}
    rank_layers(source)
    for name, parameter in source.graph.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.data_ptr() == storage[name]
        assert parameter.requires_grad
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in source.graph.modules())


def test_the_model_is_restored_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    network = chain()
    source = source_of(network, network[7])
    before = {name: parameter.clone() for name, parameter in source.graph.named_parameters()}

    def fail(*_: object) -> Tensor:
        raise RuntimeError("no more memory")

    monkeypatch.setattr(sensitivity, "_rounded_activation", fail)
    with pytest.raises(RuntimeError, match="no more memory"):
        rank_layers(source)
    assert all(torch.equal(parameter, before[name]) for name, parameter in source.graph.named_parameters())
    assert not any(module._forward_pre_hooks for module in source.graph.modules())


def test_layers_that_are_called_otherwise() -> None:
    torch.manual_seed(0)
    network = Shared()
    source = source_of(network, network.output)
    ranked = [name.removeprefix(PREFIX) for name in rank_layers(source)]
    assert sorted(ranked) == ["borrowed", "output", "resting", "twice"]
    assert ranked[-1] == "resting"
    spoil_weight(network.borrowed)
    with torch.no_grad():
        network.twice.weight[0], network.twice.bias[0] = 0.0, 0.0
    assert rank_layers(source)[0] == f"{PREFIX}borrowed"


def test_large_models_are_ranked_on_fewer_records(monkeypatch: pytest.MonkeyPatch) -> None:
    network = chain()
    source = source_of(network, network[7])
    seen: list[int] = []
    network.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    rank_layers(source)
    assert max(seen) == 32
    seen.clear()
    rank_layers(source, records=8)
    assert max(seen) == 8
    seen.clear()
    monkeypatch.setattr(sensitivity, "BUDGET_FLOPS", 1.0)
    rank_layers(source)
    assert max(seen) == 4


def test_a_layer_whose_input_is_always_zero() -> None:
    network = chain()
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].bias.fill_(-1.0)
    assert len(rank_layers(source_of(network, network[7]))) == len(LAYERS)


def test_conv1d_is_a_linear_layer() -> None:
    torch.manual_seed(0)
    conv1d = Conv1D(5, 7)
    nn.init.normal_(conv1d.bias)
    assert list(quantisable_layers(nn.Sequential(conv1d))) == ["0"]
    x = torch.randn(2, 3, 7)
    torch.testing.assert_close(as_linear(conv1d)(x), conv1d(x))


def test_conv1d_is_rounded_per_output() -> None:
    torch.manual_seed(0)

    class Network(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer, self.output = layer, nn.Linear(8, 3)

        def forward(self, images: Tensor) -> Tensor:
            return cast(Tensor, self.output(self.layer(images.flatten(1)[:, :12])))

    conv1d = Conv1D(8, 12)
    with torch.no_grad():
        conv1d.weight[:, 0] *= 1000  # one output of another size: harmless per output, ruinous per input
    network = Network(conv1d)
    network.output.weight.data[:, 0] = 0.0
    source = source_of(network, network.output)
    twin = Network(as_linear(conv1d))
    twin.output.load_state_dict(network.output.state_dict())
    assert rank_layers(source) == rank_layers(source_of(twin, twin.output))
