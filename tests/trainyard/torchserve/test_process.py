"""What TorchServe is told, by its configuration and its environment, and what is understood of what it says."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainyard.torchserve import process as torchserve
from trainyard.torchserve.deployment import deployment_file
from trainyard.torchserve.java import Java
from trainyard.torchserve.process import PORTS, TORCH_STUB, Plan, environment, java_command, write_config
from trainyard.torchserve.run_directory import RunDirectory
from trainyard.torchserve.worker_log import WorkerLog

NUMBERS = {name: 50_000 + i for i, name in enumerate(PORTS)}


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path, io.StringIO())
    directory.store.mkdir()
    directory.temporary.mkdir()
    return directory


def properties(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    values = dict(line.split("=", 1) for line in lines)
    assert len(values) == len(lines), "nothing is said twice"
    return values


def test_only_loopback_is_listened_on(directory: RunDirectory) -> None:
    told = properties(write_config(directory, Plan({"m": "m.mar"}), NUMBERS))
    for name in ("inference", "management", "metrics"):
        assert told[f"{name}_address"] == f"http://127.0.0.1:{NUMBERS[name]}"
    for name in ("grpc_inference", "grpc_management"):
        assert told[f"{name}_address"] == "127.0.0.1"
        assert told[f"{name}_port"] == str(NUMBERS[name])


def test_models_and_limits(directory: RunDirectory) -> None:
    told = properties(write_config(directory, Plan({"a": "a.mar", "b": "b.mar"}, max_body=123), NUMBERS))
    assert told["load_models"] == "a=a.mar,b=b.mar"
    assert told["model_store"] == str(directory.store)
    assert told["max_request_size"] == "123"
    assert re.fullmatch(told["allowed_urls"].replace("\\\\", "\\"), f"file://{directory.store}/a.mar")
    assert (told["enable_model_api"], told["install_py_dep_per_model"]) == ("false", "false")
    assert int(told["token_expiration_min"]) > 5 * 365 * 24 * 60, "longer than any night"


def test_gpus_are_dealt_out_by_torchserve(directory: RunDirectory) -> None:
    assert properties(write_config(directory, Plan({"m": "m.mar"}), NUMBERS))["number_of_gpu"] == "0"
    assert "number_of_gpu" not in properties(write_config(directory, Plan({"m": "m.mar"}, device="cuda"), NUMBERS))


def test_java_is_started_without_the_wrapper_and_finds_its_files(directory: RunDirectory) -> None:
    command = java_command(Java(Path("/jdk/bin/java"), 25), directory, directory.path / "config.properties")
    assert command[0] == "/jdk/bin/java"
    assert f"-Djava.io.tmpdir={directory.temporary}" in command
    assert "-ncs" in command, "it writes no snapshots of its configuration"
    [home_flag] = [word for word in command if word.startswith("-Dmodel_server_home=")]
    assert (Path(home_flag.partition("=")[2]) / "ts" / "model_service_worker.py").is_file()
    assert deployment_file("log4j2.xml").as_uri() in " ".join(command)


def test_the_environment_is_private_and_sets_the_threads(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TS_CONFIG_FILE", "/etc/other.properties")
    monkeypatch.setenv("LOG_LOCATION", "/var/log")
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    told = environment(directory, Plan({"m": "m.mar"}, threads=2, expect=("d1", "d2")))
    assert not [name for name in told if name.startswith("TS_") or name == "LOG_LOCATION"]
    assert told["TMPDIR"] == told["TEMP"] == str(directory.temporary)
    assert told["OMP_NUM_THREADS"] == told["MKL_NUM_THREADS"] == "2"
    assert told["TRAINYARD_EXPECT"] == "d1,d2"


# The stand-in for torch


def test_beside_a_real_torch_the_stand_in_is_on_no_path(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    assert environment(directory, Plan({"m": "m.mar"}))["PYTHONPATH"] == "/mine"
    monkeypatch.setattr(torchserve, "needs_torch_stub", lambda: True)
    assert environment(directory, Plan({"m": "m.mar"}))["PYTHONPATH"] == f"{TORCH_STUB}{os.pathsep}/mine"


def test_the_stand_in_is_all_that_torchserves_workers_want_of_torch(tmp_path: Path) -> None:
    code = (
        "import sys, torch\n"
        f"assert torch.__file__.startswith({str(TORCH_STUB)!r})\n"
        "import ts.model_service_worker, ts.service, ts.protocol.otf_message_handler as handler\n"
        "from types import SimpleNamespace as Some\n"
        "context = Some(stopping_criteria=None, get_response_content_type=lambda i: None,\n"
        "               get_response_status=lambda i: (200, 'OK'), get_response_headers=lambda i: {})\n"
        "assert b'answer' in handler.create_predict_response([b'answer'], {0: 'id'}, 'ok', 200, context)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(TORCH_STUB)}
    )


def test_nothing_else_of_this_package_names_the_stand_in() -> None:
    source = Path(torchserve.__file__).parents[1]
    naming = [path.name for path in source.rglob("*.py") if "torch_stub" in path.read_text(encoding="utf-8")]
    assert naming == ["process.py"]
    assert not (TORCH_STUB / "__init__.py").exists(), "it isn't a package of ours, so that nothing installs it as torch"


# What TorchServe says

LINES = """\
INFO|MODEL_LOG|W-9000-my-model_1.0-stdout|s_name_part0=/tmp/x/.ts.sock, s_name_part1=9000, pid=7\x20
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
    ended: list[str] = []
    log = WorkerLog(ended.append)
    for line in LINES:
        log.add(line.format(error=error) if "{error}" in line else line)
    assert ended == ["my-model"]
    assert log.worker_reason("my-model") == reason
    assert log.worker_reason("other").startswith("it said nothing")


