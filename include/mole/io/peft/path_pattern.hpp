// SPDX-License-Identifier: MIT
// PathPattern: a regular expression over the paths of modules, as peft's configurations have them.
#pragma once

#include "mole/core/error.hpp"

#include <algorithm>
#include <bitset>
#include <string>
#include <string_view>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The expressions of Python's re that are regular: literals, . [] () | * + ? {m,n}, lazy or not, ^ $ `\d` `\w` `\s`
/// and other escapes. Bytes are characters.
///
/// Throws Error(option), naming the expression, for lookaround, backreferences, `\b`, flags and possessive repetition,
/// for what is malformed, and for an expression of more than max_steps steps. O(path x steps) for any path: an
/// expression from a stranger takes no more.
class PathPattern {
 public:
  static constexpr std::size_t max_steps = 4096;

  explicit PathPattern(std::string expression) : expression_(std::move(expression)) {
    alternatives(0);
    if (at_ != expression_.size()) fail("a balanced )");
    emit({Kind::match});
    plain_ = std::all_of(steps_.begin() + anchored(), steps_.end() - 1,
                         [](const Step& step) { return step.kind == Kind::byte; });
  }

  /// Is the expression the whole path, or what comes after one of its dots?   (.*\.)?(expression)$
  /// Source: huggingface/peft, utils/other.py, get_pattern_key.
  bool ends(std::string_view path) const {
    if (plain_) return ends_plain(path);
    std::vector<std::size_t> now, next;
    std::vector<bool> seen(steps_.size());
    for (std::size_t at = 0;; ++at) {
      if (at == 0 || path[at - 1] == '.') follow(0, at, path.size(), seen, now);
      if (at == path.size()) break;
      std::fill(seen.begin(), seen.end(), false);
      next.clear();
      for (const std::size_t step : now)
        if (steps_[step].kind == Kind::byte && steps_[step].bytes[static_cast<unsigned char>(path[at])])
          follow(step + 1, at + 1, path.size(), seen, next);
      now.swap(next);
    }
    return std::ranges::any_of(now, [&](std::size_t step) { return steps_[step].kind == Kind::match; });
  }

  const std::string& expression() const { return expression_; }
  /// Of memory, or of time for each character of a path: what is taken beyond that of a text of the same length.
  std::size_t excess() const {
    return plain_ ? steps_.size() - std::min(steps_.size(), expression_.size() + 1) : steps_.size();
  }

 private:
  using Bytes = std::bitset<256>;
  enum class Kind { byte, jump, split, begin, end, match };
  /// Offsets are relative, so that a part of a program can be repeated.
  struct Step {
    Kind kind;
    std::ptrdiff_t first = 1, second = 1;  // of a jump, and of both ways of a split
    Bytes bytes = {};
  };

  /// Does it begin with ^ ?
  std::ptrdiff_t anchored() const { return steps_.front().kind == Kind::begin; }
  /// Of characters alone, with one length: it can match at one place, and most paths differ at once. Adapters with a
  /// pattern for each of their modules have many.
  bool ends_plain(std::string_view path) const {
    const Step* step = steps_.data() + anchored();
    const std::size_t size = std::size_t(steps_.data() + steps_.size() - 1 - step);
    if (size > path.size()) return false;
    const std::size_t begin = path.size() - size;
    if (begin > 0 && (anchored() || path[begin - 1] != '.')) return false;
    return std::ranges::all_of(path.substr(begin),
                               [&](char c) { return (step++)->bytes[static_cast<unsigned char>(c)]; });
  }

  void follow(std::size_t step, std::size_t at, std::size_t size, std::vector<bool>& seen,
              std::vector<std::size_t>& to) const {
    std::vector<std::size_t> waiting{step};
    while (!waiting.empty()) {
      step = waiting.back();
      waiting.pop_back();
      if (seen[step]) continue;
      seen[step] = true;
      const Step& here = steps_[step];
      switch (here.kind) {
        case Kind::split:
          waiting.push_back(step + std::size_t(here.second));
          [[fallthrough]];
        case Kind::jump:
          waiting.push_back(step + std::size_t(here.first));
          break;
        case Kind::begin:
          if (at == 0) waiting.push_back(step + 1);
          break;
        case Kind::end:
          if (at == size) waiting.push_back(step + 1);
          break;
        default:
          to.push_back(step);
      }
    }
  }

