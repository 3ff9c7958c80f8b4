// SPDX-License-Identifier: MIT
// PeftExperts and PeftWriter, the one the reverse of the other.
#include "mole/io/peft/peft_experts.hpp"

#include "peft_folder.hpp"

#include "core/error_code.hpp"
#include "mole/io/peft/peft_writer.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <cmath>
#include <functional>
#include <string>

using namespace mole;
using namespace mole::test;

namespace {

/// The matrix of expert e, in plain double.   [O x I]
template <class Experts>
Matrix<double> update_of(const Experts& experts, Index e = 0) {
  Matrix<typename Experts::Scalar> delta(experts.out(), experts.in());
  experts.add_delta(e, 1, delta.view());
  Matrix<double> update(delta.rows(), delta.cols());
  std::ranges::copy(delta.elements(), update.elements().begin());
  return update;
}

/// A tensor of the folder, in double.
Matrix<double> stored(const PeftAdapter& adapter, const char* suffix) {
  return adapter.tensor(adapter.modules[0], suffix).matrix<double>();
}

void check_update(const Matrix<double>& found, const std::function<double(Index, Index)>& expected) {
  double largest = 0;
  for (Index o = 0; o < found.rows(); ++o)
    for (Index i = 0; i < found.cols(); ++i) largest = std::max(largest, std::abs(expected(o, i)));
  for (Index o = 0; o < found.rows(); ++o)
    for (Index i = 0; i < found.cols(); ++i) CHECK(std::abs(found(o, i) - expected(o, i)) <= 1e-6 * largest);
}

/// (a b)(row, col)
double product(const Matrix<double>& a, const Matrix<double>& b, Index row, Index col) {
  double sum = 0;
  for (Index k = 0; k < a.cols(); ++k) sum += a(row, k) * b(k, col);
  return sum;
}

/// Writes what `add` adds to a writer, twice over: of what was read from the first folder the second holds every byte.
void check_bytes(const PeftAdapter& adapter, const std::function<void(PeftWriter&, PeftExperts<float>&)>& add) {
  const TemporaryFolder folder;
  PeftExperts<float> first(adapter);
  PeftWriter writer;
  add(writer, first);
  writer.write(folder / "first");
  PeftExperts<float> second(read_peft(folder / "first"));
  PeftWriter again;
  add(again, second);
  again.write(folder / "second");
  for (const char* file : {"/adapter_model.safetensors", "/adapter_config.json"})
    CHECK(content_of(folder / (std::string("first") + file)) == content_of(folder / (std::string("second") + file)));
  const PeftAdapter back = read_peft(folder / "first");
  CHECK(back.report.text() == std::to_string(adapter.report.used.size()) + " used");
  CHECK(float(back.modules[0].scale) == float(adapter.modules[0].scale));
  for (const PeftModule& module : adapter.modules)
    for (const auto& [suffix, tensor] : module.tensors) {
      const PeftTensor& written = back.tensor(back.at(module.path), suffix);
      CHECK(written.shape() == tensor.shape());
      CHECK(std::ranges::equal(written.entry->bytes, tensor.entry->bytes));
    }
}

}  // namespace

