#!/bin/sh
# Does the app work with MONAI Label's next version? Its main branch took pydicom 3 and highdicom,
# which the lock's pydicom<3 contradicts. A canary to run by hand, no part of `make test`: makes an
# environment of its own in FOLDER and tells which step sings.
#
#   sh requirements/canary.sh FOLDER            MONAILABEL="git+https://..." names another version
set -u
cd "$(dirname "$0")/.."
folder="${1:?FOLDER}"
PYTHON="${PYTHON:-python3.11}"
MONAILABEL="${MONAILABEL:-monailabel @ git+https://github.com/Project-MONAI/MONAILabel@main}"
DICOM="pydicom highdicom pynetdicom dicomweb-client pydicom-seg pylibjpeg"
py="$folder/bin/python"
failed=0

step() {
    name="$1"; shift
    if "$@" > "$folder/$(echo "$name" | tr ' ' '-').log" 2>&1; then echo "ok      $name"
    else echo "FAILED  $name ($folder/$(echo "$name" | tr ' ' '-').log)"; failed=1; fi
}
pip() { "$py" -m pip install --quiet --disable-pip-version-check "$@"; }

[ -x "$py" ] || "$PYTHON" -m venv "$folder" || exit 2
pattern="^(monailabel$(printf '|%s' $DICOM))=="
grep -vE "$pattern" requirements/locked.txt > "$folder/rest.txt"
step "the lock without DICOM and MONAI Label" sh requirements/install.sh "$py" "$folder/rest.txt"
step "the tools of the tests" sh requirements/install.sh "$py" requirements/dev.txt
# The rest of the lock holds as a constraint: what the next version cannot live with is told.
step "pydicom 3 and highdicom" pip -c "$folder/rest.txt" "pydicom>=3" highdicom pynetdicom dicomweb-client
step "MONAI Label" pip --no-deps "$MONAILABEL"
"$py" -m pip list 2>/dev/null | grep -iE "^(monailabel|pydicom|highdicom|pynetdicom|dicomweb|numpy) "
step "what it declares" "$py" -m pip check
export OMP_NUM_THREADS=1
step "DICOM without a server" "$py" -m pytest tests/unit/test_dicom_labels.py \
    tests/unit/test_dicom_seg.py tests/unit/test_dicom_series.py
step "MONAI Label is imported" "$py" -c "import monailabel.app, monailabel.interfaces.app"
step "DICOM stores" "$py" -m pytest tests/unit/test_dicom_store.py
step "the adapters" "$py" -m pytest tests/unit -k "server or infers or trainers or activelearning"
step "the server" "$py" -m pytest tests/contract
exit $failed
