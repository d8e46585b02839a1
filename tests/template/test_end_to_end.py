"""The main job through the command line: train, evaluate, predict, for images and for texts.

A process of its own takes seconds for its imports alone, so most commands run in this one.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from trainyard import cli
from trainyard.artifacts.bundle import Bundle
from trainyard.base.errors import ItemError
from trainyard.heads.base import Prediction
from trainyard.inference.predictor import Predictor

ROOT = Path(__file__).parents[2]
DIGITS = ["configs/digits_resnet.yaml", "data.limit=300", "trainer.max_epochs=3", "optim.lr=0.05", "data.batch_size=32"]
TICKETS = ["configs/tickets_bert.yaml", "data.limit=400", "trainer.max_epochs=2", "model.vocab_size=500"]


def trainyard(*words: str) -> subprocess.CompletedProcess[str]:
    """The command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["trainyard", *words])
        patch.chdir(ROOT)
        with pytest.raises(SystemExit) as end:
            cli.main()
    return subprocess.CompletedProcess(words, int(end.value.code or 0), out.getvalue(), err.getvalue())


def process(*words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in processes of its own."""
    return subprocess.run(
        [sys.executable, "-m", "trainyard", *words], cwd=cwd, text=True, capture_output=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}, check=False,
    )  # fmt: skip


Command = Callable[..., subprocess.CompletedProcess[str]]


def train(folder: Path, words: list[str], command: Command = trainyard) -> Path:
    done = command("train", *words, f"out={folder}/runs", f"data.cache={folder}/cache", "trainer.threads=1")
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("end_to_end")


@pytest.fixture(scope="module")
def digits(folder: Path) -> Path:
    return train(folder, DIGITS)


@pytest.fixture(scope="module")
def tickets(folder: Path) -> Path:
    return train(folder, TICKETS, process)


@pytest.fixture(scope="module", params=["digits", "tickets"])
def run(request: pytest.FixtureRequest) -> Iterator[Path]:
    return request.getfixturevalue(request.param)


def test_the_run_folder_is_as_promised(run: Path) -> None:
    names = {entry.name for entry in run.iterdir()}
    assert names >= {"config.yaml", "metrics.json", "metrics.csv", "data_report.json", "tensorboard", "checkpoints",
                     "bundle", "report.html", "predictions.parquet"}  # fmt: skip
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics) == {"test", "val", "baseline", "train"}
    assert set(metrics["test"]) == set(metrics["val"]) == {"accuracy", "macro_f1", "loss", "ece", "balanced_accuracy"}
    assert set(metrics["train"]) == {"examples_per_second", "seconds", "epochs", "world_size"}
    assert len(list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))) == metrics["train"]["epochs"]
    assert (run.parent / "latest").resolve() == run.resolve()


def test_the_bundle_is_sealed_and_complete(run: Path) -> None:
    bundle = Bundle.open(run)
    facts = bundle.facts

    assert (bundle.path / "README.md").read_text().startswith("---\n")
    assert facts.temperature == 1.0
    assert 0.5 <= facts.fitted_temperature <= 5
    assert facts.data.fingerprint == json.loads((run / "data_report.json").read_text())["fingerprint"]
    assert facts.metrics["test"]["accuracy"] == json.loads((run / "metrics.json").read_text())["test"]["accuracy"]
    assert facts.drift_reference["examples"]
    assert facts.environment["packages"]["torch"]


def test_who_may_read_the_folder_may_read_the_whole_bundle(run: Path) -> None:
    """A server's container has a user of its own."""
    files = [path for path in (run / "bundle").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {(run / "bundle").stat().st_mode & 0o666}


def test_evaluate_gives_exactly_the_runs_own_metrics_from_anywhere(run: Path, tmp_path: Path) -> None:
    done = process("evaluate", str(run), "--json", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    own = json.loads((run / "metrics.json").read_text())["test"]
    assert {key: scores[key] for key in own} == own


@pytest.mark.parametrize(
    ("name", "processes"),
    [
        ("tickets", "2"),
        pytest.param("tickets", "3", marks=pytest.mark.slow),
        pytest.param("digits", "2", marks=pytest.mark.slow),
        pytest.param("digits", "3", marks=pytest.mark.slow),
    ],
)
def test_evaluation_does_not_depend_on_the_number_of_processes(
    request: pytest.FixtureRequest, name: str, processes: str
) -> None:
    run = str(request.getfixturevalue(name))
    one = json.loads(trainyard("evaluate", run, "--json").stdout)

    many = json.loads(process("evaluate", run, "--json", NPROC=processes).stdout)

    for key in ("accuracy", "macro_f1", "confusion", "examples"):
        assert one[key] == many[key]
    assert one["loss"] == pytest.approx(many["loss"], abs=1e-6)


def test_golden_requests_get_their_answers(run: Path) -> None:
    predictor = Predictor(run)
    samples = predictor.bundle.path / "samples"
    for line in (samples / "golden.jsonl").read_text().splitlines():
        record = json.loads(line)
        item = (samples / record["image"]).read_bytes() if "image" in record else record["text"]
        (answer,) = predictor.predict([item], top_k=99)
        assert isinstance(answer, Prediction)
        assert answer.label == record["expected"]["label"]
        expected = dict(zip(predictor.bundle.labels, record["expected"]["probabilities"], strict=True))
        assert dict(answer.top) == pytest.approx(expected, abs=1e-5)


def test_calibration_records_are_training_examples_of_every_class(run: Path) -> None:
    bundle = Bundle.open(run)
    lines = (bundle.path / "samples" / "calibration.jsonl").read_text().splitlines()

    assert {json.loads(line)["label"] for line in lines} == set(bundle.labels)
    assert len(lines) == 128


def test_a_bad_item_leaves_its_neighbours_their_answers(digits: Path) -> None:
    image = next((digits / "bundle/samples/golden").iterdir())

    good, bad, again = Predictor(digits).predict([image, b"no image", image.read_bytes()])

    assert good == again
    assert isinstance(good, Prediction)
    assert isinstance(bad, ItemError)


def test_predict_takes_files_folders_tables_and_writes_csv(digits: Path, tmp_path: Path) -> None:
    images = sorted((digits / "bundle/samples/golden").iterdir())
    table = tmp_path / "list.csv"
    table.write_text("image\n" + "".join(f"{image}\n" for image in images[:2]))

    done = trainyard("predict", str(digits), str(images[0]), str(images[0].parent), str(table), "--json", "--out",
                     str(tmp_path / "answers.csv"))  # fmt: skip

    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 1 + len(images) + 2
    assert answers[0]["label"] == answers[1]["label"] == answers[1 + len(images)]["label"]
    rows = list(csv.DictReader((tmp_path / "answers.csv").read_text().splitlines()))
    assert [row["label"] for row in rows] == [answer["label"] for answer in answers]


def test_predict_shows_errors_and_exits_with_1(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"")
    Image.new("L", (9, 9)).save(tmp_path / "fine.png")

    done = trainyard("predict", str(digits), str(tmp_path))

    assert done.returncode == 1
    assert "decoded" in done.stdout  # the table breaks lines between words
    assert trainyard("predict", str(digits), str(tmp_path / "none.png")).returncode == 2


def test_predict_takes_texts_from_arguments_stdin_and_files(
    tickets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "I was charged twice, please refund one payment"
    (tmp_path / "texts.txt").write_text(text + "\n")
    (tmp_path / "texts.csv").write_text(f'id,text\n1,"{text}"\n')
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    stdin = trainyard("predict", str(tickets), "-", "--json")
    done = trainyard("predict", str(tickets), text, str(tmp_path / "texts.txt"), str(tmp_path / "texts.csv"), "--json")

    alone = trainyard("predict", str(tickets), text, "--json")
    of_alone, of_stdin, *of_batch = [
        {**json.loads(line), "input": ""} for line in (alone.stdout + stdin.stdout + done.stdout).splitlines()
    ]
    assert of_stdin == of_alone
    assert of_batch == [of_batch[0]] * 3
    # Of several texts in a batch and of one alone, the last bits may differ.
    assert of_batch[0]["label"] == of_alone["label"]
    assert of_batch[0]["probability"] == pytest.approx(of_alone["probability"], abs=1e-6)


def test_a_tampered_bundle_is_refused_by_every_verb(digits: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(digits / "bundle", tmp_path / "bundle"))
    (bundle / "trainyard.json").write_text((bundle / "trainyard.json").read_text().replace('"0"', '"9"', 1))

    for verb in ("evaluate", "predict"):
        done = trainyard(verb, str(bundle), *(["x.png"] if verb == "predict" else []))
        assert done.returncode == 1
        assert "trainyard.json was changed" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_bert_bundle_is_a_plain_hugging_face_folder_with_our_answers(tickets: Path) -> None:
    from transformers import AutoModelForSequenceClassification, pipeline

    bundle = tickets / "bundle"
    texts = ["where is my parcel", "wrong amount on the invoice " * 40, "Pässword vergessen 😀"]

    model = AutoModelForSequenceClassification.from_pretrained(bundle)
    theirs = pipeline("text-classification", str(bundle), truncation=True)(texts)

    assert model.config.id2label == dict(enumerate(Bundle.open(bundle).labels))
    for one, other in zip(Predictor(bundle).predict(texts), theirs, strict=True):
        assert isinstance(one, Prediction)
        assert one.label == other["label"]
        assert one.probability == pytest.approx(other["score"], abs=1e-5)


def test_private_data_stay_out_of_the_bundle(folder: Path) -> None:
    run = train(folder, [*DIGITS, "bundle.samples=false", "trainer.max_epochs=1"])

    assert not (run / "bundle" / "samples").exists()
    assert Bundle.open(run).facts.drift_reference


def test_the_same_config_and_seed_give_the_same_weights_and_another_seed_others(folder: Path, digits: Path) -> None:
    again = train(folder, DIGITS, process)
    other = train(folder, [*DIGITS, "seed=7"])
    weights = [(run / "bundle" / "model.safetensors").read_bytes() for run in (digits, again, other)]

    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_two_processes_train_one_model(folder: Path) -> None:
    run = train(folder, [*DIGITS, "trainer.devices=2"], process)

    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["train"]["world_size"] == 2
    done = trainyard("evaluate", str(run), "--json")
    assert json.loads(done.stdout)["accuracy"] == metrics["test"]["accuracy"]


MISTAKES = [
    (["configs/none.yaml"], "there is no config file"),
    (["configs/digits_resnet.yaml", "optim.learning_rate=1"], "did you mean"),
    (["configs/digits_resnet.yaml", "trainer.strategy=fsdp", "trainer.devices=cpu"], "needs GPUs"),
    (["configs/digits_resnet.yaml", "trainer.precision=16-mixed", "trainer.devices=cpu"], "needs a GPU"),
    (["configs/digits_resnet.yaml", "data.path=nowhere"], "doesn't exist"),
]
NAMES = ["config", "key", "fsdp", "fp16", "path"]


@pytest.mark.parametrize(("words", "sentence"), MISTAKES, ids=NAMES)
def test_a_users_mistake_is_one_sentence_and_its_exit_code(words: list[str], sentence: str, tmp_path: Path) -> None:
    done = trainyard("train", *words, f"out={tmp_path}")

    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "no run was started"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [pytest.param(*mistake, marks=[] if name == "path" else pytest.mark.slow, id=name)
     for mistake, name in zip(MISTAKES, NAMES, strict=True)],
)  # fmt: skip
def test_it_is_the_same_with_two_processes(words: list[str], sentence: str, tmp_path: Path) -> None:
    done = process("train", *words, f"out={tmp_path}", NPROC="2")

    assert done.returncode == 2, done.stderr
    assert done.stderr.count(sentence) == 1
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "no run was started"


def test_evaluate_on_other_data(tickets: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("text,label\nwhere is my parcel,delivery\npay me back,billing\n")

    done = trainyard("evaluate", str(tickets), f"data.path={other}", "--json")
    assert json.loads(done.stdout)["examples"] == 2

    other.write_text("text,label\nwhere is my parcel,weather\n")
    done = trainyard("evaluate", str(tickets), f"data.path={other}")
    assert done.returncode == 1
    assert "weather" in done.stderr


def test_data_that_changed_since_are_noticed(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    lines = [f"{word} {number},{word}\n" for word in ("red", "blue") for number in range(40)]
    data.write_text("text,label\n" + "".join(lines))
    run = train(folder, ["configs/csv_bert.yaml", "model.pretrained=false", f"data.path={data}", "model.vocab_size=200",
                         "model.layers=1", "model.hidden_size=16", "trainer.max_epochs=1"])  # fmt: skip
    data.write_text("text,label\n" + "".join(lines) + "green 1,red\n")

    done = trainyard("evaluate", str(run))

    assert done.returncode == 1
    assert "changed since the training" in done.stderr


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_sigterm_ends_a_run_with_143_and_it_can_go_on(processes: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "trainyard", "train", *DIGITS, "trainer.max_epochs=500", f"out={tmp_path}",
             "trainer.threads=1", "trainer.log_every=1"]  # fmt: skip
    with subprocess.Popen(words, cwd=ROOT, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                          env={**os.environ, "NPROC": processes}) as started:  # fmt: skip
        assert started.stderr is not None
        before = []
        for line in started.stderr:
            before.append(line)
            if "step 5/" in line:
                break
        started.terminate()
        rest = started.stderr.read()

    assert started.returncode == 143, "".join(before) + rest
    assert "go on with trainer.resume=auto" in rest
    assert (tmp_path / "digits_resnet" / "latest" / "checkpoints" / "last.ckpt").is_file()
