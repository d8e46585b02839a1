"""Makes the README's picture of a report.

    python benchmarks/report_picture.py runs/digits_resnet/latest docs/report.png

Needs Chromium (Debian's package chromium).
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from trainyard.base.files import atomic_write
from trainyard.report.html import write_report

WIDTH, HEIGHT = 1000, 1130
COLOURS = 64
"""Enough for text and figures, and a third of the bytes."""


def main(run: Path, picture: Path) -> None:
    """Draws the report of a run, and writes the picture of its beginning."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("the picture needs Chromium: apt-get install chromium")
    report = write_report(run)
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}"]
        size = f"--window-size={WIDTH},{HEIGHT}"
        subprocess.run(
            [chromium, *options, size, f"--screenshot={shot}", report.absolute().as_uri()],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        content = io.BytesIO()
        Image.open(shot).convert("RGB").quantize(COLOURS).save(content, "PNG", optimize=True)
    with atomic_write(picture) as file:
        file.write(content.getvalue())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
