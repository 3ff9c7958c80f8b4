// SPDX-License-Identifier: MIT
// PeftLayers and peft_bank(): adapters as layers.
#include "mole/io/peft/peft_layers.hpp"

#include "peft_folder.hpp"

#include "core/error_code.hpp"
#include "mole/io/peft/peft_bank.hpp"
#include "mole/io/peft/peft_writer.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <string>

using namespace mole;
using namespace mole::test;

namespace {

/// base(x) + x delta^T in plain double, for delta [O x I].
void check_layer(AnyLinear<float>& layer, const Matrix<float>& weight, const Matrix<float>& delta) {
  const Matrix<float> x = support::random_matrix<float>(3, weight.cols(), 7);
  Matrix<float> y(3, weight.rows());
  layer.forward(x, y);
  for (Index n = 0; n < y.rows(); ++n)
    for (Index o = 0; o < y.cols(); ++o) {
      double sum = 0;
      for (Index i = 0; i < x.cols(); ++i) sum += double(x(n, i)) * (double(weight(o, i)) + double(delta(o, i)));
      CHECK(y(n, o) == Approx(sum).epsilon(1e-4).margin(1e-4));
    }
}

template <class Experts>
Matrix<float> delta_of(const Experts& experts) {
  Matrix<float> delta(experts.out(), experts.in());
  experts.add_delta(0, 1, delta.view());
  return delta;
}

/// Its files are gone when it is returned, and mapped still.
PeftAdapter lora_of(Index rank, double alpha, const std::string& path = "q") {
  PeftFolder folder(R"({"peft_type":"LORA","r":)" + std::to_string(rank) + R"(,"lora_alpha":)" + std::to_string(alpha) +
                    "}");
  return folder.lora(path, 4, 4, rank).read();
}

}  // namespace

TEST_CASE("A layer of any kind is made without naming its type", "[io]") {
  const Matrix<float> weight = support::random_matrix<float>(4, 4, 1);
  const DenseBase base{weight};
  const auto of = [](const char* json, std::initializer_list<std::pair<const char*, std::vector<Index>>> tensors) {
    PeftFolder folder(json);
    for (const auto& [name, shape] : tensors) folder.add(std::string("base_model.model.q.") + name, shape);
    return folder.read();
  };
  {
    auto layer = PeftLayers<float>(lora_of(2, 3), {.max_tokens = 3}).layer("q", base);
    check_layer(layer, weight, delta_of(PeftExperts<float>(lora_of(2, 3)).lora("q")));
  }
  {
    const auto adapter = of(R"({"peft_type":"LORA","r":1,"use_dora":true})",
                            {{"lora_A.weight", {1, 4}}, {"lora_B.weight", {4, 1}}, {"lora_magnitude_vector", {4}}});
    auto layer = PeftLayers<float>(adapter, {.max_tokens = 3}).layer("q", base);
    check_layer(layer, weight, delta_of(PeftExperts<float>(adapter).dora("q", weight)));
  }
  {
    const auto adapter = of(R"({"peft_type":"LORA","r":1,"lora_bias":true})",
                            {{"lora_A.weight", {1, 4}}, {"lora_B.weight", {4, 1}}, {"lora_B.bias", {4}}});
    auto layer = PeftLayers<float>(adapter, {.max_tokens = 3}).layer("q", base);
    const Matrix<float> zeros(3, 4);
    Matrix<float> y(3, 4);
    layer.forward(zeros, y);
    CHECK(y(2, 3) == 8 * 5.5f);
  }
  {
    const auto adapter =
        of(R"({"peft_type":"ADALORA","init_r":1})", {{"lora_A", {1, 4}}, {"lora_B", {4, 1}}, {"lora_E", {1, 1}}});
    auto layer = PeftLayers<float>(adapter, {.max_tokens = 3}).layer("q", base);
    check_layer(layer, weight, delta_of(PeftExperts<float>(adapter).adalora("q")));
  }
  {
    const auto adapter = of(R"({"peft_type":"VERA","r":1})",
                            {{"vera_A", {1, 5}}, {"vera_B", {4, 1}}, {"vera_lambda_b", {4}}, {"vera_lambda_d", {1}}});
    auto layer = PeftLayers<float>(adapter, {.max_tokens = 3}).layer("q", base);
    check_layer(layer, weight, delta_of(PeftExperts<float>(adapter).vera("q", 4)));
  }
  {
    const auto adapter = of(R"({"peft_type":"RANDLORA","r":2,"randlora_alpha":0.01})", {{"randlora_A", {2, 1, 4}},
                                                                                        {"randlora_B", {4, 2, 2}},
                                                                                        {"randlora_lambda", {2, 2}},
                                                                                        {"randlora_gamma", {2, 4}}});
    auto layer = PeftLayers<float>(adapter, {.max_tokens = 3}).layer("q", base);
    check_layer(layer, weight, delta_of(PeftExperts<float>(adapter).randlora("q", 4, 4)));
    auto owning = PeftLayers<float>(adapter, {.max_tokens = 3}).layer("q", DenseBase{Matrix<float>(weight)});
    check_layer(owning, weight, delta_of(PeftExperts<float>(adapter).randlora("q", 4, 4)));
  }
  {
    const auto adapter =
        of(R"({"peft_type":"LOHA","r":1,"alpha":0.01})",
           {{"hada_w1_a", {4, 1}}, {"hada_w1_b", {1, 4}}, {"hada_w2_a", {4, 1}}, {"hada_w2_b", {1, 4}}});
    auto layer = PeftLayers<float>(adapter, {.max_tokens = 3}).layer("q", base);
    check_layer(layer, weight, delta_of(PeftExperts<float>(adapter).loha("q")));
  }
  {
    const auto adapter = of(R"({"peft_type":"LOKR","r":1,"alpha":0.01})", {{"lokr_w1", {2, 2}}, {"lokr_w2", {2, 2}}});
    auto layer = PeftLayers<float>(adapter, {.max_tokens = 3}).layer("q", base);
    check_layer(layer, weight, delta_of(PeftExperts<float>(adapter).lokr("q")));
  }
}

