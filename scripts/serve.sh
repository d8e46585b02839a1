#!/usr/bin/env bash
# Usage: scripts/serve.sh [NAME=]RUN... [--port 8080] [--json] ...    e.g. scripts/serve.sh runs/digits_resnet/latest
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
python=${TRAINYARD_PYTHON:-$root/.venv/bin/python} # TRAINYARD_PYTHON: an environment of your own, a container's say

command -v -- "$python" >/dev/null || {
  printf 'serve: there is no %s; run scripts/setup.sh first.\n' "$python" >&2
  exit 2
}
exec "$python" -m trainyard serve "$@"
