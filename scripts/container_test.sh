#!/usr/bin/env bash
# Usage: scripts/container_test.sh [RUN...]    builds the serving image and tests it with these exported runs; without any, with small ones that it trains
# Docker does it where there is an engine. Elsewhere, as root on Debian: buildah and podman, on a stand-in for the base
# image; what they make is kept in ~/.cache for the next call.
#   VARIANT=torch TORCH_INDEX=URL TORCH_SHA256=DIGEST   build arguments of the Dockerfile
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
python=${TRAINYARD_PYTHON:-$root/.venv/bin/python}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/trainyard-container
base=docker.io/library/python:3.11-slim-bookworm # as the Dockerfile's BASE

fail() {
  printf 'container_test: %s\n' "$1" >&2
  exit 2
}

write_engine_config() { # storage of its own, runc, and limits that a container in a container may have
  printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "%s"\n' "$cache/graph" "$cache/run" >"$cache/storage.conf"
  printf '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n[engine]\nruntime = "runc"\n' >"$cache/containers.conf"
  printf 'unqualified-search-registries = ["docker.io"]\n' >"$cache/registries.conf"
  export CONTAINERS_STORAGE_CONF=$cache/storage.conf CONTAINERS_CONF=$cache/containers.conf
  export CONTAINERS_REGISTRIES_CONF=$cache/registries.conf
}

write_pip_config() { # what pip needs on this machine, for the build's secrets: an index, certificates
  local index certificates
  secrets=(--secret "id=pip,src=$work/pip.conf")
  printf '[global]\n' >"$work/pip.conf"
  index=$("$python" -m pip config list | sed -n "s/^\(global\|:env:\)\.index-url='\(.*\)'$/\2/p" | tail -n 1)
  certificates=$("$python" -m pip config list | sed -n "s/^\(global\|:env:\)\.cert='\(.*\)'$/\2/p" | tail -n 1)
  [[ -z $index ]] || printf 'index-url = %s\n' "$index" >>"$work/pip.conf"
  if [[ -f $certificates ]]; then
    printf 'cert = /run/secrets/ca\n' >>"$work/pip.conf"
    secrets+=(--secret "id=ca,src=$certificates")
  fi
}

prepare_podman() {
  local tool
  [[ $(id -u) == 0 ]] || fail "there is no Docker engine, and podman's way needs root; start Docker, or call this as root."
  for tool in buildah podman runc mmdebstrap; do
    command -v "$tool" >/dev/null || fail "there is no Docker engine and no $tool; start Docker, or install what .ci/run installs."
  done
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock 9 # one at a time: they share the storage and the image's name
  write_engine_config
  if ! podman image exists "$base"; then
    "$root/scripts/container_base.sh" "$work/base.tar"
    podman import --quiet "$work/base.tar" "$base" >/dev/null
    rm -- "$work/base.tar"
  fi
}

build() { # build TAG: with the variant's build arguments
  local arguments=() name
  for name in VARIANT TORCH_INDEX TORCH_SHA256; do
    [[ -z ${!name:-} ]] || arguments+=(--build-arg "$name=${!name}")
  done
  if [[ $engine == docker ]]; then
    DOCKER_BUILDKIT=1 docker build "${secrets[@]}" "${arguments[@]}" --tag "$1" "$root"
  else
    local command=(buildah bud --format docker --layers --pull-never "${secrets[@]}" "${arguments[@]}")
    # The stage gets a name to be kept by, so that its packages are there the next time; what earlier calls left goes.
    "${command[@]}" --target build --tag "$1-stage" "$root"
    "${command[@]}" --tag "$1" "$root"
    buildah rm --all >/dev/null # what builds that were ended left, which would keep their images
    podman image prune --force >/dev/null
  fi
}

small_run() { # small_run CONFIG [key=value ...]: trains and exports a model of a few examples, and prints its run folder
  local run code=0
  run=$("$python" -m trainyard train "$root/configs/$1.yaml" "out=$work/runs" "${@:2}" trainer.devices=cpu \
    trainer.loggers=[] | tail -n 1)
  "$python" -m trainyard export "$run" --formats onnx,onnx-int8 >&2 || code=$?
  [[ $code == 0 || $code == 3 ]] || exit "$code" # 3: a format was refused; the others serve
  printf '%s\n' "$run"
}

command -v -- "$python" >/dev/null || fail "there is no $python; run scripts/setup.sh first."
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
chmod 755 "$work" # the image's user reads the runs in it

engine=podman
if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
  engine=docker
else
  prepare_podman
fi
write_pip_config
image=localhost/trainyard:test-${VARIANT:-onnx}
build "$image"

runs=("$@")
if [[ $# == 0 ]]; then
  runs=("$(small_run digits_resnet data.limit=800 trainer.max_epochs=3)" "$(small_run tickets_bert data.limit=800 trainer.max_epochs=3)")
fi
"$python" "$root/scripts/container_checks.py" "$engine" "$image" "${runs[@]}"
