#!/usr/bin/env bash
# Usage: scripts/container_base.sh TAR    as root: packs a stand-in for python:3.11-slim-bookworm, made with mmdebstrap
# For machines that have no container registry: Debian's Python 3.11 in the place of the image's own, from the mirror
# that this machine's apt sources name. Takes half a minute.
set -euo pipefail
tar=$1
suite=bookworm # the Debian release whose Python is 3.11

mirror() { # the first mirror that the apt sources name for Debian itself
  find /etc/apt/sources.list /etc/apt/sources.list.d -type f -exec cat {} + 2>/dev/null |
    sed -nE 's,^(URIs:|deb) *(\[[^]]*\] *)?([^ ]*/debian/?)( .*)?$,\3,p' | sed -n 1p
}

found=$(mirror || true)
[[ -n $found ]] || {
  printf 'container_base: the apt sources of this machine name no mirror of Debian\n' >&2
  exit 2
}

# shellcheck disable=SC2016 # the hooks are expanded in mmdebstrap's shell, which has the new root as $1
mmdebstrap --quiet --mode=root --variant=minbase --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
  --include=ca-certificates,netbase,python3,python3-venv,tzdata,usr-is-merged \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --aptopt='Apt::Install-Recommends "false"' \
  --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python3" && ln -s /usr/bin/python3 "$1/usr/local/bin/python"' \
  --customize-hook='rm "$1"/usr/lib/python3.11/EXTERNALLY-MANAGED' \
  --customize-hook='chroot "$1" sh -c "PYTHONPATH=\$(echo /usr/share/python-wheels/pip-*.whl) python3 -m pip --isolated install --quiet --root-user-action ignore --no-index --find-links /usr/share/python-wheels pip setuptools"' \
  "$suite" "${tar%.tar}.part.tar" "$found"
mv -- "${tar%.tar}.part.tar" "$tar"
