// SPDX-License-Identifier: MIT
// Documents become the pairs of texts that they hold, and texts the tokens that BERT's tokenizer makes of them.
#include "encoder/document_sources.hpp"
#include "encoder/word_piece.hpp"

#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using encoder::TextPair;

int failures = 0;

void check(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("encoder_texts: %s\n", what.c_str());
}

void check_pairs(const std::string& what, const std::vector<TextPair>& found, const std::vector<TextPair>& expected) {
  check(found.size() == expected.size(),
        what + ": expected " + std::to_string(expected.size()) + " pairs, found " + std::to_string(found.size()));
  for (std::size_t i = 0; i < std::min(found.size(), expected.size()); ++i) {
    check(found[i].query == expected[i].query, what + ": query '" + found[i].query + "'");
    check(found[i].answer == expected[i].answer, what + ": answer '" + found[i].answer + "'");
    check(found[i].document == expected[i].document, what + ": document '" + found[i].document + "'");
  }
}

void check_documents() {
  check_pairs(
      "packages",
      encoder::pairs_of_packages("Package: a\nStatus: ok\nDescription: first line\n Second.\n .\n Third.\nX: y\n\n"
                                 "Package: b\nDescription: no more\n\nPackage: c\nDescription: last\n One."),
      {{"first line", "Second. Third.", "a"}, {"no more", "", "b"}, {"last", "One.", "c"}});
  check_pairs(
      "python",
      encoder::pairs_of_python("import os\n\ndef f(a,\n      b):\n    \"\"\"Adds.\"\"\"\n    return a + b\n\n"
                               "class C:\n    \"\"\"\n    Holds.\n\n    More.\n    \"\"\"\n    x = 1\n\n\ny = 2\n"
                               "def g():\n    return 1\n",
                               "m.py"),
      {{"Adds.", "def f(a, b): return a + b", "m.py"}, {"Holds.", "class C: x = 1", "m.py"}});
  check_pairs("manual",
              encoder::pairs_of_manual_page(".TH X 1\n.SH \"NAME\"\nx \\- does \\fIthings\\fR\n.SH DESCRIPTION\n.PP\n"
                                            "The\n.B loud\ncommand.\\\" a comment\n.SH BUGS\nNone.\n",
                                            "x.1"),
              {{"does things", "The loud command.", "x.1"}});
  check_pairs("manual without a name", encoder::pairs_of_manual_page(".SH DESCRIPTION\nText.\n", "y.1"), {});
  check_pairs("help",
              encoder::pairs_of_help_page(
                  "NAME\n----\n\n.. versionadded:: 3.1\n\nSays a thing.  And v1.2 of\nanother.\n", "n.rst"),
              {{"Says a thing.", "And v1.2 of another.", "n.rst"}});
}

void check_tokens() {
  const encoder::WordPiece pieces(
      {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##want", "##ed", "cafe", ",", "\u4e2d", "want"}, true,
      "test");
  const auto is = [&](const std::string& text, std::vector<int> expected, std::size_t most = 100) {
    expected.insert(expected.begin(), 2);
    expected.push_back(3);
    check(pieces.encode(text, most) == expected, "tokens of '" + text + "'");
  };
  is("", {});
  is("Unwanted,  CAF\u00c9", {5, 6, 7, 9, 8});
  is("cafe\u0301\twant\u200b", {8, 11});  // an accent of its own; a format character
  is("want\u4e2dwant", {11, 10, 11});     // ideographs are words
  is("unx wantx", {1, 1});                // a word is known as a whole, or not at all
  is(std::string(101, 'u'), {1});
  is("want[MASK]want", {11, 4, 11});
  is("want \xff want", {11, 11});  // no UTF-8
  is("want want want", {11}, 3);
  is("want", {}, 0);
  try {
    encoder::WordPiece({"[CLS]", "[SEP]"}, true, "small.txt");
    check(false, "a vocabulary without [UNK] was taken");
  } catch (const std::runtime_error& error) {
    check(std::string(error.what()) == "small.txt: expected a piece '[UNK]', found none among 2", error.what());
  }
}

}  // namespace

int main() {
  check_documents();
  check_tokens();
  return failures == 0 ? 0 : 1;
}
