// SPDX-License-Identifier: MIT
// The host model that the programs adapt: one type, compiled once, in pretraining.cpp.
#pragma once

#include "host/transformer.hpp"

namespace training {

using Model = host::Transformer<float>;

}  // namespace training

extern template class host::Transformer<float>;
