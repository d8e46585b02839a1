"""Which format answers: the named one, or by itself the fastest that passed and can run here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tables import CPU, EXPORTED, FILES, GPU

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import Export, ExportFacts, FormatName, FormatRow, Opened, open_trusted
from trainyard.base.cpu import Cpu
from trainyard.base.errors import BundleError, UsageError
from trainyard.inference import selection
from trainyard.inference.selection import NEAR, REST, SECONDS, choose
from trainyard.preprocess.base import Inputs

MakeExport = Callable[..., Path]
Row = Callable[..., FormatRow]


class Machine:
    """Runtimes that take as long as they are told, on a clock that only they move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.seconds: dict[str, float] = {}
        self.broken: set[str] = set()
        self.broken_calls: set[str] = set()
        self.opened: list[str] = []
        self.batches: set[int] = set()

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def open(
        self, format: FormatName, bundle: Bundle, file: Path | None, device: str | None, threads: int | None
    ) -> object:
        self.opened.append(format)
        assert (file is None) == (format == "eager")
        assert file is None or file.name == FILES[format]
        if format in self.broken:
            raise BundleError(f"{file} can't be loaded")
        return Run(self, format)


class Run:
    def __init__(self, machine: Machine, format: str) -> None:
        self.machine, self.format = machine, format

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        if self.format in self.machine.broken_calls:
            raise RuntimeError("an operator isn't there")
        self.machine.now += self.machine.seconds.get(self.format, 0.01)
        self.machine.batches.add(len(next(iter(inputs.values()))))
        return np.zeros((1, 10), np.float32)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """This machine, with AVX2 alone and all packages."""
    made = Machine()
    monkeypatch.setattr(selection, "open_runtime", made.open)
    monkeypatch.setattr(time, "perf_counter", lambda: made.now)
    monkeypatch.setattr(time, "sleep", made.sleep)
    monkeypatch.setattr(selection, "this_cpu", lambda: Cpu("cpu", ("avx2",), 1))
    return made


