// SPDX-License-Identifier: MIT
#include "bench/layers/plain_peers.hpp"

#include "bench/layers/frozen_layer.hpp"
#include "mole/execution/through_eigen.hpp"

#include <memory>

#if defined(BENCH_HAS_OPENBLAS)
#include <cblas.h>
#endif
#if defined(BENCH_HAS_ONEDNN)
#include <dlfcn.h>
#include <dnnl.hpp>
#endif

namespace bench {

namespace {

using mole::Index;

struct Tensors {
  Tensors(Index tokens, Index d)
      : x(support::random_matrix<float>(tokens, d, 1)), y(tokens, d), weight(FrozenLayer::of(d).weight.view()) {}

  mole::Matrix<float> x, y;
  mole::View<const float> weight;
};

std::function<void()> eigen(Index tokens, Index d) {
  return [t = std::make_shared<Tensors>(tokens, d)] {
    mole::ThroughEigen{}.product_nt<float>(t->x, t->weight, t->y.view());
  };
}

#if defined(BENCH_HAS_OPENBLAS)
std::function<void()> openblas(Index tokens, Index d) {
  openblas_set_num_threads(1);
  return [t = std::make_shared<Tensors>(tokens, d)] {
    const auto n = blasint(t->x.rows()), size = blasint(t->x.cols());
    const float* const x = t->x.data();
    if (n == 1)
      cblas_sgemv(CblasRowMajor, CblasNoTrans, size, size, 1, t->weight.data(), size, x, 1, 0, t->y.data(), 1);
    else
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, size, size, 1, x, size, t->weight.data(), size, 0,
                  t->y.data(), size);
  };
}
#endif

#if defined(BENCH_HAS_ONEDNN)
struct OneDnn : Tensors {
  using Tag = dnnl::memory::format_tag;

  OneDnn(Index tokens, Index d)
      : Tensors(tokens, d), engine(dnnl::engine::kind::cpu, 0), stream(engine), from{{tokens, d}, f32, Tag::ab} {
    const dnnl::memory::desc any({d, d}, f32, Tag::any), plain({d, d}, f32, Tag::ab);
#if DNNL_VERSION_MAJOR >= 3
    const dnnl::inner_product_forward::primitive_desc described(engine, dnnl::prop_kind::forward_inference, from, any,
                                                                from);
#else
    const dnnl::inner_product_forward::primitive_desc described({dnnl::prop_kind::forward_inference, from, any, from},
                                                                engine);
#endif
    dnnl::memory unpacked(plain, engine, const_cast<float*>(weight.data()));
    packed = dnnl::memory(described.weights_desc(), engine);
    dnnl::reorder(unpacked, packed).execute(stream, unpacked, packed);
    stream.wait();
    product = dnnl::inner_product_forward(described);
    source = dnnl::memory(from, engine, x.data());
    result = dnnl::memory(from, engine, y.data());
  }

  void forward() {
    product.execute(stream, {{DNNL_ARG_SRC, source}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_DST, result}});
    stream.wait();
  }

  static constexpr auto f32 = dnnl::memory::data_type::f32;
  dnnl::engine engine;
  dnnl::stream stream;
  dnnl::memory::desc from;
  dnnl::memory packed, source, result;
  dnnl::inner_product_forward product;
};

/// oneDNN has no call for its number of threads: its OpenMP has. Under another threading runtime it is left out, since
/// CPU time of the calling thread would miss what the others do.
constexpr bool onednn_obeys =
    DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP || DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_SEQ;

std::function<void()> onednn(Index tokens, Index d) {
  if (void* const set_threads = dlsym(RTLD_DEFAULT, "omp_set_num_threads"))
    reinterpret_cast<void (*)(int)>(set_threads)(1);
  return [t = std::make_shared<OneDnn>(tokens, d)] { t->forward(); };
}
#endif

}  // namespace

const std::vector<PlainPeer>& plain_peers() {
  static const std::vector<PlainPeer> peers = [] {
    std::vector<PlainPeer> found;
    found.push_back({"Eigen", eigen});
#if defined(BENCH_HAS_OPENBLAS)
    found.push_back({"OpenBLAS-" + std::string(openblas_get_corename()), openblas});
#endif
#if defined(BENCH_HAS_ONEDNN)
    if (onednn_obeys) found.push_back({"oneDNN", onednn});
#endif
    return found;
  }();
  return peers;
}

}  // namespace bench
