#!/bin/sh
# Drive the real viewers: `make test-viewers`. Installs what is missing where that is possible,
# runs the tests, and tells which part did not run and why. Arguments go to pytest.
#
#   VENV          the app's environment (.venv)
#   VIEWERS_VENV  the environment of Slicer's libraries (.venv-viewers)
#   VIEWERS_WEIGHTS  weights to serve instead of model/neuropil.pt
set -u

cd "$(dirname "$0")/../.." || exit 2
VENV="${VENV:-.venv}"
VIEWERS_VENV="${VIEWERS_VENV:-$PWD/.venv-viewers}"
export VIEWERS_VENV
HERE=tests/viewers

say() { printf 'test-viewers: %s\n' "$*"; }

# OHIF: a DICOMweb server and a browser, from Debian.
packages=""
command -v Orthanc >/dev/null 2>&1 || packages="$packages orthanc"
[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || packages="$packages orthanc-dicomweb"
command -v chromium >/dev/null 2>&1 || packages="$packages chromium"
command -v node >/dev/null 2>&1 || packages="$packages nodejs npm"
if [ -n "$packages" ]; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo -n"
    if command -v apt-get >/dev/null 2>&1; then
        say "installing$packages"
        # shellcheck disable=SC2086  # a list of words
        { $as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends $packages; } >/dev/null ||
            say "could not install$packages: what needs them is skipped"
    else
        say "no apt-get here to install$packages: what needs them is skipped"
    fi
fi
if command -v npm >/dev/null 2>&1; then
    [ -d "$HERE/node_modules/playwright-core" ] ||
        (cd "$HERE" && PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --no-audit --no-fund --silent) ||
        say "could not install playwright-core: the OHIF test is skipped"
fi

# Slicer: its libraries, in an environment of their own.
stamp="$VIEWERS_VENV/.installed-$(cksum < "$HERE/requirements.txt" | cut -d' ' -f1)"
if [ ! -e "$stamp" ]; then
    say "installing Slicer's libraries into $VIEWERS_VENV"
    { [ -x "$VIEWERS_VENV/bin/python" ] || "$VENV/bin/python" -m venv "$VIEWERS_VENV"; } &&
        "$VIEWERS_VENV/bin/python" -m pip install -q --disable-pip-version-check \
            -r "$HERE/requirements.txt" && touch "$stamp" ||
        say "could not install slicer-core: the Slicer test is skipped"
fi

# Everything that the tests write, but for artifacts/viewers, goes when they end.
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" "$VENV/bin/python" -m pytest "$HERE" \
    --basetemp="$scratch/tests" -p no:cacheprovider -rs --timeout 1200 "$@"
status=$?
say "screenshots and logs are in artifacts/viewers"
exit $status
