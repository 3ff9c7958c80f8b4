# SPDX-License-Identifier: MIT
"""mole beside peft on the CPU: a layer by itself, and a small random Llama with LoRA, X-LoRA and a mixture.

    python bench.py [--threads 1] [--rounds 9] [--width 768] [--tokens 512]

Times are medians of rounds in which all ways take turns; "x base" is over the frozen torch.nn.Linear, or the model without
an adapter. Gradients are those of what the adapter trains, and of x.
"""
from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import mole
import mole.torch
import torch
import transformers
from peft import LoraConfig, XLoraConfig, get_peft_model

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def milliseconds(ways, rounds):
    """The median of each way; all take turns."""
    for way in ways.values():
        way()
    times = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: statistics.median(all_times) for name, all_times in times.items()}


def forward_and_both(call):
    """Without a graph, and with its backward."""
    def forward():
        with torch.no_grad():
            call()

    return forward, lambda: call().square().mean().backward()


def table(title, calls, rounds):
    print(f"\n| {title} | forward ms | x base | forward + backward ms | x base |\n|---|---:|---:|---:|---:|")
    pairs = {name: forward_and_both(call) for name, call in calls.items()}
    columns = [milliseconds({name: pair[i] for name, pair in pairs.items()}, rounds) for i in (0, 1)]
    base = next(iter(calls))
    for name in calls:
        cells = [f"{column[name]:.2f} | {column[name] / column[base]:.2f}" for column in columns]
        print(f"| {name} | {cells[0]} | {cells[1]} |")


class Wrapped(torch.nn.Module):
    """What peft demands around a layer."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return self.linear(x)


def layers(arguments, tokens):
    width = arguments.width
    torch.manual_seed(1)
    linear = torch.nn.Linear(width, width).requires_grad_(False)
    x = torch.randn(tokens, width, requires_grad=True)
    lora = get_peft_model(Wrapped(torch.nn.Linear(width, width)), LoraConfig(r=16, lora_alpha=32, target_modules=["linear"]))
    lora = lora.base_model.model.linear
    options = dict(threads=arguments.threads, dropout=0.0)
    ours = {
        "mole: lora r16": ("lora", dict(rank=16)),
        "mole: top-2 of 8 x r16": ("mola", dict(experts=8, rank=16, k=2)),
    }
    calls = {"torch.nn.Linear, frozen": lambda: linear(x), "peft: LoRA r16": lambda: lora(x)}
    for name, (preset, own) in ours.items():
        for pack in (False, True):
            layer = mole.torch.Linear.from_linear(linear, preset, pack=pack, **own, **options)
            calls[name + (", packed" if pack else "")] = lambda layer=layer: layer(x)
    table(f"a layer {width} x {width}, {tokens} tokens", calls, arguments.rounds)


def models(arguments):
    width, experts, targets = 256, 4, ["q_proj", "k_proj", "v_proj", "o_proj"]

    def llama():
        torch.manual_seed(1)
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(
            hidden_size=width, intermediate_size=3 * width, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=4, vocab_size=512, use_cache=False))

    tokens = torch.randint(0, 512, (2, arguments.tokens // 2), generator=torch.Generator().manual_seed(2))
    lora = LoraConfig(r=16, lora_alpha=32, target_modules=targets)
    with tempfile.TemporaryDirectory() as folder:
        adapters = {}
        for number in range(experts):
            adapters[str(number)] = os.path.join(folder, str(number))
            get_peft_model(llama(), lora).save_pretrained(adapters[str(number)])
        xlora = get_peft_model(llama(), XLoraConfig(task_type="CAUSAL_LM", hidden_size=width, adapters=adapters,
                                                    use_trainable_adapters=True))
    ways = {"the model, frozen": llama().requires_grad_(False), "peft: LoRA r16": get_peft_model(llama(), lora)}
    for name, preset, own in (("mole: lora r16", "lora", {}),
                              (f"mole: all {experts} x r16 (loramoe)", "loramoe", dict(experts=experts)),
                              (f"mole: top-2 of {experts} x r16 (mola)", "mola", dict(experts=experts, k=2))):
        ways[name] = llama()
        mole.torch.replace_linear(ways[name], targets, preset, rank=16, dropout=0.0, pack=True,
                                  threads=arguments.threads, **own)
    ways[f"peft: X-LoRA, {experts} x r16"] = xlora
    calls = {}
    for name, model in ways.items():
        model.train()
        embedded = model.get_input_embeddings()(tokens).detach().requires_grad_()  # so that all have the same backward
        if "X-LoRA" in name:
            calls[name] = lambda model=model: model(tokens).logits  # it asks for tokens
        else:
            calls[name] = lambda model=model, embedded=embedded: model(inputs_embeds=embedded).logits
    table(f"a Llama of 4 blocks of width {width}, its attention adapted, {arguments.tokens} tokens", calls, arguments.rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--tokens", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"mole {mole.__version__}, torch {torch.__version__}, transformers {transformers.__version__}, "
          f"{arguments.threads} threads, medians of {arguments.rounds}")
    for tokens in (1, 16, arguments.tokens):
        layers(arguments, tokens)
    models(arguments)


if __name__ == "__main__":
    main()
