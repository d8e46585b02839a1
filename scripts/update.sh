#!/usr/bin/env bash
# Usage: scripts/update.sh [VERSION] [--from URL_OR_PATH] [--keep-library]    brings a newer Trainyard, and keeps your edits
# Your files are merged, the library with its pages is replaced, and all of it is staged for you to look at, not committed.
# Without VERSION the newest one; --from takes it from another place, such as a clone on a disk; --keep-library merges
# a library that you edited, too. Exit code 3: something is left for you to decide, and is named. See docs/updating.md.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
  printf 'update: %s is not Python 3.11 or newer; name one: PYTHON=python3.12 scripts/update.sh\n' "$python" >&2
  exit 2
}
exec "$python" "$root/scripts/update.py" "$@"