TEST_CASE("LoRA is s B A, with or without a bias, and is written as it was read", "[io]") {
  PeftFolder folder(R"({"peft_type":"LORA","r":2,"lora_alpha":5,"use_rslora":true,"lora_dropout":0.25})");
  folder.lora("m.q", 3, 4, 2);
  const PeftAdapter adapter = folder.read();
  const PeftExperts<double> experts(adapter);
  CHECK(experts.lora("m.q").scale()[0] == 5 / std::sqrt(2.0));
  CHECK(experts.dropout().rate == 0.25);
  const Matrix<double> a = stored(adapter, "lora_A.weight"), b = stored(adapter, "lora_B.weight");
  check_update(update_of(experts.lora("m.q")),
               [&](Index o, Index i) { return 5 / std::sqrt(2.0) * product(b, a, o, i); });
  CHECK(code_of([&] { experts.biased_lora("m.q"); }) == ErrorCode::option);
  CHECK(code_of([&] { experts.adalora("m.q"); }) == ErrorCode::option);
  CHECK(code_of([&] { experts.lora("q"); }) == ErrorCode::option);
  check_bytes(adapter, [](PeftWriter& to, PeftExperts<float>& from) { to.add("m.q", from.lora("m.q")); });

  PeftFolder biased(R"({"peft_type":"LORA","r":2,"lora_bias":true})");
  biased.lora("m.q", 3, 4, 2).add("base_model.model.m.q.lora_B.bias", {4});
  CHECK(PeftExperts<float>(biased.read()).biased_lora("m.q").bias()(0, 3) == 8.5f);
  CHECK(code_of([&] { PeftExperts<float>(biased.read()).lora("m.q"); }) == ErrorCode::option);
  check_bytes(biased.read(), [](PeftWriter& to, PeftExperts<float>& from) { to.add("m.q", from.biased_lora("m.q")); });
}

TEST_CASE("DoRA takes its magnitudes and its scale, and is written as it was read", "[io]") {
  PeftFolder folder(R"({"peft_type":"LORA","r":2,"lora_alpha":5,"use_dora":true})");
  folder.lora("q", 3, 4, 2).add("base_model.model.q.lora_magnitude_vector", {4});
  const PeftAdapter adapter = folder.read();
  const Matrix<float> weight = support::random_matrix<float>(4, 3, 1);
  const Matrix<double> a = stored(adapter, "lora_A.weight"), b = stored(adapter, "lora_B.weight"),
                       m = stored(adapter, "lora_magnitude_vector");
  const auto v = [&](Index o, Index i) { return double(weight(o, i)) + 2.5 * product(b, a, o, i); };
  check_update(update_of(PeftExperts<float>(adapter).dora("q", weight)), [&](Index o, Index i) {
    const double length = std::sqrt(v(o, 0) * v(o, 0) + v(o, 1) * v(o, 1) + v(o, 2) * v(o, 2));
    return m(0, o) / length * v(o, i) - double(weight(o, i));
  });
  CHECK(code_of([&] { PeftExperts<float>(adapter).dora("q", weight.view().top(3)); }) == ErrorCode::shape);
  check_bytes(adapter, [&](PeftWriter& to, PeftExperts<float>& from) { to.add("q", from.dora("q", weight)); });
}

TEST_CASE("AdaLoRA is s B diag(E) A, and is written as it was read, whatever ranks are left", "[io]") {
  PeftFolder folder(
      R"({"peft_type":"ADALORA","init_r":3,"lora_alpha":5,"rank_pattern":{"q.lora_E":[true,false,true]}})");
  for (const auto& [path, rank] : {std::pair("q", Index(2)), std::pair("v", Index(3))})
    folder.add(std::string("base_model.model.") + path + ".lora_A", {rank, 5})
        .add(std::string("base_model.model.") + path + ".lora_B", {4, rank})
        .add(std::string("base_model.model.") + path + ".lora_E", {rank, 1});
  const PeftAdapter adapter = folder.read();
  const Matrix<double> a = stored(adapter, "lora_A"), b = stored(adapter, "lora_B"), e = stored(adapter, "lora_E");
  check_update(update_of(PeftExperts<float>(adapter).adalora("q")), [&](Index o, Index i) {
    return 5 / (3 + 1e-5) * (b(o, 0) * e(0, 0) * a(0, i) + b(o, 1) * e(1, 0) * a(1, i));
  });
  check_bytes(adapter, [](PeftWriter& to, PeftExperts<float>& from) {
    to.add("q", from.adalora("q"));
    to.add("v", from.adalora("v"));
  });
}

