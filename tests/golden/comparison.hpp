// SPDX-License-Identifier: MIT
// Comparison: compares computed tensors with those of a golden file.
#pragma once

#include "mole/io/safetensors_reader.hpp"

#include <cmath>
#include <cstdio>
#include <limits>
#include <set>
#include <string>
#include <vector>

namespace golden {

using mole::Index;
using mole::Matrix;
using mole::View;

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
template <class T>
class Comparison {
 public:
  explicit Comparison(const mole::SafetensorsReader& file) : file_(file) {
    for (const auto& entry : file.tensors())
      if (is_gradient(entry.name)) largest_gradient_ = std::max(largest_gradient_, largest(matrix(entry.name)));
  }

  const mole::SafetensorsReader& file() const { return file_; }
  bool has(const std::string& name) const { return file_.has(name); }
  Matrix<T> matrix(const std::string& name) const { return file_.matrix<T>(name); }
  double number(const std::string& key) const { return std::stod(file_.metadata().at(key)); }
  Index integer(const std::string& key) const { return Index(std::stoll(file_.metadata().at(key))); }

  /// The release of this file counts in float32.
  void losses_have_float32_counts() { float32_counts_ = true; }

  /// Says who computes the tensors that follow.
  void under(std::string execution) { execution_ = std::move(execution); }

  /// A tensor that the file has; every tensor that a method makes is compared, so a missing one is a failure.
  void expect(const std::string& name, View<const T> found) {
    compared_.insert(name);
    if (has(name))
      expect(name, matrix(name).view(), found);
    else
      fail(name, "expected in the file, found missing");
  }
  /// A gradient that the file may leave out when it is zero.
  void expect_gradient(const std::string& name, View<const T> found) {
    if (has(name)) return expect(name, found);
    expect(name, Matrix<T>(found.rows(), found.cols()).view(), found);
  }
  void expect_number(const std::string& name, double found) {
    const T value = T(found);
    expect(name, View<const T>(&value, 1, 1));
  }

  /// What the file holds of the answers but nobody compared.
  void expect_all_compared() {
    for (const auto& entry : file_.tensors()) {
      const bool answer = entry.name == "y" || entry.name.starts_with("loss.") || is_gradient(entry.name);
      if (answer && !compared_.contains(entry.name)) fail(entry.name, "is in the file, but was not computed");
    }
  }

  const std::vector<std::string>& failures() const { return failures_; }
  Index compared() const { return Index(compared_.size()); }

 private:
  static bool is_gradient(const std::string& name) {
    return name.starts_with("grad.") || name.starts_with("grad_loss.") || name == "grad_x";
  }
  static double largest(const Matrix<T>& m) {
    double most = 0;
    for (T value : m.elements()) most = std::max(most, std::abs(double(value)));
    return most;
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

  const mole::SafetensorsReader& file_;
  double largest_gradient_ = 0;
  bool float32_counts_ = false;
  std::string execution_ = "no execution";
  std::set<std::string> compared_;
  std::vector<std::string> failures_;
};

}  // namespace golden
