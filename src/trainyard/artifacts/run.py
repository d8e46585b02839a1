"""What a run folder holds besides its bundle, by name; ``training.runs`` makes the folder itself."""

from __future__ import annotations

CONFIG = "config.yaml"
METRICS = "metrics.json"
METRICS_CSV = "metrics.csv"
DATA_REPORT = "data_report.json"
PREDICTIONS = "predictions.parquet"
REPORT = "report.html"
