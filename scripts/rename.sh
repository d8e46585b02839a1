#!/usr/bin/env bash
# Usage: scripts/rename.sh my_shop    makes the project yours: renames your package, and what names it; starts a README of yours
# The library (src/trainyard, tests/trainyard), its docs/ and benchmarks/ stay as they are, and so do the command trainyard
# and the variables TRAINYARD_*; our README and CHANGELOG become pages of docs/, and tests/template, which tests your files
# as shipped, goes. Works again for another name, and without git's history.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
  printf 'rename: %s is not Python 3.11 or newer; name one: PYTHON=python3.12 scripts/rename.sh NAME\n' "$python" >&2
  exit 2
}
exec "$python" "$root/scripts/rename.py" "$@"