def lack(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    monkeypatch.setattr(selection, "find_spec", lambda name: None if name in packages else find_spec(name))


def test_the_fastest_is_taken_without_timing_where_none_comes_near(
    bare_run: Path, make_export: MakeExport, row: Row, machine: Machine
) -> None:
    make_export(row("eager", "reference"), row("onnx", throughput=100), row("onnx-int8", throughput=160),
                row("aoti", throughput=99))  # fmt: skip

    assert choose(open_trusted(bare_run)).format == "onnx-int8"
    assert machine.opened == ["onnx-int8"]


def test_those_that_come_near_are_timed_in_turns_for_a_second(
    bare_run: Path, make_export: MakeExport, row: Row, machine: Machine
) -> None:
    make_export(row("onnx", throughput=100), row("onnx-int8", throughput=140), row("aoti", throughput=94),
                row("torchscript", throughput=93), row("aoti-int8", "no_gain", throughput=139))  # fmt: skip
    machine.seconds = {"onnx": 0.02, "onnx-int8": 0.03, "aoti": 0.025, "torchscript": 0.001}

    assert choose(open_trusted(bare_run)).format == "onnx"
    assert machine.opened == ["onnx-int8", "onnx", "aoti"], "the fastest first, and none beyond 1.5 times"
    a_round = 3 * REST + 2 * 0.075
    assert SECONDS <= machine.now - 0.075 < SECONDS + a_round
    assert machine.batches == {8}


def test_slow_formats_are_timed_a_few_times_and_not_more(
    bare_run: Path, make_export: MakeExport, row: Row, machine: Machine
) -> None:
    make_export(row("onnx", throughput=100), row("aoti", throughput=99))
    machine.seconds = {"onnx": 2, "aoti": 1}

    assert choose(open_trusted(bare_run), batch_size=3).format == "aoti"
    assert machine.now == pytest.approx(3 + 2 * (2 * 3 + 2 * REST))
    assert machine.batches == {3}


@pytest.mark.parametrize("status", ["no_gain", "batch_dependent", "refused"])
def test_what_did_not_pass_is_chosen_only_by_name(
    status: str, bare_run: Path, make_export: MakeExport, row: Row, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    make_export(row("onnx-int8", status, throughput=900, file=FILES["onnx-int8"], reason="so it is"), row("aoti"))
    opened = open_trusted(bare_run)

    assert choose(opened).format == "aoti"
    assert not caplog.messages
    assert choose(opened, "onnx-int8").format == "onnx-int8"
    assert caplog.messages == [f"onnx-int8 is {status}: so it is"]


@pytest.mark.parametrize("status", ["refused", "skipped"])
def test_what_was_not_made_is_told_with_its_reason(
    status: str, bare_run: Path, make_export: MakeExport, row: Row, machine: Machine
) -> None:
    make_export(row("aoti", status, reason="there is no compiler"))
    opened = open_trusted(bare_run)

    with pytest.raises(UsageError, match=rf"aoti was {status} when .* \(there is no compiler\): choose another format"):
        choose(opened, "aoti")
    with pytest.raises(UsageError, match="onnx isn't in .*; export it first: trainyard export"):
        choose(opened, "onnx")
    assert choose(opened).format == "eager"


def test_without_an_export_there_is_eager(bare_run: Path, machine: Machine) -> None:
    opened = open_trusted(bare_run)

    assert choose(opened).format == choose(opened, "eager").format == "eager"
    for format in EXPORTED:
        with pytest.raises(UsageError, match=f"{format} isn't there, .*; export it first: trainyard export {bare_run}"):
            choose(opened, format)


def test_a_processor_without_a_flag_runs_what_does_not_need_it(
    bare_run: Path, make_export: MakeExport, row: Row, machine: Machine
) -> None:
    make_export(row("onnx-int8", throughput=500, needs=["avx2", "avx512f", "amx_int8"]), row("onnx", needs=["avx2"]))
    opened = open_trusted(bare_run)

    assert choose(opened).format == "onnx"
    with pytest.raises(UsageError, match="needs a processor with amx_int8 and avx512f, .*: export on a machine of thi"):
        choose(opened, "onnx-int8")
    assert machine.opened == ["onnx"]


@pytest.mark.parametrize(
    ("lacking", "answers"), [((), "aoti"), (("torch",), "onnx"), (("onnxruntime",), "aoti")], ids=str
)
def test_what_lacks_its_package_is_left_out(
    lacking: tuple[str, ...], answers: str, bare_run: Path, make_export: MakeExport, row: Row, machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    make_export(row("aoti", throughput=300), row("onnx", throughput=100))
    lack(monkeypatch, *lacking)

    assert choose(open_trusted(bare_run)).format == answers
    assert machine.opened == [answers]


def test_where_nothing_can_run_all_obstacles_are_told(
    bare_run: Path, make_export: MakeExport, row: Row, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_export(row("aoti"), row("onnx"), row("onnx-int8", needs=["avx512_vnni"]))
    machine.broken = {"onnx"}
    lack(monkeypatch, "torch")

    with pytest.raises(UsageError, match="nothing of .* can run here") as caught:
        choose(open_trusted(bare_run))
    for obstacle in ("aoti needs the package torch; ", "onnx-int8 needs a processor with avx512_vnni; ",
                     "onnx doesn't load: ", "eager needs the package torch): install what is missing"):  # fmt: skip
        assert obstacle in str(caught.value)


@pytest.mark.parametrize("way", ["broken", "broken_calls"])
def test_a_format_that_does_not_load_or_run_is_passed_over(
    way: str, bare_run: Path, make_export: MakeExport, row: Row, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    make_export(row("onnx-int8", throughput=120), row("onnx", throughput=110), row("aoti", throughput=20))
    opened = open_trusted(bare_run)

    setattr(machine, way, {"onnx-int8"})
    assert choose(opened).format == "onnx"
    setattr(machine, way, {"onnx-int8", "onnx"})
    assert choose(opened).format == "aoti", "the next slower, although it is far behind"
    setattr(machine, way, {"onnx-int8", "onnx", "aoti"})
    assert choose(opened).format == "eager"

    assert [message.partition(":")[0] for message in caplog.messages] == [
        f"{format} is passed over, because it can't be loaded"
        for format in ("onnx-int8", "onnx-int8", "onnx", "onnx-int8", "onnx", "aoti")
    ]
    machine.broken = {"onnx"}
    with pytest.raises(BundleError, match="can't be loaded"):
        choose(opened, "onnx")


def test_another_device_is_for_what_can_move(
    bare_run: Path, make_export: MakeExport, row: Row, machine: Machine
) -> None:
    make_export(*(row(format) for format in EXPORTED))
    opened = open_trusted(bare_run)

    assert choose(opened, "auto", "cuda").format == "eager"
    assert choose(opened, "torchscript", "cuda:0").format == "torchscript"
    assert choose(opened, "aoti", "cpu").format == "aoti"
    with pytest.raises(UsageError, match="aoti runs on the CPU alone: leave out the device cuda, or choose eager"):
        choose(opened, "aoti", "cuda")


def test_a_bundle_without_samples_leaves_nothing_to_time_with(
    bare_run: Path, make_export: MakeExport, row: Row, machine: Machine
) -> None:
    make_export(row("onnx", throughput=100), row("aoti", throughput=101))
    opened = open_trusted(bare_run)
    for name in ("golden.jsonl", "calibration.jsonl"):
        (opened.bundle.path / "samples" / name).unlink()

    assert choose(opened).format == "aoti"
    assert not machine.now


def test_auto_is_eager_where_that_was_the_fastest(
    bare_run: Path, make_export: MakeExport, row: Row, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_export(row("onnx"), row("onnx-int8", "no_gain"), recommended="eager")

    assert choose(open_trusted(bare_run)).format == "eager"

    monkeypatch.setattr(selection, "find_spec", lambda package: None if package == "torch" else object())
    assert choose(open_trusted(bare_run)).format == "onnx"


SPEEDS = st.floats(1, 1000)
ROWS = st.dictionaries(
    st.sampled_from(CPU),
    st.tuples(st.sampled_from(["passed", "passed", "no_gain", "batch_dependent"]), SPEEDS, SPEEDS, st.booleans()),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_auto_is_the_fastest_here_of_those_near_the_best_that_was_recorded(
    rows: dict[FormatName, tuple[str, float, float, bool]], digits_run: Path, row: Row, machine: Machine
) -> None:
    bundle = Bundle.open(digits_run)
    made = [row(name, status, throughput=speed, needs=["avx2", "sve"] if foreign else ["avx2"])
            for name, (status, speed, _, foreign) in rows.items()]  # fmt: skip
    facts = ExportFacts(schema_version=1, bundle=bundle.digest, id="one", created="", formats=made,
                        recommended="onnx", gate={}, data={}, machine={})  # fmt: skip
    machine.seconds = {name: 1 / here for name, (_, _, here, _) in rows.items()}

    answers = choose(Opened(bundle, Export(digits_run, "", facts))).format

    can = [name for name, (status, _, _, foreign) in rows.items() if status == "passed" and not foreign]
    best = max((rows[name][1] for name in can), default=0)
    near = [name for name in can if rows[name][1] * NEAR >= best]
    if len(near) > 1:
        assert rows[answers][2] == max(rows[name][2] for name in near)
    assert answers in (near or ["eager"])


def test_auto_on_a_gpu_is_the_fastest_that_was_made_for_one(
    bare_run: Path, make_export: MakeExport, row: Row, machine: Machine
) -> None:
    machine.seconds = {"onnx-cuda": 0.03, "aoti-fp16": 0.01, "aoti-bf16": 0.02, "aoti-int8": 0.001}
    make_export(row("aoti-int8"), *(row(format, speedup=2.0) for format in GPU))

    assert choose(open_trusted(bare_run), device="cuda").format == "aoti-fp16"
    assert choose(open_trusted(bare_run), device="cpu").format == "aoti-int8"


def test_auto_on_a_gpu_is_eager_where_nothing_was_faster(
    bare_run: Path, make_export: MakeExport, row: Row, machine: Machine
) -> None:
    make_export(row("onnx"), row("onnx-cuda", speedup=0.9), row("aoti-bf16", "no_gain", speedup=0.8))

    assert choose(open_trusted(bare_run), device="cuda").format == "eager"


def test_what_is_made_for_a_gpu_is_refused_on_the_cpu(
    bare_run: Path, make_export: MakeExport, row: Row, machine: Machine
) -> None:
    make_export(row("aoti-bf16", speedup=2.0))

    with pytest.raises(UsageError, match="aoti-bf16 runs on a GPU alone"):
        choose(open_trusted(bare_run), "aoti-bf16", device="cpu")
    assert choose(open_trusted(bare_run), "aoti-bf16").format == "aoti-bf16"


def test_the_choice_is_told(
    bare_run: Path, make_export: MakeExport, row: Row, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    from trainyard.inference.predictor import Predictor

    make_export(row("onnx"))
    caplog.set_level(logging.INFO, "trainyard.inference")

    predictor = Predictor(bare_run)

    assert caplog.messages == ["onnx answers, of the export one"]
    assert predictor.deployed == (predictor.bundle.digest, "one", "onnx")
    assert Predictor(bare_run, "eager").deployed == (predictor.bundle.digest, None, "eager")
    assert caplog.messages[1:] == ["eager answers"]
