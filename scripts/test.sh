#!/usr/bin/env bash
# Usage: scripts/test.sh [--all] [pytest's arguments]    sets up, lints, checks types, runs the fast tests; --all: also the slow
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

selection="not slow"
if [[ ${1:-} == --all ]]; then
  selection="slow or not slow"
  shift
fi

scripts/setup.sh
PATH=$PWD/.venv/bin:$PATH
ruff check .
ruff format --check .
mypy
lint-imports --no-cache
if command -v shellcheck >/dev/null && command -v hadolint >/dev/null; then
  shellcheck scripts/*.sh .ci/run
  hadolint Dockerfile
else
  printf 'test: no shellcheck and no hadolint for this platform; the scripts and the Dockerfile are not linted\n' >&2
fi

# Several small models at once: with one thread each they do not fight for the cores.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec python -m pytest -n logical --maxprocesses 4 --dist loadfile -m "$selection" "$@"
