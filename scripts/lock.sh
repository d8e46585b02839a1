#!/usr/bin/env bash
# Usage: scripts/lock.sh [uv's options, e.g. --upgrade or --upgrade-package lightning]    writes the locks
# Needs uv (pip install uv). One version of each package serves Linux and macOS, Python 3.11 to 3.13; versions that
# are in a lock already stay unless the options say otherwise. Pins with their reasons: pyproject.toml,
# [tool.uv]; the library's floors with theirs: src/trainyard/pyproject.toml.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

command -v uv >/dev/null || {
  printf 'lock: uv is not on the PATH; install it with: pip install uv\n' >&2
  exit 2
}

lock() { # lock FILE [uv's options]
  uv pip compile --output-file "$1" --no-emit-package trainyard \
    --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --system-certs \
    --no-emit-index-url --no-emit-find-links --custom-compile-command "scripts/lock.sh" --quiet "${@:2}"
}

same=(--constraints requirements.lock) # the versions that the project was tested with
groups=(--group dev)
# What the library's tests need, where they are: not beside a wheel that scripts/vendor.sh has pinned.
[[ ! -f src/trainyard/pyproject.toml ]] || groups+=(--group src/trainyard/pyproject.toml:test)
# The library's own dependencies come by way of the project's: setup.sh installs both from this clone.
lock requirements.lock pyproject.toml --extra train "${groups[@]}" "$@"
# The serving image's: without torch and all that only training needs.
lock requirements-serve.lock pyproject.toml "${same[@]}" "$@"
# Its variants': the same with torch, and both builds of onnxruntime, of which scripts/container_packages.sh takes one.
lock requirements-serve-torch.lock pyproject.toml --group image-torch "${same[@]}" "$@"
# What builds the image and stays out of it.
lock requirements-image.lock --group image "${same[@]}" "$@"
