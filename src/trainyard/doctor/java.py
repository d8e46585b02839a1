"""Whether there is a Java for TorchServe."""

from __future__ import annotations

from trainyard.doctor.checks import Check
from trainyard.torchserve.java import FIX, look_for_java


def check_java() -> Check:
    """Whether there is a Java that TorchServe runs on."""
    java, complaints = look_for_java()
    if java:
        return Check("java", "ok", f"{java.version} ({java.path})")
    return Check("java", "warning", "; ".join(complaints) or "none found", f"{FIX}; only serving needs it")
