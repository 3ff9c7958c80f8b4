// SPDX-License-Identifier: MIT
// write_routing_trace(), read_routing_trace(): recorded routings in a file.
#pragma once

#include "mole/core/routing.hpp"
#include "mole/io/safetensors_reader.hpp"
#include "mole/io/safetensors_writer.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The largest number of experts that a file of routings may claim: a reader reserves memory for each.
inline constexpr Index most_experts_of_routing_file = Index(1) << 20;

/// Writes a recording, such as RoutingTrace, as a safetensors file:
///
///   experts, tokens [calls]   chosen [tokens of all calls]   expert, weight [pairs of all calls]
///
/// Replaces `path` as SafetensorsWriter does. Throws Error(option) for more experts than a file may have.
template <class Recording>
void write_routing_trace(const std::filesystem::path& path, const Recording& recording) {
  using T = typename Recording::Scalar;
  std::vector<std::int64_t> experts, tokens, chosen, expert;
  std::vector<T> weight;
  Routing<T> routing;
  for (Index call = 0; call < recording.calls(); ++call) {
    recording.replay(call, routing);
    require(routing.experts() <= most_experts_of_routing_file, ErrorCode::option,
            "write_routing_trace: expected at most ", most_experts_of_routing_file, " experts, found ",
            routing.experts());
    experts.push_back(routing.experts());
    tokens.push_back(routing.tokens());
    for (Index n = 0; n < routing.tokens(); ++n) {
      const std::span<const int> of_token = std::as_const(routing).experts_of(n);
      chosen.push_back(std::int64_t(of_token.size()));
      expert.insert(expert.end(), of_token.begin(), of_token.end());
    }
    weight.insert(weight.end(), routing.gates().begin(), routing.gates().end());
  }
  SafetensorsWriter writer;
  writer.set_metadata("format", "mole.routing.1");
  writer.add_integers("experts", std::span<const std::int64_t>(experts));
  writer.add_integers("tokens", std::span<const std::int64_t>(tokens));
  writer.add_integers("chosen", std::span<const std::int64_t>(chosen));
  writer.add_integers("expert", std::span<const std::int64_t>(expert));
  writer.add_vector("weight", std::span<const T>(weight));
  writer.write(path);
}

namespace detail {

/// The columns of a file of routings, read from front to back; every number is checked before it is used.
template <class T>
class RoutingColumns {
 public:
  RoutingColumns(const SafetensorsReader& file, const std::string& source) : source_(source) {
    const auto format = file.metadata().find("format");
    if (format == file.metadata().end() || format->second != "mole.routing.1")
      throw file_error(source_, "format mole.routing.1", format == file.metadata().end() ? "none" : format->second);
    experts_ = integers(file, "experts");
    tokens_ = integers(file, "tokens");
    chosen_ = integers(file, "chosen");
    expert_ = integers(file, "expert");
    check_column(file, "weight", dtype_of<T>());
    weight_ = file.matrix<T>("weight");
    same_size("tokens", experts_.size(), tokens_.size());
    same_size("weight", expert_.size(), std::size_t(weight_.size()));
  }

  Index calls() const { return Index(experts_.size()); }

  /// The routing of the next call.
  void take(Index call, Routing<T>& routing) {
    const std::string of_call = " of call " + std::to_string(call);
    const Index experts = in_range("experts" + of_call, experts_[std::size_t(call)], 0, most_experts_of_routing_file);
    const Index tokens = in_range("tokens" + of_call, tokens_[std::size_t(call)], 0, left(chosen_.size() - token_));
    routing.start(experts);
    for (Index n = 0; n < tokens; ++n) {
      const std::string of_token = " of token " + std::to_string(n) + of_call;
      const std::int64_t room = std::numeric_limits<int>::max() - routing.pairs();
      const Index chosen =
          in_range("experts" + of_token, chosen_[token_++], 0, std::min(room, left(expert_.size() - pair_)));
      for (Index i = 0; i < chosen; ++i, ++pair_)
        routing.push(int(in_range("an expert" + of_token, expert_[pair_], 0, experts - 1)), weight_.data()[pair_]);
      routing.end_token();
    }
    routing.finish();
  }

  /// To be called after the last call: every number has been used.
  void end() const {
    same_size("chosen", token_, chosen_.size());
    same_size("expert", pair_, expert_.size());
  }

 private:
  void check_column(const SafetensorsReader& file, const std::string& name, Dtype dtype) const {
    const SafetensorsEntry& entry = file.at(name);
    if (entry.dtype != dtype)
      throw file_error(source_, std::string(name_of(dtype)) + " for '" + name + "'", std::string(name_of(entry.dtype)));
    if (entry.shape.size() != 1)
      throw file_error(source_, "1 dimension of '" + name + "'", std::to_string(entry.shape.size()));
  }
  std::vector<std::int64_t> integers(const SafetensorsReader& file, const std::string& name) const {
    check_column(file, name, Dtype::i64);
    return file.integers(name);
  }
  /// `numbers`, limited to what the ints of a routing can count.
  static std::int64_t left(std::size_t numbers) {
    return std::int64_t(std::min(numbers, std::size_t(std::numeric_limits<int>::max())));
  }
  void same_size(const std::string& name, std::size_t expected, std::size_t found) const {
    if (expected != found)
      throw file_error(source_, std::to_string(expected) + " numbers in '" + name + "'", std::to_string(found));
  }
  Index in_range(const std::string& what, std::int64_t found, std::int64_t least, std::int64_t most) const {
    if (found < least || found > most)
      throw file_error(source_, what + " from " + std::to_string(least) + " to " + std::to_string(most),
                       std::to_string(found));
    return Index(found);
  }

  std::string source_;
  std::vector<std::int64_t> experts_, tokens_, chosen_, expert_;
  Matrix<T> weight_;
  std::size_t token_ = 0, pair_ = 0;
};

}  // namespace detail

/// The recording in a file, as read_routing_trace<RoutingTrace<float>>(path).
///
/// Throws Error(file), with what was expected and what was found, for a file that is broken or of another format or
/// Scalar (a conversion would not give the same bits), for counts that do not add up and for experts out of range.
template <class Recording>
Recording read_routing_trace(const SafetensorsReader& file, const std::string& source) {
  using T = typename Recording::Scalar;
  detail::RoutingColumns<T> columns(file, source);
  Recording recording;
  Routing<T> routing;
  for (Index call = 0; call < columns.calls(); ++call) {
    columns.take(call, routing);
    recording.record(routing);
  }
  columns.end();
  return recording;
}

template <class Recording>
Recording read_routing_trace(const std::filesystem::path& path) {
  return read_routing_trace<Recording>(SafetensorsReader(path), path.string());
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
