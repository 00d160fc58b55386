#!/usr/bin/env bash
# Formats the C++ files as .clang-format says; with --check, fails where one is not.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = --check ]; then how=(--dry-run --Werror); else how=(-i); fi
git ls-files -z 'csrc/*.cpp' 'csrc/*.h' | xargs -0 clang-format "${how[@]}"
