// SPDX-License-Identifier: MIT
// Balancing, AdamW, files, threads.
#include "mole/c/handles.hpp"
#include "mole/io/checkpoint.hpp"
#include "mole/optim/clip_norm.hpp"
#include "mole/optim/sign_bias_balancer.hpp"

#include <cstring>
#include <exception>
#include <functional>
#include <mutex>
#include <vector>

namespace mole::c {
namespace {

/// A walk over the tensors of some layers, "0.router.weight" and so on.
auto walk_of(mole_layer* const* layers, Index count, const char* function) {
  require(count >= 0, ErrorCode::option, function, ": expected at least 0 layers, found ", count);
  if (count > 0) require_pointer(layers, function, "layers");
  for (Index i = 0; i < count; ++i) require_pointer(layers[i], function, "layers[i]");
  return [layers, count](auto&& f) {
    for (Index i = 0; i < count; ++i) {
      const std::string number = std::to_string(i) + ".";
      layers[i]->for_each_tensor([&](std::string_view name, View<float> parameter, View<float> gradient) {
        f(std::string_view(number + std::string(name)), parameter, gradient);
      });
    }
  };
}

enum class FileOf { layer, state_alone };

CheckpointWriter file_of(mole_layer& layer, FileOf parts) {
  CheckpointWriter writer;
  if (parts == FileOf::layer)
    writer.add_layer("layer", layer);
  else
    writer.add_state("layer.state", layer);
  writer.set_text("preset", layer.preset);
  writer.set_text("options", layer.options);
  return writer;
}

void write_to(const CheckpointWriter& file, void* buffer, std::size_t capacity, std::size_t* size,
              const char* function) {
  require_pointer(size, function, "size");
  const std::vector<std::byte> bytes = file.bytes();
  *size = bytes.size();
  if (buffer == nullptr) return;
  require(capacity >= bytes.size(), ErrorCode::capacity, function, ": expected a buffer of ", bytes.size(),
          " bytes, found one of ", capacity);
  std::memcpy(buffer, bytes.data(), bytes.size());
}

void read_into(mole_layer& layer, const CheckpointReader& reader, FileOf parts) {
  if (const std::string preset = reader.text_or("preset", layer.preset); preset != layer.preset)
    throw file_error(reader.tensors().source(), "a layer of preset " + layer.preset, preset);
  if (parts == FileOf::layer)
    reader.read_layer("layer", layer);
  else
    reader.read_state("layer.state", layer);
}

CheckpointReader reader_of(const void* bytes, std::size_t size, const char* function) {
  require_pointer(bytes, function, "bytes");
  const std::span<const std::byte> all(static_cast<const std::byte*>(bytes), size);
  return CheckpointReader(SafetensorsReader::from_bytes(all, function));
}

}  // namespace
}  // namespace mole::c

using namespace mole;
using namespace mole::c;

mole_status mole_layer_balance(mole_layer* layer, const mole_index* loads, mole_index experts, double rate) {
  return guarded([&] {
    constexpr const char* function = "mole_layer_balance";
    require_pointer(layer, function, "layer");
    require_pointer(loads, function, "loads");
    bool balanced = false;
    layer->any.for_each_state([&]<class T>(std::string_view name, std::span<T> bias) {
      if constexpr (std::is_same_v<T, float>) {
        if (!name.ends_with(".bias")) return;
        require_equal(ErrorCode::shape, "mole_layer_balance: experts with a logit", bias.size(), std::size_t(experts));
        SignBiasBalancer balancer({.experts = experts, .rate = rate});
        for (std::size_t e = 0; e < bias.size(); ++e) {
          require(loads[e] >= 0, ErrorCode::option, function, ": expected loads of at least 0, found ", loads[e]);
          balancer.counts()[e] = loads[e];
        }
        balancer.update(bias);
        balanced = true;
      }
    });
    require(balanced, ErrorCode::option, function, ": expected a layer with a balancing bias, found one of ",
            layer->preset);
  });
}

// ---- AdamW

mole_status mole_adamw_create(const char* options, mole_adamw** adamw) {
  return guarded([&] {
    require_pointer(adamw, "mole_adamw_create", "adamw");
    *adamw = nullptr;
    AdamW<float>::Options o;
    OptionReader f("mole_adamw_create", options);
    f("learning_rate", o.learning_rate), f("beta1", o.beta1), f("beta2", o.beta2), f("epsilon", o.epsilon);
    f("weight_decay", o.weight_decay), f("epsilon_on_raw", o.epsilon_on_raw), f("bias_correction", o.bias_correction);
    f.end();
    *adamw = new mole_adamw{AdamW<float>(o)};
  });
}

void mole_adamw_destroy(mole_adamw* adamw) {
  delete adamw;
}

mole_status mole_adamw_set_learning_rate(mole_adamw* adamw, double learning_rate) {
  return guarded([&] {
    require_pointer(adamw, "mole_adamw_set_learning_rate", "adamw");
    adamw->inside.set_learning_rate(learning_rate);
  });
}

