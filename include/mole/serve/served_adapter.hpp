// SPDX-License-Identifier: MIT
// ServedAdapter: one adapter of a model, at all sites that it changes.
#pragma once

#include "mole/core/error.hpp"
#include "mole/surgery/weighted_adapter.hpp"

#include <algorithm>
#include <cmath>
#include <concepts>
#include <span>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// An adapter as a server holds it: one Adapter for each site, which is a linear layer of the model. It never changes.
///
///   sites: as many as the AdapterTable has, in its order; one without ranks adds nothing at its site
///
/// adapters_of() makes Adapters of experts, of a peft folder's too. Matrices are moved in; what is read again and
/// again may also be borrowed, from a mapped file, say, with Matrix::borrow(): then that memory has to stay as it is
/// for as long as the ServedAdapter lives.
///
/// Throws Error(option) for no sites and a scale that is not finite, Error(shape) where A and B of a site have other
/// numbers of ranks. A and B may hold anything: NaN reaches the rows of this adapter alone.
template <std::floating_point T>
class ServedAdapter {
 public:
  using Scalar = T;

  explicit ServedAdapter(std::vector<Adapter<T>> sites) : sites_(std::move(sites)) {
    require(!sites_.empty(), ErrorCode::option, "ServedAdapter: expected at least 1 site, found 0");
    for (std::size_t s = 0; s < sites_.size(); ++s) {
      const Adapter<T>& site = sites_[s];
      require(std::isfinite(T(site.scale)), ErrorCode::option, "ServedAdapter: expected a finite scale at site ", s,
              ", found ", site.scale);
      require(site.a.rows() == site.b.rows(), ErrorCode::shape, "ServedAdapter: expected as many ranks of B as of A, ",
              site.a.rows(), ", at site ", s, ", found ", site.b.rows());
      max_rank_ = std::max(max_rank_, site.rank());
      bytes_ += std::size_t(site.a.size() + site.b.size()) * sizeof(T);
    }
  }
  /// Of a model that has one site.
  explicit ServedAdapter(Adapter<T> site) : ServedAdapter(one(std::move(site))) {}

  Index sites() const { return Index(sites_.size()); }
  const Adapter<T>& site(Index site) const { return sites_[std::size_t(site)]; }
  Index max_rank() const { return max_rank_; }
  /// Of A and B of all sites, borrowed ones too.
  std::size_t bytes() const { return bytes_; }

 private:
  static std::vector<Adapter<T>> one(Adapter<T> site) {
    std::vector<Adapter<T>> sites;
    sites.push_back(std::move(site));
    return sites;
  }

  std::vector<Adapter<T>> sites_;
  Index max_rank_ = 0;
  std::size_t bytes_ = 0;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
