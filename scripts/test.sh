#!/usr/bin/env bash
# Usage: scripts/test.sh [--library | --all] [pytest's arguments]    sets up, lints, checks types and layers, runs the tests
#   without a word   the project's own: tests/test_*.py
#   --library        also the library's fast ones, tests/trainyard/, and the template's, tests/template/
#   --all            everything, slow ones too
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

selection=(-m "not slow" --ignore tests/trainyard --ignore tests/template)
case ${1:-} in
  --library) selection=(-m "not slow") ;;
  --all) selection=(-m "slow or not slow") ;;
esac
[[ ! ${1:-} =~ ^--(library|all)$ ]] || shift

# What an update or a merge left undecided, in a file of any kind; without git there was no merge.
if marked=$(git grep -lI -e '^<<<<<<< ' -e '^>>>>>>> ' 2>/dev/null); then
  printf 'test: a conflict is undecided, as its markers say, in: %s\n' "${marked//$'\n'/, }" >&2
  exit 3
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
exec python -m pytest -n logical --maxprocesses 4 --dist loadfile "${selection[@]}" "$@"
