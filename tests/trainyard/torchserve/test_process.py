"""What TorchServe is told, by its configuration and its environment, and what is understood of what it says."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from trainyard.artifacts.export_record import Opened
from trainyard.torchserve import worker
from trainyard.torchserve.deployment import deployment_file
from trainyard.torchserve.java import Java
from trainyard.torchserve.process import (
    ENVELOPE,
    PORTS,
    RunDirectory,
    environment,
    java_command,
    make_home,
    write_config,
)
from trainyard.torchserve.settings import Settings
from trainyard.torchserve.state import Pulse, TorchServeLog, look_at
from trainyard.torchserve.store import Served
from trainyard.torchserve.worker import BUSY, LOADED

MAX_BODY = 16_000_000
NUMBERS = {name: 50_000 + i for i, name in enumerate(PORTS)}


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path, io.StringIO())
    directory.store.mkdir()
    directory.temporary.mkdir()
    return directory


def served(name: str = "m", digest: str = "d", **settings: int | str) -> Served:
    bundle = SimpleNamespace(digest=digest)
    return Served(name, "1.0", Settings.chosen(**settings), Opened(bundle, None), [])  # type: ignore[arg-type]


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.05)


def properties(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    values = dict(line.split("=", 1) for line in lines)
    assert len(values) == len(lines), "nothing is said twice"
    return values


def test_only_loopback_is_listened_on(directory: RunDirectory) -> None:
    told = properties(write_config(directory, [served()], MAX_BODY, NUMBERS))
    for name in ("inference", "management", "metrics"):
        assert told[f"{name}_address"] == f"http://127.0.0.1:{NUMBERS[name]}"
    for name in ("grpc_inference", "grpc_management"):
        assert told[f"{name}_address"] == "127.0.0.1"
        assert told[f"{name}_port"] == str(NUMBERS[name])


def test_models_and_limits(directory: RunDirectory) -> None:
    told = properties(write_config(directory, [served("a"), served("b")], 123, NUMBERS))
    assert told["load_models"] == "a=a.mar,b=b.mar"
    assert told["model_store"] == str(directory.store)
    assert int(told["max_request_size"]) == 123 + ENVELOPE
    assert re.fullmatch(told["allowed_urls"].replace("\\\\", "\\"), f"file://{directory.store}/a.mar")
    assert (told["enable_model_api"], told["install_py_dep_per_model"]) == ("false", "false")
    assert int(told["token_expiration_min"]) > 5 * 365 * 24 * 60, "longer than any night"


def test_gpus_are_dealt_out_by_torchserve(directory: RunDirectory) -> None:
    assert properties(write_config(directory, [served()], MAX_BODY, NUMBERS))["number_of_gpu"] == "0"
    models = [served("a"), served("b", device="cuda")]
    assert "number_of_gpu" not in properties(write_config(directory, models, MAX_BODY, NUMBERS))


def command(directory: RunDirectory, max_body: int = MAX_BODY) -> list[str]:
    return java_command(Java(Path("/jdk/bin/java"), 25), directory, directory.path / "config.properties", max_body)


def test_java_is_started_without_the_wrapper_and_finds_its_files(directory: RunDirectory) -> None:
    words = command(directory)
    assert words[0] == "/jdk/bin/java"
    assert f"-Djava.io.tmpdir={directory.temporary}" in words
    assert "-ncs" in words, "it writes no snapshots of its configuration"
    assert deployment_file("log4j2.xml").as_uri() in " ".join(words)


@pytest.mark.parametrize(("max_body", "megabytes"), [(1_000, 256), (16_000_000, 256), (100_000_000, 1600)])
def test_javas_heap_never_grows_and_has_room_for_bodies(max_body: int, megabytes: int, directory: RunDirectory) -> None:
    assert {f"-Xms{megabytes}m", f"-Xmx{megabytes}m"} <= set(command(directory, max_body))


def test_the_environment_is_private_and_sets_the_threads(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TS_CONFIG_FILE", "/etc/other.properties")
    monkeypatch.setenv("LOG_LOCATION", "/var/log")
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "3")
    told = environment(directory, [served(digest="d1", threads=2), served(digest="d2", threads=1)])
    assert not [name for name in told if name.startswith("TS_") or name == "LOG_LOCATION"]
    assert told["TMPDIR"] == told["TEMP"] == str(directory.temporary)
    assert told["OMP_NUM_THREADS"] == told["MKL_NUM_THREADS"] == "2"
    assert told["TRAINYARD_EXPECT"] == "d1,d2"
    assert told["MALLOC_ARENA_MAX"] == "3", "whoever sets it knows why"
    assert "MALLOC_TRIM_THRESHOLD_" in told


# The worker


def test_java_finds_our_worker_where_it_looks_for_torchserves(directory: RunDirectory) -> None:
    make_home(directory)
    [home] = [word for word in command(directory) if word.startswith("-Dmodel_server_home=")]
    folder = Path(home.partition("=")[2]) / "ts"
    assert (folder / "model_service_worker.py").read_bytes() == Path(worker.__file__).read_bytes()
    assert (folder / "version.txt").read_text().startswith("0.12"), "Java reads it, and ends without"


def test_a_worker_imports_torch_where_a_model_needs_it_and_nowhere_else(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from types import SimpleNamespace as Some\n"
        "from trainyard.torchserve.worker import without_torch\n"
        "without_torch()\n"
        "import ts.model_service_worker, ts.service, ts.protocol.otf_message_handler as handler\n"
        "assert 'torch' not in sys.modules\n"
        "context = Some(stopping_criteria=None, get_response_content_type=lambda i: None,\n"
        "               get_response_status=lambda i: (200, 'OK'), get_response_headers=lambda i: {})\n"
        "assert b'answer' in handler.create_predict_response([b'answer'], {0: 'id'}, 'ok', 200, context)\n"
        "assert handler.create_predict_response([{'a': 1}], {0: 'id'}, 'ok', 200, context)\n"
        "import torch\n"
        "assert torch.__version__ and torch.ones(1).item() == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_a_worker_says_when_it_has_its_model_and_calls_itself_busy_while_it_has_a_batch() -> None:
    code = (
        "import ts.service\n"
        "from trainyard.torchserve import worker\n"
        "from types import SimpleNamespace as Some\n"
        "name = lambda: worker.NAME.read_bytes().strip()\n"
        "def predict(self, batch):\n"
        "    if not batch: raise ValueError\n"
        "    return name()\n"
        "ts.service.Service.predict = predict\n"
        "worker.watch_service()\n"
        "service = Some()\n"
        "print('half a line', end='', flush=True)\n"
        "ts.service.Service.set_cl_socket(service, 'socket')\n"
        "assert service.cl_socket == 'socket'\n"
        "assert ts.service.Service.predict(None, [{'parameters': []}]) == worker.BUSY\n"
        "assert name() == worker.IDLE\n"
        "try: ts.service.Service.predict(None, [])\n"
        "except ValueError: assert name() == worker.IDLE\n"
        "else: raise AssertionError\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout == f"half a line\n{LOADED}\n", "a line of its own, when it has its model"


def test_a_worker_holds_no_large_body_after_its_batch_even_if_something_was_wrong_with_it() -> None:
    code = (
        "import gc, weakref\n"
        "import ts.service\n"
        "from trainyard.torchserve import worker\n"
        "class Body(bytearray): pass\n"
        "def refuse(body):\n"
        "    raise ValueError\n"
        "def predict(self, batch):\n"
        "    errors = []\n"
        "    try: refuse(batch[0]['parameters'][0]['value'])\n"
        "    except ValueError as error: errors.append(error)\n"
        "ts.service.Service.predict = predict\n"
        "worker.watch_service()\n"
        "gc.disable()\n"
        "batch = [{'parameters': [{'value': Body(2_000_000)}]}]\n"
        "body = weakref.ref(batch[0]['parameters'][0]['value'])\n"
        "ts.service.Service.predict(None, batch)\n"
        "assert body() is None\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@contextmanager
def process(code: str) -> Iterator[int]:
    """A Python that runs this, and has begun to."""
    words = [sys.executable, "-c", f"import time\nfrom trainyard.torchserve.worker import *\n{code}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"begun\n"
        yield started.pid
        started.kill()


def complaints(pid: int, *times: float) -> list[str | None]:
    pulse = Pulse()
    return [pulse.complaint(pid, now) for now in times]


def until_asleep(pid: int) -> None:
    while look_at(pid).get("status") != psutil.STATUS_SLEEPING:
        time.sleep(0.01)


STUCK = f"NAME.write_bytes({BUSY!r})\nprint('begun', flush=True)\ntime.sleep(600)"


def test_a_stopped_process_is_found_at_the_second_look() -> None:
    with process("print('begun', flush=True)\ntime.sleep(600)") as pid:
        assert complaints(pid, 0, 1, 100) == [None, None, None], "it may wait for ever for a batch"
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        assert complaints(pid, 0, 1) == [None, "it was stopped"]
        os.kill(pid, signal.SIGCONT)
    assert complaints(pid, 0, 1) == [None, None], "it is gone"


def test_a_worker_that_waits_with_a_batch_in_hand_is_stuck() -> None:
    with process(STUCK) as pid:
        until_asleep(pid)
        assert complaints(pid, 0, 1, 2, 3) == [None] * 4
        assert complaints(pid, 0, 1, 4) == [None, None, "it was stuck: it did nothing with a batch in hand"]


def test_a_worker_that_computes_is_left_alone() -> None:
    """Its main thread waits for the one that computes, as where ONNX Runtime has threads of its own."""
    code = (
        f"NAME.write_bytes({BUSY!r})\nimport threading\ndef burn():\n  while True: pass\n"
        "threading.Thread(target=burn, daemon=True).start()\nprint('begun', flush=True)\ntime.sleep(600)"
    )
    with process(code) as pid:
        pulse = Pulse()
        for now in range(0, 20, 2):
            seen = look_at(pid)
            assert pulse.complaint(pid, now) is None
            while look_at(pid)["cpu_times"].user == seen["cpu_times"].user:
                time.sleep(0.01)


# What TorchServe says

LINES = """\
INFO|MODEL_LOG|W-9000-my-model_1.0-stdout|trainyard: this is process 7\x20
INFO|MODEL_LOG|W-9000-my-model_1.0-stdout|Torch worker started.\x20
INFO|MODEL_LOG|W-9000-my-model_1.0-stdout|Backend worker process died.\x20
INFO|MODEL_LOG|W-9000-my-model_1.0-stdout|Traceback (most recent call last):\x20
INFO|MODEL_LOG|W-9000-my-model_1.0-stdout|  File "x.py", line 1, in initialize\x20
INFO|MODEL_LOG|W-9000-my-model_1.0-stdout|{error}\x20
INFO|WorkerThread|W-9000-my-model_1.0|Retry worker: 9000 in 1 seconds.\x20
""".splitlines()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("ModuleNotFoundError: No module named 'onnxruntime'", "ModuleNotFoundError: No module named 'onnxruntime'"),
        ("trainyard.base.errors.BundleError: it was changed; use the original", "it was changed; use the original"),
        ("KeyError: 'handler'", "KeyError: 'handler'"),
        ("MemoryError", "MemoryError"),
        ("Failed to load model m, exception no room", "no room"),
        ("Segmentation fault", "it said nothing; the system may have ended it for want of memory"),
    ],
)
def test_why_a_worker_ended(error: str, reason: str) -> None:
    log = TorchServeLog()
    for line in LINES:
        log.add(line.format(error=error) if "{error}" in line else line)
    [life] = log.ended
    assert (life.model, life.why_ended) == ("my-model", reason)


LOADED_LINE = f"INFO|MODEL_LOG|W-9000-my-model_1.0-stdout|{LOADED}"


def test_a_worker_is_ready_from_when_it_has_its_model_until_its_end() -> None:
    log = TorchServeLog()
    for line in (LINES[0], LINES[0].replace("9000", "9001").replace("process 7", "process 8"), LINES[1]):
        log.add(line)
        assert not log.ready("my-model")
    log.add(LOADED_LINE)
    assert [life.pid for life in log.ready("my-model")] == [7]
    assert not log.ready("my")
    log.add(LINES[-1])
    assert not log.ready("my-model")
    log.add(LINES[0].replace("process 7", "process 9"))
    assert not log.ready("my-model"), "another process"
    log.add(LOADED_LINE)
    assert [life.pid for life in log.ready("my-model")] == [9]


def test_only_the_last_life_of_a_worker_counts() -> None:
    log = TorchServeLog()
    for line in [*(line.format(error="KeyError: 'a'") if "{error}" in line else line for line in LINES), LINES[0]]:
        log.add(line)
    assert log.ended[-1].why_ended == "KeyError: 'a'"
    log.add(LINES[-1])
    assert log.ended[-1].why_ended.startswith("it said nothing")


def test_a_worker_that_took_too_long_said_nothing_of_it() -> None:
    log = TorchServeLog()
    for line in [LINES[0], "ERROR|WorkerThread|W-9000-my-model_1.0|Number or consecutive unsuccessful inference 1",
                 "ERROR|WorkerThread|W-9000-my-model_1.0|Backend worker error", LINES[-1]]:  # fmt: skip
        log.add(line)
    assert log.ended[-1].why_ended == "it gave no answer within the response timeout"
    log.add(LINES[0])
    log.add(LINES[-1])
    assert log.ended[-1].why_ended.startswith("it said nothing")


def test_a_worker_that_we_end_says_nothing_of_it_either() -> None:
    log = TorchServeLog()
    log.add(LINES[0])
    log.add(LOADED_LINE)
    [life] = log.ready("my-model")
    life.reason = "it was stopped"
    log.add(LINES[-1])
    assert log.ended[-1].why_ended == "it was stopped"


def test_why_torchserve_ended() -> None:
    log = TorchServeLog()
    assert log.reason == "it said nothing"
    log.add("java.net.BindException: Address already in use")
    log.add("\tat java.base/sun.nio.ch.Net.bind0(Native Method)")
    log.add("\tat io.netty.channel.ChannelException.of(ChannelException.java:1)")
    assert log.is_port_taken
    assert log.reason == "java.net.BindException: Address already in use"
    log.add("ERROR|ModelServer|main|no such file ")
    assert log.reason == "no such file"


# The watchdog

WATCHED = """
import os, signal, subprocess
from trainyard.torchserve.process import open_run_directory
with open_run_directory() as directory:
    for _ in range(2):
        quiet = {{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}}
        group = subprocess.Popen(["sleep", "60"], start_new_session=True, **quiet).pid
        directory.watch(group)
        print(group, flush=True)
    if {is_killed}:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("is_killed", [True, False])
def test_the_watchdog_clears_up_where_serve_cannot(is_killed: bool) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        done = subprocess.run(
            [sys.executable, "-c", WATCHED.format(is_killed=is_killed)],
            capture_output=True,
            env={**os.environ, "TMPDIR": folder},
            check=False,
        )
        assert (done.returncode, done.stderr) == (-9 if is_killed else 0, b"")
        first, last = map(psutil.Process, map(int, done.stdout.split()))
        until(lambda: not list(Path(folder).iterdir()))
    until(lambda: last.is_running() != is_killed)
    assert first.is_running(), "it was started again since, and the number may be another's"
    for left in (first, last)[: 1 if is_killed else 2]:
        left.kill()
