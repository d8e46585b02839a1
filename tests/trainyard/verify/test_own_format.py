"""A format that a project adds in one file: made, gated, timed, shown, chosen, archived, opened as ours are."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import open_trusted
from trainyard.artifacts.samples import golden_samples
from trainyard.base.errors import UsageError
from trainyard.base.project import VARIABLE, require_project
from trainyard.inference.predictor import Predictor
from trainyard.report.benchmark import Benchmark, benchmark_figure, benchmark_markdown
from trainyard.report.export import export_figure
from trainyard.torchserve.archive import Model, choose_format, make_archive, unpack
from trainyard.torchserve.settings import Settings
from trainyard.verify.benchmark import Plan, run_benchmark
from trainyard.verify.export import Options, export

PROJECT = """
from trainyard.base.project import Project

project = Project(__name__, models={models}, formats={formats})
"""
FORMAT = '''
"""ONNX, compressed."""

import tempfile
import zlib
from pathlib import Path

from trainyard.formats.base import Format
from trainyard.formats.onnx import OnnxRuntime


class Packed(Format):
    name = "packed"
    file = "model.packed"
    package = "onnxruntime"

    def make(self, source, file):
        from trainyard.formats.making.onnx import write_once

        write_once(source, file)
        file.write_bytes(zlib.compress(file.read_bytes()))

    def open(self, file, device=None, threads=None):
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "model.onnx"
            whole.write_bytes(zlib.decompress(file.read_bytes()))
            return OnnxRuntime(whole, device, threads)
'''


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tests = require_project()
    models = {kind: f"{tests.package}{name}" if name[0] == "." else name for kind, name in tests.models.items()}
    for name, formats in (("shop_with_packed", {"packed": ".packed:Packed"}), ("shop_without", {})):
        (tmp_path / "code" / name).mkdir(parents=True)
        (tmp_path / "code" / name / "__init__.py").write_text(PROJECT.format(models=models, formats=formats))
    (tmp_path / "code" / "shop_with_packed" / "packed.py").write_text(FORMAT)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setenv(VARIABLE, "shop_with_packed")


@pytest.mark.slow
def test_a_format_of_the_project_goes_all_the_way(
    copied_run: Path, tmp_path: Path, shop: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = export(Bundle.open(copied_run), Options(("packed",), threads=1), [])
    row = made.facts.row("packed")
    assert row is not None
    assert (row.status, row.file) == ("passed", "model.packed"), row.reason
    assert row.latency_ms is not None
    assert made.facts.recommended == "packed"
    assert "**packed** (recommended)" in (made.path / "export.md").read_text()
    assert "packed" in [text.get_text() for text in export_figure(made.facts).axes[0].texts]

    opened = open_trusted(copied_run)
    measured = run_benchmark(Plan(None, (1,), (1,), None, 0.2), opened)
    assert [cell.format for cell in measured.cells] == ["eager", "packed"]
    assert "| packed |" in benchmark_markdown(measured)
    assert len(colours(measured)) == 2, "each has a colour of its own"

    items = [sample.item for sample in golden_samples(opened.bundle.path)]
    expected = Predictor(copied_run, threads=1)
    assert expected.deployed.format == "packed"

    assert choose_format(opened, "auto", "cpu") == "packed"
    path = make_archive(Model("shop", "1.0", Settings(format="packed"), opened), tmp_path / "model.mar")
    (tmp_path / "unpacked").mkdir()
    served = Predictor(unpack(path, tmp_path / "unpacked").opened, "packed", threads=1)
    assert served.predict(items) == expected.predict(items)

    monkeypatch.setenv(VARIABLE, "shop_without")
    assert Predictor(copied_run).deployed.format == "eager"
    with pytest.raises(UsageError, match="there is no format packed"):
        Predictor(copied_run, "packed")


def colours(benchmark: Benchmark) -> set[object]:
    return {line.get_color() for line in benchmark_figure(benchmark).axes[0].lines}
