#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs the program `inspect` on small files made here: what it says of them, converts and merges, and on bad input.
set -eu
program=$1
. tests/examples/work_folder.sh
run() { "$program" "$@" >"$work/log" 2>&1 || fail "failed: $*"; }
present() { grep -qF -- "$1" "$work/log" || fail "expected '$1'"; }
absent() { grep -qF -- "$1" "$work/log" && fail "expected no '$1'" || true; }
# refused TEXT ARGUMENTS...: expects exit code 2 and one line with TEXT.
refused() {
  text=$1 code=0
  shift
  "$program" "$@" >"$work/out" 2>"$work/log" || code=$?
  [ "$code" = 2 ] || fail "expected exit code 2 for '$*', found $code"
  [ "$(wc -l <"$work/log")" = 1 ] || fail "expected one line for '$*'"
  [ ! -s "$work/out" ] || fail "expected no output for '$*'"
  present "$text"
}

# safetensors FILE HEADER: of a header below 64 KiB and the bytes from standard input.
safetensors() {
  length=$(printf '%s' "$2" | wc -c)
  # The digits are octal; the format is made on purpose.
  printf "\\$(printf %03o $((length % 256)))\\$(printf %03o $((length / 256)))\\0\\0\\0\\0\\0\\0" >"$1"
  printf '%s' "$2" >>"$1"
  cat >>"$1"
}
one='\000\000\200\077' two='\000\000\000\100' four='\000\000\200\100' five='\000\000\240\100' nan='\000\000\300\177'
q=base_model.model.model.layers.0.self_attn.q_proj
# lora FOLDER B CONFIG: A = [1 2], B = [B 0] of one rank.
lora() {
  mkdir -p "$1"
  printf '%s' "$3" >"$1/adapter_config.json"
  printf "$one$two$2\\0\\0\\0\\0" | safetensors "$1/adapter_model.safetensors" \
    "{\"$q.lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]},\"$q.lora_B.weight\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[8,16]}}"
}
plain='{"peft_type":"LORA","r":1,"lora_alpha":2,"target_modules":["q_proj"],"base_model_name_or_path":"org/model"}'
lora "$work/lora" "$two" "$plain"

# What it is.
run "$work/lora"
present 'format: adapter of peft'
present 'base: org/model'
present 'model.layers.0.self_attn.q_proj  1     2      2   2    8.94427' # 2 * |2| * |(1, 2)|
present 'types: F32 2'
present 'nothing unusual'
run "$work/lora" --json
present '"name": "'$q'.lora_A.weight"'
present '"norm": 2.236'
lora "$work/broken" "$nan" '{"peft_type":"LORA","r":1,"lora_alpha":0,"target_modules":["q_proj","v_proj"]}'
run "$work/broken"
present "tensors with NaN or infinity, 1: $q.lora_B.weight"
present 'named by the configuration, but not there, 1: v_proj'
present "a scale of 0 of 'model.layers.0.self_attn.q_proj'"
lora "$work/fresh" '\000\000\000\000' "$plain"
run "$work/fresh/adapter_model.safetensors"
present 'modules that add nothing, as B is 0, 1: model.layers.0.self_attn.q_proj'
mkdir "$work/two"
cp -r "$work/lora" "$work/fresh" "$work/two"
run "$work/two"
present '2 adapters of peft'
run tests/io/layer/layer_version_1.safetensors
present 'format: layers of mole'

# What would act on a terminal is shown as ?, in keys, too, and in errors.
description() { # FILE JSON: a file of one layer, of that description
  printf "$one$two" | safetensors "$1" \
    '{"__metadata__":{"format":"mole.checkpoint.2","x.description":"'"$2"'"},"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
}
description "$work/escapes" '{\"method\":\"lora\",\"in\":1,\"out\":1,\"experts\":{\"\\u001b[2J\":\"\\u009b1m\\u202e\"}}'
run "$work/escapes"
present '?[2J ?1m?'
absent "$(printf '\033')"
run "$work/escapes" --json
absent "$(printf '\302\233')"
description "$work/three" '{\"method\":\"mixlora\",\"in\":1,\"out\":1,\"up\":3}'
refused "layer 'x': expected an object for 'up', found 3" "$work/three"
mkdir "$work/line"
printf '%s' "$plain" >"$work/line/adapter_config.json"
printf "$one" | safetensors "$work/line/adapter_model.safetensors" \
  '{"a\nb.lora_A.weight":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}'
refused "'a?b'" "$work/line"

# Into a checkpoint: W = [[1 1] [1 1]] becomes [[5 9] [1 1]], and the other tensor stays.
weight='model.layers.0.self_attn.q_proj.weight'
header="{\"__metadata__\":{\"format\":\"pt\"},\"$weight\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},\"other\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[16,17]}}"
mkdir "$work/model"
printf "$one$one$one${one}x" | safetensors "$work/model/model.safetensors" "$header"
printf "$five\\000\\000\\020\\101$one${one}x" | safetensors "$work/expected" "$header"
run "$work/lora" --merge-into "$work/model" "$work/merged"
present "tensors: $weight"
cmp -s "$work/expected" "$work/merged/model.safetensors" || fail "expected W + 2 B A"
printf '{"weight_map":{"%s":"model.safetensors"}}' "$weight" >"$work/model/x.safetensors.index.json"
run "$work/lora" --merge-into "$work/model/x.safetensors.index.json" "$work/sharded" --json
cmp -s "$work/expected" "$work/sharded/model.safetensors" || fail "expected W + 2 B A in a shard"
cmp -s "$work/model/x.safetensors.index.json" "$work/sharded/x.safetensors.index.json" || fail "expected the index"

