#!/usr/bin/env bash
# Usage: scripts/container_packages.sh VENV VARIANT    in the Dockerfile: installs what serves into an environment, all of it locked
#   VARIANT       onnx, torch or gpu; the Dockerfile says what each is
#   TORCH_INDEX   (environment) torch comes from that package index, for instance PyTorch's CPU-only wheels, which
#                 are other files than those in the lock: TORCH_SHA256 is then the digest that the wheel must have
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
venv=$1 variant=$2

chosen=$(mktemp) # a file: pip reads it in a process of its own, which doesn't get the pipe of a <(...)
trap 'rm -f -- "$chosen"' EXIT

choose_without() { # choose_without PATTERN: the lock less the packages whose name is the pattern
  awk -v pattern="^($1)==" '/^[^ #]/ { dropped = $0 ~ pattern } !dropped' requirements-serve-torch.lock >"$chosen"
}

install() {
  python -m pip --python "$venv/bin/python" install \
    --no-cache-dir --disable-pip-version-check --root-user-action ignore --quiet --no-deps "$@"
}

install_torch_of_index() {
  local torch hash=
  torch=$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements-serve-torch.lock)
  if [[ -n ${TORCH_SHA256:-} ]]; then
    hash="--hash=sha256:$TORCH_SHA256"
  else
    printf 'container_packages: %s of %s is not checked; TORCH_SHA256 does that\n' "$torch" "$TORCH_INDEX" >&2
  fi
  printf '%s %s\n' "$torch" "$hash" >"$chosen"
  install --index-url "$TORCH_INDEX" --requirement "$chosen"
}

case $variant in
  onnx)
    install --require-hashes --requirement requirements-serve.lock
    ;;
  torch)
    if [[ -n ${TORCH_INDEX:-} ]]; then
      install_torch_of_index
      choose_without 'onnxruntime-gpu|torch|triton|(nvidia|cuda)-[a-z0-9-]+'
    else
      choose_without onnxruntime-gpu
    fi
    install --require-hashes --requirement "$chosen"
    ;;
  gpu)
    choose_without onnxruntime
    install --require-hashes --requirement "$chosen"
    ;;
  *)
    printf 'container_packages: there is no variant %s; name onnx, torch or gpu\n' "$variant" >&2
    exit 2
    ;;
esac
