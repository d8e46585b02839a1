#!/usr/bin/env bash
# Usage: scripts/vendor.sh off [--git]            takes the library's folder out of the clone, and pins its wheel by hash instead
#        scripts/vendor.sh on [--from PATH]       brings the folder back, at the version that is pinned
#        scripts/vendor.sh pin REF                moves the pin to the library of that ref, as scripts/update.sh does
#        scripts/vendor.sh build REF FOLDER       writes the wheel of that ref into a folder, the same bytes each time
# off builds the wheel into vendor/; with --git it pins a commit of the recorded source. Tests, benchmarks and pages of the
# library go and come with its folder. All is staged for you to look at, nothing is committed. See docs/updating.md.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
python=${TRAINYARD_PYTHON:-$root/.venv/bin/python} # it has the locked build backend

command -v -- "$python" >/dev/null || {
  printf 'vendor: there is no %s; run scripts/setup.sh first.\n' "$python" >&2
  exit 2
}
exec "$python" "$root/scripts/vendor.py" "$@"
