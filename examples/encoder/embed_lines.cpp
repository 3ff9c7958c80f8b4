// SPDX-License-Identifier: MIT
#include "encoder/embed_lines.hpp"

#include "encoder/peft_folder.hpp"
#include "encoder/sentence_encoder.hpp"
#include "mole/io/safetensors_writer.hpp"

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <string>

namespace encoder {

void embed_lines(const Options& options) {
  constexpr mole::Index batch_rows = 2048;
  const mole::ThreadPool pool(options.threads);
  SentenceEncoder encoder = SentenceEncoder::read(options.model, pool);
  std::optional<PeftFolder> adapter;
  if (!options.adapter.empty()) adapter.emplace(options.adapter, encoder.bert, batch_rows);
  std::ifstream stream(options.lines);
  if (!stream) throw std::runtime_error(options.lines.string() + ": expected a file of text, found none to read");
  std::vector<std::vector<int>> lines;
  for (std::string line; std::getline(stream, line);)
    lines.push_back(encoder.tokenizer.encode(line, std::size_t(options.tokens)));
  std::vector<const std::vector<int>*> sequences;
  std::vector<std::int32_t> tokens, begin;
  for (const std::vector<int>& line : lines) {
    sequences.push_back(&line);
    begin.push_back(std::int32_t(tokens.size()));
    tokens.insert(tokens.end(), line.begin(), line.end());
  }
  const auto start = std::chrono::steady_clock::now();
  const mole::Matrix<float> embeddings = encoder.embed(sequences, batch_rows);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;

  std::filesystem::create_directories(options.out);
  mole::SafetensorsWriter writer;
  writer.add("embeddings", embeddings.view());
  writer.add_integers("tokens", tokens);
  writer.add_integers("begin", begin);
  const std::filesystem::path path = options.out / "embeddings.safetensors";
  writer.write(path);
  std::printf("%zu lines, %zu tokens, %.3f s: %s\n", lines.size(), tokens.size(), taken.count(), path.c_str());
}

}  // namespace encoder
