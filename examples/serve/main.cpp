// SPDX-License-Identifier: MIT
// Serves requests for hundreds of adapters that are replaced meanwhile, and compares four ways to compute them.
#include "serve/live_table.hpp"
#include "serve/options.hpp"
#include "serve/page.hpp"
#include "serve/server.hpp"
#include "training/command_line.hpp"

#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace serve {

void compare(const Options& options) {
  const std::filesystem::path folder = options.out.parent_path();
  if (!folder.empty() && !std::filesystem::is_directory(folder))
    throw std::runtime_error("expected a folder for the page, found none at " + folder.string());
  Server server(options);
  server.check_ways();
  LiveTable live;
  std::vector<Result> results;
  std::vector<std::string> rates;
  for (const Mix mix : options.mixes) {
    std::vector<Result> of_mix;
    for (const Way way : all_ways) of_mix.emplace_back().mix = mix, of_mix.back().way = way;
    server.measure_capacity(of_mix.front());
    const double rate = options.rate > 0 ? options.rate : 0.6 * of_mix.front().capacity();
    rates.push_back(std::string(name_of(mix)) + " " + text_of(rate, 0));
    for (int round = 0; round < options.rounds; ++round)
      for (Result& result : of_mix) {
        server.measure_capacity(result);
        server.run(result, rate, options.seconds / options.rounds,
                   [&](const Result& so_far) { live.show(results, of_mix, so_far); });
      }
    for (const Result& result : of_mix) results.push_back(result), live.complete(result);
  }
  report::Table table{result_columns, {}, {}};
  for (const Result& result : results) table.rows.push_back(cells_of(result));
  report::print(table);
  std::string asked;
  for (const std::string& rate : rates) asked += (asked.empty() ? "" : ", ") + rate;
  write_page(
      options.out, options,
      {{"adapters", std::to_string(options.adapters) + " of up to " + std::to_string(options.rank) + " ranks"},
       {"model", std::to_string(options.layers) + " packed layers of width " + std::to_string(options.width)},
       {"batch",
        "up to " + std::to_string(options.batch) + " requests, on " + std::to_string(options.threads) + " threads"},
       {"clients", std::to_string(options.clients)},
       {"requests asked for a second", asked},
       {"swaps", text_of(options.swaps, 0) + " a second"},
       {"each way and mix", text_of(options.seconds, 1) + " s, in " + std::to_string(options.rounds) + " rounds"}},
      results);
  std::printf("page: %s\n", options.out.string().c_str());
}

}  // namespace serve

int main(int count, char** arguments) {
  return training::run_program("serve", "stopped", [&] { serve::compare(serve::parse_options(count, arguments)); });
}
