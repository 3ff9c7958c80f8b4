# SPDX-License-Identifier: MIT
# For tests of $program: a folder $work that is gone at the end, and fail TEXT, which shows the end of $work/log.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
  echo "$(basename "$program"): $1" >&2
  [ ! -s "$work/log" ] || tail -n 20 "$work/log" >&2
  exit 1
}
