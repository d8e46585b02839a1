#!/usr/bin/env bash
# Usage: scripts/lock.sh [uv's options, e.g. --upgrade or --upgrade-package lightning]    writes the locks
# Needs uv (pip install uv). One version of each package serves Linux and macOS, Python 3.11 to 3.13; versions that
# are in a lock already stay unless the options say otherwise. Pins with their reasons: pyproject.toml, [tool.uv].
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

command -v uv >/dev/null || {
  printf 'lock: uv is not on the PATH; install it with: pip install uv\n' >&2
  exit 2
}

lock() { # lock FILE EXTRA... -- [uv's options]
  local file=$1 extras=()
  shift
  while [[ $1 != -- ]]; do
    extras+=(--extra "$1")
    shift
  done
  uv pip compile pyproject.toml "${extras[@]}" --output-file "$file" \
    --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --system-certs \
    --no-emit-index-url --no-emit-find-links --custom-compile-command "scripts/lock.sh" --quiet "${@:2}"
}

lock requirements.lock train export serve dev -- "$@"
# The serving image's: the same versions, without torch and all that only training needs.
lock requirements-serve.lock serve -- --constraints requirements.lock "$@"
