#!/bin/sh
# SPDX-License-Identifier: MIT
# golden_test must tell a changed number, an unknown option, a broken file, an unknown method and an empty folder apart.
set -eu
golden_test=$1
source=$(dirname "$0")/lora-1.safetensors
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# expect CODE TEXT: the program's exit code, and something it prints
expect() {
  code=0
  MOLE_GOLDEN_DIR=$work "$golden_test" >"$work/log" || code=$?
  [ "$code" = "$1" ] || { echo "expected exit code $1, found $code" >&2; cat "$work/log" >&2; exit 1; }
  grep -q -- "$2" "$work/log" || { echo "expected '$2'" >&2; cat "$work/log" >&2; exit 1; }
  rm -f "$work"/*.safetensors
}

expect 1 "golden: 0 matched, 1 failed, 0 not covered"

cp "$source" "$work/same.safetensors"
expect 0 "golden: 1 matched, 0 failed, 0 not covered"

# The last tensor of the file is y.
cp "$source" "$work/changed.safetensors"
printf '\101\102\103\104' | dd of="$work/changed.safetensors" bs=1 seek=$(($(wc -c <"$source") - 40)) conv=notrunc 2>/dev/null
expect 1 "FAILED changed.safetensors: y (Simd): largest error"

LC_ALL=C sed 's/"alpha":/"alphx":/' "$source" >"$work/option.safetensors"
expect 1 "FAILED option.safetensors: option alphx .*unknown"

head -c 1000 "$source" >"$work/cut.safetensors"
expect 1 "FAILED cut.safetensors: .*expected"

LC_ALL=C sed 's/"method":"lora"/"method":"lorx"/' "$source" >"$work/unknown.safetensors"
expect 0 "golden: 0 matched, 0 failed, 1 not covered"

cp "$source" "$work/same.safetensors"
"$golden_test" "$work" | grep -q "golden: 1 matched, 0 failed, 0 not covered"
echo "golden_test fails where it should"
