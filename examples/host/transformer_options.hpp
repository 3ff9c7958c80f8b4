// SPDX-License-Identifier: MIT
#pragma once

// The sizes of the host model.

#include <stdexcept>

#include "host/matrix.hpp"

namespace host {

/// The defaults make a model of about one million weights.
struct TransformerOptions {
  Index layers = 4;
  Index width = 128;
  Index heads = 4;     // width / heads is even
  Index hidden = 512;  // width of the MLP within
  Index context = 128;

  void check() const {
    if (layers < 1 || heads < 1 || hidden < 1 || context < 1 || width < 1 || width % (2 * heads) != 0) {
      throw std::invalid_argument("transformer: sizes must be positive and width a multiple of twice the heads");
    }
  }
};

}  // namespace host
