#!/usr/bin/env bash
# Tests the floors of pyproject.toml: the wheel in an environment of its own with the oldest versions that its
# dependencies and the extra "onnx" allow, on Python 3.10 where there is one. No torch: the tests that need
# none, and the demo.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python=python3
for oldest in python3.10 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10.*/bin/python; do
  if "$oldest" -c '' 2>/dev/null; then python=$oldest; fi
done
"$python" -m venv "$work/venv"
# shellcheck disable=SC1091
. "$work/venv/bin/activate"

# dependencies = ["numpy>=1.26", ..] and onnx = ["onnxruntime>=1.18"]: each as ==
sed -n -E 's/^(dependencies|onnx) = \[(.*)\]$/\2/p' "$root/pyproject.toml" \
  | grep -o '[a-z0-9_-]*>=[0-9.]*' | sed 's/>=/==/' >"$work/floors.txt"
[ "$(wc -l <"$work/floors.txt")" -eq 4 ] || { echo "oldest: expected four floors in pyproject.toml" >&2; exit 1; }
python -m pip install --quiet --constraint "$work/floors.txt" "$root[onnx]" \
  pytest hypothesis pillow pycocotools scipy
echo "oldest: $(python --version), $(python -m pip freeze | grep -E '^(numpy|av|tokenizers|onnxruntime)==' | paste -sd ' ')"

# Away from the checkout, so that nothing but the wheel can be imported.
cp -r "$root/tests" "$root/pyproject.toml" "$work"
export OMNI_SHARED=${OMNI_SHARED:-$(dirname "$root")/shared}
cd "$work"
pytest -q -rfE -p no:cacheprovider tests/{media,native,pipeline,bundle,output,utils,demo,bench,datasets,metrics,evaluation}
omni-sdk demo --clips 1 --out demo
echo "oldest: passed"
