// SPDX-License-Identifier: MIT
// The kinds of documents that a machine may have.
#pragma once

#include "encoder/documents.hpp"

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace encoder {

struct DocumentSource {
  std::string name, query_is, answer_is;
  std::function<std::vector<TextPair>()> find;  // empty where the machine has none
};

std::vector<DocumentSource> document_sources();

// ---- what they are made of; `document` names where a text is from

/// Stanzas of a status file of Debian's packages.
std::vector<TextPair> pairs_of_packages(std::string_view status);
/// Functions and classes of a Python file that have a docstring.
std::vector<TextPair> pairs_of_python(std::string_view code, const std::string& document);
/// One pair, or none, of a manual page in the man macros of troff.
std::vector<TextPair> pairs_of_manual_page(std::string_view page, const std::string& document);
/// One pair, or none, of a page of reStructuredText.
std::vector<TextPair> pairs_of_help_page(std::string_view page, const std::string& document);

}  // namespace encoder
