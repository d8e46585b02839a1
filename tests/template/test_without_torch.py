"""An exported model is answered from without torch, transformers or Lightning: what the serving image relies on."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import FACTS, SCHEMA_VERSION, ExportFacts, FormatRow
from trainyard.artifacts.manifest import write_manifest
from trainyard.artifacts.samples import calibration_samples
from trainyard.base.files import write_json
from trainyard.config.load import load_experiment
from trainyard.heads.base import Prediction
from trainyard.inference.inputs import Reads, read_inputs
from trainyard.inference.predictor import Predictor
from trainyard.preprocess.base import Item
from trainyard.preprocess.text import TextPreprocessor

ROOT = Path(__file__).parents[2]
BLOCKED = ("torch", "torchvision", "transformers", "lightning", "safetensors", "datasets", "sklearn", "pyarrow")
TICKETS = ["data.limit=400", "trainer.max_epochs=1", "trainer.threads=1", "trainer.devices=cpu", "model.vocab_size=500",
           "trainer.loggers=[]"]  # fmt: skip
MOST_MEGABYTES = 400

COMMAND = f"""
import sys
sys.modules.update(dict.fromkeys({BLOCKED}))
from trainyard.cli import main
main()
"""
TOKENS = """
import json
from pathlib import Path
from trainyard.artifacts.bundle import Bundle
from trainyard.base.errors import ItemError

def tokens(text):
    try:
        return preprocessor.encode(text)[0].tolist()
    except ItemError as error:
        return str(error)

preprocessor = Bundle.open(Path(".")).preprocessor
texts = json.loads(Path("../texts.json").read_text())
Path("../tokens.json").write_text(json.dumps([tokens(text) for text in texts]))
"""


def deploy(run: Path, folder: Path) -> Path:
    """Copies a run's bundle and an ONNX export of it, and nothing else, into a folder."""
    from trainyard.formats.making.onnx import make
    from trainyard.verify.source import load_source

    shutil.copytree(run / "bundle", folder / "bundle")
    bundle = Bundle.open(folder)
    export = folder / "exports" / "latest"
    export.mkdir(parents=True)
    source = load_source(bundle, [sample.item for sample in calibration_samples(bundle.path)])
    make(source, export / "model.onnx")
    row = FormatRow(name="onnx", file="model.onnx", status="passed", throughput=1.0)
    facts = ExportFacts(schema_version=SCHEMA_VERSION, bundle=bundle.digest, id="one", created="now", formats=[row],
                        recommended="onnx", gate={}, data={}, machine={})  # fmt: skip
    write_json(export / FACTS, facts.model_dump())
    write_manifest(export)
    return folder


