// SPDX-License-Identifier: MIT
// subspace_merge(): merges experts that do the same, in the directions that they write to.
#pragma once

#include "mole/surgery/shares_of.hpp"
#include "mole/surgery/update_sum.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

struct SubspaceMergeOptions {
  Index rank = 0;    ///< directions that stay; 0: all, and the result is the mean
  double scale = 1;  ///< of the result
  /// One [I x I] per expert, such as a square root of the correlation of its tokens, or none. Directions are then those
  /// of W_i inputs_i, so that inputs an expert never sees do not count.
  std::vector<View<const double>> inputs = {};
};

/// What subspace_merge() returns.
template <std::floating_point T>
struct SubspaceMerge {
  Adapter<T> adapter;     ///< b [rank x O] the directions, over the scale; a [rank x I] what the mean writes to them
  double error = 0;       ///< ||merged - mean|| / ||mean||, 0 of 0: what lies in directions that were left out
  std::vector<double> s;  ///< all singular values of [W_1 inputs_1 ... W_n inputs_n]
};

namespace detail {

inline void check_subspace_merge(const SubspaceMergeOptions& options, Index experts, Index in) {
  require(options.rank >= 0, ErrorCode::option, "subspace_merge: expected a rank of at least 0, found ", options.rank);
  require(std::isfinite(options.scale) && options.scale != 0, ErrorCode::option,
          "subspace_merge: expected a scale other than 0, found ", options.scale);
  if (options.inputs.empty()) return;
  require_equal(ErrorCode::shape, "subspace_merge: weightings of inputs", experts, Index(options.inputs.size()));
  for (const auto& inputs : options.inputs)
    require(inputs.rows() == in && inputs.cols() == in, ErrorCode::shape,
            "subspace_merge: expected weightings of inputs of [", in, " x ", in, "], found [", inputs.rows(), " x ",
            inputs.cols(), "]");
}

/// The mean [O x I], times onto(u rows [k x O]) -> [k x I], in the leading directions of a union.
template <class T, class Onto>
SubspaceMerge<T> in_subspace(const Svd<double>& of_union, Index in, const SubspaceMergeOptions& options, Onto onto) {
  const Index all = Index(of_union.s.size()), rank = options.rank == 0 ? all : std::min(options.rank, all);
  Matrix<double> directions = transposed(of_union.u.view().middle_cols(0, rank)), a(rank, in);
  onto(View<const double>(directions.view()), a.view());
  for (double& value : directions.elements()) value /= options.scale;
  return {{converted<T>(View<const double>(a)), converted<T>(View<const double>(directions)), options.scale},
          0,
          of_union.s};
}

}  // namespace detail

