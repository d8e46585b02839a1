#!/usr/bin/env bash
# Usage: scripts/release.sh VERSION [--tested]    for the makers of Trainyard: tests, commits and tags a release, and builds its wheel
#   --tested    all tests have passed on this commit (in CI); here only the ones of earlier releases run
# Sets the version and its heading in the CHANGELOG, makes the fixture of a first release (x.y.0), and writes wheel, digest and list
# of parts (SBOM) into dist/. Nothing is pushed. What fails or is interrupted before the tag is taken back; afterwards, the same call
# goes on. scripts/rename.sh takes it away: your project isn't Trainyard.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
version=${1:-} tested=${2:-}
tag=v$version
python=${TRAINYARD_PYTHON:-$PWD/.venv/bin/python}
fixture=tests/template/fixtures/$version
own=(src/trainyard/base/version.py CHANGELOG.md) # what a release commits
# A fixture is 3 MB that each clone pays for good, so the first release of a minor version alone has one, and keeps it: the later
# ones write the same layouts. Where one doesn't, its fixture is made and committed by hand before.
[[ ! $version =~ \.0$ || -n $(git ls-files -- "$fixture") ]] || own+=("$fixture")
tools=.cache/release-tools

fail() {
  printf 'release: %s\n' "$1" >&2
  exit 2
}

check() { # that this is a state to be released under that number
  local newest
  [[ $(git symbolic-ref --quiet --short HEAD) == main ]] || fail "a release is made on main; git switch main first."
  newest=$(git tag --list 'v[0-9]*' | "$python" -c '
import sys
from packaging.version import Version
print(max((line.strip()[1:] for line in sys.stdin), key=Version, default=""))')
  "$python" -c '
import sys
from packaging.version import Version
sys.exit(sys.argv[2] != "" and Version(sys.argv[1]) <= Version(sys.argv[2]))' "$version" "$newest" ||
    fail "$version isn't newer than the last release, $newest; choose a higher number."
}

set_version() { # in the library and in the CHANGELOG; a second time it changes nothing
  "$python" - "$version" <<'PYTHON'
import datetime, pathlib, re, sys

version = sys.argv[1]
module, changelog = pathlib.Path("src/trainyard/base/version.py"), pathlib.Path("CHANGELOG.md")
module.write_text(re.sub(r'(?m)^VERSION = ".*"', f'VERSION = "{version}"', module.read_text()))
text = changelog.read_text()
if f"## [{version}]" not in text:
    heading = f"## [Unreleased]\n\n## [{version}] - {datetime.date.today()}\n"
    changelog.write_text(text.replace("## [Unreleased]\n", heading, 1))
PYTHON
}

make_fixture() { # what later releases are held against; one that an ended call left is of an earlier state
  printf 'release: making %s (some minutes)\n' "$fixture"
  rm -rf -- .cache/fixture "$fixture"
  mkdir -p .cache
  PYTHONPATH=$PWD/src "$python" tests/template/fixtures/make.py .cache/fixture
  mv -- .cache/fixture "$fixture"
}

run_tests() {
  if [[ $tested == --tested ]]; then
    printf 'release: running the tests of earlier releases\n'
    "$python" -m pytest -m "slow or not slow" tests/template/test_earlier_releases.py
  else
    printf 'release: running all tests (some 40 minutes; --tested where they have passed)\n'
    scripts/test.sh --all
  fi
}

undo() { # what isn't tagged leaves nothing behind
  ! git rev-parse --verify --quiet "refs/tags/$tag" >/dev/null || return 0
  [[ ${committed:-} != "$(git rev-parse HEAD)" ]] || git reset --quiet --soft HEAD~1
  git reset --quiet -- "${own[@]}"
  git checkout --quiet -- "${own[@]:0:2}"
  [[ ${#own[@]} == 2 ]] || rm -rf -- "$fixture"
  printf 'release: %s was not made; nothing is changed, committed or tagged\n' "$version" >&2
}

commit_and_tag() {
  local start
  start=$(git rev-parse HEAD)
  trap undo EXIT
  set_version
  [[ ${#own[@]} == 2 ]] || make_fixture
  git add --force -- "${own[@]}" # before the tests, of which some copy what git knows
  run_tests
  [[ $(git rev-parse HEAD) == "$start" ]] || fail "something was committed while the tests ran, and isn't tested; call it again."
  if ! git diff --cached --quiet; then
    git commit --quiet --message "Release $version"
    committed=$(git rev-parse HEAD)
  fi
  git tag --annotate --message "Trainyard $version" "$tag"
  trap - EXIT
}

install_tools() { # what writes the list of parts, as the Dockerfile has it
  [[ ! -x $tools/bin/cyclonedx-py ]] || return 0
  rm -rf -- "$tools"
  "$python" -m venv "$tools"
  "$tools/bin/python" -m pip install --disable-pip-version-check --quiet --no-deps \
    --require-hashes --requirement requirements-image.lock ||
    { rm -rf -- "$tools" && exit 1; }
}

build() { # what is published, of the tag: the same bytes each time
  local wheel
  rm -rf -- dist
  wheel=$(scripts/vendor.sh build "$tag" dist)
  # Of the lock, with which it was tested. The tool misses a graph of dependencies, which a lock doesn't have.
  PYTHONWARNINGS=ignore "$tools/bin/cyclonedx-py" requirements --output-reproducible --mc-type library \
    --pyproject src/trainyard/pyproject.toml --output-file "${wheel%.whl}.cdx.json" requirements.lock
  "$python" - "$wheel" "$version" <<'PYTHON'
import hashlib, json, pathlib, sys

wheel = pathlib.Path(sys.argv[1])
wheel.with_suffix(".whl.sha256").write_text(f"{hashlib.sha256(wheel.read_bytes()).hexdigest()}  {wheel.name}\n")
parts = wheel.with_suffix(".cdx.json")
listed = json.loads(parts.read_text())
listed["metadata"]["component"]["version"] = sys.argv[2]  # pyproject.toml reads it from the code, the tool doesn't
parts.write_text(json.dumps(listed, indent=2, sort_keys=True) + "\n")
PYTHON
  printf 'release: %s is in dist/; nothing is pushed. Next: git push origin main %s\n' "$version" "$tag"
}

number='(0|[1-9][0-9]*)'
[[ $version =~ ^$number\.$number\.$number((a|b|rc)$number)?$ && ($tested == --tested || $tested == "") && $# -le 2 ]] ||
  fail "say which version, as in 0.2.0 or 0.2.0rc1: scripts/release.sh VERSION [--tested]"
command -v -- "$python" >/dev/null || fail "there is no $python; run scripts/setup.sh first."

[[ -z $(git status --porcelain) ]] || fail "there are uncommitted changes; commit or stash them first."

if released=$(git rev-parse --verify --quiet "refs/tags/$tag^{commit}"); then
  [[ $released == $(git rev-parse HEAD) ]] || fail "$tag is there already, of another commit; choose a higher number."
else
  check
  install_tools # before what takes long
  commit_and_tag
fi
install_tools
build
