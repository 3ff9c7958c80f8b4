#!/bin/sh
# SPDX-License-Identifier: MIT
# Serves a few adapters for moments in all ways and mixes, and looks for what must be on the page.
set -eu
program=$1
. tests/examples/work_folder.sh
page="$work/serve.html"
small="--seconds 0.2 --rounds 2 --rank 8 --width 48 --layers 2 --batch 16 --clients 2 --threads 2 --rate 2000"

"$program" $small --adapters 40 --swaps 200 --out "$page" >"$work/out" 2>"$work/log" || fail "failed"
grep -q "page: $page" "$work/out" || fail "expected the path of the page"
for mix in skewed spread hot-set; do
  grep -q "<h2>$mix</h2>" "$page" || fail "expected $mix on the page"
  for way in MultiAdapterLinear 'loop over adapters' 'gather of matrices' 'call for each adapter'; do
    # rows/s of full batches, requests/s, requests of a batch, four percentiles, swaps, refused, waiting
    grep -qE "^$mix +$way +[1-9][0-9]* +[1-9][0-9]* +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +[1-9][0-9]* +[0-9]+ +[0-9]+$" "$work/out" ||
      fail "expected a row of $mix, $way"
    grep -q "^$mix, $way: [1-9]" "$work/log" || fail "expected a line of $mix, $way"
  done
done
[ "$(grep -o '<polyline class="curve' "$page" | wc -l)" = 12 ] || fail "expected a curve for each way and mix"
[ "$(grep -o '<td>MultiAdapterLinear</td>' "$page" | wc -l)" = 3 ] || fail "expected a row for each mix"
for part in '^<!doctype html>' '</html>' '<th>p99.9 ms</th>' '40 of up to 8 ranks'; do
  grep -q "$part" "$page" || fail "expected '$part' on the page"
done
grep -qE '<script|src=|https?://[^w]' "$page" && fail "expected a page that needs nothing else"
grep -q "$(printf '\033')" "$work/log" && fail "expected no control characters where there is no terminal"

"$program" $small --mix spread --swaps 0 --adapters 1 --out "$page" >"$work/out" 2>"$work/log" || fail "failed on one adapter"
grep -q '<h2>skewed</h2>' "$page" && fail "expected one mix"

# refused ARGUMENTS...: expects one clear line and exit code 2.
refused() {
  code=0
  "$program" --out "$work/bad" "$@" >"$work/out" 2>"$work/log" || code=$?
  [ "$code" = 2 ] || fail "expected exit code 2 for '$*', found $code"
  [ "$(wc -l <"$work/log")" = 1 ] || fail "expected one line for '$*'"
}
refused --mix all-of-them
refused --adapters 0
refused --seconds 0
refused --rank x
refused --no-such-option
code=0
"$program" --out "$work/no-such-folder/page.html" >"$work/out" 2>"$work/log" || code=$?
[ "$code" = 2 ] || fail "expected exit code 2 without the folder of the page, found $code"
grep -q "expected a folder for the page" "$work/log" || fail "expected to hear that there is no folder"
[ ! -e "$work/bad" ] || fail "expected no page"
"$program" --help >"$work/out" || fail "expected help"
grep -q -- --swaps "$work/out" || fail "expected the options in the help"
echo "serve_program: all as it should be"
