"""Checks of the machine and of a config's data, before anything long is started; each complaint has its fix."""

from trainyard.doctor.checks import Check, exit_code, render
from trainyard.doctor.data import check_data, check_rehearsal, check_start
from trainyard.doctor.machine import check_machine

__all__ = ["Check", "check_data", "check_machine", "check_rehearsal", "check_start", "exit_code", "render"]