TEST_CASE("An adapter for a changed base is refused until the caller says that the base is that one", "[io]") {
  const Matrix<float> weight = support::random_matrix<float>(4, 4, 1);
  PeftFolder pissa(R"({"peft_type":"LORA","r":1,"init_lora_weights":"pissa"})");
  pissa.lora("q", 4, 4, 1);
  CHECK(holds(text_of([&] { PeftLayers<float>(pissa.read()); }),
              "found one that starts from pissa, which changes the weights"));
  PeftLayers<float>(pissa.read(), {.bases_are_changed = true}).layer("q", DenseBase{weight});

  PeftFolder biased(R"({"peft_type":"LORA","r":1,"bias":"lora_only"})");
  biased.lora("q", 4, 4, 1).add("base_model.model.q.base_layer.bias", {4});
  CHECK(holds(text_of([&] { PeftLayers<float>(biased.read()).layer("q", DenseBase{weight}); }),
              "an adapter that replaces 'q.bias'"));
  PeftLayers<float>(biased.read(), {.bases_are_changed = true}).layer("q", DenseBase{weight});
}

TEST_CASE("A base of another size, and a path that the adapter lacks, are refused", "[io]") {
  const Matrix<float> weight = support::random_matrix<float>(4, 5, 1);
  CHECK(code_of([&] { PeftLayers<float>(lora_of(2, 3)).layer("q", DenseBase{weight}); }) == ErrorCode::shape);
  CHECK(code_of([&] { PeftLayers<float>(lora_of(2, 3)).layer("v", DenseBase{weight}); }) == ErrorCode::option);
}

TEST_CASE("Adapters of any ranks become one bank, each with its own scale", "[io]") {
  const std::vector<PeftAdapter> adapters{lora_of(2, 3), lora_of(1, 1, "v"), lora_of(5, 4)};
  const auto bank = peft_bank<float>(adapters, "q");
  REQUIRE(bank.experts() == 3);
  CHECK(bank.blocks().size(0) == 2);
  CHECK(bank.blocks().size(1) == 0);
  CHECK(bank.blocks().size(2) == 5);
  CHECK(bank.scale()[0] == 1.5f);
  CHECK(bank.scale()[2] == 0.8f);
  for (const auto& [e, adapter] : {std::pair(Index(0), &adapters[0]), std::pair(Index(2), &adapters[2])}) {
    Matrix<float> delta(4, 4);
    bank.add_delta(e, 1, delta.view());
    CHECK(support::same_bits<float>(delta, delta_of(PeftExperts<float>(*adapter).lora("q"))));
  }
  CHECK(peft_paths(adapters) == std::vector<std::string>{"q", "v"});
  CHECK(code_of([&] { peft_bank<float>(adapters, "k"); }) == ErrorCode::option);
  CHECK(code_of([&] { peft_bank<float>({}, "q"); }) == ErrorCode::option);
  PeftFolder narrow(R"({"peft_type":"LORA","r":1})");
  narrow.lora("q", 3, 4, 1);
  CHECK(code_of([&] { peft_bank<float>({adapters[0], narrow.read()}, "q"); }) == ErrorCode::shape);
  PeftFolder biased(R"({"peft_type":"LORA","r":1,"lora_bias":true})");
  biased.lora("q", 4, 4, 1).add("base_model.model.q.lora_B.bias", {4});
  CHECK(code_of([&] { peft_bank<float>({adapters[0], biased.read()}, "q"); }) == ErrorCode::option);
}
