"""The aoti formats: compiled once, right in every shape, and run without a compiler or the model's own code."""

from __future__ import annotations

import copy
import dataclasses
import os
import subprocess
import sys
import zipfile
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from trainyard.base.cpu import this_cpu
from trainyard.formats.aoti import AotiRuntime
from trainyard.formats.errors import Skip
from trainyard.formats.making import aoti, aoti_int8
from trainyard.formats.recipes import Recipe
from trainyard.formats.source import Source
from trainyard.verify.batch_invariance import make_cases, measure_invariance, sweep

RUNGS = {"aoti": aoti.make, "aoti-int8": lambda source, file: aoti_int8.make(source, file, Recipe())}
PRODUCTS = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)
ANSWER = """
import sys
from pathlib import Path
import numpy as np
from trainyard.formats.aoti import AotiRuntime

runtime = AotiRuntime(Path(sys.argv[1]), threads=2)
np.save(sys.argv[3], runtime.logits(dict(np.load(sys.argv[2]))))
needless = ("trainyard.models", "trainyard.verify", "trainyard.training", "transformers", "torchvision", "torchao")
print(*(name for name in sys.modules if name.startswith(needless)))
"""

needs_x86 = pytest.mark.skipif(this_cpu().isa == "arm64", reason="torchao's quantiser is for x86")


def eager(source: Source):
    def run(inputs):
        with torch.inference_mode():
            return source.graph(*source.tensors(inputs)).numpy()

    return run


@dataclasses.dataclass(frozen=True)
class Made:
    format: str
    source: Source
    file: Path

    def run(self, inputs):
        return AotiRuntime(self.file, threads=1).logits(inputs)


@pytest.fixture(
    scope="module",
    params=[(format, model) for format in RUNGS for model in ("image_source", "text_source")],
    ids="-".join,
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A compiled model. A compilation takes 15 to 30 seconds."""
    format, model = request.param
    if format == "aoti-int8" and this_cpu().isa == "arm64":
        pytest.skip("torchao's quantiser is for x86")
    source = request.getfixturevalue(model)
    file = tmp_path_factory.mktemp(format) / "model.pt2"
    RUNGS[format](source, file)
    return Made(format, source, file)


@pytest.mark.slow
def test_every_shape_gets_the_answer_of_eager(made: Made) -> None:
    run = AotiRuntime(made.file, threads=1).logits
    found = sweep(run, make_cases(eager(made.source), made.source.calibration, made.source.bundle.preprocessor))

    assert found.failures == ()
    if made.format == "aoti":
        assert found.max_abs_diff <= 1e-4


@pytest.mark.slow
def test_int8_answers_nearly_as_eager(made: Made) -> None:
    inputs = made.source.batch(made.source.calibration[:64])
    answers, expected = made.run(inputs), eager(made.source)(inputs)

    assert (answers.argmax(axis=1) == expected.argmax(axis=1)).mean() >= (1 if made.format == "aoti" else 0.95)
    assert made.format == "aoti" or np.abs(answers - expected).max() > 1e-3, "nothing was rounded"


@pytest.mark.slow
def test_an_answer_is_its_own_in_any_batch(made: Made, record_property: pytest.RecordProperty) -> None:
    run = AotiRuntime(made.file, threads=1).logits
    found = measure_invariance(run, made.source.calibration, made.source.bundle.preprocessor)

    # The sums of int8 are the same in any batch, but those of floats around them may tip a value over to its neighbour.
    # What that does to a model, the export measures.
    record_property("batch_invariance", str(found))
    assert max(found.neighbours, found.padding) <= (1e-5 if made.format == "aoti" else 1)


@pytest.mark.slow
def test_the_smallest_input_is_answered(made: Made) -> None:
    [first, *_] = made.source.calibration
    inputs = made.source.batch([first[:, :1] if made.source.is_text else first])
    logits = made.run(inputs)

    assert {array.shape[0] for array in inputs.values()} == {1}
    assert logits.shape == (1, len(made.source.bundle.labels))
    np.testing.assert_allclose(logits, eager(made.source)(inputs), rtol=0, atol=1e-4 if made.format == "aoti" else 1.0)


@pytest.mark.slow
def test_a_fresh_process_needs_no_compiler_and_no_model(made: Made, tmp_path: Path) -> None:
    inputs = made.source.batch(made.source.calibration[:5])
    np.savez(tmp_path / "inputs.npz", **inputs)
    nothing = {"PATH": "", "CXX": "/nonexistent/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    paths = [str(tmp_path / name) for name in ("inputs.npz", "logits.npy")]
    command = [sys.executable, "-W", "error", "-c", ANSWER, str(made.file), *paths]
    ended = subprocess.run(command, env={**os.environ, **nothing}, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == []
    np.testing.assert_allclose(np.load(paths[-1]), made.run(inputs), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_how_many_threads_run_it_is_left_open(made: Made) -> None:
    with zipfile.ZipFile(made.file) as package:
        sources = [package.read(name).decode() for name in package.namelist() if name.endswith(".cpp")]

    assert any("#pragma omp parallel" in source for source in sources)
    assert not any("num_threads(" in source.replace("omp_get_num_threads(", "") for source in sources)


class Anything(nn.Module):
    """Stands where no compiler must come to."""


def with_classifier(source: Source, classifier: nn.Module) -> Source:
    graph = copy.deepcopy(source.graph)
    graph.classifier = classifier
    return dataclasses.replace(source, graph=graph)


def cxx_was(compiler: str) -> AbstractContextManager[None]:
    """As if the variable CXX had been this when torch was imported, and read it."""
    import torch._inductor.config

    return torch._inductor.config.patch({"cpp.cxx": (None, compiler)})


@pytest.mark.parametrize("format", RUNGS)
def test_without_a_compiler_it_says_what_to_install(
    image_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    with cxx_was("/nonexistent/g++"), pytest.raises(Skip, match="/nonexistent/g\\+\\+ isn't there: install g\\+\\+$"):
        RUNGS[format](with_classifier(image_source, Anything()), tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_torch_found_before_must_still_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    aoti.check_compiler()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Skip, match="install g\\+\\+$"):
        aoti.check_compiler()


def test_a_compiler_may_be_several_words() -> None:
    with cxx_was("env g++"):
        aoti.check_compiler()


@pytest.mark.parametrize("format", RUNGS)
def test_a_recurrent_net_is_skipped(text_source: Source, tmp_path: Path, format: str) -> None:
    with pytest.raises(Skip, match="unrolls recurrent layers"):
        RUNGS[format](with_classifier(text_source, nn.Sequential(nn.LSTM(3, 4))), tmp_path / "model.pt2")


def test_int8_is_skipped_on_arm(image_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(Skip, match="is for x86: export there, or use onnx-int8"):
        aoti_int8.make(image_source, tmp_path / "model.pt2", Recipe())


class Moody(nn.Module):
    """Python control flow over what is in the image."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.network = classifier

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) * (2 if images.float().mean().item() > 100 else 1)


