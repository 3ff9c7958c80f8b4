// SPDX-License-Identifier: MIT
#include "encoder/search.hpp"

#include "encoder/documents.hpp"
#include "encoder/peft_folder.hpp"
#include "encoder/sentence_encoder.hpp"

#include "training/command_line.hpp"

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <optional>

namespace encoder {

void search(const Options& options) {
  constexpr std::size_t shown = 10, characters = 100;
  constexpr mole::Index batch_rows = 2048;
  const mole::ThreadPool pool(options.threads);
  SentenceEncoder encoder = SentenceEncoder::read(options.model, pool);
  std::optional<PeftFolder> adapter;
  if (!options.adapter.empty()) adapter.emplace(options.adapter, encoder.bert, batch_rows);
  std::vector<const TextPair*> documents;
  const std::vector<Domain> domains = find_domains(std::size_t(options.documents));
  if (domains.empty()) throw training::Exit{2, "encoder: expected documents on this machine, found none\n"};
  for (const Domain& domain : domains)
    for (const auto* pairs : {&domain.training, &domain.held_out})
      for (const TextPair& pair : *pairs) documents.push_back(&pair);

  std::vector<std::vector<int>> tokens;
  for (const TextPair* document : documents)
    tokens.push_back(encoder.tokenizer.encode(document->query + ". " + document->answer, std::size_t(options.tokens)));
  std::vector<const std::vector<int>*> sequences;
  for (const std::vector<int>& sequence : tokens) sequences.push_back(&sequence);
  const mole::Matrix<float> embeddings = encoder.embed(sequences, batch_rows);
  const std::vector<int> query = encoder.tokenizer.encode(options.query, std::size_t(options.tokens));
  const mole::Matrix<float> wanted = encoder.embed({&query}, batch_rows);
  mole::Matrix<float> products(1, embeddings.rows());
  encoder.bert.execution().product_nt<float>(wanted.view(), embeddings.view(), products.view());

  std::vector<std::size_t> order(documents.size());
  std::iota(order.begin(), order.end(), std::size_t(0));
  const std::size_t count = std::min(shown, order.size());
  std::partial_sort(order.begin(), order.begin() + std::ptrdiff_t(count), order.end(),
                    [&](std::size_t a, std::size_t b) { return products.elements()[a] > products.elements()[b]; });
  for (std::size_t i = 0; i < count; ++i) {
    const TextPair& document = *documents[order[i]];
    std::printf("%.3f  %s: %s\n       %s\n", double(products.elements()[order[i]]), document.document.c_str(),
                document.query.c_str(), document.answer.substr(0, characters).c_str());
  }
}

}  // namespace encoder
