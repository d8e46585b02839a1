"""What the library's table of formats says, in the forms in which tests ask for it."""

from __future__ import annotations

from trainyard.formats.table import LIBRARY

ALL = tuple(LIBRARY)
EXPORTED = ALL[1:]
GPU = tuple(name for name, format in LIBRARY.items() if format.device == "gpu")
CPU = tuple(name for name in EXPORTED if name not in GPU)
FILES = {name: format.file for name, format in LIBRARY.items() if format.file}
FP32 = tuple(name for name in EXPORTED if LIBRARY[name].precision == "fp32")
