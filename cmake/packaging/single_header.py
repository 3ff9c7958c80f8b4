#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Joins mole/mole.hpp and what it includes of the library into one header, which needs xsimd and no other file.

  single_header.py INCLUDE_FOLDER OUT
"""
import pathlib
import re
import sys

OWN = re.compile(r'\s*#include "(mole/[^"]+)"')
# Every header hides the host's macros by the first and brings them back by the second; here all of them do so together.
AROUND = ("mole/core/macros_off.hpp", "mole/core/macros_on.hpp")
NOT_REPEATED = ("// SPDX-License-Identifier:", "#pragma once")


def lines_of(folder, name, seen):
    """The lines of a header, in whose midst stand those of what it includes."""
    for line in (folder / name).read_text().splitlines():
        own = OWN.match(line)
        if own and own[1] not in AROUND and own[1] not in seen:
            seen.add(own[1])
            yield from lines_of(folder, own[1], seen)
        elif not own and not line.startswith(NOT_REPEATED):
            yield line


def around(folder, name):
    return [line for line in (folder / name).read_text().splitlines() if line.startswith("#")]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip())
    folder, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    version = re.findall(r"#define MOLE_VERSION_\w+ (\d+)", (folder / "mole/core/version.hpp").read_text())
    license_text = (pathlib.Path(__file__).resolve().parents[2] / "LICENSE").read_text()
    body = [
        "// SPDX-License-Identifier: MIT",
        f"// mole {'.'.join(version)} in one header, made from mole/mole.hpp and its parts. Needs C++20 and xsimd.",
        "//",
        *(f"// {line}".rstrip() for line in license_text.splitlines()),
        "#pragma once",
        *around(folder, AROUND[0]),
        *lines_of(folder, "mole/mole.hpp", {"mole/mole.hpp"}),
        *around(folder, AROUND[1]),
    ]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(body)) + "\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    if not out.exists() or out.read_text() != text:
        out.write_text(text)


main()