  [[noreturn]] void fail(const std::string& expected) const {
    throw Error(ErrorCode::option, "PathPattern: expected " + expected + " at character " + std::to_string(at_) +
                                       " of a regular expression, found '" + expression_ + "'");
  }
  bool more() const { return at_ < expression_.size(); }
  bool take(std::string_view text) {
    if (!std::string_view(expression_).substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }
  char take_any() {
    if (!more()) fail("another character");
    return expression_[at_++];
  }

  void emit(Step step) { insert(steps_.size(), step); }
  void insert(std::size_t place, Step step) {
    if (steps_.size() >= max_steps) fail("at most " + std::to_string(max_steps) + " steps");
    steps_.insert(steps_.begin() + std::ptrdiff_t(place), step);
  }
  std::ptrdiff_t length_from(std::size_t begin) const { return std::ptrdiff_t(steps_.size() - begin); }

  void alternatives(int depth) {
    if (depth > 50) fail("at most 50 nested groups");
    std::vector<std::size_t> jumps;
    std::size_t begin = steps_.size();
    for (;;) {
      while (more() && expression_[at_] != '|' && expression_[at_] != ')') repetition(depth);
      if (!take("|")) break;
      insert(begin, {Kind::split, 1, length_from(begin) + 2});
      jumps.push_back(steps_.size());
      emit({Kind::jump});
      begin = steps_.size();
    }
    for (const std::size_t jump : jumps) steps_[jump].first = length_from(jump);
  }

  void repetition(int depth) {
    const std::size_t begin = steps_.size();
    const bool anchor = atom(depth);
    int least = 1, most = 1;  // most < 0: any number
    if (take("*"))
      least = 0, most = -1;
    else if (take("+"))
      most = -1;
    else if (take("?"))
      least = 0;
    else if (!counted(least, most))
      return;
    if (anchor) fail("something to repeat");
    take("?");  // lazy: the same set of paths
    if (more() && std::string_view("*+?").find(expression_[at_]) != std::string_view::npos)
      fail("one repetition, not possessive");
    repeat(begin, least, most);
  }
  bool counted(int& least, int& most) {
    const std::size_t back = at_;
    if (!take("{")) return false;
    const auto number = [&](int& to) {
      const std::size_t from = at_;
      for (to = 0; more() && expression_[at_] >= '0' && expression_[at_] <= '9'; ++at_)
        to = std::min(to * 10 + (expression_[at_] - '0'), int(max_steps));
      return at_ > from;
    };
    const bool has_least = number(least);
    most = least;
    bool has_most = has_least;
    if (take(",")) has_most = number(most) || (most = -1, true);  // {,} is *
    if (has_most && take("}")) return true;
    at_ = back;  // then { is a literal, which atom() has to take
    return false;
  }
  void repeat(std::size_t begin, int least, int most) {
    if (most >= 0 && most < least) fail("a repetition from few to many");
    const std::vector<Step> once(steps_.begin() + std::ptrdiff_t(begin), steps_.end());
    steps_.resize(begin);
    const auto append = [&] {
      for (const Step& step : once) emit(step);
    };
    for (int i = 0; i < least; ++i) append();
    const std::ptrdiff_t length = std::ptrdiff_t(once.size());
    if (most < 0) {
      emit({Kind::split, 1, length + 2});
      append();
      emit({Kind::jump, -length - 1});
    }
    for (int i = least; i < most; ++i) {
      emit({Kind::split, 1, length + 1});
      append();
    }
  }

  /// Is it a place rather than characters?
  bool atom(int depth) {
    if (take("(")) {
      if (take("?:")) {
      } else if (take("?P<")) {
        while (take_any() != '>') {
        }
      } else if (take("?")) {
        fail("a group without extensions");
      }
      alternatives(depth + 1);
      if (!take(")")) fail("a )");
    } else if (take("[")) {
      emit({Kind::byte, 1, 1, character_class()});
    } else if (take(".")) {
      emit({Kind::byte, 1, 1, ~one('\n')});
    } else if (take("^") || take("\\A")) {
      return emit({Kind::begin}), true;
    } else if (take("$") || take("\\Z")) {
      return emit({Kind::end}), true;
    } else if (int least = 0, most = 0; take("*") || take("+") || take("?") || counted(least, most)) {
      fail("something to repeat");
    } else {
      const char c = take_any();
      emit({Kind::byte, 1, 1, c == '\\' ? escape() : one(c)});
    }
    return false;
  }

  static Bytes one(char c) { return range(c, c); }
  static Bytes range(char first, char last) {
    Bytes bytes;
    for (int c = static_cast<unsigned char>(first); c <= static_cast<unsigned char>(last); ++c)
      bytes.set(std::size_t(c));
    return bytes;
  }
  static std::size_t first_of(const Bytes& bytes) {
    std::size_t byte = 0;
    while (!bytes[byte]) ++byte;
    return byte;
  }
  Bytes escape() {
    const char c = take_any();
    const auto either = [&](char plain, Bytes bytes) { return c == plain ? bytes : ~bytes; };
    const Bytes digits = range('0', '9');
    switch (c) {
      case 'd':
      case 'D':
        return either('d', digits);
      case 'w':
      case 'W':
        return either('w', digits | range('a', 'z') | range('A', 'Z') | one('_'));
      case 's':
      case 'S':
        return either('s', range('\t', '\r') | one(' '));
      case 'n':
        return one('\n');
      case 't':
        return one('\t');
      default:
        if ((digits | range('a', 'z') | range('A', 'Z'))[static_cast<unsigned char>(c)])
          fail(std::string("an escape other than \\") + c);
        return one(c);
    }
  }
  Bytes character_class() {
    const bool negated = take("^");
    Bytes bytes;
    for (bool first = true; first || !take("]"); first = false) {
      const char c = take_any();
      const Bytes from = c == '\\' ? escape() : one(c);
      const bool is_range = from.count() == 1 && more() && expression_[at_] == '-' && at_ + 1 < expression_.size() &&
                            expression_[at_ + 1] != ']';
      if (is_range) {
        take("-");
        const char end = take_any();
        const Bytes last = end == '\\' ? escape() : one(end);
        if (last.count() != 1 || first_of(last) < first_of(from)) fail("a range of characters");
        for (std::size_t byte = first_of(from); byte <= first_of(last); ++byte) bytes.set(byte);
      } else {
        bytes |= from;
      }
    }
    return negated ? ~bytes : bytes;
  }

  std::string expression_;
  std::size_t at_ = 0;
  std::vector<Step> steps_;
  bool plain_ = false;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
