#!/usr/bin/env bash
# Usage: scripts/rename.sh my_project    turns a fresh clone into a project of your own: package, imports, command, title,
# image name and environment variables. A hyphen (my-project) goes into the command; the package gets an underscore.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
  printf 'rename: %s is not Python 3.11 or newer; name one: PYTHON=python3.12 scripts/rename.sh NAME\n' "$python" >&2
  exit 2
}
exec "$python" "$root/scripts/rename.py" "$@"
