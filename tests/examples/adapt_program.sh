#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs the program `adapt` on small text: to the end, stopped and resumed, on several threads, and on bad input.
set -eu
adapt=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
  echo "adapt_program: $1" >&2
  [ ! -s "$work/log" ] || tail -n 5 "$work/log" >&2
  exit 1
}

# Three domains of 34 kB each: this project's own text.
cat include/mole/*/*.hpp | head -c 34000 >"$work/library"
cat tests/*/*.cpp | head -c 34000 >"$work/tests"
cat examples/*/*.hpp | head -c 34000 >"$work/examples"
set -- "$work/library" "$work/tests" "$work/examples" --cache "$work/cache" --base-steps 4 --batch 4 --rounds 1
texts=$*
run() { "$adapt" $texts "$@" >"$work/log" 2>&1 || fail "failed: $*"; }
same() { cmp -s "$work/$1" "$work/$2" || fail "$1 and $2 differ"; }

# The same seed gives the same bits on any number of threads, another seed does not.
run --steps 2 --threads 1 --out "$work/one" --method all
run --steps 2 --threads 3 --out "$work/three" --method all
run --steps 2 --threads 3 --out "$work/other" --method mola --only --seed 2
"$adapt" --help >"$work/help" || fail "expected exit code 0 for --help"
for file in "$work"/one/*.safetensors; do
  method=$(basename "$file" .safetensors)
  same "one/$method.safetensors" "three/$method.safetensors"
  grep -q "[ ,]$method\(,\|\$\)" "$work/help" || fail "expected $method in the help"
done
[ "$(ls "$work"/one/*.safetensors | wc -l)" -ge 19 ] || fail "expected 19 methods or more"
cmp -s "$work/one/mola.safetensors" "$work/other/mola.safetensors" && fail "seeds 1 and 2 give the same adapter"
grep -q '<svg' "$work/one/report.html" || fail "expected a picture in the report"
grep -q '<script' "$work/one/report.html" && fail "expected no script in the report"

# Ctrl-C saves, --resume goes on and gives the bits of a run that never stopped: of a router, of a bias that a balancer
# moves, of gates that a schedule shrinks.
stop_and_resume() {
  run --steps 40 --out "$work/whole" --method "$1" --only
  "$adapt" $texts --steps 40 --out "$work/stopped" --method "$1" --only >"$work/log" 2>&1 &
  stopped=$!
  tries=0
  until grep -q "$2.*/40" "$work/log"; do
    tries=$((tries + 1))
    [ "$tries" -lt 600 ] || fail "expected a line of progress"
    sleep 0.05
  done
  kill -INT "$stopped"
  code=0
  wait "$stopped" || code=$?
  [ "$code" = 130 ] || fail "expected exit code 130 after Ctrl-C, found $code"
  cmp -s "$work/whole/$1.safetensors" "$work/stopped/$1.safetensors" && fail "expected a stopped run, found a whole one"
  run --steps 40 --out "$work/stopped" --method "$1" --only --resume
  same "whole/$1.safetensors" "stopped/$1.safetensors"
}
stop_and_resume mola 'top-2'
stop_and_resume smora SMoRA
stop_and_resume codyra CoDyRA

# Bad input: one clear line and exit code 2.
refused() {
  code=0
  "$adapt" --out "$work/bad" "$@" >"$work/out" 2>"$work/log" || code=$?
  [ "$code" = 2 ] || fail "expected exit code 2 for '$*', found $code"
  [ "$(wc -l <"$work/log")" = 1 ] || fail "expected one line for '$*'"
}
refused "$work/nothing-here"
refused --steps 0
refused --seed abc
refused --method unknown
refused --only
refused --no-such-option
printf 'not a checkpoint' >"$work/whole/mola.safetensors"
refused $texts --steps 40 --method mola --only --resume --out "$work/whole"
grep -q -- --resume "$work/help" || fail "expected --resume in the help"
echo "adapt_program: all as it should be"