class Picky(Moody):
    """Raises what exporters don't."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) * {Tensor: 1}[type(images)]


@needs_x86
@pytest.mark.parametrize("format", RUNGS)
@pytest.mark.parametrize("kind", [Moody, Picky])
def test_what_cannot_be_traced_is_skipped_with_the_evidence(
    image_source: Source, tmp_path: Path, kind: type[nn.Module], format: str
) -> None:
    source = with_classifier(image_source, kind(image_source.graph.classifier))
    with pytest.raises(Skip, match=r"torch\.export can't trace it: .+") as caught:
        RUNGS[format](source, tmp_path / "model.pt2")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def in_floats(module: GraphModule) -> list[str]:
    """The layers whose weight isn't rounded, as often as they are called."""
    weights = [node.args[1] for node in module.graph.nodes if node.target in PRODUCTS]
    return [weight.target.removesuffix(".weight") for weight in weights if weight.op == "get_attr"]


@needs_x86
def test_excluded_modules_stay_in_floats(image_source: Source) -> None:
    names = ("classifier.network.conv1", "classifier.network.conv3")

    assert in_floats(aoti_int8.quantise(image_source, Recipe())) == []
    assert in_floats(aoti_int8.quantise(image_source, Recipe(exclude=names))) == list(names)


@needs_x86
def test_an_excluded_module_stays_in_floats_whenever_it_is_called(build: SimpleNamespace) -> None:
    source = build.transformer("albert")  # two layers, which are the same one
    [name] = [name for name, _ in source.graph.named_modules() if name.endswith("attention.query")]

    assert in_floats(aoti_int8.quantise(source, Recipe(exclude=(name,)))) == [name, name]


@needs_x86
def test_a_block_that_calls_its_relu_twice_is_quantised(build: SimpleNamespace) -> None:
    source = build.image("torchvision", "resnet18", 32)

    assert in_floats(aoti_int8.quantise(source, Recipe())) == []
