#!/bin/sh
# SPDX-License-Identifier: MIT
# Sets up a fresh Debian or Ubuntu machine, then builds and runs: sh cmake/quickstart.sh demo|encoder|test|examples
set -eu

case "${1:-}" in
  demo | encoder | test | examples) preset=$1 ;;
  *)
    echo "usage: sh cmake/quickstart.sh demo|encoder|test|examples" >&2
    exit 2
    ;;
esac
cd "$(dirname "$0")/.."

packages="g++ cmake ninja-build ccache libeigen3-dev libxsimd-dev nlohmann-json3-dev libcli11-dev"
[ "$preset" = test ] && packages="$packages catch2"
case "$preset" in encoder | examples) packages="$packages zlib1g-dev libutf8proc-dev" ;; esac
[ "$preset" = encoder ] && packages="$packages python3-pip"

if command -v apt-get >/dev/null 2>&1; then
  missing=""
  for package in $packages; do
    status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
    [ "$status" = "install ok installed" ] || missing="$missing $package"
  done
  if [ -n "$missing" ]; then
    echo "quickstart: installing$missing"
    as_root=""
    [ "$(id -u)" -eq 0 ] || as_root=sudo
    $as_root apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing
  fi
else
  echo "quickstart: no apt-get here; what is not installed comes through CMake's FetchContent"
fi

version=$(cmake --version 2>/dev/null | sed -n 's/^cmake version //p')
case "$version" in
  "") echo "quickstart: expected CMake 3.25 or later, found none" >&2; exit 1 ;;
  [012].* | 3.[0-9].* | 3.1[0-9].* | 3.2[0-4].*)
    echo "quickstart: expected CMake 3.25 or later, found $version" >&2
    exit 1
    ;;
esac

exec cmake --workflow --preset "$preset"
