#!/bin/sh
# SPDX-License-Identifier: MIT
# A shared library exports what mole.h declares, and nothing else.   exported_symbols.sh <nm> <library> <mole.h>
set -eu
exported=$("$1" -D --defined-only "$2" | awk '{ print $NF }' | sed 's/@.*//' | sort -u)
declared=$(grep -o 'mole_[a-z_]*(' "$3" | tr -d '(' | sort -u)
for function in $declared; do
  # Comments name functions, too: those that are declared follow MOLE_API.
  grep -q "MOLE_API.*$function(" "$3" || declared=$(echo "$declared" | grep -vx "$function")
done
if [ "$exported" != "$declared" ]; then
  echo "expected exactly the functions of mole.h, found"
  printf '%s\n' "$declared" > declared.txt
  printf '%s\n' "$exported" | diff declared.txt - || true
  exit 1
fi
echo "exports $(echo "$exported" | wc -l) functions"
