#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The encoder against transformers, on the same checkpoint: check.py ENCODER MODEL_FOLDER WORK_FOLDER [ADAPTER_FOLDER]

Tokens of 10,000 lines of mixed text are equal; embeddings differ by 1e-5 at most, those of an adapter that peft loads
as well; prints the ratio of the times."""

import pathlib
import random
import re
import subprocess
import sys
import time
import unicodedata

import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

LINES, EMBEDDED, MAX_TOKENS, THREADS = 10_000, 400, 128, 2


def mixed_lines():
    """Half from Python's library, half made of characters of all scripts that tokenizers' tables know."""
    generator = random.Random(1)
    found = []
    for path in sorted(pathlib.Path(random.__file__).parent.glob("*.py")):
        found += path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = [line for line in found if line.strip()]
    generator.shuffle(found)
    lines = found[: LINES // 2]
    old = unicodedata.ucd_3_2_0  # later characters have other kinds in other versions of the tables
    characters = [chr(c) for c in range(1, 0x30000) if not 0xD800 <= c < 0xE000 and old.category(chr(c)) not in ("Cn", "Cs")]
    characters = [c for c in characters if len(f"a{c}b".splitlines()) == 1]
    common = [c for c in characters if ord(c) < 0x300]
    whole = [" ", " ", "[SEP]", "[MASK]", "[CLS", "e\u0301", "\u00a0", "\u200b", "ﬁ"]
    while len(lines) < LINES:
        pick = lambda: generator.choice(generator.choice([common, common, characters, whole]))
        lines.append("".join(pick() for _ in range(generator.randint(0, 60))))
    return lines


def embed(encoder, model, folder, lines, max_tokens, more=()):
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "lines.txt"
    text.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="")
    command = [encoder, "--model", model, "--embed", text, "--tokens", str(max_tokens), "--threads", str(THREADS), "--out", folder, *more]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"check.py: the encoder failed: {run.stderr}")
    tensors = load_file(folder / "embeddings.safetensors")
    begin = tensors["begin"].flatten().tolist() + [tensors["tokens"].numel()]
    tokens = tensors["tokens"].flatten().tolist()
    seconds = float(re.search(r"([\d.]+) s:", run.stdout).group(1))
    return tensors["embeddings"], [tokens[a:b] for a, b in zip(begin, begin[1:])], seconds


def embeddings_of(model, tokenizer, lines):
    rows = []
    with torch.no_grad():
        for first in range(0, len(lines), 32):
            inputs = tokenizer(lines[first : first + 32], truncation=True, max_length=MAX_TOKENS, padding=True, return_tensors="pt")
            hidden = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            rows.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1)))
    return torch.cat(rows)


def check_equal(what, found, expected):
    difference = (found - expected).abs().max().item()
    if not difference <= 1e-5:
        sys.exit(f"check.py: expected {what} within 1e-5, found {difference}")


def main():
    encoder, model, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    torch.set_num_threads(THREADS)
    tokenizer = AutoTokenizer.from_pretrained(model)
    lines = mixed_lines()
    embeddings, tokens, _ = embed(encoder, model, folder, lines, 16)
    expected = tokenizer(lines, truncation=True, max_length=16, padding=False)["input_ids"]
    wrong = [i for i, (found, wanted) in enumerate(zip(tokens, expected)) if found != wanted]
    if len(tokens) != LINES or wrong:
        sys.exit(f"check.py: other tokens in {len(wrong)} of {len(tokens)} lines, such as {lines[wrong[0]]!r}" if wrong else "check.py: lines are missing")

    few = lines[:EMBEDDED]
    embeddings, tokens, seconds = embed(encoder, model, folder, few, MAX_TOKENS)
    bert = AutoModel.from_pretrained(model).eval()
    start = time.perf_counter()
    expected = embeddings_of(bert, tokenizer, few)
    theirs = time.perf_counter() - start
    check_equal("embeddings", embeddings, expected)
    print(f"{LINES} lines have the same tokens, {EMBEDDED} the same embeddings; time over transformers' {seconds / theirs:.2f}")

    if len(sys.argv) > 4:
        from peft import PeftModel

        adapted = PeftModel.from_pretrained(bert, sys.argv[4]).eval()
        expected_adapted = embeddings_of(adapted, tokenizer, few)
        embeddings, _, _ = embed(encoder, model, folder, few, MAX_TOKENS, ["--adapter", sys.argv[4]])
        check_equal("embeddings of the adapter", embeddings, expected_adapted)
        change = (expected_adapted - expected).abs().max().item()
        if change < 1e-3:
            sys.exit(f"check.py: expected an adapter that changes embeddings, found changes of {change:.1e}")
        print(f"peft loads the adapter: the same embeddings, which it changed by up to {change:.2f}")


main()
