// SPDX-License-Identifier: MIT
// Comparison: compares computed tensors with those of a golden file.
#pragma once

#include "golden/golden_file.hpp"

#include <cmath>
#include <cstdio>
#include <limits>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace golden {

/// How far a tensor may be from its file: `relative` to its own largest magnitude, but never closer than `floor` times
/// the file's largest gradient, because a gradient that is zero in exact arithmetic is rounding in both. Some releases
/// count choices in float32 whatever their input; `float32_counts` is for the losses of those.
template <class T>
struct Tolerance;
template <>
struct Tolerance<float> {
  static constexpr double relative = 1e-5, floor = 1e-6, float32_counts = 1e-5;
};
template <>
struct Tolerance<double> {
  static constexpr double relative = 1e-10, floor = 1e-15, float32_counts = 1e-6;
};

/// One golden file, and what was found to differ from it.
///
/// A file may lack any part, and name any option: what a check neither reads nor compares is a failure at its end.
template <class T>
class Comparison {
 public:
  explicit Comparison(const GoldenFile& file) : file_(file) {
    for (const auto& [name, tensor] : file.numbers)
      if (is_gradient(name)) largest_gradient_ = std::max(largest_gradient_, largest(tensor));
  }

  bool has(const std::string& name) const { return file_.has(name); }
  bool has_integers(const std::string& name) const { return file_.integers.contains(name); }
  std::vector<std::string> names() const { return file_.names(); }
  Matrix<T> matrix(const std::string& name) const {
    const Matrix<double>& stored = tensor_of(file_.numbers, name);
    Matrix<T> converted(stored.rows(), stored.cols());
    std::ranges::transform(stored.elements(), converted.elements().begin(), [](double value) { return T(value); });
    return converted;
  }
  /// A tensor that is read, though its name is that of an answer.
  Matrix<T> input(const std::string& name) {
    compared_.insert(name);
    return matrix(name);
  }
  /// A scalar, in the precision of the file whatever T is.
  double exact(const std::string& name) const { return tensor_of(file_.numbers, name)(0, 0); }
  /// Counts and flags, which some releases have in a floating-point type.
  std::vector<std::int64_t> integers(const std::string& name) const {
    if (!file_.numbers.contains(name)) return tensor_of(file_.integers, name);
    const auto numbers = tensor_of(file_.numbers, name).elements();
    return {numbers.begin(), numbers.end()};
  }

  /// Is the option there, and other than None?
  bool has_option(const std::string& key) const {
    read_.insert(key);
    const auto found = file_.options.find(key);
    return found != file_.options.end() && found->second != "None" && !found->second.empty();
  }
  const std::string& text(const std::string& key) const {
    if (!has_option(key)) throw std::runtime_error("option " + key + ": expected a value, found none");
    return file_.options.at(key);
  }
  double number(const std::string& key) const { return parsed(key, text(key)); }
  double number(const std::string& key, double otherwise) const { return has_option(key) ? number(key) : otherwise; }
  Index integer(const std::string& key) const { return Index(number(key)); }
  Index integer(const std::string& key, Index otherwise) const { return has_option(key) ? integer(key) : otherwise; }
  bool flag(const std::string& key, bool otherwise = false) const {
    if (!has_option(key)) return otherwise;
    if (text(key) != "True" && text(key) != "False") refuse(key, "True or False");
    return text(key) == "True";
  }
  /// Numbers in brackets, in parentheses, or bare.
  std::vector<double> list(const std::string& key) const {
    std::string bare = text(key);
    for (char& c : bare)
      if (c == ',' || c == '[' || c == ']' || c == '(' || c == ')') c = ' ';
    std::vector<double> numbers;
    std::istringstream words(bare);
    for (std::string word; words >> word;) numbers.push_back(parsed(key, word));
    return numbers;
  }
  [[noreturn]] void refuse(const std::string& key, const std::string& expected) const {
    throw std::runtime_error("option " + key + ": expected " + expected + ", found " + text(key));
  }
  /// An option that the method's code has no use for.
  void ignore_option(const std::string& key) { ignored_.insert(key); }
  /// An option that says, if it is there, what the file says in another way, too.
  void expect_option(const std::string& key, double found) {
    if (!has_option(key) || std::abs(number(key) - found) <= 1e-6 * std::abs(found)) return;
    char text[40];
    std::snprintf(text, sizeof text, "%.9g", found);
    fail("option " + key, "expected " + this->text(key) + ", found " + text);
  }

  /// The release of this file counts in float32.
  void losses_have_float32_counts() { float32_counts_ = true; }

  /// Says who computes the tensors that follow.
  void under(std::string execution) { execution_ = std::move(execution); }