TEST_CASE("VeRA reads the first columns of what all layers share, and is written as it was read", "[io]") {
  PeftFolder folder(R"({"peft_type":"VERA","r":2})");
  folder.add("base_model.vera_A", {2, 5}).add("base_model.vera_B", {6, 2});
  for (const std::string path : {"q", "v"})
    folder.add("base_model.model." + path + ".vera_lambda_b", {path == "q" ? 4 : 6})
        .add("base_model.model." + path + ".vera_lambda_d", {2});
  const PeftAdapter adapter = folder.read();
  PeftExperts<float> experts(adapter);
  const Matrix<double> a = stored(adapter, "vera_A"), b = stored(adapter, "vera_B"),
                       l_b = stored(adapter, "vera_lambda_b"), l_d = stored(adapter, "vera_lambda_d");
  const auto q = experts.vera("q", 3);
  CHECK(q.factors().pair() == experts.vera("v", 5).factors().pair());
  check_update(update_of(q), [&](Index o, Index i) {
    return l_b(0, o) * (b(o, 0) * l_d(0, 0) * a(0, i) + b(o, 1) * l_d(0, 1) * a(1, i));
  });
  CHECK(code_of([&] { experts.vera("v", 6); }) == ErrorCode::shape);
  check_bytes(adapter, [](PeftWriter& to, PeftExperts<float>& from) {
    to.add("q", from.vera("q", 3));
    to.add("v", from.vera("v", 5));
  });
}

TEST_CASE("A module with frozen matrices of its own reads these, whichever module was read before", "[io]") {
  PeftFolder folder(R"({"peft_type":"VERA","r":2})");
  folder.add("base_model.vera_A", {2, 5}).add("base_model.vera_B", {4, 2}).add("base_model.model.v.vera_A", {2, 5});
  for (const std::string path : {"q", "v", "w"})
    folder.add("base_model.model." + path + ".vera_lambda_b", {4})
        .add("base_model.model." + path + ".vera_lambda_d", {2});
  const PeftAdapter adapter = folder.read();
  PeftExperts<float> experts(adapter);
  const auto q = experts.vera("q", 5).factors().pair(), v = experts.vera("v", 5).factors().pair();
  CHECK(experts.vera("w", 5).factors().pair() == q);
  CHECK(q->a(1, 4) == adapter.shared.at("vera_A").matrix<float>()(1, 4));
  CHECK(v->a(1, 4) == adapter.at("v").tensors.at("vera_A").matrix<float>()(1, 4));
  CHECK(v->a(1, 4) != q->a(1, 4));
}

TEST_CASE("Sizes of an AdaLoRA beside a rank of 0 are not counted to", "[io]") {
  PeftFolder folder(R"({"peft_type":"ADALORA","init_r":2,"rank_pattern":{"q.lora_E":[false,false]}})");
  const Index many = Index(1) << 40;
  folder.add_bytes("base_model.model.q.lora_A", Dtype::f32, {0, many}, {});
  folder.add_bytes("base_model.model.q.lora_B", Dtype::f32, {many, 0}, {});
  folder.add_bytes("base_model.model.q.lora_E", Dtype::f32, {0, 1}, {});
  const auto experts = PeftExperts<float>(folder.read()).adalora("q");
  CHECK(experts.out() == many);
  PeftWriter writer;
  writer.add("q", experts);
  const TemporaryFolder out;
  CHECK(code_of([&] { writer.write(out / ""); }) == ErrorCode::option);  // no ranks at all
}

