// SPDX-License-Identifier: MIT
// describe(): what an adapter or a base is, and what is unusual about it.
#pragma once

#include "inspect/found.hpp"

#include <filesystem>

#include <nlohmann/json.hpp>

namespace inspect {

using Json = nlohmann::ordered_json;

/// format, method, modules, tensors, unusual ... Reads every number once, one tensor at a time.
Json describe(const Found& found, const std::filesystem::path& path);

}  // namespace inspect
