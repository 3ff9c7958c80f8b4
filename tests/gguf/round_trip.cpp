// SPDX-License-Identifier: MIT
// For round_trip.py: reads FOLDER/weights.gguf and FOLDER/adapter.gguf, and writes all tensors of the first as weights
// of bases, the updates of the second, and the second again.
#include "mole/io/gguf/gguf_lora.hpp"
#include "mole/io/gguf/gguf_weight.hpp"
#include "mole/io/safetensors_writer.hpp"

#include <cstdio>

namespace {

void add_weight(mole::SafetensorsWriter& out, const std::string& name, const mole::GgufWeight& weight) {
  std::visit(
      [&](const auto& of_kind) {
        mole::Matrix<float> decoded(of_kind.rows(), of_kind.cols());
        for (mole::Index r = 0; r < decoded.rows(); ++r)
          for (mole::Index c = 0; c < decoded.cols(); ++c) decoded(r, c) = of_kind(r, c);
        out.add(name, decoded);
      },
      weight);
}

/// scale B^T A
void add_update(mole::SafetensorsWriter& out, const std::string& name, const mole::Adapter<float>& adapter) {
  mole::Matrix<float> update(adapter.out(), adapter.in());
  for (mole::Index r = 0; r < adapter.rank(); ++r)
    for (mole::Index o = 0; o < adapter.out(); ++o)
      for (mole::Index i = 0; i < adapter.in(); ++i)
        update(o, i) += float(adapter.scale) * adapter.b(r, o) * adapter.a(r, i);
  out.add(name, update);
}

}  // namespace

int main(int count, char** arguments) try {
  if (count != 2) {
    std::fprintf(stderr, "round_trip: expected a folder, found %d arguments\n", count - 1);
    return 2;
  }
  const std::filesystem::path folder = arguments[1];
  mole::SafetensorsWriter out;
  const mole::GgufReader weights(folder / "weights.gguf"), adapter(folder / "adapter.gguf");
  for (const mole::GgufEntry& entry : weights.tensors())
    add_weight(out, entry.name, mole::read_gguf_weight(weights, entry.name));
  const mole::GgufLora lora = mole::read_gguf_lora(adapter);
  for (const auto& [tensor, adapters] : lora.adapters)
    for (std::size_t e = 0; e < adapters.size(); ++e)
      add_update(out, tensor + "." + std::to_string(e), adapters[e]);
  out.write(folder / "out.safetensors");
  mole::write_gguf_lora(folder / "written.gguf", lora);
  mole::write_gguf_lora(folder / "written_q8_0.gguf", lora, mole::GgufType::q8_0);
} catch (const mole::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
