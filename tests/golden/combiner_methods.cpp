// SPDX-License-Identifier: MIT
// What a trained module makes of the outputs of several experts: dmoerm, meta-dmoe.
#include "golden/methods.hpp"
#include "golden/parameters.hpp"
#include "mole/loss/bradley_terry.hpp"
#include "mole/testing/harness.hpp"

namespace golden {
namespace {

/// A changed file must not lead beyond a tensor's end.
void expect_equal(const std::string& what, Index expected, Index found) {
  if (expected != found)
    throw std::runtime_error(what + ": expected " + std::to_string(expected) + ", found " + std::to_string(found));
}

/// Calls f("name of the file", tensor, gradient) for the tensors that there are.
template <class Combiner, class F>
void for_each_gradient(Combiner& combiner, mole::ParametersOf<Combiner>& gradients, F f) {
  mole::ParametersOf<Combiner>::for_each_tensor(
      [&](std::string_view name, auto& tensor, auto& gradient) {
        if (!tensor.empty()) f(std::string(name), tensor, gradient);
      },
      combiner.parameters(), gradients);
}

template <class Combiner, class T>
void load(const Comparison<T>& file, Combiner& combiner) {
  auto unused = combiner.parameters();
  for_each_gradient(combiner, unused, [&](const std::string& name, auto& tensor, auto&) {
    const Matrix<T> numbers = file.matrix(name);
    expect_equal(name, tensor.size(), numbers.size());
    std::ranges::copy(numbers.elements(), tensor.elements().begin());
  });
}

/// Rewards of the experts' last hidden states; the file also has the gradient of these, which the program leaves alone.
Method dmoerm() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const Matrix<T> hidden = file.matrix("hidden");
    const Index width = file.integer("d");
    expect_equal("columns of hidden", hidden.cols() / width * width, hidden.cols());
    file.expect_option("rows", double(hidden.rows()));
    file.expect_option("experts", double(hidden.cols() / width));
    mole::Rng rng;
    mole::MlpCombiner<T> combiner({.experts = hidden.cols() / width, .features = width}, rng);
    load(file, combiner);
    mole::laws::Harness<mole::MlpCombiner<T>, decltype(execution)> harness(combiner, hidden.rows(), 0, {}, execution);
    Matrix<T> value(hidden.rows(), 1), d_value = value, d_hidden(hidden.rows(), hidden.cols());
    combiner.forward(hidden, value.view(), harness.call());
    file.expect_optional("value", transposed(value));

    const auto numbers = file.integers("ranks");
    const std::vector<int> ranks(numbers.begin(), numbers.end());
    expect_equal("ranks", hidden.rows(), Index(ranks.size()));
    Index pairs = 0;
    for (int better : ranks)
      for (int worse : ranks) pairs += better < worse;
    file.expect_option("pairs", double(pairs));
    if (!file.has("loss.bradley_terry")) return;
    auto gradients = mole::zeros_like(combiner.parameters());
    file.expect_number("loss.bradley_terry", mole::bradley_terry<T>(value.elements(), ranks, d_value.elements()));
    combiner.backward(hidden, d_value, d_hidden.view(), gradients, harness.call());
    file.expect_optional("grad_loss.bradley_terry.hidden", d_hidden);
    for_each_gradient(combiner, gradients, [&](const std::string& name, auto&, auto& gradient) {
      file.expect_gradient("grad_loss.bradley_terry." + name, gradient);
    });
  });
}

/// y, its gradients, and the mean squared difference from a student's features.
Method meta_dmoe() {
  return under_every_execution([]<class T>(Comparison<T>& file, auto execution) {
    const Matrix<T> x = file.matrix("x"), student = file.matrix("student");
    const Index experts = file.integer("experts"), width = student.cols();
    expect_equal("columns of x", experts * width, x.cols());
    expect_equal("rows of student", x.rows(), student.rows());
    file.expect_option("B", double(x.rows()));
    file.expect_option("d", double(width));
    std::vector<std::uint8_t> allowed(std::size_t(x.rows() * experts), 1);
    if (file.has("excluded")) {
      const auto excluded = file.integers("excluded");
      expect_equal("excluded experts", x.rows(), Index(excluded.size()));
      for (std::size_t n = 0; n < excluded.size(); ++n)
        allowed.at(n * std::size_t(experts) + std::size_t(excluded[n])) = 0;
    }
    mole::Rng rng;
    using Combiner = mole::SetAttention<T>;
    Combiner combiner(
        {.experts = experts, .features = width, .layers = file.integer("layers"), .heads = file.integer("heads")}, rng);
    load(file, combiner);
    mole::laws::Harness<Combiner, decltype(execution)> harness(combiner, x.rows(), 0, {.allowed = allowed}, execution);
    Matrix<T> y(x.rows(), width);
    const auto backward = [&](const Matrix<T>& d_y, auto& gradients) {
      Matrix<T> d_x(x.rows(), x.cols());
      combiner.forward(x, y.view(), harness.call());
      combiner.backward(x, d_y, d_x.view(), gradients, harness.call());
      return d_x;
    };
    Matrix<T> d_student(x.rows(), width), d_y = file.has("grad_y") ? file.matrix("grad_y") : d_student;
    expect_equal("numbers of grad_y", d_student.size(), d_y.size());
    auto gradients = mole::zeros_like(combiner.parameters()), of_loss = gradients;
    const Matrix<T> d_x = backward(d_y, gradients);
    file.expect("y", y);
    if (file.has("grad_y")) {
      file.expect("grad_x", d_x);
      for_each_gradient(combiner, gradients, [&](const std::string& name, auto&, auto& gradient) {
        file.expect_gradient("grad." + name, gradient);
      });
    }

    if (!file.has("loss.distillation")) return;
    double loss = 0;
    for (Index n = 0; n < y.rows(); ++n)
      for (Index i = 0; i < width; ++i) {
        const T difference = student(n, i) - y(n, i);
        loss += double(difference) * double(difference) / double(y.size());
        d_student(n, i) = 2 * difference / T(y.size());
        d_y(n, i) = -d_student(n, i);
      }
    file.expect_number("loss.distillation", loss);
    file.expect_gradient("grad_loss.distillation.student", d_student);
    file.expect_gradient("grad_loss.distillation.x", backward(d_y, of_loss));
  });
}

}  // namespace

std::map<std::string, Method> combiner_methods() {
  return {{"dmoerm", dmoerm()}, {"meta-dmoe", meta_dmoe()}};
}

}  // namespace golden
