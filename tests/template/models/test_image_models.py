"""ResNets and torchvision's other classifiers."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models as torchvision_models

from trainyard.base.errors import UsageError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.models.base import Task
from trainyard.models.classifier import Classifier, ImageClassifier
from trainyard.models.image import ImageModelConfig
from trainyard.models.torchvision import TorchvisionConfig
from trainyard.preprocess.image import ImagePreprocessor

from my_project.models.resnet import CifarResNet, ResNetConfig

LABELS = ("cat", "dog", "owl")


def task(size: int = 32, labels: Sequence[str] = LABELS) -> Task:
    return Task(tuple(labels), ImagePreprocessor(size=size, resize=size))


def resnet(name: str, **keys: object) -> ResNetConfig:
    return ResNetConfig(kind="resnet", name=name, **keys)


def other(name: str, **keys: object) -> TorchvisionConfig:
    return TorchvisionConfig(kind="torchvision", name=name, **keys)


def check_logits(config: ImageModelConfig, size: int = 32) -> Classifier:
    """The classifier gives logits for uint8 images, in training too, and all of its weights get gradients."""
    classifier = config.build(task(size))
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    logits = classifier(images)
    assert logits.shape == (2, len(LABELS))
    assert logits.dtype == torch.float32
    logits.logsumexp(dim=1).sum().backward()
    assert all(parameter.grad is not None for parameter in classifier.network.parameters())
    return classifier


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20", "resnet56"])
def test_resnets(name: str) -> None:
    classifier = check_logits(resnet(name))
    stages = [classifier.stage_of(name) for name, _ in classifier.network.named_parameters()]
    assert stages == sorted(stages)
    assert classifier.stage_count == (5 if name in ("resnet20", "resnet56") else 6)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1"])
def test_other_classifiers(name: str) -> None:
    check_logits(other(name))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vgg11_bn", 32),
        ("densenet121", 32),
        ("efficientnet_b0", 32),
        ("efficientnet_v2_s", 32),
        ("convnext_tiny", 32),
        ("vit_b_16", 32),
        ("swin_t", 32),
        ("swin_v2_t", 32),
        ("maxvit_t", 224),
        ("shufflenet_v2_x0_5", 32),
        ("regnet_y_400mf", 32),
        ("googlenet", 32),
        ("inception_v3", 96),
        ("alexnet", 64),
        ("resnext50_32x4d", 32),
    ],
)
def test_every_family(name: str, size: int) -> None:
    classifier = check_logits(other(name), size)
    assert classifier.stage_count > 3
    assert classifier.stage_of(f"{classifier.output_layer()[0]}.weight") == classifier.stage_count - 1


def test_resnet20_has_the_papers_size() -> None:
    assert sum(parameter.numel() for parameter in CifarResNet(20, 10).parameters()) == 269_722


def test_images_are_normalised_inside() -> None:
    classifier = resnet("resnet20", mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0)).build(task())
    assert isinstance(classifier, ImageClassifier)
    seen: list[torch.Tensor] = []
    classifier.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    classifier(torch.full((2, 3, 32, 32), 255, dtype=torch.uint8))
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor([2.0, 1.0, 0.5]))


@pytest.mark.parametrize(
    ("stem", "size", "small"), [("auto", 64, True), ("auto", 65, False), ("small", 96, True), ("standard", 32, False)]
)
def test_stem(stem: str, size: int, small: bool) -> None:
    network = resnet("resnet18", stem=stem).build(task(size)).network
    assert network.conv1.stride == ((1, 1) if small else (2, 2))
    assert isinstance(network.maxpool, torch.nn.Identity if small else torch.nn.MaxPool2d)


def test_dropout_is_set() -> None:
    network = other("mobilenet_v3_small", dropout=0.45).build(task()).network
    assert {module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)} == {0.45}
    dense = other("densenet121", dropout=0.1).build(task()).network
    assert dense.features.denseblock1.denselayer1.drop_rate == 0.1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (resnet("resnet19"), "no model of kind resnet; the nearest is resnet1"),
        (other("efficientnet_b"), "the nearest is efficientnet_b"),
        (resnet("resnet18", dropout=0.5), "model.name=resnet18 has no dropout"),
        (resnet("resnet20", stem="standard"), "resnet20 has a small stem only"),
        (resnet("resnet20", pretrained=True), "resnet20 has no published weights"),
        (resnet("resnet20", pretrained="nowhere.pt"), "model.pretrained=nowhere.pt isn't there"),
        (other("alexnet"), "alexnet can't take images of 40 pixels"),
        (other("vit_b_16"), "vit_b_16 can't take images of 40 pixels"),
    ],
)
def test_wrong_keys(config: ImageModelConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        config.build(task(40))
    assert "\n" not in str(caught.value)


def test_preprocessor_follows_the_data() -> None:
    data = ImagesConfig(kind="images", path="unused", image_size=112)
    assert resnet("resnet18").preprocessor(data, []) == ImagePreprocessor(size=112, resize=128)


@pytest.mark.parametrize(
    ("max_pixels", "limits"), [(None, (64_000_000, 108_000_000)), (50_000_000, (50_000_000, 0)), (2, (2, 0))]
)
def test_the_limit_of_pixels_is_sealed(max_pixels: int | None, limits: tuple[int, int]) -> None:
    data = ImagesConfig(kind="images", path="x", max_pixels=max_pixels)
    settings = resnet("resnet18").preprocessor(data, []).to_dict()

    assert (settings["max_pixels"], settings["max_reduced_pixels"]) == limits


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (resnet("resnet19"), "is no model of kind resnet"),
        (resnet("resnet18", pretrained="nowhere.pt"), "holds no weights"),
        (resnet("resnet20", pretrained=True), "has no published weights"),
        (other("inception_v3"), "can't take images of 32 pixels"),
    ],
)
def test_mistakes_are_found_before_the_data_is_read(config: ImageModelConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config.check(ImagesConfig(kind="images", path="unused", image_size=32))


def test_texts_are_refused() -> None:
    with pytest.raises(UsageError, match="is for images"):
        resnet("resnet18").check(TextsConfig(kind="texts", path="unused"))


@pytest.mark.parametrize("file", ["weights.pt", "weights.pth", "model.safetensors", "bundle/model.safetensors"])
def test_weights_from_a_file(tmp_path: Path, file: str) -> None:
    network = resnet("resnet20").build(task()).network
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(network.state_dict(), path)
        path = tmp_path  # the folder of a bundle or a run
    else:
        torch.save({"state_dict": network.state_dict(), "epoch": 3}, path)
    loaded = resnet("resnet20", pretrained=str(path)).build(task()).network
    for key, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key


def test_other_classes_and_stem_start_afresh(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "weights.pt"
    big = resnet("resnet18").build(task(96, ["a", "b", "c", "d"])).network
    torch.save(big.state_dict(), path)
    small = resnet("resnet18", pretrained=str(path)).build(task(32)).network
    assert small.fc.weight.shape == (3, 512)
    assert small.conv1.weight.shape == (64, 3, 3, 3)
    assert torch.equal(small.layer4[1].conv2.weight, big.layer4[1].conv2.weight)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("trainyard")]
    assert lines == [f"{path}: the layer {layer} doesn't fit and starts afresh" for layer in ("conv1", "fc")]


def test_weights_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(resnet("resnet20").build(task()).network.state_dict(), path)
    with pytest.raises(UsageError, match=r"of another network, \d+ tensors differ \(layer1\.3\.bn1\.bias, .*\.\.\.\)"):
        resnet("resnet32", pretrained=str(path)).build(task())


def test_files_without_batch_counts_are_read(tmp_path: Path) -> None:
    state = resnet("resnet20").build(task()).network.state_dict()
    old = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "weights.pt")
    loaded = resnet("resnet20", pretrained=str(tmp_path / "weights.pt")).build(task()).network
    assert torch.equal(loaded.bn1.running_mean, state["bn1.running_mean"])


@pytest.mark.parametrize("file", ["weights.pt", "weights.safetensors"])
def test_damaged_file(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes(b"not weights at all")
    with pytest.raises(UsageError, match="can't be read as weights"):
        resnet("resnet20", pretrained=str(tmp_path / file)).build(task())


def test_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.nn.Linear(2, 2)}, tmp_path / "weights.pt")
    with pytest.raises(UsageError, match="can't be read as weights"):
        resnet("resnet20", pretrained=str(tmp_path / "weights.pt")).build(task())


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torchvision's cache of published weights, empty."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def test_published_weights(hub_cache: Path) -> None:
    network = torchvision_models.squeezenet1_1()
    file = torchvision_models.SqueezeNet1_1_Weights.DEFAULT.url.rsplit("/", 1)[1]
    torch.save(network.state_dict(), hub_cache / file)
    loaded = other("squeezenet1_1", pretrained=True).build(task()).network
    assert torch.equal(loaded.features[0].weight, network.features[0].weight)
    assert loaded.classifier[1].weight.shape[0] == len(LABELS)


def test_published_weights_in_densenets_old_names(hub_cache: Path) -> None:
    network = torchvision_models.densenet121()
    file = torchvision_models.DenseNet121_Weights.DEFAULT.url.rsplit("/", 1)[1]
    renamed = {}
    for key, tensor in network.state_dict().items():
        renamed[re.sub(r"(denselayer\d+\.[a-z]+)(\d\.)", r"\1.\2", key)] = tensor
    torch.save(renamed, hub_cache / file)
    loaded = other("densenet121", pretrained=True).build(task()).network
    key = "features.denseblock1.denselayer1.conv1.weight"
    assert key not in renamed
    assert torch.equal(loaded.state_dict()[key], network.state_dict()[key])


def test_published_weights_without_a_network(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torch.hub.urlopen", no_network)
    with pytest.raises(UsageError, match=r"resnet18 can't be downloaded \(Name or service not known\): put https://"):
        resnet("resnet18", pretrained=True).build(task())


def test_restored_network_has_the_same_architecture(tmp_path: Path) -> None:
    config = resnet("resnet18", stem="small")
    state = config.build(task(96)).network.state_dict()
    restored = config.restore(task(96), tmp_path)
    restored.network.load_state_dict(state)
    assert torch.equal(restored.network.fc.weight, state["fc.weight"])
