#!/bin/sh
# SPDX-License-Identifier: MIT
# Trains small adapters by the program `adapt`, lets `route` show what their experts do, and looks for it on the pages; in
# a browser, too, where there is one.
set -eu
program=$1
adapt=$2
. tests/examples/program_checks.sh
count() { grep -o "$1" "$page" | wc -l; }
present() { grep -q "$1" "$page" || fail "expected '$1' on the page of $method"; }

"$adapt" $texts --rounds 1 --steps 2 --only --out "$work/adapters" --method mola --method deepseek_moe --method smora \
  --method compressed_experts --method rmoe --method switch_transformer --method lora >"$work/log" 2>&1 || fail "adapt failed"
domains="$work/library $work/tests $work/examples"
for method in mola deepseek_moe smora compressed_experts rmoe switch_transformer; do
  page="$work/$method.html"
  "$program" "$work/adapters/$method.safetensors" $domains --windows 2 --out "$page" >"$work/log" 2>&1 ||
    fail "failed on $method"
  present '^<!doctype html>'
  present '</html>'
  present '<h2>Through the layers</h2>'
  present '<th>gate mass</th>'
  present 'all tokens'   # the last row of a heat map
  [ "$(count '<details id=')" = 16 ] || fail "expected 16 layers of $method"
  [ "$(count '<pre>')" = 48 ] || fail "expected a text of each domain in each layer of $method"
  grep -qE '<script|src=|https?://[^w]' "$page" && fail "expected a page that needs nothing else, of $method"
done

# 128 bytes of 3 domains in 16 layers, each with the two experts of MoLA; what each adds is drawn.
page="$work/mola.html" method=mola
[ "$(count '<span class="[e0-9 a-z]*" title="')" = 6144 ] || fail "expected 6144 bytes of mola"
[ "$(count 'title="expert [0-7]: gate [0-9.]*, share [0-9-]* %; expert [0-7]: gate')" = 6144 ] ||
  fail "expected two experts of each byte"
[ "$(count 'What each expert adds to each byte')" = 48 ] || fail "expected what experts add"
[ "$(count 'aria-label="experts by domains"')" = 16 ] || fail "expected a matrix of each layer"
present '>2.00</td>'
page="$work/compressed_experts.html" method=compressed_experts
[ "$(count 'What each expert adds to each byte')" = 0 ] || fail "expected nothing about experts that act on each other"
page="$work/deepseek_moe.html" method=deepseek_moe
[ "$(count 'title="expert 1[34]: gate 1.00')" = 6144 ] || fail "expected the shared experts, with the largest gates"
page="$work/switch_transformer.html" method=switch_transformer
present 'title="no expert"'

# A browser finds the same, and draws it.
if browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome); then
  browse() {
    timeout 60 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" "$@" 2>/dev/null
  }
  page="$work/dom.html" method=mola
  browse --dump-dom "file://$work/mola.html" >"$page" || fail "the browser failed"
  [ "$(count '<span class="[e0-9 a-z]*" title="')" = 6144 ] || fail "expected 6144 bytes of mola in the browser"
  [ "$(count 'aria-label="experts by domains"')" = 16 ] || fail "expected a matrix of each layer in the browser"
  browse --window-size=1200,2400 --screenshot="$work/mola.png" "file://$work/mola.html" || fail "the browser failed"
  [ "$(wc -c <"$work/mola.png")" -gt 50000 ] || fail "expected a screenshot with something on it"
else
  echo "route_program: no chromium here, so the pages were read, but not drawn"
fi

# Bad input.
refused_by_route() {
  code=0
  "$program" "$@" >"$work/out" 2>"$work/log" || code=$?
  [ "$code" = 2 ] || fail "expected exit code 2 for '$*', found $code"
  [ "$(wc -l <"$work/log")" = 1 ] || fail "expected one line for '$*'"
}
refused_by_route
refused_by_route "$work/nothing-here"
refused_by_route "$work/library"
refused_by_route "$work/adapters/lora.safetensors" $domains --out "$work/no.html"
refused_by_route "$work/adapters/mola.safetensors" $domains --base "$work/adapters/lora.safetensors"
refused_by_route "$work/adapters/mola.safetensors" $domains --windows 0
refused_by_route "$work/adapters/mola.safetensors" $domains "$work/adapters"
refused_by_route "$work/adapters/mola.safetensors" $domains --out "$work/no-such-folder/page.html"
[ ! -e "$work/no.html" ] || fail "expected no page of a method without a router"
echo "route_program: all as it should be"
