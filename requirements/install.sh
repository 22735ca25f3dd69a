#!/bin/sh
# Install a lock into an environment: `sh requirements/install.sh PYTHON LOCK`. What `make` and
# the Dockerfile do.
#
# The lock is complete, so nothing is resolved, and no constraint of the machine on a package
# that is left out (absent.txt) is in the way. Only where the index gave a CUDA build of torch
# are the CUDA packages that it declares added, which the lock does not name.
set -eu

python="$1" lock="$2"
here="$(dirname "$0")"
pip() { "$python" -m pip install --quiet --disable-pip-version-check "$@"; }

sh "$here/check_python.sh" "$python"
pip --no-deps -r "$lock"
cuda="$("$python" "$here/torch_needs.py")"
[ -z "$cuda" ] || printf '%s\n' "$cuda" | pip -r /dev/stdin
