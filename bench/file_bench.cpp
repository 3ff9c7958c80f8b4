// SPDX-License-Identifier: MIT
// What opening a file costs, whatever its size: adapters of peft and of llama.cpp, whose tensors lie in a hole of the
// file, so that the disk does not matter.
//
//   resident_MiB   memory that one opening adds
#include "mole/io/gguf/gguf_reader.hpp"
#include "mole/io/peft/read_peft.hpp"

#include <benchmark/benchmark.h>
#include <fstream>
#include <string>

namespace {

constexpr long long rank = 64, width = 4096;  // A and B take a MiB each

class Folder {
 public:
  Folder() { std::filesystem::create_directories(path_); }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::filesystem::path operator/(const char* name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_ = std::filesystem::temp_directory_path() / "mole-file-bench";
};

std::string module_of(long long i) {
  return "model.layers." + std::to_string(i / 4) + ".mlp.proj" + std::to_string(i % 4);
}

void write_with_hole(const std::filesystem::path& path, const std::string& header, long long bytes) {
  std::ofstream(path, std::ios::binary) << header;
  std::filesystem::resize_file(path, header.size() + std::uintmax_t(bytes));
}

/// One LoRA of 2 MiB a module.
void write_peft_folder(const Folder& folder, long long modules) {
  std::ofstream(folder / "adapter_config.json") << R"({"peft_type":"LORA","r":64,"lora_alpha":64})";
  std::string json = "{";
  long long at = 0;
  const auto add = [&](const std::string& name, long long rows, long long cols) {
    const long long end = at + rows * cols * 4;
    json += (at == 0 ? "" : ",") + ("\"base_model.model." + name) + ".weight\":{\"dtype\":\"F32\",\"shape\":[" +
            std::to_string(rows) + "," + std::to_string(cols) + "],\"data_offsets\":[" + std::to_string(at) + "," +
            std::to_string(end) + "]}";
    at = end;
  };
  for (long long i = 0; i < modules; ++i) {
    add(module_of(i) + ".lora_A", rank, width);
    add(module_of(i) + ".lora_B", width, rank);
  }
  json += "}";
  const std::uint64_t length = json.size();
  write_with_hole(folder / "adapter_model.safetensors",
                  std::string(reinterpret_cast<const char*>(&length), sizeof length) + json, at);
}

void write_gguf(const Folder& folder, long long modules) {
  std::string header = "GGUF";
  const auto put = [&](const auto& number) { header.append(reinterpret_cast<const char*>(&number), sizeof number); };
  put(std::uint32_t(3)), put(std::uint64_t(2 * modules)), put(std::uint64_t(0));
  std::uint64_t at = 0;
  for (long long i = 0; i < modules; ++i)
    for (const char* half : {".lora_a", ".lora_b"}) {
      const std::string name = module_of(i) + half;
      put(std::uint64_t(name.size()));
      header += name;
      put(std::uint32_t(2)), put(std::uint64_t(width)), put(std::uint64_t(rank)), put(std::uint32_t(0)), put(at);
      at += std::uint64_t(rank * width * 4);
    }
  header.resize((header.size() + 31) / 32 * 32);
  write_with_hole(folder / "adapter.gguf", header, (long long)at);
}

double resident_mib() {
  std::ifstream statm("/proc/self/statm");
  double total = 0, resident = 0;
  statm >> total >> resident;
  return resident * 4096 / (1 << 20);
}

/// Times open(), whose result stays until the memory is looked at.
void measure(benchmark::State& state, auto open) {
  const double before = resident_mib();
  double most = 0;
  for (auto _ : state) {
    const auto opened = open();
    most = std::max(most, resident_mib() - before);
  }
  state.counters["resident_MiB"] = most;
}

void open_peft(benchmark::State& state) {
  const Folder folder;
  write_peft_folder(folder, state.range(0) / 2);
  measure(state, [&] { return mole::read_peft(folder.path()); });
}

void open_gguf(benchmark::State& state) {
  const Folder folder;
  write_gguf(folder, state.range(0) / 2);
  measure(state, [&] { return mole::GgufReader(folder / "adapter.gguf"); });
}

BENCHMARK(open_peft)->ArgName("MiB")->Arg(16)->Arg(1024)->Unit(benchmark::kMillisecond);
BENCHMARK(open_gguf)->ArgName("MiB")->Arg(16)->Arg(1024)->Unit(benchmark::kMillisecond);

}  // namespace
