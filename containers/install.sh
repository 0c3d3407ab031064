#!/bin/sh
# Installs what a worker needs into a new virtual environment, and renders with it, which needs no network.
#
#     containers/install.sh cpu|gpu VENV [EXTRA,...]
#
# PYTHON is the interpreter (python3), TORCH_INDEX an index with torch for CPUs alone: that of PyPI is for GPUs, and several
# times as large. If TORCH_INDEX is empty, pip's own settings decide.
set -eu
kind=$1 venv=$2 extras=${3-}
source=$(cd "$(dirname "$0")/.." && pwd)
case $kind in
    cpu) index=${TORCH_INDEX-https://download.pytorch.org/whl/cpu} ;;
    gpu) index= ;;
    *) echo "$0: $kind: give cpu or gpu" >&2 && exit 2 ;;
esac

"${PYTHON:-python3}" -m venv "$venv"
install() {
    "$venv/bin/pip" install --quiet --no-cache-dir --disable-pip-version-check --constraint "$source/constraints.txt" "$@"
}
[ -z "$index" ] || install --index-url "$index" torch
# pip builds where the source is: in a copy, so that it leaves nothing there.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$source" && cp -R LICENSE README.md model pipelines pyproject.toml setup.py transforms "$work")
install "$work${extras:+[$extras]}"
"$venv/bin/pip" check
# torch's own tests, and headers for extensions: a tenth of the environment, and used by nothing here.
rm -rf "$venv"/lib/python3*/site-packages/torch/include "$venv"/lib/python3*/site-packages/torch/test

# Away from the source, so that only what is installed is found.
cd /
"$venv/bin/infinitygan" render --width 256 --height 128 --out "$work/out" --quiet
