#!/bin/sh
# Does `pip install -r requirements.txt` resolve under a constraints file, as NVIDIA's containers
# and many clusters have one? By pip and by uv; without installing (INSTALL=1 installs as well, a
# few GB and minutes each). Needs a package index; run by hand, no part of `make test`.
#
#   sh requirements/try_constraints.sh [CONSTRAINT ...]      default: torchvision, torch, numpy
set -eu
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3.11}"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM

[ $# -gt 0 ] || set -- 'torchvision<=0.29.1' 'torch<=2.13.0' 'numpy<2.3'
printf '%s\n' "$@" > "$folder/constraints.txt"
echo "constraints: $*"

dry="--dry-run"
[ -z "${INSTALL:-}" ] || dry=""

"$PYTHON" -m venv "$folder/pip"
"$folder/pip/bin/pip" install --quiet --disable-pip-version-check uv
# The placeholders' own constraints file is the machine's: PIP_CONSTRAINT, as containers set it.
for tool in pip uv; do
    "$PYTHON" -m venv "$folder/$tool-env"
    for with in "" "$folder/constraints.txt"; do
        if [ "$tool" = pip ]; then
            # shellcheck disable=SC2086  # empty or one word
            PIP_CONSTRAINT="$with" "$folder/pip-env/bin/python" -m pip install --quiet \
                --disable-pip-version-check $dry -r requirements.txt
        else
            # shellcheck disable=SC2086
            UV_CONSTRAINT="$with" "$folder/pip/bin/uv" pip install --quiet \
                --python "$folder/uv-env/bin/python" $dry -r requirements.txt
        fi
        echo "$tool ${with:+with constraints }ok"
    done
done
echo "make's way, --no-deps, under the constraints:"
PIP_CONSTRAINT="$folder/constraints.txt" "$folder/pip-env/bin/python" -m pip install --quiet \
    --disable-pip-version-check --dry-run --no-deps -r requirements/locked.txt
echo ok
