#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Names each public entity of namespace mole that has no doc comment, from Doxygen's XML.

  check_documented.py FOLDER_OF_XML

An entity is a type, concept, function, alias, constant or enumeration of a namespace. One of several overloads is enough. A type
whose every member is documented, such as options, needs none itself. What a policy must have (its Parameters, forward(), ...) is
documented by its concept. mole::kernel and everything called detail are not public.
"""
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

TYPES = ("class", "struct", "union", "concept")
HIDDEN = ("mole::kernel", "mole::detail")


def documented(element):
    return any(text.strip() for part in ("briefdescription", "detaileddescription")
               for found in element.findall(part) for text in found.itertext())


def has_documented_members(compound):
    members = [m for m in compound.iter("memberdef") if m.get("kind") == "variable" and m.get("prot") == "public"]
    return bool(members) and all(documented(member) for member in members)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    compounds = [compound for path in pathlib.Path(sys.argv[1]).glob("*.xml")
                 for compound in ElementTree.parse(path).getroot().iter("compounddef")]
    types = {c.findtext("compoundname") for c in compounds if c.get("kind") in TYPES}
    found = {}  # by name: where it is, and whether it is documented

    def see(name, element, is_documented):
        if "<" in name or "detail" in name or name.startswith(HIDDEN):
            return
        file, before = found.get(name, ("", False))
        found[name] = (element.find("location").get("file"), before or is_documented)

    for compound in compounds:
        name = compound.findtext("compoundname")
        if compound.get("kind") in TYPES:
            if name.rpartition("::")[0] not in types:
                see(name, compound, documented(compound) or has_documented_members(compound))
        elif compound.get("kind") == "namespace":
            for member in compound.iter("memberdef"):
                full = f"{name}::{member.findtext('name')}"
                if full not in types:  # a deduction guide
                    see(full, member, documented(member))
    missing = sorted(f"{file}: {name} has no doc comment" for name, (file, is_documented) in found.items()
                     if not is_documented)
    if len(found) < 100:
        missing.append(f"expected the XML of the library in {sys.argv[1]}, found {len(found)} entities")
    if missing:
        sys.exit("\n".join(missing))
    print(f"{len(found)} public entities are documented")


main()
