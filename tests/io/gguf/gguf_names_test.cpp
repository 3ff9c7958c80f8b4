// SPDX-License-Identifier: MIT
#include "mole/io/gguf/gguf_names.hpp"

#include "support/catch.hpp"

using namespace mole;

TEST_CASE("A module of a model has one tensor in a GGUF file, and the tensor that module", "[io]") {
  for (const auto& [path, tensor] : {std::pair{"model.layers.0.self_attn.q_proj", "blk.0.attn_q.weight"},
                                     {"model.layers.17.self_attn.o_proj", "blk.17.attn_output.weight"},
                                     {"model.layers.3.mlp.down_proj", "blk.3.ffn_down.weight"},
                                     {"model.embed_tokens", "token_embd.weight"},
                                     {"lm_head", "output.weight"}}) {
    CHECK(gguf_name(path) == tensor);
    CHECK(path_of_gguf(tensor) == path);
  }
}

TEST_CASE("Other modules, and names that only look alike, have none", "[io]") {
  for (const char* path : {"", "model.layers", "model.layers.", "model.layers.0", "model.layers..mlp.up_proj",
                           "model.layers.01.mlp.up_proj", "model.layers.-1.mlp.up_proj", "model.layers.x.mlp.up_proj",
                           "model.layers.99999999999.mlp.up_proj", "model.layers.0.mlp.up_proj.",
                           "layers.0.mlp.up_proj", "model.layers.0.mlp.experts.gate_up_proj", "lm_head.weight"})
    CHECK_FALSE(gguf_name(path));
  for (const char* tensor : {"", ".weight", "blk.0.attn_q", "blk.0.attn_q.bias", "blk.00.attn_q.weight",
                             "blk.0.ffn_up_exps.weight", "blk.0..weight", "output_norm.weight"})
    CHECK_FALSE(path_of_gguf(tensor));
}

TEST_CASE("Architectures are told apart by the order of the rows of q and k", "[io]") {
  for (const char* name : {"llama", "granite", "granitemoe", "smollm3", "minicpm", "olmo"})
    CHECK(gguf_reorders_heads(name) == true);
  for (const char* name : {"llama4", "qwen2", "qwen3", "gemma2", "phi3", "olmo2", "command-r"})
    CHECK(gguf_reorders_heads(name) == false);
  for (const char* name : {"", "Llama", "llama5"}) CHECK_FALSE(gguf_reorders_heads(name).has_value());
}
