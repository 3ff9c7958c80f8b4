// SPDX-License-Identifier: MIT
#include "mole/io/routing_trace_file.hpp"

#include "io/temporary_folder.hpp"
#include "mole/stats/routing_trace.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;
using support::random_matrix;
using test::TemporaryFolder;

namespace {

using Integers = std::vector<std::int64_t>;

/// The columns of a file that holds two calls: of 3 experts and 2 tokens, and of 2 experts and 1 token.
struct Columns {
  std::string format = "mole.routing.1";
  Integers experts{3, 2}, tokens{2, 1}, chosen{2, 0, 1}, expert{2, 0, 1};
  std::vector<float> weight{0.5f, 0.25f, 1};

  void write(const std::filesystem::path& path) const {
    SafetensorsWriter writer;
    writer.set_metadata("format", format);
    for (const auto& [name, column] : {std::pair("experts", &experts), {"tokens", &tokens}, {"chosen", &chosen}})
      writer.add_integers(name, std::span<const std::int64_t>(*column));
    writer.add_integers("expert", std::span<const std::int64_t>(expert));
    writer.add_vector("weight", std::span<const float>(weight));
    writer.write(path);
  }
};

/// What reading the file says about `columns`; empty when it says nothing.
std::string complaint_about(const Columns& columns) {
  const TemporaryFolder folder;
  columns.write(folder / "trace.safetensors");
  try {
    read_routing_trace<RoutingTrace<float>>(folder / "trace.safetensors");
  } catch (const Error& error) {
    return error.code() == ErrorCode::file ? error.what() : "another code";
  }
  return {};
}
bool complains(const Columns& columns, const std::string& part) {
  const std::string text = complaint_about(columns);
  INFO(text);
  CHECK(text.find(part) != text.npos);
  return !text.empty();
}

}  // namespace

TEST_CASE("A layer's calls replayed from a file have their bits", "[io]") {
  const TemporaryFolder folder;
  auto layer = support::routed_layer<float>({.experts = 6}, Gate{Softmax{}, TopP{.p = 0.6}, Raw{}}, Simd<>{});
  auto work = layer.workspace(9);
  RoutingTrace<float> trace;
  std::vector<Matrix<float>> outputs;
  for (Index tokens : {Index(9), Index(0), Index(4)}) {
    const auto x = random_matrix<float>(tokens, layer.in(), std::uint64_t(tokens));
    outputs.emplace_back(tokens, layer.out());
    layer.forward(x, outputs.back(), work);
    trace.record(work.routing);
  }
  write_routing_trace(folder / "trace.safetensors", trace);
  const auto read = read_routing_trace<RoutingTrace<float>>(folder / "trace.safetensors");
  REQUIRE(read.calls() == 3);
  for (Index call = 0; call < 3; ++call) {
    const Routing<float> routing = read.replay(call);
    const auto x = random_matrix<float>(routing.tokens(), layer.in(), std::uint64_t(routing.tokens()));
    Matrix<float> y(x.rows(), layer.out());
    layer.apply(x, routing, y, work);
    CHECK(support::same_bits(y, outputs[std::size_t(call)]));
  }
}

TEST_CASE("A recording without calls is a file, too", "[io]") {
  const TemporaryFolder folder;
  write_routing_trace(folder / "trace.safetensors", RoutingTrace<double>{});
  CHECK(read_routing_trace<RoutingTrace<double>>(folder / "trace.safetensors").calls() == 0);
}

TEST_CASE("What the columns of a file mean", "[io]") {
  const TemporaryFolder folder;
  Columns{}.write(folder / "trace.safetensors");
  const auto trace = read_routing_trace<RoutingTrace<float>>(folder / "trace.safetensors");
  REQUIRE(trace.calls() == 2);
  const Routing<float> first = trace.replay(0), second = trace.replay(1);
  CHECK(first.experts() == 3);
  CHECK(first.tokens() == 2);
  CHECK(first.expert(0) == 2);
  CHECK(first.expert(1) == 0);
  CHECK(first.gate(1) == 0.25f);
  CHECK(first.experts_of(1).empty());
  CHECK(second.experts() == 2);
  CHECK(second.expert(0) == 1);
  CHECK(second.gate(0) == 1);
}

TEST_CASE("A file that is no recording, or does not add up, is refused", "[io]") {
  CHECK(complaint_about({}).empty());
  CHECK(complains({.format = "mole.checkpoint.1"}, "expected format mole.routing.1, found mole.checkpoint.1"));
  CHECK(complains({.tokens = {3}}, "expected 2 numbers in 'tokens', found 1"));
  CHECK(complains({.weight = {1, 1}}, "expected 3 numbers in 'weight', found 2"));
  CHECK(complains({.experts = {3, -1}}, "experts of call 1 from 0 to 1048576, found -1"));
  CHECK(complains({.experts = {Index(1) << 40, 2}}, "experts of call 0 from 0 to 1048576"));
  CHECK(complains({.tokens = {2, -1}}, "tokens of call 1 from 0 to 1, found -1"));
  CHECK(complains({.tokens = {2, 2}}, "tokens of call 1 from 0 to 1, found 2"));
  CHECK(complains({.tokens = {2, 0}}, "expected 2 numbers in 'chosen', found 3"));
  CHECK(complains({.chosen = {2, -1, 1}}, "experts of token 1 of call 0 from 0 to 1, found -1"));
  CHECK(complains({.chosen = {2, 0, 2}}, "experts of token 0 of call 1 from 0 to 1, found 2"));
  CHECK(complains({.chosen = {2, 0, 0}}, "expected 2 numbers in 'expert', found 3"));
  CHECK(complains({.expert = {2, 3, 1}}, "an expert of token 0 of call 0 from 0 to 2, found 3"));
  CHECK(complains({.expert = {2, -1, 1}}, "an expert of token 0 of call 0 from 0 to 2, found -1"));
}

TEST_CASE("A recording of another type of weights is refused", "[io]") {
  const TemporaryFolder folder;
  const auto path = folder / "trace.safetensors";
  Columns{}.write(path);
  CHECK_THROWS_AS(read_routing_trace<RoutingTrace<double>>(path), Error);
  CHECK_THROWS_AS(read_routing_trace<RoutingTrace<float>>(folder / "none.safetensors"), Error);
  test::put(path, "not a safetensors file");
  CHECK_THROWS_AS(read_routing_trace<RoutingTrace<float>>(path), Error);
}