TEST_CASE("RandLoRA pairs rows as its release, whichever side is smaller, and is written as it was read", "[io]") {
  PeftFolder folder(R"({"peft_type":"RANDLORA","r":2,"randlora_alpha":5})");
  folder.add("base_model.randlora_A", {2, 1, 4}).add("base_model.randlora_B", {6, 2, 2});
  folder.add("base_model.model.q.randlora_lambda", {2, 2}).add("base_model.model.q.randlora_gamma", {2, 3});
  const PeftAdapter adapter = folder.read();
  PeftExperts<float> experts(adapter);
  const Matrix<double> a = stored(adapter, "randlora_A"), b = stored(adapter, "randlora_B"),
                       lambda = stored(adapter, "randlora_lambda"), gamma = stored(adapter, "randlora_gamma");
  // Column c of uB is basis c / 2, row c % 2; row c of uA is of rank c / 2, basis c % 2.
  const auto wide = [&](Index large, Index small) {
    double sum = 0;
    for (Index c = 0; c < 4; ++c) sum += b(large, c) * lambda(c / 2, c % 2) * a(c / 2, small) * gamma(c % 2, small);
    return 2.5 * sum;
  };
  check_update(update_of(experts.randlora("q", 3, 5)), [&](Index o, Index i) { return wide(o, i); });
  check_update(update_of(experts.randlora("q", 5, 3)), [&](Index o, Index i) { return wide(i, o); });
  CHECK(code_of([&] { experts.randlora("q", 7, 3); }) == ErrorCode::shape);
  check_bytes(adapter, [](PeftWriter& to, PeftExperts<float>& from) { to.add("q", from.randlora("q", 3, 5)); });
}

TEST_CASE("LoHa and LoKr are their products, and are written as they were read", "[io]") {
  PeftFolder loha(R"({"peft_type":"LOHA","r":2,"alpha":5})");
  loha.add("base_model.model.q.hada_w1_a", {4, 2}).add("base_model.model.q.hada_w1_b", {2, 3});
  loha.add("base_model.model.q.hada_w2_a", {4, 2}).add("base_model.model.q.hada_w2_b", {2, 3});
  const PeftAdapter h = loha.read();
  check_update(update_of(PeftExperts<float>(h).loha("q")), [&](Index o, Index i) {
    return 2.5 * product(stored(h, "hada_w1_a"), stored(h, "hada_w1_b"), o, i) *
           product(stored(h, "hada_w2_a"), stored(h, "hada_w2_b"), o, i);
  });
  check_bytes(h, [](PeftWriter& to, PeftExperts<float>& from) { to.add("q", from.loha("q")); });

  // I = 3 x 4 and O = 3 x 6, by a factor of 3: a whole W1, and W2 of rank 2.
  PeftFolder lokr(R"({"peft_type":"LOKR","r":2,"alpha":5,"decompose_factor":3})");
  lokr.add("base_model.model.q.lokr_w1", {3, 3}).add("base_model.model.q.lokr_w2_a", {6, 2});
  lokr.add("base_model.model.q.lokr_w2_b", {2, 4});
  const PeftAdapter k = lokr.read();
  const Matrix<double> w1 = stored(k, "lokr_w1"), w2_a = stored(k, "lokr_w2_a"), w2_b = stored(k, "lokr_w2_b");
  check_update(update_of(PeftExperts<float>(k).lokr("q")),
               [&](Index o, Index i) { return 2.5 * w1(o / 6, i / 4) * product(w2_a, w2_b, o % 6, i % 4); });
  check_bytes(k, [](PeftWriter& to, PeftExperts<float>& from) { to.add("q", from.lokr("q")); });
}

TEST_CASE("Experts of a stacked parameter: A one after the other, B rank after rank", "[io]") {
  PeftFolder folder(R"({"peft_type":"LORA","r":4,"lora_alpha":6,"target_parameters":["experts.up","experts.down"],
                        "rank_pattern":{"experts.up":2},"alpha_pattern":{"up":5}})");
  folder.lora("m.experts.base_layer", 3, 4, 6);
  const PeftAdapter adapter = folder.read();
  const PeftExperts<float> experts(adapter);
  const auto all = experts.stacked_lora("m.experts.base_layer", "up");
  REQUIRE(all.experts() == 3);
  const Matrix<double> a = stored(adapter, "lora_A.weight"), b = stored(adapter, "lora_B.weight");
  for (Index e = 0; e < 3; ++e)
    check_update(update_of(all, e),
                 [&](Index o, Index i) { return 2.5 * (b(o, e) * a(e * 2, i) + b(o, 3 + e) * a(e * 2 + 1, i)); });
  CHECK(code_of([&] { experts.stacked_lora("m.experts.base_layer", "down"); }) == ErrorCode::shape);  // 6 of rank 4
  CHECK(code_of([&] { experts.lora("m.experts.base_layer"); }) == ErrorCode::option);
  const TemporaryFolder written;
  PeftWriter writer;
  writer.add_stacked("m.experts.base_layer", "up", all);
  writer.write(written / "");
  const PeftAdapter back = read_peft(written / "");
  CHECK(back.config.scale_of("m.experts.up") == 2.5);
  CHECK(std::ranges::equal(back.tensor(back.modules[0], "lora_B.weight").entry->bytes,
                           adapter.tensor(adapter.modules[0], "lora_B.weight").entry->bytes));
}

