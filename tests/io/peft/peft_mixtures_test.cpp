// SPDX-License-Identifier: MIT
// PeftMixtures: HydraLoRA, FlyLoRA and SMoRA, as their releases save them.
#include "mole/io/peft/peft_mixtures.hpp"

#include "peft_folder.hpp"

#include "core/error_code.hpp"
#include "mole/io/convert/loras_of.hpp"
#include "mole/io/convert/write_mixture_layers.hpp"
#include "mole/io/peft/merge_peft.hpp"
#include "mole/io/peft/peft_config_json.hpp"
#include "mole/io/peft/peft_layers.hpp"
#include "mole/testing/random_matrix.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

namespace {

using namespace mole;
using namespace mole::test;

constexpr Index mixture_in = 5, mixture_out = 3, mixture_rank = 4;
const std::string mixture_path = "base_model.model.model.layers.0.q_proj.";
const std::string path_in_host = "model.layers.0.q_proj";

/// The tensors that make a folder, kept for who computes with them.
struct MixtureFolder {
  Matrix<float>& add(const std::string& suffix, std::vector<Index> shape) {
    const Index rows = shape.size() == 1 ? 1 : shape[0];
    return tensors[suffix] = laws::random_matrix<float>(rows, shape.back(), ++seed);
  }
  PeftAdapter read() const {
    PeftFolder folder(config);
    for (const auto& [suffix, numbers] : tensors) {
      const bool vector = suffix == "lora_topk_bias" || suffix == "lora_biases";
      folder.add_bytes(mixture_path + suffix, Dtype::f32,
                       vector ? std::vector{numbers.cols()} : std::vector{numbers.rows(), numbers.cols()},
                       std::as_bytes(numbers.elements()));
    }
    return folder.read();
  }
  std::string complaint() const {
    return error_text(ErrorCode::file, [&] { read(); });
  }

  std::string config;
  std::map<std::string, Matrix<float>> tensors = {};
  unsigned seed = 0;
};

MixtureFolder hydra_folder(Index experts = 3) {
  MixtureFolder folder{R"({"peft_type":"LORA","r":4,"lora_alpha":6,"lora_nums":)" + std::to_string(experts) +
                       R"(,"blc_alpha":0.0,"lora_dropout":0.1,"target_modules":["q_proj"]})"};
  folder.add("lora_A.weight", {mixture_rank, mixture_in});
  for (Index e = 0; e < experts; ++e) folder.add("lora_B" + std::to_string(e) + ".weight", {mixture_out, mixture_rank});
  folder.add("lora_route.weight", {experts, mixture_in});
  return folder;
}
MixtureFolder fly_folder() {
  MixtureFolder folder{
      R"({"peft_type":"LORA","r":4,"lora_alpha":6,"top_k":2,"bias_u":0.001,"init_lora_weights":"sparse"})"};
  Matrix<float>& a = folder.add("lora_A.weight", {mixture_rank, mixture_in});
  for (Index r = 0; r < mixture_rank; ++r)
    for (Index c = 0; c < mixture_in; ++c)
      if ((r + c) % 3 == 0 || (r == 2 && c > 0)) a(r, c) = 0;  // rows of other numbers of zeros
  folder.add("lora_B.weight", {mixture_out, mixture_rank});
  folder.add("lora_topk_bias", {mixture_rank});
  return folder;
}
MixtureFolder smora_folder(Index partition = 2) {
  MixtureFolder folder{R"({"peft_type":"SRMOLE","r":4,"lora_alpha":6,"activate_r":3,"rank_partition":)" +
                       std::to_string(partition) + R"(,"epsilon_greedy":false,"dense_compute":false})"};
  folder.add("lora_A.weight", {mixture_rank, mixture_in});
  folder.add("lora_B.weight", {mixture_out, mixture_rank});
  folder.add("lora_router.weight", {mixture_rank / partition, mixture_in});
  folder.add("lora_biases", {mixture_rank});
  return folder;
}

long double dot_of(const Matrix<float>& a, Index row, const Matrix<float>& x, Index n) {
  long double sum = 0;
  for (Index c = 0; c < a.cols(); ++c) sum += static_cast<long double>(a(row, c)) * x(n, c);
  return sum;
}
/// The `k` ranks of the largest keys.
std::vector<Index> largest(const std::vector<long double>& keys, std::size_t k) {
  std::vector<Index> order(keys.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater{}, [&](Index i) { return keys[std::size_t(i)]; });
  order.resize(k);
  return order;
}

/// The layer of the file against W x + update(n, o), for tokens n and outputs o.
template <class Update>
void check_mixture(const PeftAdapter& adapter, Update update) {
  const Matrix<float> weight = laws::random_matrix<float>(mixture_out, mixture_in, 77);
  const Matrix<float> x = laws::random_matrix<float>(6, mixture_in, 78);
  Matrix<float> y(6, mixture_out);
  PeftLayers<float>(adapter, {.max_tokens = 6}).layer(path_in_host, DenseBase{weight}).forward(x, y);
  for (Index n = 0; n < 6; ++n)
    for (Index o = 0; o < mixture_out; ++o)
      CHECK(y(n, o) == Approx(double(dot_of(weight, o, x, n) + update(x, n, o))).epsilon(1e-5).margin(1e-6));
}

}  // namespace

