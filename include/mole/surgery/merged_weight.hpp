// SPDX-License-Identifier: MIT
// MergedWeight: a host's weight that a layer's experts can be merged into and removed from.
#pragma once

#include "mole/core/matrix.hpp"
#include "mole/surgery/merge.hpp"

#include <concepts>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Merges mergeable layers into a weight, and unmerges them to exactly the original bits, any number of times.
///
///   weight [O x I], borrowed; merge: weight = original + the update of each layer; unmerge: weight = original
///
/// Subtracting what was added would drift by one rounding per cycle; instead a copy of the original is kept, of the
/// weight's size, from the first merge on. A second merge starts from the original again, so a layer that was trained
/// further is merged anew. Layers may borrow the weight itself: each is measured by the original. While merged, the
/// host uses the weight alone: a layer over it would add its experts twice. Destruction leaves the weight as it is.
/// Error: the rounding of the sum, in the merged weight only.
template <std::floating_point T>
class MergedWeight {
 public:
  explicit MergedWeight(View<T> weight) : weight_(weight) {}

  View<const T> weight() const { return weight_; }
  bool merged() const { return merged_; }

  /// Throws Error(not_mergeable) with the layer's own reason, or Error(shape); then nothing has changed.  Takes two
  /// more matrices of the weight's size until it returns.
  template <class... Layers>
  void merge(const Layers&... layers) {
    (detail::require_mergeable(layers, weight_), ...);
    Matrix<T> before(weight_.rows(), weight_.cols()), sum = before;
    copy(weight_, before.view());
    if (merged_)
      copy(original_, weight_);
    else
      keep();
    copy(weight_, sum.view());
    detail::or_undo([&] { (merge_into(layers, sum.view()), ...); }, [&] { copy(before, weight_); });
    copy(sum, weight_);
    merged_ = true;
  }

  /// Does nothing unless merged.
  void unmerge() {
    if (merged_) copy(original_, weight_);
    merged_ = false;
  }

 private:
  void keep() {
    if (original_.empty()) original_ = Matrix<T>(weight_.rows(), weight_.cols());
    copy(weight_, original_.view());
  }

  View<T> weight_;
  Matrix<T> original_;
  bool merged_ = false;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
