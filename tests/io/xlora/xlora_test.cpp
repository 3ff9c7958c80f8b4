// SPDX-License-Identifier: MIT
#include "core/error_code.hpp"
#include "io/temporary_folder.hpp"
#include "mole/base/dense_base.hpp"
#include "mole/io/safetensors_writer.hpp"
#include "mole/io/xlora/read_xlora.hpp"
#include "mole/io/xlora/write_xlora.hpp"
#include "mole/io/xlora/xlora_layers.hpp"
#include "mole/layer/expert_linear.hpp"
#include "mole/testing/random_matrix.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <cmath>
#include <map>

using namespace mole;
using namespace mole::test;

namespace {

/// A folder of X-LoRA by hand, of three adapters of ranks 1, 2 and 3 on one module: hidden states of width 5.
struct XloraFolder {
  bool official = true;
  std::string config;
  std::map<std::string, Matrix<float>> classifier;
  std::map<std::string, Matrix<float>> adapters;  // "b.lora_A"
  Rng rng{9};

  Matrix<float> drawn(Index rows, Index cols) {
    Matrix<float> matrix(rows, cols);
    fill_uniform(matrix.view(), 0.8, rng);
    return matrix;
  }
  /// Of the maps' names, from hidden states of 5 through width 4.
  XloraFolder(bool official_, const std::string& more, const std::vector<std::string>& maps, Index outputs, bool bias)
      : official(official_) {
    config = R"({"hidden_size": 5, "xlora_size": 4, "xlora_depth": )" + std::to_string(maps.size()) +
             (official ? R"(, "adapters": {"b": "x/b", "a": "x/a", "c": "x/c"})"
                       : R"(, "peft_type": "XLORA", "adapters": {"0": "b", "1": "a", "2": "c"})") +
             more + "}";
    for (std::size_t l = 0; l < maps.size(); ++l) {
      const Index out = l + 1 == maps.size() ? outputs : 4;
      classifier[maps[l] + ".weight"] = drawn(out, l == 0 ? 5 : 4);
      if (bias) classifier[maps[l] + ".bias"] = drawn(1, out);
    }
    for (const auto& [name, rank] : {std::pair<std::string, Index>{"a", 1}, {"b", 2}, {"c", 3}}) {
      adapters[name + ".lora_A"] = drawn(rank, 7);
      adapters[name + ".lora_B"] = drawn(6, rank);
    }
  }

