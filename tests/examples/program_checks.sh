#!/bin/sh
# SPDX-License-Identifier: MIT
# What the tests of the programs share. Reads $program, and makes $work with three domains of 34 kB each: this project's
# own text.
. tests/examples/work_folder.sh

cat include/mole/*/*.hpp | head -c 34000 >"$work/library"
cat tests/*/*.cpp | head -c 34000 >"$work/tests"
cat examples/*/*.hpp | head -c 34000 >"$work/examples"
texts="$work/library $work/tests $work/examples --cache $work/cache --base-steps 4 --batch 2 --windows 2"

# stop STEP ARGUMENTS...: Ctrl-C after a step of a run, of the adapters' training once the base is cached.
stop() {
  code=0
  step=$1
  shift
  INTERRUPT_AFTER_STEP=$step "$program" $texts "$@" >"$work/log" 2>&1 || code=$?
  [ "$code" = 130 ] || fail "expected exit code 130 after Ctrl-C, found $code"
}

# refused ARGUMENTS...: expects one clear line and exit code 2.
refused() {
  code=0
  "$program" --out "$work/bad" "$@" >"$work/out" 2>"$work/log" || code=$?
  [ "$code" = 2 ] || fail "expected exit code 2 for '$*', found $code"
  [ "$(wc -l <"$work/log")" = 1 ] || fail "expected one line for '$*'"
}