# From one format to another and back.
run "$work/lora" --to gguf "$work/lora.gguf" --heads 1 1
run "$work/lora.gguf"
present 'format: adapter of llama.cpp'
present 'blk.0.attn_q.weight  1     2      2   2    8.94427'
run "$work/lora.gguf" --heads 1 1 --to mole "$work/lora.layers" --base "$work/model"
run "$work/lora.layers"
present 'model.layers.0.self_attn.q_proj  lora'
absent 'no base is known'
run "$work/lora.layers" --to peft "$work/again"
run "$work/again" --to peft "$work/half" --dtype F16
run "$work/half" --json
present '"F16": 2'
run "$work/again" --merge-into "$work/model/model.safetensors" "$work/merged_again"
cmp -s "$work/expected" "$work/merged_again/model.safetensors" || fail "expected the same adapter through all formats"

# The order of rows of q and k is that of the architecture, and has to be told where it is not known.
run "$work/lora" --to gguf "$work/qwen2.gguf" --architecture qwen2
run "$work/qwen2.gguf" --to peft "$work/of_qwen2"
refused 'no --heads' "$work/lora" --to gguf "$work/no" --architecture qwen2 --heads 1 1
refused 'no --heads' "$work/qwen2.gguf" --to peft "$work/no" --heads 1 1
refused 'architecture granite have rows' "$work/lora" --to gguf "$work/no" --architecture granite
refused '0 0 if its rows stay' "$work/lora" --to gguf "$work/no" --architecture unheard
run "$work/lora" --to gguf "$work/unheard.gguf" --architecture unheard --heads 0 0

# What a conversion leaves out is said.
mkdir "$work/more"
printf '%s' "$plain" >"$work/more/adapter_config.json"
printf "$one$two$two\\0\\0\\0\\0$one" | safetensors "$work/more/adapter_model.safetensors" \
  "{\"$q.lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]},\"$q.lora_B.weight\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[8,16]},\"rope.inv_freq\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[16,20]}}"
run "$work/more"
present 'tensors that belong to nothing, 1: rope.inv_freq'
run "$work/more" --to peft "$work/less"
present 'left_out: rope.inv_freq'

# A mixture becomes a file of layers, and nothing else.
mixture=mola.layers.0.self_attn.q_proj
mkdir "$work/mola"
printf '{"peft_type":"MOLA","routing_strategy":"mola","r":1,"lora_alpha":1,"num_experts":1,"top_k":1,"target_modules":["q_proj"]}' \
  >"$work/mola/adapter_config.json"
printf "$one$two$one$two$one$two" | safetensors "$work/mola/adapter_model.safetensors" \
  "{\"$mixture.moe_gate.weight\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]},\"$mixture.experts.0.lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[8,16]},\"$mixture.experts.0.lora_B.weight\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[16,24]}}"
run "$work/mola"
present 'method: mola'
run "$work/mola" --to mole "$work/mola.layers"
run "$work/mola.layers"
present 'self_attn.q_proj  mola'
refused 'found a mixture, with routers' "$work/mola" --to peft "$work/no"
refused "of mola" "$work/mola.layers" --to gguf "$work/no" --heads 0 0

lora "$work/hydra" "$two" '{"peft_type":"LORA","r":1,"lora_alpha":2,"lora_nums":2}'
refused "a tensor 'lora_B0.weight'" "$work/hydra"
lora "$work/fly" "$two" '{"peft_type":"LORA","r":1,"lora_alpha":2,"bias_u":0.01,"top_k":1}'
refused "a tensor 'lora_topk_bias'" "$work/fly"

# Bad input: one line, and nothing is written.
refused 'required'
refused 'expected a readable file' "$work/nothing-here"
refused 'expected' "$work/mola/adapter_config.json"
refused 'expected peft, gguf or mole' "$work/lora" --to onnx "$work/no"
refused 'expected --heads' "$work/lora" --to gguf "$work/no"
refused 'not taken' "$work/lora" --to peft "$work/mola"
refused 'expected an adapter of peft' "$work/model" --merge-into "$work/model" "$work/no"
refused 'one LoRA for each module' "$work/model" --to peft "$work/no"
refused 'expected one adapter' "$work/two" --to peft "$work/no"
refused "a tensor '$weight'" "$work/lora" --merge-into "$work/mola/adapter_model.safetensors" "$work/no"
refused 'excludes' "$work/lora" --to peft "$work/no" --merge-into "$work/model" "$work/no"
lora "$work/pissa" "$two" '{"peft_type":"LORA","r":1,"lora_alpha":2,"init_lora_weights":"pissa"}'
refused 'pissa' "$work/pissa" --merge-into "$work/model" "$work/no"
refused 'pissa' "$work/pissa" --to gguf "$work/no" --heads 1 1
run "$work/pissa" --merge-into "$work/model" "$work/changed" --base-is-changed
printf 'GGUF' >"$work/short.gguf"
refused 'short.gguf' "$work/short.gguf"
head -c 100 "$work/model/model.safetensors" >"$work/cut.safetensors"
refused 'cut.safetensors' "$work/cut.safetensors"
mkfifo "$work/pipe"
refused 'a regular file' "$work/pipe"
[ ! -e "$work/no" ] || fail "expected nothing to be written"
[ -z "$(find "$work" -name '*.partial*')" ] || fail "expected nothing to be left over"
run --help
present '--merge-into CHECKPOINT OUT'
echo "inspect_program: all as it should be"