  void write(const TemporaryFolder& folder) const {
    put(folder / (official ? "xlora_config.json" : "adapter_config.json"), config);
    SafetensorsWriter writer;
    for (const auto& [name, matrix] : classifier)
      if (name.ends_with(".bias"))
        writer.add_vector(name, matrix.view().row(0));
      else
        writer.add(name, matrix.view());
    writer.write(folder / (official ? "xlora_classifier.safetensors" : "adapter_model.safetensors"));
    for (const std::string name : {"a", "b", "c"}) {
      std::filesystem::create_directory(folder / name);
      const auto& a = adapters.at(name + ".lora_A");
      put(folder / name / "adapter_config.json",
          R"({"peft_type": "LORA", "lora_alpha": 6, "lora_dropout": 0.1, "r": )" + std::to_string(a.rows()) +
              R"(, "target_modules": ["q_proj"]})");
      SafetensorsWriter of_adapter;
      of_adapter.add("base_model.model.q_proj.lora_A.weight", a.view());
      of_adapter.add("base_model.model.q_proj.lora_B.weight", adapters.at(name + ".lora_B").view());
      of_adapter.write(folder / name / "adapter_model.safetensors");
    }
  }
  XloraAdapter read() const {
    const TemporaryFolder folder;
    write(folder);
    if (official) return read_xlora(folder / "");
    std::vector<PeftAdapter> given;
    for (const char* name : {"b", "a", "c"}) given.push_back(read_peft(folder / name));
    return read_xlora(folder / "", std::move(given));
  }
  std::string complaint() const {
    const std::string text = error_text(ErrorCode::file, [&] { read(); });
    return text.empty() ? "" : text.substr(text.find("expected "));
  }
};

/// The scalings of one token, before any softmax.
std::vector<double> scalings(const XloraFolder& folder, const std::vector<std::string>& maps, bool relu,
                             std::vector<double> h) {
  for (std::size_t l = 0; l < maps.size(); ++l) {
    const auto& w = folder.classifier.at(maps[l] + ".weight");
    const auto bias = folder.classifier.find(maps[l] + ".bias");
    std::vector<double> next;
    for (Index o = 0; o < w.rows(); ++o) {
      double sum = bias == folder.classifier.end() ? 0 : double(bias->second(0, o));
      for (Index i = 0; i < w.cols(); ++i) sum += double(w(o, i)) * h[std::size_t(i)];
      next.push_back(relu && l + 1 < maps.size() ? std::max(sum, 0.0) : sum);
    }
    h = next;
  }
  return h;
}
std::vector<double> softmax_of(std::vector<double> z, double temperature = 1) {
  double sum = 0;
  for (double& each : z) sum += each = std::exp(each / temperature);
  for (double& each : z) each /= sum;
  return z;
}
/// All but the k largest become 0.
std::vector<double> best_of(std::vector<double> z, std::size_t k) {
  std::vector<double> sorted = z;
  std::ranges::sort(sorted, std::greater<>());
  for (double& each : z)
    if (each < sorted[k - 1]) each = 0;
  return z;
}

/// y of both passes' second: base + sum of gate * weight * scale * B A x, against the layer of that routing.
template <class Gates>
void check_xlora(const XloraFolder& folder, double weight, Gates gates) {
  const XloraAdapter adapter = folder.read();
  const Matrix<float> w = laws::random_matrix<float>(6, 7, 1), x = laws::random_matrix<float>(4, 7, 2),
                      h = laws::random_matrix<float>(4, 5, 3);
  const ExpertLinear layer{xlora_bank<float>(adapter, "q_proj"), DenseBase{w}};
  CHECK(layer.experts().dropout().rate == 0);
  auto work = layer.workspace(4);
  std::visit(
      [&](const auto& routing) {
        auto decisions = routing.workspace(4);
        routing.route(h, decisions);
        for (Index m = 0; m < adapter.layers; ++m) {
          Matrix<float> y(4, 6);
          layer.apply(x, decisions.routing(m), y, work);
          for (Index n = 0; n < 4; ++n) {
            const auto row = h.view().row(n);
            const std::vector<double> g = gates(std::vector<double>(row.begin(), row.end()), m);
            for (Index o = 0; o < 6; ++o) {
              double sum = 0;
              for (Index i = 0; i < 7; ++i) sum += double(w(o, i)) * double(x(n, i));
              for (std::size_t e = 0; e < 3; ++e) {
                const std::string name = std::vector<std::string>{"b", "a", "c"}[e];
                const auto &a = folder.adapters.at(name + ".lora_A"), &b = folder.adapters.at(name + ".lora_B");
                for (Index r = 0; r < a.rows(); ++r) {
                  double z = 0;
                  for (Index i = 0; i < 7; ++i) z += double(a(r, i)) * double(x(n, i));
                  sum += g[e] * weight * 6 / double(a.rows()) * double(b(o, r)) * z;
                }
              }
              CHECK(std::abs(double(y(n, o)) - sum) < 2e-5);
            }
          }
        }
      },
      xlora_routing<float>(adapter));
}

const std::vector<std::string> one_map{"last"}, three_maps{"inner.0", "inner.3", "last"},
    linear_maps{"inner.0", "last"},
    peft_maps{"base_model.model.internal_xlora_classifier.layers.0",
              "base_model.model.internal_xlora_classifier.layers.2",
              "base_model.model.internal_xlora_classifier.layers.10"};

std::vector<double> part_of(const std::vector<double>& z, Index m) {
  return {z.begin() + 3 * m, z.begin() + 3 * m + 3};
}

}  // namespace

