"""Whether there is a Java for TorchServe."""

from __future__ import annotations

from trainyard.doctor.checks import Check
from trainyard.torchserve.java import FIX, MIN_JAVA, complain, java_candidates, java_version


def check_java() -> Check:
    """Whether there is a Java that TorchServe runs on."""
    found = {java: java_version(java) for java in java_candidates()}
    good = [(java, version) for java, version in found.items() if version is not None and version >= MIN_JAVA]
    if good:
        java, version = good[0]
        return Check("java", "ok", f"{version} ({java})")
    detail = "; ".join(f"{java} {complain(version)}" for java, version in found.items()) or "none found"
    return Check("java", "warning", detail, f"{FIX}; only serving needs it")
