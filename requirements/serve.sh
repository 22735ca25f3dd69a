#!/bin/sh
# Start the server: `make serve`. Arguments are pairs for --conf; the rest comes from the
# environment (VENV, HOST, PORT, STUDIES).
set -eu

if [ -z "${STUDIES}" ]; then
    STUDIES=studies/demo
    if [ ! -d "${STUDIES}" ]; then
        echo "No STUDIES given: making a demo study in ${STUDIES}"
        "${VENV}/bin/python" main.py demo --studies "${STUDIES}"
    fi
fi

conf=""
while [ $# -gt 1 ]; do
    conf="${conf} --conf $1 $2"
    shift 2
done

cat <<END

Neuropil serves ${STUDIES}
  3D Slicer  module MONAI Label, server address  http://${HOST}:${PORT}
  OHIF       http://${HOST}:${PORT}/ohif/  (when STUDIES is a DICOMweb address)
  health     http://${HOST}:${PORT}/info/
Stop with Ctrl-C.

END

# The environment's programs come first, as after "activate": the server looks for some.
PATH="$(cd "${VENV}/bin" && pwd):${PATH}"
export PATH
# shellcheck disable=SC2086  # conf is a list of words
exec monailabel start_server --app . --studies "${STUDIES}" --host "${HOST}" --port "${PORT}" ${conf}