TEST_CASE("X-LoRA of the official layout mixes its adapters by its classifier, in every form of gates", "[io]") {
  const XloraFolder dense(true, R"(, "softmax_temperature": 0.5, "global_scaling_weight": 2.0)", one_map, 3, true);
  check_xlora(dense, 2, [&](auto h, Index) { return softmax_of(scalings(dense, one_map, true, h), 0.5); });
  CHECK(dense.read().report.text() == "2 used");

  const XloraFolder deep(true, R"(, "enable_relu_and_dropout": true, "layerwise_scalings": true, "top_k_lora": 2)",
                         three_maps, 6, false);
  CHECK(deep.read().layers == 2);
  check_xlora(deep, 1,
              [&](auto h, Index m) { return best_of(softmax_of(part_of(scalings(deep, three_maps, true, h), m)), 2); });

  const XloraFolder linear(true, R"(, "enable_relu_and_dropout": false, "enable_softmax": false)", linear_maps, 3,
                           true);
  check_xlora(linear, 1, [&](auto h, Index) { return scalings(linear, linear_maps, false, h); });

  const XloraFolder chosen(true, R"(, "enable_softmax": false, "enable_softmax_topk": true, "top_k_lora": 1)", one_map,
                           3, true);
  check_xlora(chosen, 1, [&](auto h, Index) {
    std::vector<double> g = best_of(softmax_of(scalings(chosen, one_map, true, h)), 1);
    for (double& each : g) each = each > 0 ? 1 : 0;
    return g;
  });
  const XloraFolder twice(true, R"(, "enable_softmax": true, "enable_softmax_topk": true, "top_k_lora": 3)", one_map, 3,
                          true);
  check_xlora(twice, 1, [&](auto h, Index) { return softmax_of(softmax_of(scalings(twice, one_map, true, h))); });
}

TEST_CASE("X-LoRA of peft takes adapters that are given, in the order of its configuration", "[io]") {
  const XloraFolder folder(false, R"(, "layerwise_scalings": true, "scaling_pass_value": null)", peft_maps, 9, true);
  const XloraAdapter adapter = folder.read();
  CHECK(adapter.layers == 3);
  CHECK(adapter.config.scaling_pass_value == 1.0 / 3);
  CHECK(adapter.config.adapters == std::vector<std::string>{"0", "1", "2"});
  check_xlora(folder, 1, [&](auto h, Index m) { return softmax_of(part_of(scalings(folder, peft_maps, true, h), m)); });

  XloraFolder left_out = folder;
  left_out.classifier.erase(peft_maps[0] + ".weight");
  left_out.classifier.erase(peft_maps[0] + ".bias");
  CHECK(left_out.complaint() ==
        "expected a classifier of 3 maps, its xlora_depth, found 2; peft 0.21.2 does not save "
        "those whose number is also the name of an adapter");
  const TemporaryFolder written;
  folder.write(written);
  CHECK(error_text(ErrorCode::file, [&] { read_xlora(written / ""); }).find("adapter_config.json") !=
        std::string::npos);  // of the sub-folder "0", which peft does not write
  std::vector<PeftAdapter> two{read_peft(written / "a"), read_peft(written / "b")};
  CHECK(error_text(ErrorCode::file, [&] {
          read_xlora(written / "", two);
        }).ends_with("expected 3 adapters, which are given, found 2"));
}

TEST_CASE("Adapters of X-LoRA keep their dropout where they are trained", "[io]") {
  const XloraFolder folder(true, R"(, "use_trainable_adapters": true)", one_map, 3, true);
  CHECK(xlora_bank<float>(folder.read(), "q_proj").dropout().rate == 0.1);
}

