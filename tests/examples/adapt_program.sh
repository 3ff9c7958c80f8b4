#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs the program `adapt` on small text: to the end, stopped and resumed, on several threads, and on bad input.
set -eu
program=$1
. tests/examples/program_checks.sh
texts="$texts --rounds 1"
run() { "$program" $texts "$@" >"$work/log" 2>&1 || fail "failed: $*"; }
same() { cmp -s "$work/$1" "$work/$2" || fail "$1 and $2 differ"; }

# The same seed gives the same bits on any number of threads, another seed does not.
run --steps 2 --threads 1 --out "$work/one" --method all
run --steps 2 --threads 3 --out "$work/three" --method all
run --steps 2 --threads 3 --out "$work/other" --method mola --only --seed 2
"$program" --help >"$work/help" || fail "expected exit code 0 for --help"
for file in "$work"/one/*.safetensors; do
  method=$(basename "$file" .safetensors)
  same "one/$method.safetensors" "three/$method.safetensors"
  grep -q "[ ,]$method\(,\|\$\)" "$work/help" || fail "expected $method in the help"
done
[ "$(ls "$work"/one/*.safetensors | wc -l)" -ge 42 ] || fail "expected 42 methods or more"
cmp -s "$work/one/mola.safetensors" "$work/other/mola.safetensors" && fail "seeds 1 and 2 give the same adapter"
grep -q '<svg' "$work/one/report.html" || fail "expected a picture in the report"
grep -q '<script' "$work/one/report.html" && fail "expected no script in the report"

# Ctrl-C saves, --resume goes on and gives the bits of a run that never stopped: of a router, of a bias that a balancer
# moves, of gates that a schedule shrinks, of modules that were chosen half-way, of a cell that all routers share.
stop_and_resume() {
  run --steps 12 --out "$work/whole" --method "$1" --only
  stop 7 --steps 12 --out "$work/stopped" --method "$1" --only
  cmp -s "$work/whole/$1.safetensors" "$work/stopped/$1.safetensors" && fail "expected a stopped run, found a whole one"
  run --steps 12 --out "$work/stopped" --method "$1" --only --resume
  same "whole/$1.safetensors" "stopped/$1.safetensors"
}
stop_and_resume mola
stop_and_resume smora
stop_and_resume codyra
stop_and_resume diffora
stop_and_resume rmoe

# Bad input.
refused "$work/nothing-here"
refused --steps 0
refused --seed abc
refused --method unknown
refused --only
refused --no-such-option
printf 'not a checkpoint' >"$work/whole/mola.safetensors"
refused $texts --steps 12 --method mola --only --resume --out "$work/whole"
grep -q -- --resume "$work/help" || fail "expected --resume in the help"
echo "adapt_program: all as it should be"
