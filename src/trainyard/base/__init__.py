"""What everything stands on: errors, atomic files, the machine."""