TEST_CASE("HydraLoRA of the release is a softmax over experts that share one A", "[io]") {
  MixtureFolder folder = hydra_folder();
  const PeftAdapter adapter = folder.read();
  CHECK(adapter.config.kind == PeftKind::hydralora);
  CHECK(adapter.report.text() == "5 used");
  const auto& t = folder.tensors;
  check_mixture(adapter, [&](const Matrix<float>& x, Index n, Index o) {
    long double weights = 0, sum = 0;
    for (Index e = 0; e < 3; ++e) {
      const long double weight = std::exp(dot_of(t.at("lora_route.weight"), e, x, n));
      long double own = 0;
      for (Index r = 0; r < mixture_rank; ++r)
        own += t.at("lora_B" + std::to_string(e) + ".weight")(o, r) * dot_of(t.at("lora_A.weight"), r, x, n);
      sum += weight * own, weights += weight;
    }
    return 6.0L / 4 * sum / weights;
  });
}

TEST_CASE("FlyLoRA of the release adds the ranks whose response and bias are largest, signs included", "[io]") {
  MixtureFolder folder = fly_folder();
  const PeftAdapter adapter = folder.read();
  CHECK(adapter.config.kind == PeftKind::flylora);
  const auto& t = folder.tensors;
  check_mixture(adapter, [&](const Matrix<float>& x, Index n, Index o) {
    std::vector<long double> keys;
    for (Index r = 0; r < mixture_rank; ++r)
      keys.push_back(dot_of(t.at("lora_A.weight"), r, x, n) + t.at("lora_topk_bias")(0, r));
    long double sum = 0;
    for (const Index r : largest(keys, 2)) sum += t.at("lora_B.weight")(o, r) * dot_of(t.at("lora_A.weight"), r, x, n);
    return 6.0L / 4 * sum;
  });
}

TEST_CASE("SMoRA of the release adds the ranks of the largest biased gates, whose scale is alpha over k", "[io]") {
  for (const Index partition : {1, 2}) {
    MixtureFolder folder = smora_folder(partition);
    const PeftAdapter adapter = folder.read();
    CHECK(adapter.config.kind == PeftKind::smora);
    const auto& t = folder.tensors;
    check_mixture(adapter, [&](const Matrix<float>& x, Index n, Index o) {
      std::vector<long double> gates;
      for (Index r = 0; r < mixture_rank; ++r)
        gates.push_back(1 / (1 + std::exp(-dot_of(t.at("lora_router.weight"), r / partition, x, n))) +
                        t.at("lora_biases")(0, r));
      long double of_chosen = 0, sum = 0;
      for (const Index r : largest(gates, 3)) {
        of_chosen += gates[std::size_t(r)];
        sum += gates[std::size_t(r)] * t.at("lora_B.weight")(o, r) * dot_of(t.at("lora_A.weight"), r, x, n);
      }
      return 6.0L * sum / of_chosen;  // alpha / k times k
    });
  }
}

TEST_CASE("Mixtures of peft's forks have the options of their presets", "[io]") {
  const Matrix<float> weight(mixture_out, mixture_in);
  const PeftAdapter hydra = hydra_folder().read(), fly = fly_folder().read();
  const auto of_hydra = PeftMixtures<float>(hydra).hydralora(path_in_host, DenseBase{weight}, DefaultExecution{});
  CHECK(of_hydra.experts().blocks().shared_down());
  CHECK(of_hydra.experts().dropout().rate == 0.1);
  CHECK(of_hydra.router().dropout().rate == 0);
  const auto of_fly = PeftMixtures<float>(fly).flylora(path_in_host, DenseBase{weight}, DefaultExecution{});
  CHECK(of_fly.experts().factors().detached());
  CHECK(of_fly.experts().factors().nonzeros() == 4);
  CHECK_THROWS_AS(PeftMixtures<float>(fly).smora(path_in_host, DenseBase{weight}, DefaultExecution{}), Error);
  for (const PeftAdapter& adapter : {hydra, fly, smora_folder().read()}) {
    const PeftConfig again = PeftConfig::parse(json_of(adapter.config), "own");
    CHECK(again.kind == adapter.config.kind);
    CHECK(again.scale_of(path_in_host) == adapter.config.scale_of(path_in_host));
    CHECK((again.k == adapter.config.k && again.experts == adapter.config.experts));
  }
}

