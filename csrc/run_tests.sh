#!/usr/bin/env bash
# Builds and runs the C++ tests and the fuzz targets under AddressSanitizer and
# UndefinedBehaviorSanitizer.
#
#   csrc/run_tests.sh [BUILD_DIRECTORY]
#
# OMNI_FUZZ_SECONDS bounds the time of each fuzz target (10; 0 skips them).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-$root/build/sanitize}
seconds=${OMNI_FUZZ_SECONDS:-10}

cmake -S "$root" -B "$build" -DOMNI_BUILD_PYTHON=OFF -DOMNI_BUILD_TESTS=ON -DOMNI_SANITIZE=ON \
  -DOMNI_WARNINGS_AS_ERRORS=ON
cmake --build "$build" --parallel 2
ctest --test-dir "$build" --output-on-failure
if [ "$seconds" != 0 ]; then
  for target in "$build"/fuzz_*; do
    [ -x "$target" ] && [ -f "$target" ] || continue
    name=$(basename "$target")
    echo "$name: $("$target" "$seconds" "$root/csrc/fuzz/corpus/${name#fuzz_}"/*)"
  done
fi
echo "C++ tests passed under AddressSanitizer and UndefinedBehaviorSanitizer"
