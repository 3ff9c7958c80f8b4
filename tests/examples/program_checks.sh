#!/bin/sh
# SPDX-License-Identifier: MIT
# What the tests of the programs share. Reads $program, and makes $work with three domains of 34 kB each: this project's
# own text.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
  echo "$(basename "$program"): $1" >&2
  [ ! -s "$work/log" ] || tail -n 5 "$work/log" >&2
  exit 1
}

cat include/mole/*/*.hpp | head -c 34000 >"$work/library"
cat tests/*/*.cpp | head -c 34000 >"$work/tests"
cat examples/*/*.hpp | head -c 34000 >"$work/examples"
texts="$work/library $work/tests $work/examples --cache $work/cache --base-steps 4 --batch 4"

# stop TEXT ARGUMENTS...: sends Ctrl-C when TEXT is in the progress of a run.
stop() {
  text=$1
  shift
  "$program" $texts "$@" >"$work/log" 2>&1 &
  stopped=$!
  tries=0
  until grep -q "$text" "$work/log"; do
    tries=$((tries + 1))
    [ "$tries" -lt 600 ] || fail "expected a line of progress"
    sleep 0.05
  done
  kill -INT "$stopped"
  code=0
  wait "$stopped" || code=$?
  [ "$code" = 130 ] || fail "expected exit code 130 after Ctrl-C, found $code"
}

# refused ARGUMENTS...: expects one clear line and exit code 2.
refused() {
  code=0
  "$program" --out "$work/bad" "$@" >"$work/out" 2>"$work/log" || code=$?
  [ "$code" = 2 ] || fail "expected exit code 2 for '$*', found $code"
  [ "$(wc -l <"$work/log")" = 1 ] || fail "expected one line for '$*'"
}