TEST_CASE("A mixture of peft's forks becomes a file of layers that compute the same", "[io]") {
  const Matrix<float> weight = laws::random_matrix<float>(mixture_out, mixture_in, 5);
  const Matrix<float> x = laws::random_matrix<float>(6, mixture_in, 6);
  const auto base_of = [&](const std::string&, Index, Index) { return DenseBase{weight}; };
  const TemporaryFolder folder;
  for (const auto& [adapter, method] : {std::pair{hydra_folder().read(), "loramoe"},
                                        {fly_folder().read(), "flylora"},
                                        {smora_folder().read(), "smora"}}) {
    write_mixture_layers(folder / method, adapter, base_of);
    LayerReader reader(folder / method);
    CHECK(reader.method(path_in_host) == method);
    Matrix<float> expected(6, mixture_out), found(6, mixture_out);
    PeftLayers<float>(adapter, {.max_tokens = 6}).layer(path_in_host, DenseBase{weight}).forward(x, expected);
    reader.read(path_in_host, DenseBase{weight}, {.max_tokens = 6}).forward(x, found);
    CHECK(std::ranges::equal(expected.elements(), found.elements()));
  }
}

TEST_CASE("A mixture is no LoRA: it is neither merged nor converted nor an expert of every token", "[io]") {
  const TemporaryFolder out;
  SafetensorsWriter writer;
  writer.add(path_in_host + ".weight", Matrix<float>(mixture_out, mixture_in));
  writer.write(out / "model.safetensors");
  for (const PeftAdapter& adapter : {hydra_folder().read(), fly_folder().read(), smora_folder().read()}) {
    CHECK_THROWS_AS(loras_of(adapter), Error);
    CHECK_THROWS_AS(PeftExperts<float>(adapter).lora(path_in_host), Error);
    CHECK(holds(error_text(ErrorCode::option, [&] { merge_peft(adapter, SafetensorsShards(out / ""), out / "new"); }),
                "with a router"));
  }
}

TEST_CASE("A mixture of peft's forks that lacks a part, or whose sizes differ, is refused", "[io]") {
  const auto without = [](MixtureFolder folder, const std::string& suffix) {
    folder.tensors.erase(suffix);
    return folder.complaint();
  };
  const auto with = [](MixtureFolder folder, const std::string& suffix, std::vector<Index> shape) {
    folder.add(suffix, std::move(shape));
    return folder.complaint();
  };
  CHECK(holds(without(hydra_folder(), "lora_B1.weight"), "expected a tensor 'lora_B1.weight', as of lora_nums"));
  CHECK(holds(without(hydra_folder(), "lora_route.weight"), "expected a tensor 'lora_route.weight'"));
  CHECK(holds(with(hydra_folder(), "lora_B3.weight", {mixture_out, mixture_rank}), "expected 3 matrices B"));
  CHECK(holds(with(hydra_folder(), "lora_B2.weight", {mixture_out, 3}), "columns of 'lora_B2.weight'"));
  CHECK(holds(with(hydra_folder(), "lora_route.weight", {4, mixture_in}), "expected 3 rows of 'lora_route.weight'"));
  CHECK(holds(without(fly_folder(), "lora_topk_bias"), "expected a tensor 'lora_topk_bias'"));
  CHECK(holds(with(fly_folder(), "lora_topk_bias", {3}), "expected 4 rows of 'lora_topk_bias' for '"));
  CHECK(holds(without(smora_folder(), "lora_router.weight"), "expected a tensor 'lora_router.weight'"));
  CHECK(holds(with(smora_folder(), "lora_router.weight", {4, mixture_in}), "expected 2 rows of 'lora_router.weight'"));
  CHECK(holds(smora_folder(3).complaint(), "expected a rank_partition that divides the rank 4 for '"));
  CHECK(with(hydra_folder(), "lora_B02.weight", {mixture_out, mixture_rank}).empty());  // of nothing
  const auto text = [](const std::string& fields) {
    return error_text(ErrorCode::file, [&] { PeftConfig::parse("{\"peft_type\":" + fields + "}", "x"); });
  };
  CHECK(holds(text(R"("LORA","bias_u":0.01,"use_dora":true)"), "expected FlyLoRA without 'use_dora'"));
  CHECK(holds(text(R"("SRMOLE","lora_bias":true)"), "expected SMoRA without 'lora_bias'"));
  CHECK(holds(text(R"("LORA","lora_nums":0)"), "'lora_nums'"));
  CHECK(holds(text(R"("HYDRALORA")"), "found 'HYDRALORA'"));

  const PeftAdapter far = [] {
    MixtureFolder folder{R"({"peft_type":"LORA","r":4,"lora_alpha":6,"top_k":5,"bias_u":0.001})"};
    folder.tensors = fly_folder().tensors;
    return folder.read();
  }();
  const Matrix<float> weight(mixture_out, mixture_in);
  CHECK_THROWS_AS(PeftLayers<float>(far).layer(path_in_host, DenseBase{weight}), Error);
}
