// SPDX-License-Identifier: MIT
// The version of mole; includes nothing.
#pragma once

#define MOLE_VERSION_MAJOR 0
#define MOLE_VERSION_MINOR 1
#define MOLE_VERSION_PATCH 0
