// SPDX-License-Identifier: MIT
// Presets whose experts are feed-forward blocks.
#include "mole/c/preset.hpp"
#include "mole/core/error.hpp"
#include "mole/method/mixlora.hpp"
#include "mole/method/mixtral.hpp"

namespace mole::c {
namespace {

auto mixtral_layer(MixtralOptions o, Site& s) {
  const Index in = s.base.in(), hidden = s.base.out();
  require(s.up->in() == in && s.up->out() == hidden && s.down->in() == hidden && s.down->out() == in, ErrorCode::shape,
          "mixtral: expected an up of [", hidden, " x ", in, "] and a down of [", in, " x ", hidden, "], found [",
          s.up->out(), " x ", s.up->in(), "] and [", s.down->out(), " x ", s.down->in(), "]");
  o.in = in, o.hidden = hidden;
  return mixtral<float>(o, s.rng, s.execution);
}

}  // namespace

std::vector<Preset> block_presets() {
  return {
      preset<MixLoraOptions>(
          "mixlora", [](OptionVisitor& f, auto& o) { shared_options(f, o), f("router_deviation", o.router_deviation); },
          [](const auto& o, Site& s) { return mixlora(o, s.base, *s.up, *s.down, s.rng, s.execution); }, Given::block),
      preset<MixtralOptions>(
          "mixtral", shared_options, [](const auto& o, Site& s) { return mixtral_layer(o, s); }, Given::sizes_of_block),
  };
}

}  // namespace mole::c