def test_only_the_last_life_of_a_worker_counts() -> None:
    log = WorkerLog(lambda model: None)
    for line in [*(line.format(error="KeyError: 'a'") if "{error}" in line else line for line in LINES), LINES[0]]:
        log.add(line)
    assert log.worker_reason("my-model").startswith("it said nothing")


def test_a_worker_that_took_too_long_said_nothing_of_it() -> None:
    log = WorkerLog(lambda model: None)
    for line in [LINES[0], "ERROR|WorkerThread|W-9000-my-model_1.0|Number or consecutive unsuccessful inference 1",
                 "ERROR|WorkerThread|W-9000-my-model_1.0|Backend worker error", LINES[-1]]:  # fmt: skip
        log.add(line)
    assert log.worker_reason("my-model") == "it gave no answer within the response timeout"
    log.add(LINES[0])
    assert log.worker_reason("my-model").startswith("it said nothing")


def test_why_torchserve_ended() -> None:
    log = WorkerLog(lambda model: None)
    assert log.server_reason() == "it said nothing"
    log.add("java.net.BindException: Address already in use")
    log.add("\tat java.base/sun.nio.ch.Net.bind0(Native Method)")
    assert log.says("Address already in use")
    assert log.server_reason() == "java.net.BindException: Address already in use"


# The watchdog


@pytest.mark.parametrize("ends_itself", [True, False])
def test_the_watchdog_clears_up_unless_serve_does(ends_itself: bool, tmp_path: Path) -> None:
    from trainyard.torchserve import watchdog

    folder = tmp_path / "private"
    folder.mkdir()
    sleeper = shutil.which("sleep")
    assert sleeper is not None
    with (
        subprocess.Popen([sleeper, "600"], start_new_session=True) as watched,
        subprocess.Popen([sys.executable, "-I", "-S", watchdog.__file__, folder], stdin=subprocess.PIPE) as dog,
    ):
        dog.communicate(f"{watched.pid}\n".encode() + (watchdog.END.encode() if ends_itself else b""))
        assert (watched.poll() is None, folder.exists()) == (ends_itself, ends_itself) or watched.wait(60) == -9
        assert folder.exists() == ends_itself
        watched.kill()
