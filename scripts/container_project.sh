#!/usr/bin/env bash
# Usage: scripts/container_project.sh VENV    in the Dockerfile: installs library and project beside the packages, without an index
# The library comes from its folder or, where scripts/vendor.sh has pinned its wheel, from the file that was copied here; of a
# pinned commit it is the one that scripts/setup.sh has built, for there is no git here.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
venv=$1

build() { # build FOLDER...: writes their wheels into wheels/
  python -m pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir wheels "$@"
}

recorded() { # recorded KEY: of the library, as scripts/setup.sh reads it
  sed -n "/^\[tool\.trainyard\]/,/^\[/s/^$1 = \"\(.*\)\"\$/\1/p" pyproject.toml
}

pinned=$(recorded wheel)
case $pinned in
  '') build ./src/trainyard ;;
  git+*)
    commit=${pinned##*@} && commit=${commit%%#*}
    mv -- "git/$commit" wheels 2>/dev/null || {
      printf 'container_project: the wheel of %s is not in vendor/git; run scripts/setup.sh first, which builds it\n' "$pinned" >&2
      exit 2
    }
    ;;
  *)
    mkdir wheels
    mv -- "${pinned##*/}" wheels/
    printf '%s  wheels/%s\n' "$(recorded sha256)" "${pinned##*/}" | sha256sum --check --quiet
    ;;
esac
build .
python -m pip --python "$venv/bin/python" install --no-cache-dir --disable-pip-version-check --quiet \
  --no-deps --no-index wheels/*.whl
# Where an installed library looks for what is deployed.
cp -R serving "$("$venv/bin/python" -c 'from trainyard.torchserve.deployment import INSTALLED; print(INSTALLED)')"
