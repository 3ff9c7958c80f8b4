// SPDX-License-Identifier: MIT
// MOLE_VERSION_MAJOR, _MINOR, _PATCH: the version of mole; includes nothing.
#pragma once

#define MOLE_VERSION_MAJOR 0
#define MOLE_VERSION_MINOR 1
#define MOLE_VERSION_PATCH 0
