#!/usr/bin/env bash
# Usage: scripts/train.sh CONFIG [key=value ...]    e.g. scripts/train.sh configs/digits_resnet.yaml trainer.max_epochs=3
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
python=${TRAINYARD_PYTHON:-$root/.venv/bin/python} # TRAINYARD_PYTHON: an environment of your own, a container's say

command -v -- "$python" >/dev/null || {
  printf 'train: there is no %s; run scripts/setup.sh first.\n' "$python" >&2
  exit 2
}
exec "$python" -m trainyard train "$@"
