// SPDX-License-Identifier: MIT
#include "bench/layers/coded_layer.hpp"

#include "bench/layers/frozen_layer.hpp"
#include "mole/base/bf16_base.hpp"
#include "mole/base/int8_block_base.hpp"
#include "mole/base/int8_row_base.hpp"
#include "mole/base/nf4_base.hpp"
#include "mole/execution/simd.hpp"

#include <memory>
#include <stdexcept>
#include <string>

namespace bench {

namespace {

template <class Base>
struct Coded {
  Coded(mole::Index tokens, mole::Index d)
      : base(FrozenLayer::of(d).weight.view()), x(support::random_matrix<float>(tokens, d, 1)), y(tokens, d) {}

  void forward() {
    mole::Call<mole::Simd<>, mole::NoScratch> call{execution, pass, scratch};
    base.forward(x, y.view(), call);
  }

  Base base;
  mole::Matrix<float> x, y;
  mole::Simd<> execution;
  mole::Pass pass;
  mole::NoScratch scratch;
};

template <class Base>
std::function<void()> forward_of(mole::Index tokens, mole::Index d) {
  return [layer = std::make_shared<Coded<Base>>(tokens, d)] { layer->forward(); };
}

}  // namespace

std::function<void()> coded_layer(std::string_view name, mole::Index tokens, mole::Index d) {
  if (name == "bf16") return forward_of<mole::Bf16Base>(tokens, d);
  if (name == "int8_row") return forward_of<mole::Int8RowBase>(tokens, d);
  if (name == "int8_block") return forward_of<mole::Int8BlockBase>(tokens, d);
  if (name == "nf4") return forward_of<mole::Nf4Base>(tokens, d);
  throw std::out_of_range("no base is called " + std::string(name));
}

}  // namespace bench