/// The mean of experts, by their frequencies, in the `rank` directions of their outputs that matter most to all:
///
///   W = U U^T sum_i f_i W_i / sum_i f_i,   U [O x rank] the leading left singular vectors of [W_1 ... W_n]
///
///   adapters of any ranks, W_i = s_i B_i^T A_i, whose weight is the frequency f_i   ->   an adapter of `rank` ranks,
///   or as many as there are directions
///
/// The paper forms one SVD for all, averages its blocks of V and multiplies back; as all of that is linear in V, this
/// comes to the same. Without truncation the joint SVD changes nothing, whatever `inputs` of full rank: it is the mean.
/// Frequencies count relative to each other; if all are 0, experts count equally. No [O x I] is formed.
///
/// Throws Error(option) for no expert, negative frequencies, a rank below 0 or a scale of 0; Error(shape) for other
/// inputs or outputs.  O((I + O) R^2 + R^3), of R ranks together, + O(R I^2) with `inputs`.  Offline.
/// Source: Li et al. 2025 (Sub-MoE), arXiv:2506.23266. The authors' code could not be had.
template <class T>
SubspaceMerge<T> subspace_merge(const std::vector<WeightedAdapter<T>>& experts,
                                const SubspaceMergeOptions& options = {}) {
  detail::check_adapters("subspace_merge", experts);
  const Index in = experts[0].in(), out = experts[0].out();
  detail::check_subspace_merge(options, Index(experts.size()), in);
  std::vector<double> counts;
  for (const auto& expert : experts) counts.push_back(expert.weight);
  const std::vector<double> shares = shares_of(counts);

  // [W_1 ... W_n] = b^T diag(A_1, ...) = q_b r_b diag(r_1^T, ...) diag(q_1^T, ...): the last has orthonormal rows.
  UpdateSum mean(in, out);
  Matrix<double> b(0, out);
  std::vector<Matrix<double>> roots;
  Index columns = 0;
  for (std::size_t i = 0; i < experts.size(); ++i) {
    mean.add(shares[i] * experts[i].scale, experts[i].a, experts[i].b);
    b = stacked(b, detail::converted<double>(experts[i].b));
    Matrix<double> a = detail::converted<double>(experts[i].a);
    if (!options.inputs.empty()) a = detail::product(a, options.inputs[i]);
    for (double& value : a.elements()) value *= experts[i].scale;
    roots.push_back(detail::transposed(qr(detail::transposed(a)).r));  // [r x min(r, I)]
    columns += roots.back().cols();
  }
  const Qr<double> q_b = qr(detail::transposed(b));
  Matrix<double> core(q_b.r.rows(), columns);
  Index rank = 0, column = 0;
  for (const Matrix<double>& root : roots) {
    const View<const double> r_b = q_b.r.view().middle_cols(rank, root.rows());
    copy<double>(detail::product(r_b, root), core.view().middle_cols(column, root.cols()));
    rank += root.rows();
    column += root.cols();
  }
  Svd<double> of_union = svd(core);
  of_union.u = detail::product(q_b.q, of_union.u);
  auto merged = detail::in_subspace<T>(of_union, in, options,
                                       [&](View<const double> u, View<double> a) { mean.times_transposed(u, a); });
  merged.error = detail::relative_error(merged.adapter, mean);
  return merged;
}

/// The same for experts that are whole weights [O x I], with one count each.  O(n I O^2) or less.
template <class T>
SubspaceMerge<T> subspace_merge(const std::vector<View<const T>>& weights, const std::vector<double>& counts,
                                const SubspaceMergeOptions& options = {}) {
  require(!weights.empty(), ErrorCode::option, "subspace_merge: expected at least 1 weight, found 0");
  require_equal(ErrorCode::shape, "subspace_merge: counts, one of each weight", Index(weights.size()),
                Index(counts.size()));
  const Index in = weights[0].cols(), out = weights[0].rows();
  detail::check_subspace_merge(options, Index(weights.size()), in);
  const std::vector<double> shares = shares_of(counts);
  Matrix<double> mean(out, in), all(out, in * Index(weights.size()));
  for (std::size_t i = 0; i < weights.size(); ++i) {
    require(weights[i].rows() == out && weights[i].cols() == in, ErrorCode::shape, "subspace_merge: weight ", i,
            ": expected [", out, " x ", in, "], found [", weights[i].rows(), " x ", weights[i].cols(), "]");
    const Matrix<double> weight = detail::converted<double>(weights[i]);
    for (std::size_t k = 0; k < weight.elements().size(); ++k) mean.elements()[k] += shares[i] * weight.elements()[k];
    copy<double>(options.inputs.empty() ? weight : detail::product(weight, options.inputs[i]),
                 all.view().middle_cols(Index(i) * in, in));
  }
  auto merged = detail::in_subspace<T>(
      svd(all), in, options, [&](View<const double> u, View<double> a) { copy<double>(detail::product(u, mean), a); });
  UpdateSum difference(in, out);
  difference.add(1.0, merged.adapter);
  Matrix<double> missing = difference.dense();
  for (std::size_t k = 0; k < missing.elements().size(); ++k) missing.elements()[k] -= mean.elements()[k];
  merged.error =
      detail::ratio_of_norms(std::sqrt(detail::inner(missing, missing)), std::sqrt(detail::inner(mean, mean)));
  return merged;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
