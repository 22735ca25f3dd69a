#!/bin/sh
# Start the server: `make serve`. Arguments are pairs for --conf; the rest comes from the
# environment (VENV, HOST, PORT, STUDIES). Paths are those of the folder one calls it from.
set -eu

app="$(cd "$(dirname "$0")/.." && pwd)"
VENV="${VENV:-${app}/.venv}" HOST="${HOST:-127.0.0.1}" PORT="${PORT:-8000}"

if [ -z "${STUDIES:-}" ]; then
    STUDIES="${app}/studies/demo"
    if [ ! -d "${STUDIES}" ]; then
        echo "No STUDIES given: making a demo study in ${STUDIES}"
        "${VENV}/bin/python" "${app}/main.py" demo --studies "${STUDIES}"
    fi
fi

ohif="shows DICOM stores; STUDIES is a folder"
case "${STUDIES}" in
http://* | https://*) ohif="http://${HOST}:${PORT}/ohif/" ;;
esac

conf=""
while [ $# -gt 1 ]; do
    conf="${conf} --conf $1 $2"
    shift 2
done

cat <<END

Neuropil serves ${STUDIES}
  in a browser  http://${HOST}:${PORT}/
  3D Slicer     module MONAI Label, server address  http://${HOST}:${PORT}
  OHIF          ${ohif}
Stop with Ctrl-C.

END

# The environment's programs come first, as after "activate": the server looks for some.
PATH="$(cd "${VENV}/bin" && pwd):${PATH}"
export PATH
# shellcheck disable=SC2086  # conf is a list of words
exec monailabel start_server --app "${app}" --studies "${STUDIES}" --host "${HOST}" --port "${PORT}" ${conf}
