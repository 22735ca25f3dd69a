#!/bin/sh
# Say in one line why an interpreter will not do, before pip says it in a hundred:
# `sh requirements/check_python.sh PYTHON`.
set -eu

python="$1"
if ! found="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"; then
    echo "$python does not run here: name Python 3.11 or 3.12, as in make install PYTHON=python3.12" >&2
    exit 2
fi
case "$found" in
3.11 | 3.12) ;;
*)
    echo "$python is Python $found: the lock needs 3.11 or 3.12 (README, \"What a fresh machine" \
        "installs\", says what stands in the way); make ... PYTHON=python3.11, in a new VENV" >&2
    exit 2
    ;;
esac
