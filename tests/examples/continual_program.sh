#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs the program `continual` on small text: to the end, again, on several threads, stopped, and on bad input.
set -eu
program=$1
. tests/examples/program_checks.sh
texts="$texts --rank 4"
run() { "$program" $texts "$@" >"$work/log" 2>"$work/progress" || fail "failed: $*"; }

# The same seed gives the same bits again and on any number of threads, another seed does not.
run --steps 4 --threads 1 --out "$work/one" --method all
cp "$work/log" "$work/printed"
run --steps 4 --threads 3 --out "$work/three" --method all
cmp -s "$work/one/matrix.csv" "$work/three/matrix.csv" || fail "one thread and three give different numbers"
run --steps 4 --threads 1 --out "$work/again" --method lora
grep '^lora,' "$work/one/matrix.csv" >"$work/lora"
grep '^lora,' "$work/again/matrix.csv" | cmp -s - "$work/lora" || fail "lora alone gives other numbers than among others"
run --steps 4 --threads 3 --out "$work/other" --method lora --seed 2
cmp -s "$work/again/matrix.csv" "$work/other/matrix.csv" && fail "seeds 1 and 2 give the same numbers"

# 3 rows (base, two tasks) of 3 domains for each of 4 methods, in the file, on paper and in the picture.
for method in lora lora_merged codyra moram; do
  [ "$(grep -c "^$method,[0-2],[0-2],[0-9.]*\$" "$work/one/matrix.csv")" = 9 ] || fail "expected 9 numbers of $method"
done
[ "$(wc -l <"$work/one/matrix.csv")" = 37 ] || fail "expected 36 numbers below a head"
[ "$(grep -c '^after tests' "$work/printed")" = 4 ] || fail "expected a matrix of each method"
[ "$(grep -c '^base  *[0-9]' "$work/printed")" = 4 ] || fail "expected a row of the base in each matrix"
grep -q 'forgotten' "$work/printed" || fail "expected a summary"
page="$work/one/report.html"
count() { grep -o "$1" "$page" | wc -l; }
[ "$(count '<svg ')" = 4 ] && [ "$(count '</svg>')" = 4 ] || fail "expected 4 whole pictures"
[ "$(count '<text ')" = "$(count '</text>')" ] || fail "expected every text of a picture to be closed"
[ "$(count '<rect [^>]*/>')" = "$(count '<rect ')" ] || fail "expected every rectangle to be closed"
[ "$(count '<rect class="frame"')" = 12 ] || fail "expected a frame in each row of each picture"
grep -q '<script' "$page" && fail "expected no script in the report"
grep -q 'nan\|inf' "$work/one/matrix.csv" && fail "expected numbers"

# Ctrl-C: one clear line.
stop 7 --steps 40 --out "$work/stopped" --method lora
[ "$(grep -c 'continual: stopped' "$work/log")" = 1 ] || fail "expected a line that says so"

# Bad input.
refused "$work/nothing-here"
refused --steps 0
refused --rank 0
refused --no-such-option
refused $texts --method mola
refused "$work/library" "$work/tests" --cache "$work/cache"
grep -q 'two tasks or more' "$work/log" || fail "expected the number of domains in the reason"
"$program" --help >"$work/out" || fail "expected exit code 0 for --help"
grep -q 'codyra' "$work/out" || fail "expected the methods in the help"
echo "continual_program: all as it should be"