TEST_CASE("X-LoRA that is broken is refused by what was expected and found", "[io]") {
  const auto with = [](const std::string& more) { return XloraFolder(true, more, one_map, 3, true).complaint(); };
  CHECK(with("") == "");
  CHECK(with(R"(, "top_k_lora": 4)") == "expected a 'top_k_lora' of at most 3, found 4");
  CHECK(with(R"(, "top_k_lora": 0)") == "expected a whole number of at least 1 for 'top_k_lora', found 0");
  CHECK(with(R"(, "softmax_temperature": 0)").starts_with("expected a 'softmax_temperature' above 0"));
  CHECK(with(R"(, "xlora_dropout_p": 1)").starts_with("expected an 'xlora_dropout_p'"));
  CHECK(with(R"(, "use_mean_pool": true)") == "expected no 'use_mean_pool', found it");
  CHECK(with(R"(, "peft_type": "LORA")") == "expected peft_type XLORA, found 'LORA'");

  const auto changed = [](auto change) {
    XloraFolder folder(true, "", {"inner.0", "last"}, 3, true);
    change(folder);
    return folder.complaint();
  };
  CHECK(changed([](auto& f) { f.classifier.erase("inner.0.weight"); }) ==
        "expected a weight of the classifier's map 0, found none");
  CHECK(changed([](auto& f) { f.classifier.erase("inner.0.weight"), f.classifier.erase("inner.0.bias"); }) ==
        "expected a classifier of 2 maps, its xlora_depth, found 1");
  CHECK(changed([](auto& f) { f.classifier["last.weight"] = f.drawn(3, 5); }) ==
        "expected 4 columns for 'last.weight', found 5");
  CHECK(changed([](auto& f) { f.classifier["last.bias"] = f.drawn(1, 4); }) ==
        "expected 3 numbers for 'last.bias', found 4");
  CHECK(changed([](auto& f) { f.classifier["layers.0.bias"] = f.drawn(1, 4); }) ==
        "expected one tensor of that place for 'layers.0.bias', found two");
  CHECK(changed([](auto& f) { f.classifier["last.weight"] = f.drawn(4, 4), f.classifier.erase("last.bias"); }) ==
        "expected 3 rows, of 3 adapters, for 'last.weight', found 4");
  CHECK(changed([](auto& f) { f.classifier["inner.123.weight"] = f.drawn(4, 4); }) == "");  // reported as unused

  XloraFolder zero(true, "", one_map, 3, true);
  zero.config.replace(zero.config.find("\"b\""), 3, R"("b\u0000x")");
  CHECK(zero.complaint().starts_with("expected a text without a character 0 for 'adapters'"));
  for (const char* name : {"../b", "/b", "", "..", "x/b"}) {
    XloraFolder folder(true, "", one_map, 3, true);
    folder.config.replace(folder.config.find("\"b\""), 3, "\"" + std::string(name) + "\"");
    CHECK(folder.complaint() ==
          "expected names of sub-folders as 'adapters', or adapters that are given, found '" + std::string(name) + "'");
  }
}

TEST_CASE("A classifier of X-LoRA is written, read and written again byte for byte, in both layouts", "[io]") {
  for (const XloraLayout layout : {XloraLayout::official, XloraLayout::peft})
    for (const Index depth : {1, 2, 4}) {
      Rng rng(3);
      DeepRouter<float> classifier({.in = 5, .experts = 6, .widths = std::vector<Index>(std::size_t(depth - 1), 4)},
                                   rng);
      XloraConfig config{.adapters = {"b", "a", "c"}, .dropout = 0.5, .layerwise = true, .temperature = 0.25, .k = 2};
      config.softmax_topk = true, config.global_scaling_weight = 1.5, config.scaling_pass_value = 0.125;
      const XloraFolder adapters(true, "", one_map, 3, true);
      const TemporaryFolder folder, again;
      for (const TemporaryFolder* each : {&folder, &again})
        adapters.write(*each);  // its adapters; the rest is replaced
      for (const TemporaryFolder* each : {&folder, &again}) std::filesystem::remove(*each / "xlora_config.json");
      write_xlora(folder / "", config, classifier, {.layout = layout});
      const XloraAdapter read = read_xlora(folder / "");
      CHECK((read.config.depth == depth && read.config.hidden_size == 5 && read.layers == 2));
      CHECK(read.config.adapters == config.adapters);
      CHECK((read.config.k == 2 && read.config.softmax_topk && read.config.temperature == 0.25));
      CHECK((read.config.global_scaling_weight == 1.5 && read.config.scaling_pass_value == 0.125));
      write_xlora(again / "", read.config, xlora_classifier<float>(read), {.layout = layout});
      const bool official = layout == XloraLayout::official;
      for (const char* name : {official ? "xlora_config.json" : "adapter_config.json",
                               official ? "xlora_classifier.safetensors" : "adapter_model.safetensors"})
        CHECK(content_of(folder / name) == content_of(again / name));
    }
}

