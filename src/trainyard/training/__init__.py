"""The LightningModule, the run, schedules, checkpoints."""
