// SPDX-License-Identifier: MIT
// The header for C in a program of C++11, with one layer.
#include "mole/c/mole.h"

#include <cmath>
#include <cstdio>
#include <memory>
#include <vector>

static_assert(__cplusplus < 201402L, "this program is compiled as C++11");

int main() {
  const std::vector<float> weight = {1, 2, 3, 4, 5, 6}, x = {1, -1, 2};
  std::vector<float> y(2);
  mole_weight host = {};
  host.data = weight.data();
  host.out = 2;
  host.in = 3;
  mole_layer* made = nullptr;
  if (mole_layer_create("lora", "rank=2", &host, &made) != MOLE_OK) return std::puts(mole_last_error()), 1;
  const std::unique_ptr<mole_layer, void (*)(mole_layer*)> layer(made, mole_layer_destroy);
  mole_workspace* work = nullptr;
  if (mole_workspace_create(layer.get(), 1, &work) != MOLE_OK) return std::puts(mole_last_error()), 1;
  const mole_status status = mole_forward(layer.get(), x.data(), y.data(), 1, nullptr, work);
  // Two tokens that are columns 1 to 3 of rows of 4.
  const std::vector<float> wide = {9, 1, -1, 2, 9, 0, 1, 0};
  std::vector<float> wide_y(6);
  mole_workspace_destroy(work);
  if (mole_workspace_create(layer.get(), 2, &work) != MOLE_OK) return std::puts(mole_last_error()), 1;
  const mole_status strided = mole_forward_strided(layer.get(), wide.data() + 1, 4, wide_y.data(), 3, 2, nullptr, work);
  mole_workspace_destroy(work);
  if (strided != MOLE_OK || wide_y[0] != y[0] || wide_y[3] != 2 || wide_y[4] != 5 || wide_y[5] != 0) return 1;
  return status == MOLE_OK && std::fabs(y[0] - 5) < 1e-6f && std::fabs(y[1] - 11) < 1e-6f ? 0 : 1;
}