TEST_CASE("Maps of a classifier that is written have the numbers that the releases give them", "[io]") {
  const auto names = [](XloraLayout layout, bool activations, double dropout) {
    Rng rng(3);
    DeepRouter<float> classifier({.in = 5, .experts = 3, .widths = {4, 4}}, rng);
    for (auto& layer : classifier.parameters().layers) layer.bias = {};
    const TemporaryFolder folder;
    const XloraConfig config{.adapters = {"0", "1", "2"}, .activations = activations, .dropout = dropout};
    write_xlora(folder / "", config, classifier, {.layout = layout});
    std::string found;
    const SafetensorsShards written(folder / "",
                                    layout == XloraLayout::official ? "xlora_classifier" : "adapter_model");
    for (const auto& [name, file] : written.tensors()) found += name.substr(name.find("classifier.") + 1) + " ";
    return found;
  };
  CHECK(names(XloraLayout::official, true, 0.2) == "inner.0.weight inner.3.weight last.weight ");
  CHECK(names(XloraLayout::official, false, 0.2) == "inner.0.weight inner.1.weight last.weight ");
  CHECK(names(XloraLayout::peft, true, 0.2).find("layers.6.bias") != std::string::npos);
  CHECK(names(XloraLayout::peft, true, 0).find("layers.4.bias") != std::string::npos);
}

TEST_CASE("What no layout of X-LoRA can say is refused, and nothing is written", "[io]") {
  Rng rng(3);
  const TemporaryFolder folder;
  const auto text = [&](const DeepRouterOptions& sizes, const XloraConfig& config, WriteXloraOptions options = {}) {
    const DeepRouter<float> classifier(sizes, rng);
    return error_text(ErrorCode::option, [&] { write_xlora(folder / "x", config, classifier, options); });
  };
  const auto has = [](const std::string& whole, const std::string& part) { return whole.find(part) != whole.npos; };
  const XloraConfig three{.adapters = {"0", "1", "2"}};
  CHECK(has(text({.in = 5, .experts = 3}, {}), "the names of the adapters"));
  CHECK(has(text({.in = 5, .experts = 3}, {.adapters = {"0", "1", "0"}}), "found '0' twice"));
  CHECK(has(text({.in = 5, .experts = 3}, {.adapters = {"0", "", "2"}}), "an empty one"));
  CHECK(has(text({.in = 5, .experts = 4}, three), "expected 3 outputs"));
  CHECK(has(text({.in = 5, .experts = 4}, {.adapters = {"0", "1", "2"}, .layerwise = true}), "a multiple of 3"));
  CHECK(has(text({.in = 5, .experts = 3, .widths = {4, 6}}, three), "hidden layers of one width"));
  CHECK(has(text({.in = 5, .experts = 3, .widths = {4}}, {.adapters = {"0", "1", "2"}, .activations = false}),
            "with activations"));
  CHECK(has(text({.in = 5, .experts = 3}, three, {.adapter_paths = {"p"}}), "a path of each of 3"));
  CHECK(folder.entries() == 0);
}

TEST_CASE("peft's layout is not written beside the official one, which would be read in its place", "[io]") {
  Rng rng(3);
  const DeepRouter<float> classifier({.in = 5, .experts = 3}, rng);
  const XloraConfig config{.adapters = {"0", "1", "2"}};
  const TemporaryFolder folder;
  write_xlora(folder / "", config, classifier, {.layout = XloraLayout::official});
  CHECK(error_text(ErrorCode::file, [&] {
          write_xlora(folder / "", config, classifier, {.layout = XloraLayout::peft});
        }).find("no 'xlora_config.json'") != std::string::npos);
  CHECK(folder.entries() == 2);
}