  /// A tensor that the file must have.
  void expect(const std::string& name, View<const T> found) {
    compared_.insert(name);
    if (!has(name)) return fail(name, "expected in the file, found missing");
    const Matrix<T> expected = matrix(name);
    expect(name, expected, found);
  }
  /// A tensor that the file may leave out.
  void expect_optional(const std::string& name, View<const T> found) {
    if (has(name)) expect(name, found);
  }
  void expect_optional(const std::string& name, const std::vector<std::int64_t>& found) {
    if (!has(name)) return;
    compared_.insert(name);
    if (integers(name) != found) fail(name, "expected its integers, found others");
  }
  /// A gradient that the file may leave out when it is zero.
  void expect_gradient(const std::string& name, View<const T> found) {
    if (has(name)) return expect(name, found);
    const Matrix<T> zero(found.rows(), found.cols());
    expect(name, zero, found);
  }
  /// Something that the file says by several tensors.
  void expect_that(const std::string& what, bool holds) {
    if (!holds) fail(what, "expected to be the same, found different");
  }
  void expect_number(const std::string& name, double found) {
    const T value = T(found);
    expect(name, View<const T>(&value, 1, 1));
  }

  /// What the file holds but nobody read, and what it holds of the answers but nobody compared.
  void expect_nothing_left() {
    execution_ = "any execution";
    for (const auto& [key, value] : file_.options)
      if (!GoldenFile::describes(key) && !read_.contains(key) && !ignored_.contains(key))
        fail("option " + key, "is in the file, but unknown for this method");
    for (const std::string& name : file_.names()) {
      if (!compared_.contains(name) && is_answer(name)) fail(name, "is in the file, but was not computed");
      if (!compared_.contains(name) && !used_.contains(name)) fail(name, "is in the file, but was not read");
    }
  }

  /// Options that the check depends on.
  std::set<std::string> options_in_use() const {
    std::set<std::string> used;
    for (const std::string& key : read_)
      if (!ignored_.contains(key)) used.insert(key);
    return used;
  }
  const std::vector<std::string>& failures() const { return failures_; }
  Index compared() const { return Index(compared_.size()); }

 private:
  template <class M>
  static double largest(const M& m) {
    double most = 0;
    for (double value : m.elements()) most = std::max(most, std::abs(value));
    return most;
  }

  template <class Tensors>
  const auto& tensor_of(const Tensors& tensors, const std::string& name) const {
    const auto found = tensors.find(name);
    if (found == tensors.end()) throw std::runtime_error("expected a tensor named " + name + ", found none");
    used_.insert(name);
    return found->second;
  }

  double parsed(const std::string& key, const std::string& text) const {
    try {
      std::size_t end = 0;
      const double number = std::stod(text, &end);
      if (end == text.size()) return number;
    } catch (const std::logic_error&) {
    }
    refuse(key, "a number");
  }

  void expect(const std::string& name, View<const T> expected, View<const T> found) {
    if (expected.size() != found.size() || (expected.rows() != 1 && expected.rows() != found.rows()))
      return fail(name, "expected " + shape(expected) + ", found " + shape(found));
    double error = 0, most = 0;
    for (Index i = 0; i < found.size(); ++i) {
      const double e = expected(i / expected.cols(), i % expected.cols());
      const double f = found(i / found.cols(), i % found.cols());
      most = std::max(most, std::abs(e));
      const double difference = std::abs(e - f);
      error = std::isnan(difference) ? std::numeric_limits<double>::infinity() : std::max(error, difference);
    }
    const bool of_loss = name.starts_with("loss.") || name.starts_with("grad_loss.");
    const double relative = float32_counts_ && of_loss ? Tolerance<T>::float32_counts : Tolerance<T>::relative;
    const double floor = is_gradient(name) ? Tolerance<T>::floor * largest_gradient_ : 0;
    const double allowed = std::max(relative * most, floor);
    if (error <= allowed) return;
    char text[120];
    std::snprintf(text, sizeof text, "largest error %.3g, allowed %.3g (largest magnitude %.3g)", error, allowed, most);
    fail(name, text);
  }

  static std::string shape(View<const T> v) { return std::to_string(v.rows()) + " x " + std::to_string(v.cols()); }
  void fail(const std::string& name, const std::string& why) {
    failures_.push_back(name + " (" + execution_ + "): " + why);
  }

  const GoldenFile& file_;
  double largest_gradient_ = 0;
  bool float32_counts_ = false;
  std::string execution_ = "no execution";
  mutable std::set<std::string> read_, used_;
  std::set<std::string> compared_, ignored_;
  std::vector<std::string> failures_;
};

}  // namespace golden