def python(interpreter: Path, *words: object, cwd: Path) -> str:
    """What an interpreter prints; another environment's has to find the project by itself."""
    own = interpreter == Path(sys.executable)
    environment = {name: value for name, value in os.environ.items() if own or name != "PYTHONPATH"}
    done = subprocess.run([interpreter, *map(str, words)], cwd=cwd, env={**environment, "PYTHONNOUSERSITE": "1"},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_answers(printed: str, bundle: Bundle, inputs: Sequence[str]) -> None:
    """Compares the lines of ``predict --json`` with what the model itself answers."""
    items: list[Item] = [item for _, item in read_inputs(inputs, Reads.of(bundle)) if not isinstance(item, Exception)]
    lines = [json.loads(line) for line in printed.splitlines()]
    assert len(lines) == len(items) > 1
    for line, answer in zip(lines, Predictor(bundle, "eager").predict(items, top_k=99), strict=True):
        assert isinstance(answer, Prediction)
        theirs = {top["label"]: top["probability"] for top in line["top"]}
        assert theirs == pytest.approx(dict(answer.top), abs=1e-4)


def test_onnx_answers_where_torch_cannot_be_imported(digits_run: Path, tmp_path: Path) -> None:
    folder = deploy(digits_run, tmp_path / "deployed")
    images = str(folder / "bundle" / "samples" / "golden")
    words = ["predict", folder, images, "--json", "--top-k=99"]

    for format in ("onnx", "auto"):
        printed = python(Path(sys.executable), "-c", COMMAND, *words, f"--format={format}", cwd=tmp_path)
        check_answers(printed, Bundle.open(folder), [images])


def test_what_needs_torch_says_so_where_it_is_not_installed(digits_run: Path, tmp_path: Path) -> None:
    image = next((digits_run / "bundle" / "samples" / "golden").iterdir())
    for format, said in (("eager", "isn't installed: run scripts/setup.sh"), ("auto", "eager needs the package torch")):
        done = subprocess.run([sys.executable, "-c", COMMAND, "predict", digits_run, image, f"--format={format}"],
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the serving image's packages and this project."""
    folder = tmp_path_factory.mktemp("serving") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    interpreter = folder / "bin" / "python"
    install = ["install", "--quiet", "--require-hashes", "--no-deps", "-r", ROOT / "requirements-serve.lock"]
    subprocess.run([sys.executable, "-m", "pip", "--python", interpreter, *install], check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "project.pth").write_text(f"{ROOT / 'src'}\n")
    return interpreter


@pytest.fixture(scope="module")
def tickets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of texts, deployed."""
    from my_project.train import train

    folder = tmp_path_factory.mktemp("tickets")
    words = [*TICKETS, f"out={folder}/runs", f"data.cache={folder}/cache"]
    return deploy(train(load_experiment(ROOT / "configs" / "tickets_bert.yaml", words)), folder / "deployed")


@pytest.mark.slow
def test_the_serving_environment_is_small_and_has_no_torch(serving: Path) -> None:
    absent = [f"assert importlib.util.find_spec({name!r}) is None, {name!r}" for name in BLOCKED]
    python(serving, "-c", "\n".join(["import importlib.util", *absent]), cwd=serving.parent)

    files = [path for path in serving.parents[1].rglob("*") if path.is_file() and not path.is_symlink()]
    # What Python compiles for itself depends on what was imported.
    size = sum(path.stat().st_size for path in files if path.suffix != ".pyc") / 1e6
    assert size < MOST_MEGABYTES, f"{size:.0f} MB"


@pytest.mark.slow
def test_images_are_answered_there(serving: Path, digits_run: Path, tmp_path: Path) -> None:
    folder = deploy(digits_run, tmp_path / "deployed")

    printed = python(serving, "-m", "trainyard", "predict", ".", "bundle/samples/golden", "--format=onnx", "--json",
                     "--top-k=99", cwd=folder)  # fmt: skip

    check_answers(printed, Bundle.open(folder), [str(folder / "bundle" / "samples" / "golden")])


@pytest.mark.slow
def test_texts_are_answered_there(serving: Path, tickets: Path) -> None:
    texts = ["my invoice is wrong", "a " * 300, "the screen stays black \N{PILE OF POO} after the update"]

    printed = python(serving, "-m", "trainyard", "predict", ".", *texts, "--format=onnx", "--json", "--top-k=99",
                     cwd=tickets)  # fmt: skip

    check_answers(printed, Bundle.open(tickets), texts)


def any_texts(words: Sequence[str], count: int) -> list[str]:
    """Texts of words and of all that people write between them; some are over-long, some empty."""
    generator = random.Random(0)
    characters = [*range(0xD800), *range(0xE000, 0x20000)]  # all but surrogates, which aren't Unicode
    kinds = [words, ["é", "Ñandú", "naïve", "e\u0301", "İstanbul", "straße"], ["😀", "👩‍👩‍👧", "🇩🇪", "🏳️‍🌈"],
             ["\x00", "\x07", "\x1b[0m", "\u200b", "\ufeff", "\u202e", "\ufffd", "\t", "\r\n", "\u2028", "\xa0"],
             [*"0123456789.,;:!?'\"()[]{}<>@#$%&*-_=+/\\|~`"], ["[CLS]", "[SEP]", "[MASK]", "[UNK]", "[PAD]", "##ing"],
             ["漢字", "ひらがな", "한국어", "العربية", "हिन्दी", "ไทย"]]  # fmt: skip

    def piece() -> str:
        if generator.random() < 0.1:
            return chr(generator.choice(characters))
        return generator.choice(generator.choice(kinds))

    lengths = [generator.choice([1, 3, 10, 30, 300]) for _ in range(count - 3)]
    texts = [generator.choice(["", " "]).join(piece() for _ in range(length)) for length in lengths]
    return [*texts, "", " ", "\n\t "]


@pytest.mark.slow
def test_the_tokens_there_are_those_of_transformers(serving: Path, tickets: Path) -> None:
    from transformers import AutoTokenizer

    preprocessor = Bundle.open(tickets).preprocessor
    assert isinstance(preprocessor, TextPreprocessor)
    words = [str(sample.item) for sample in calibration_samples(tickets / "bundle")]
    texts = any_texts([word for text in words for word in text.split()], 2000)
    (tickets / "texts.json").write_text(json.dumps(texts))

    python(serving, "-c", TOKENS, cwd=tickets / "bundle")

    tokenizer = AutoTokenizer.from_pretrained(tickets / "bundle")
    theirs = tokenizer(texts, truncation=True, max_length=preprocessor.max_length)["input_ids"]
    mine = json.loads((tickets / "tokens.json").read_text())
    assert len(mine) == 2000
    for text, ids, expected in zip(texts, mine, theirs, strict=True):
        assert ids == (expected if text.strip() else "the text is empty"), repr(text)
    assert sum(len(ids) == preprocessor.max_length for ids in mine) > 100, "over-long texts were among them"
    assert len({token for ids in mine if isinstance(ids, list) for token in ids}) > 300