mole_status mole_adamw_step(mole_adamw* adamw, mole_layer* const* layers, mole_index count) {
  return guarded([&] {
    require_pointer(adamw, "mole_adamw_step", "adamw");
    adamw->inside.step(walk_of(layers, count, "mole_adamw_step"));
  });
}

mole_status mole_clip_norm(mole_layer* const* layers, mole_index count, double max_norm, double* norm) {
  return guarded([&] {
    const double before = clip_norm(walk_of(layers, count, "mole_clip_norm"), max_norm);
    if (norm != nullptr) *norm = before;
  });
}

// ---- files

mole_status mole_layer_save(mole_layer* layer, const char* path) {
  return guarded([&] {
    require_pointer(layer, "mole_layer_save", "layer");
    require_pointer(path, "mole_layer_save", "path");
    file_of(*layer, FileOf::layer).write(path);
  });
}

mole_status mole_layer_save_to(mole_layer* layer, void* buffer, size_t capacity, size_t* size) {
  return guarded([&] {
    constexpr const char* function = "mole_layer_save_to";
    require_pointer(layer, function, "layer");
    write_to(file_of(*layer, FileOf::layer), buffer, capacity, size, function);
  });
}

mole_status mole_layer_load(mole_layer* layer, const char* path) {
  return guarded([&] {
    require_pointer(layer, "mole_layer_load", "layer");
    require_pointer(path, "mole_layer_load", "path");
    read_into(*layer, CheckpointReader(path), FileOf::layer);
  });
}

mole_status mole_layer_load_from(mole_layer* layer, const void* bytes, size_t size) {
  return guarded([&] {
    require_pointer(layer, "mole_layer_load_from", "layer");
    read_into(*layer, reader_of(bytes, size, "mole_layer_load_from"), FileOf::layer);
  });
}

mole_status mole_layer_save_state_to(mole_layer* layer, void* buffer, size_t capacity, size_t* size) {
  return guarded([&] {
    constexpr const char* function = "mole_layer_save_state_to";
    require_pointer(layer, function, "layer");
    write_to(file_of(*layer, FileOf::state_alone), buffer, capacity, size, function);
  });
}

mole_status mole_layer_load_state_from(mole_layer* layer, const void* bytes, size_t size) {
  return guarded([&] {
    require_pointer(layer, "mole_layer_load_state_from", "layer");
    read_into(*layer, reader_of(bytes, size, "mole_layer_load_state_from"), FileOf::state_alone);
  });
}

mole_status mole_adamw_save(mole_adamw* adamw, const char* path) {
  return guarded([&] {
    require_pointer(adamw, "mole_adamw_save", "adamw");
    require_pointer(path, "mole_adamw_save", "path");
    CheckpointWriter writer;
    writer.add_optimizer("adamw", adamw->inside);
    writer.write(path);
  });
}

mole_status mole_adamw_load(mole_adamw* adamw, const char* path, mole_layer* const* layers, mole_index count) {
  return guarded([&] {
    constexpr const char* function = "mole_adamw_load";
    require_pointer(adamw, function, "adamw");
    require_pointer(path, function, "path");
    const auto walk = walk_of(layers, count, function);
    CheckpointReader(path).read_optimizer("adamw", adamw->inside, walk);
  });
}

// ---- threads

namespace {

/// A loop of the library, whose tasks may throw, in a loop of the host, which knows nothing of exceptions.
struct HostLoop {
  const std::function<void(Index)>& task;
  std::mutex mutex;
  std::exception_ptr thrown;
};

extern "C" {
static void run_task_of_loop(void* context, mole_index number) {
  HostLoop& loop = *static_cast<HostLoop*>(context);
  try {
    loop.task(number);
  } catch (...) {
    const std::lock_guard lock(loop.mutex);
    if (!loop.thrown) loop.thrown = std::current_exception();
  }
}
}

}  // namespace

mole_status mole_threads_create(int count, mole_threads** threads) {
  return guarded([&] {
    require_pointer(threads, "mole_threads_create", "threads");
    *threads = nullptr;
    *threads = new mole_threads{std::make_shared<const Threads>(ThreadPool(count))};
  });
}

mole_status mole_threads_of_host(int count, mole_loop loop, void* host, mole_threads** threads) {
  return guarded([&] {
    constexpr const char* function = "mole_threads_of_host";
    require_pointer(threads, function, "threads");
    *threads = nullptr;
    if (loop == nullptr) require_pointer(nullptr, function, "loop");
    HostExecutor executor(count, [loop, host](Index tasks, const std::function<void(Index)>& f) {
      HostLoop own{f, {}, nullptr};
      loop(host, tasks, run_task_of_loop, &own);
      if (own.thrown) std::rethrow_exception(own.thrown);
    });
    *threads = new mole_threads{std::make_shared<const Threads>(std::move(executor))};
  });
}

void mole_threads_destroy(mole_threads* threads) {
  delete threads;
}

mole_status mole_layer_set_threads(mole_layer* layer, const mole_threads* threads) {
  return guarded([&] {
    require_pointer(layer, "mole_layer_set_threads", "layer");
    layer->threads.set(threads == nullptr ? nullptr : threads->inside);
  });
}
