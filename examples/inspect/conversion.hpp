// SPDX-License-Identifier: MIT
// convert(), merge(): an adapter in another format, or in the weights of a checkpoint.
#pragma once

#include "inspect/description.hpp"
#include "inspect/found.hpp"
#include "inspect/options.hpp"

namespace inspect {

/// Writes options.out in the format options.to, and says what was written. Throws mole::Error, with nothing written,
/// for what that format cannot say.
Json convert(const Found& found, const Options& options);

/// Writes the checkpoint options.merge_into with the adapter in its weights into the folder options.out.
Json merge(const Found& found, const Options& options);

}  // namespace inspect
