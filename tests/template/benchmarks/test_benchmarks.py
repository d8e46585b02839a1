"""The benchmarks run and give the figures that they promise; what the figures are is never tested."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
WORDS = ["a", "good", "bad", "dull", "funny", "film", "story", "with", "no", "heart"]

Run = Callable[..., dict[str, float]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a benchmark at its quick size for one round; gives the figures by subject."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where the cache is

    def run_quickly(name: str, *options: str | Path) -> dict[str, float]:
        file = tmp_path / f"{name}.json"
        words = ["--quick", "--rounds", "1", "--json", str(file), *map(str, options)]
        importlib.import_module(name).main(words)
        report = json.loads(file.read_text(encoding="utf-8"))
        assert report["quick"] is True
        assert report["date"]
        assert "torch" in report["packages"]
        return {figure["subject"]: figure["value"] for figure in report["figures"]}

    return run_quickly


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 8)):
        for label in ("cat", "dog"):
            folder = tmp_path / "cifar10" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.jpg")
    return tmp_path / "cifar10"


@pytest.fixture
def sst2(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "sst2"
    folder.mkdir()
    for split, count in (("train", 60), ("dev", 10), ("test", 10)):
        texts = [" ".join(rng.choice(WORDS, rng.integers(4, 20))) for _ in range(count)]
        lines = [f"{text}\t{i % 2}\n" for i, text in enumerate(texts)]
        (folder / f"{split}.tsv").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def minilm(tmp_path: Path) -> Path:
    import transformers

    folder = tmp_path / "minilm"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    transformers.BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(pieces), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=128,
    )  # fmt: skip
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


def test_training_gives_shares_and_costs_of_both_modalities(run: Run, cifar10: Path, sst2: Path, minilm: Path) -> None:
    figures = run("training", "--cifar10", cifar10, "--sst2", sst2, "--minilm", minilm)

    for title in ("ResNet-20, CIFAR-10", "MiniLM, SST-2"):
        assert figures[f"{title}: trainyard"] > 0
        assert figures[f"{title}: trainyard / bare loop"] > 0
        assert f"{title}: a step beyond the bare loop's" in figures
        assert figures[f"{title}: an epoch beyond its steps"] > 0


def test_training_wants_the_model_with_the_texts(run: Run, sst2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("training", "--sst2", sst2)
    assert "--sst2 and --minilm go together" in capsys.readouterr().err


def test_buckets_compares_three_ways_to_batch(run: Run, sst2: Path, minilm: Path) -> None:
    figures = run("buckets", "--sst2", sst2, "--minilm", minilm)

    assert len(figures) == 5
    assert all(value > 0 for value in figures.values())


def test_images_compares_with_image_folder(run: Run, cifar10: Path) -> None:
    figures = run("images", "--cifar10", cifar10)

    assert figures["trainyard / ImageFolder"] > 0
    assert figures["ImageFolder, 0 workers"] > 0


def test_gpu_counts_operations_against_the_peak(run: Run) -> None:
    figures = run("gpu", "--device", "cpu", "--only", "bert", "--peak-tflops", "2")

    assert figures["bert: trainyard / bare loop"] > 0
    assert figures["bert: share of the peak of 2 TFLOP/s"] == pytest.approx(figures["bert: TFLOP/s"] / 2)


def test_gpu_says_what_it_lacks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pydantic" else object())
    with pytest.raises(SystemExit, match="needs pydantic, which this Python doesn't have"):
        run("gpu", "--device", "cpu")


@pytest.mark.slow
def test_gpu_trains_cifar10_and_the_image_models(run: Run, cifar10: Path) -> None:
    figures = run("gpu", "--device", "cpu", "--cifar10", cifar10)

    assert figures["CIFAR-10, ResNet-18: training"] > 0
    assert figures["resnet50: trainyard / bare loop"] > 0


@pytest.mark.slow
def test_startup_times_whole_processes(run: Run, cifar10: Path, sst2: Path, minilm: Path) -> None:
    figures = run("startup", "--cifar10", cifar10, "--sst2", sst2, "--minilm", minilm)

    assert figures["trainyard --help"] > 0
    for config in ("cifar10_resnet20", "sst2_bert"):
        assert figures[f"{config}: first start"] > 0
        assert figures[f"{config}: later start"] > figures[f"{config}: of it, the rehearsal"] > 0


@pytest.mark.slow
def test_outages_kill_and_stop_and_wait_until_all_are_back(run: Run, exported_images: Path) -> None:
    figures = run("outages", exported_images)

    assert len(figures) == 4 * len({subject.partition(":")[0] for subject in figures}) == 12
    assert all(value >= 0 for value in figures.values())


@pytest.mark.slow
def test_attacks_end_with_the_server(run: Run, exported_images: Path) -> None:
    figures = run("attacks", exported_images)

    assert sum("errors of others" in subject for subject in figures) == 3
    assert figures["SIGTERM: requests that weren't answered, but for refused connections"] == 0


@pytest.mark.slow
def test_overload_and_servers_count_what_is_answered(run: Run, exported_images: Path) -> None:
    overload, servers = run("overload", exported_images), run("servers", exported_images)

    assert overload["answers to 32 clients"] > 0
    assert overload["twice the load: errors but 503"] == 0
    assert servers["trainyard / TorchServe alone"] > 0
    assert servers["trainyard / FastAPI with a batcher"] > 0, "it is there, for others' sake"


@pytest.mark.slow
def test_memory_is_measured_before_and_after_large_bodies(run: Run, exported_images: Path) -> None:
    figures = run("memory", exported_images, exported_images)

    assert figures["after the start: RSS"] > figures["after the start: PSS"] > 100
    assert figures["after the largest bodies: RSS"] > 0


def test_a_figure_is_held_against_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    figure = importlib.import_module("measure").Figure

    assert figure("share", 0.9, "", at_least=0.9).met is True
    assert figure("share", 0.89, "", at_least=0.9).met is False
    assert figure("start", 10.5, "s", at_most=10).met is False
    assert figure("speed", 3.0, "images/s").met is None


def test_turns_alternate_and_the_first_round_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    order: list[str] = []

    def case(name: str) -> Callable[[], float]:
        def turn() -> float:
            order.append(name)
            return float(len(order))

        return turn

    turns = importlib.import_module("measure").take_turns({"a": case("a"), "b": case("b")}, 2)

    assert order == ["a", "b"] * 3
    assert turns == {"a": [3, 5], "b": [4, 6]}
