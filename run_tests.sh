#!/usr/bin/env bash
# Install what the tests need into the active environment, then run them all.
set -euo pipefail
cd "$(dirname "$0")"
python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
python -m pytest "$@"
