// SPDX-License-Identifier: MIT
// Pairs of two views of a document, found on any developer's machine.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace encoder {

/// A short text and the longer one that it belongs to.
struct TextPair {
  std::string query = {}, answer = {};
  std::string document = {};  // a package, a file, a page
};

/// Documents of one kind. Pairs of a document are all trained on, or all held out.
struct Domain {
  std::string name;
  std::string query_is, answer_is;  // for people
  std::vector<TextPair> training = {}, held_out = {};
};

/// Of so many pairs to train on each at most, in an order that depends on their documents alone; a fifth of all
/// documents is held out, up to a fifth of as many pairs, or 50. Kinds that the machine has fewer than 50 held-out
/// pairs of are left out:
///
///   packages   installed packages: the first line of a description against the rest     (Debian's status file)
///   python     the standard library: the first line of a docstring against the code
///   manual     manual pages of commands: the line of NAME against DESCRIPTION
///   cmake      CMake's help: the first sentence of a page against what follows
std::vector<Domain> find_domains(std::size_t max_training);

}  // namespace encoder