TEST_CASE("An embedding's table gains the columns of B A", "[io]") {
  PeftFolder folder(R"({"peft_type":"LORA","r":2,"lora_alpha":5})");
  folder.add("base_model.model.words.lora_embedding_A", {2, 7}).add("base_model.model.words.lora_embedding_B", {3, 2});
  const PeftAdapter adapter = folder.read();
  const Matrix<double> a = stored(adapter, "lora_embedding_A"), b = stored(adapter, "lora_embedding_B");
  check_update(update_of(PeftExperts<float>(adapter).embedding("words")),
               [&](Index o, Index i) { return 2.5 * product(b, a, o, i); });
  CHECK(code_of([&] { PeftExperts<float>(adapter).lora("words"); }) == ErrorCode::option);
  check_bytes(adapter,
              [](PeftWriter& to, PeftExperts<float>& from) { to.add_embedding("words", from.embedding("words")); });
}

TEST_CASE("Tensors of modules that do not fit each other are refused", "[io]") {
  PeftFolder vera(R"({"peft_type":"VERA","r":2})");
  vera.add("base_model.vera_A", {2, 5}).add("base_model.vera_B", {6, 3});
  vera.add("base_model.model.q.vera_lambda_b", {4}).add("base_model.model.q.vera_lambda_d", {2});
  CHECK(code_of([&] { PeftExperts<float>(vera.read()).vera("q", 3); }) == ErrorCode::shape);
  PeftFolder loha(R"({"peft_type":"LOHA","r":2})");
  loha.add("base_model.model.q.hada_w1_a", {4, 2}).add("base_model.model.q.hada_w1_b", {2, 3});
  loha.add("base_model.model.q.hada_w2_a", {5, 2}).add("base_model.model.q.hada_w2_b", {2, 3});
  CHECK(code_of([&] { PeftExperts<float>(loha.read()).loha("q"); }) == ErrorCode::shape);
  PeftFolder lokr(R"({"peft_type":"LOKR","r":2})");
  lokr.add("base_model.model.q.lokr_w1", {2, 2}).add("base_model.model.q.lokr_w2_a", {3, 2});
  lokr.add("base_model.model.q.lokr_w2_b", {3, 3});
  CHECK(code_of([&] { PeftExperts<float>(lokr.read()).lokr("q"); }) == ErrorCode::shape);
  PeftFolder adalora(R"({"peft_type":"ADALORA","init_r":2})");
  adalora.add("base_model.model.q.lora_A", {2, 3}).add("base_model.model.q.lora_B", {4, 2});
  adalora.add("base_model.model.q.lora_E", {3, 1});
  CHECK(code_of([&] { PeftExperts<float>(adalora.read()).adalora("q"); }) == ErrorCode::shape);
  PeftFolder bias(R"({"peft_type":"LORA","r":2,"lora_bias":true})");
  bias.lora("q", 3, 4, 2).add("base_model.model.q.lora_B.bias", {3});
  CHECK(code_of([&] { PeftExperts<float>(bias.read()).biased_lora("q"); }) == ErrorCode::shape);
}
