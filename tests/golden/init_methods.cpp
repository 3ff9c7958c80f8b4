// SPDX-License-Identifier: MIT
// What factors start from: peft-init, goat.
#include "golden/methods.hpp"
#include "golden/routed_layers.hpp"
#include "mole/init/corda.hpp"
#include "mole/init/lora_ga.hpp"
#include "mole/init/mica.hpp"
#include "mole/init/olora.hpp"
#include "mole/init/pissa.hpp"

namespace golden {
namespace {

/// The choice that a file names.
template <class Choice, class T>
Choice choice(const Comparison<T>& file, const std::string& option, const std::map<std::string, Choice>& choices) {
  const auto found = choices.find(file.text(option));
  if (found == choices.end()) file.refuse(option, "a known one");
  return found->second;
}

/// Row j of `of` with the sign of column or row j of `like`, since singular vectors have none of their own.
template <class T>
void take_sign(std::span<T> of, std::span<const T> like) {
  T product = 0;
  for (std::size_t i = 0; i < of.size(); ++i) product += of[i] * like[i];
  for (T& element : of) element = product < 0 ? -element : element;
}

template <class T>
void check_init(Comparison<T>& file) {
  const Matrix<T> weight = file.matrix("pretrained.weight"), a = file.matrix("lora_A"),
                  b = transposed(file.matrix("lora_B"));
  mole::Rng rng;
  const Index rank = file.integer("rank");
  Experts<T> experts({.in = weight.cols(), .out = weight.rows(), .rank = rank, .alpha = file.number("alpha")}, rng);
  expect_sizes(file, experts, rank);
  Matrix<T> residual(weight.rows(), weight.cols()), delta(weight.rows(), weight.cols());
  const std::string init = file.text("init");
  if (init == "pissa") {
    pissa_init(experts, weight, residual.view());
  } else if (init == "olora") {
    olora_init(experts, weight, residual.view());
  } else if (init == "corda") {
    corda_init(
        experts, weight, file.matrix("covariance"), residual.view(),
        {.mode = choice<mole::CordaMode>(
             file, "corda_method", {{"ipm", mole::CordaMode::instruction}, {"kpm", mole::CordaMode::knowledge}})});
    file.input("singular_values");
  } else if (init == "lora_ga") {
    lora_ga_init(experts, weight, file.matrix("gradient"), residual.view(),
                 {.directions = choice<mole::LoraGaDirections>(file, "direction",
                                                               {{"ArBr", mole::LoraGaDirections::interleaved},
                                                                {"A2rBr", mole::LoraGaDirections::a_after_b},
                                                                {"ArB2r", mole::LoraGaDirections::b_after_a}}),
                  .scale = choice<mole::LoraGaScale>(file, "scale",
                                                     {{"stable", mole::LoraGaScale::stable},
                                                      {"weight_svd", mole::LoraGaScale::weight},
                                                      {"gd_scale", mole::LoraGaScale::over_scale},
                                                      {"unit", mole::LoraGaScale::unit}})});
  } else if (init == "mica") {
    mica_init(experts, weight);
    copy(weight.view(), residual.view());
  } else {
    file.refuse("init", "pissa, olora, corda, lora_ga or mica");
  }
  auto& parameters = experts.parameters();
  const bool joint_signs = init != "lora_ga" && init != "mica";
  if (joint_signs) {
    file.expect_optional("base.weight", residual);
    experts.add_delta(0, 1, delta.view());
    file.expect_optional("init.delta", delta);
  }
  for (Index j = 0; j < std::min({rank, a.rows(), b.rows()}); ++j) {
    take_sign<T>(parameters.lora_A.view().row(j), a.view().row(j));
    take_sign<T>(parameters.lora_B.view().row(j), b.view().row(j));
  }
  file.expect("lora_A", parameters.lora_A);
  file.expect("lora_B", transposed(parameters.lora_B));
  if (joint_signs) return;
  experts.add_delta(0, 1, delta.view());
  file.expect_optional("init.delta", delta);
  copy(weight.view(), residual.view());
  experts.add_delta(0, -1, residual.view());
  file.expect_optional("base.weight", residual);
  if (!file.has("bb")) return;
  Matrix<T> products(weight.rows(), weight.rows());
  const View<const T> rows = parameters.lora_B;
  mole::Reference{}.product_tn(rows, rows, products.view());
  file.expect("bb", products);
}

Method peft_init() {
  const auto check = [](auto& file) {
    file.under("initialization");
    check_init(file);
  };
  return {check, check};
}

Method goat() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const Matrix<T> weight = file.matrix("pretrained.weight");
    const std::string init = file.text("init_type");
    const ExpertFiles<T> names(file);
    const auto make = [&](auto base) {
      mole::Rng rng;
      const bool as_full_training = init.find("scale") != init.npos;
      if (!as_full_training) file.ignore_option("eta");
      return mole::goat({.experts = file.integer("experts"),
                         .total_rank = file.integer("total_rank"),
                         .k = file.integer("top_k"),
                         .scale = as_full_training               ? mole::GoatScale::as_full_training
                                  : init == "pissa"              ? mole::GoatScale::two
                                  : init.find("rs") != init.npos ? mole::GoatScale::alpha_over_sqrt_rank
                                                                 : mole::GoatScale::alpha_over_rank,
                         .alpha = file.number("alpha"),
                         .eta = as_full_training ? file.number("eta") : 1},
                        std::move(base), rng, execution);
    };
    with_base(file, weight.cols(), weight.rows(), [&](auto base) {
      auto layer = make(std::move(base));
      expect_sizes(file, layer.experts(), layer.experts().blocks().size(0));
      Matrix<T> residual(weight.rows(), weight.cols()), delta(weight.rows(), weight.cols());
      goat_init(layer.experts(), weight, residual.view(),
                {.directions = choice<mole::GoatDirections>(file, "init_type",
                                                            {{"goat", mole::GoatDirections::segments},
                                                             {"goat_mini", mole::GoatDirections::segment_ends},
                                                             {"pissa", mole::GoatDirections::leading},
                                                             {"milora", mole::GoatDirections::trailing},
                                                             {"pissa_milora", mole::GoatDirections::both_ends}}),
                 .rho = file.number("rho"),
                 .share = file.number("init_cof")});
      for (Index e = 0; e < layer.experts().experts(); ++e) layer.experts().add_delta(e, 1, delta.view());
      file.expect_optional("init.delta", delta);
      file.expect_optional("base.weight", residual);
      names.load(file, layer.experts());
      layer.router().parameters() = load_router(file).parameters();
      expect_balanced_layer(file, layer, names, {.norm = mole::BalanceNorm::k_at_uniform}, [](auto&&...) {});
    });
  });
}

}  // namespace

std::map<std::string, Method> init_methods() {
  return {{"peft-init", peft_init()}, {"goat", goat()}};
}

}  // namespace golden
