#!/usr/bin/env bash
# Usage: scripts/setup.sh            makes .venv with the locked packages, the library and your project; a second call takes a second
#   PYTHON=python3.12   which interpreter (3.11, 3.12 or 3.13); else the one that .venv has, else the first found
#   TORCH_INDEX=URL     torch and torchvision come from that package index, for instance PyTorch's CPU-only wheels;
#                       later calls remember it, and TORCH_INDEX= (empty) goes back to the locked builds
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

venv=.venv
packages_stamp=$venv/packages.stamp # what was asked for when the packages were complete
project_stamp=$venv/project.stamp   # the same for the editable installation of library and project

fail() {
  printf 'setup: %s\n' "$1" >&2
  exit 2
}

is_supported() { # is_supported COMMAND: it runs (a pyenv shim may not), and is a Python of ours
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
  local candidate
  if [[ -n ${PYTHON:-} ]]; then
    is_supported "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11, 3.12 or 3.13 that runs; name another one."
    command -v -- "$PYTHON"
    return
  fi
  for candidate in "$venv/bin/python" python3 python3.13 python3.12 python3.11; do
    if is_supported "$candidate"; then
      # An environment's own interpreter can't rebuild the environment: name the one that it was made with.
      "$candidate" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))'
      return
    fi
  done
  fail "no Python 3.11, 3.12 or 3.13 is on the PATH; install one, or name it: PYTHON=/path/to/python3.12 scripts/setup.sh."
}

fingerprint() { # fingerprint TEXT FILE...: one digest of the text and the files' contents
  "$python" -c '
import hashlib, pathlib, sys
parts = [sys.argv[1].encode(), *(pathlib.Path(name).read_bytes() for name in sys.argv[2:])]
print(hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest())' "$@"
}

locked_version() { # locked_version NAME
  sed -n "s/^$1==\([^ ;]*\).*/\1/p" requirements.lock
}

without_torch() { # the lock less torch, torchvision, and what only the CUDA builds of them need
  awk '/^[^ #]/ { dropped = /^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==/ } !dropped' requirements.lock
}

install() {
  "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps "$verbosity" "$@"
}

install_packages() {
  printf 'setup: installing the locked packages into %s with %s (some minutes)\n' "$venv" "$("$python" -V)"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python can't make a virtual environment; install its venv package (Debian: python3-venv)."
  "$python" -m venv --clear "$venv"
  printf '%s\n' "$torch_index" >"$venv/torch-index" # first, so that an interruption does not forget it
  if [[ -n $torch_index ]]; then
    # Wheels such as 2.14.1+cpu are other files than those in the lock, so they have no hash there. They
    # come first, at the locked versions and from that index alone; everything else stays checked.
    install --index-url "$torch_index" "torch==$(locked_version torch)" "torchvision==$(locked_version torchvision)"
    install --require-hashes --requirement <(without_torch)
  else
    install --require-hashes --requirement requirements.lock
  fi
  "$venv/bin/python" -m pip check --disable-pip-version-check >/dev/null ||
    fail "the installed packages contradict each other; 'pip check' says how: $venv/bin/python -m pip check"
}

recorded() { # recorded KEY: of the library, where scripts/vendor.sh has pinned it; else nothing
  sed -n "/^\[tool\.trainyard\]/,/^\[/s/^$1 = \"\(.*\)\"\$/\1/p" pyproject.toml
}

check_wheel() { # the pinned wheel is there, and is the one that was pinned
  [[ -f $wheel ]] || fail "$wheel, the pinned library, isn't there; bring it back: git checkout -- $wheel"
  "$python" -c 'import hashlib, pathlib, sys
sys.exit(hashlib.sha256(pathlib.Path(sys.argv[1]).read_bytes()).hexdigest() != sys.argv[2])' "$wheel" "$(recorded sha256)" ||
    fail "$wheel has other bytes than those pinned in pyproject.toml; bring them back: git checkout -- $wheel"
}

install_library() { # its folder, the commit that is pinned, or the wheel by its hash
  case $wheel in
    '') install --no-build-isolation --editable src/trainyard ;;
    git+*)
      # Kept for the image, whose build has no git: not in git, under the commit's name, so that no other is taken for it.
      rm -rf -- vendor/git
      mkdir -p -- "${built%/*}"
      printf '*\n' >vendor/git/.gitignore
      "$venv/bin/python" -m pip wheel --disable-pip-version-check --no-deps --no-build-isolation "$verbosity" \
        --wheel-dir "$built.part" "$wheel"
      mv -- "$built.part" "$built"
      install --force-reinstall --no-index "$built"/*.whl
      ;;
    *)
      install --force-reinstall --no-index --require-hashes \
        --requirement <(printf './%s --hash=sha256:%s\n' "$wheel" "$(recorded sha256)")
      ;;
  esac
}

installed_projects() { # the names of the distributions that say that they are a project, one a line
  "$venv/bin/python" -c '
from importlib.metadata import entry_points
print(*sorted({point.dist.name for point in entry_points(group="trainyard.project")}), sep="\n")'
}

install_project() {
  local earlier
  # What an editable installation wrote beside the packages would go on naming a project that has another name now.
  rm -rf -- src/*.egg-info
  # An earlier name goes first: afterwards it could take files with it that both own, such as the command.
  earlier=$(installed_projects)
  [[ -z $earlier ]] || xargs "$venv/bin/python" -m pip uninstall --disable-pip-version-check --yes --quiet <<<"$earlier"
  # The build backend is in the lock, so that nothing unchecked is downloaded to build with.
  install_library
  install --no-build-isolation --editable .
}

# Two calls at a time would tear the environment apart. (macOS has no flock; there it is the user's to watch.)
if command -v flock >/dev/null; then
  exec 9>.venv.lock
  flock 9
fi

verbosity=--progress-bar=on
[[ -t 1 ]] || verbosity=--quiet
python=$(find_python)
[[ -n ${TORCH_INDEX+set} || ! -f $venv/torch-index ]] || TORCH_INDEX=$(<"$venv/torch-index")
torch_index=${TORCH_INDEX:-}
wheel=$(recorded wheel)
built= # where the wheel of a pinned commit is
library=src/trainyard/pyproject.toml # what says whether the library has to be installed anew
case $wheel in
  '') ;;
  git+*)
    library=pyproject.toml
    built=${wheel##*@} && built=vendor/git/${built%%#*}
    ;;
  *) library=$wheel && check_wheel ;;
esac

# The folder is part of it because an environment that was moved or copied does not work.
packages=$(fingerprint "$PWD $("$python" -VV) $torch_index" requirements.lock)
if [[ ! -f $packages_stamp || $(<"$packages_stamp") != "$packages" ]]; then
  rm -f -- "$packages_stamp" # an interrupted set-up has no stamp and is done again
  install_packages
  printf '%s\n' "$packages" >"$packages_stamp"
fi

project=$(fingerprint "$packages" pyproject.toml "$library")
if [[ ! -f $project_stamp || $(<"$project_stamp") != "$project" || ! -d ${built:-.} ]]; then
  rm -f -- "$project_stamp"
  install_project
  printf '%s\n' "$project" >"$project_stamp"
  printf 'setup: done, %s is ready\n' "$venv"
fi
