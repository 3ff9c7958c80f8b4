# SPDX-License-Identifier: MIT
"""Weights that bitsandbytes quantizes, read and written by this library, against bitsandbytes itself.

    python round_trip.py PROGRAM

PROGRAM is round_trip.cpp, built. For each kind of weight: bitsandbytes quantizes it and saves its state dict; PROGRAM
decodes it, multiplies inputs by it and writes it again. Decoded weights and products must be those of bitsandbytes, the
written tensors the original ones, byte for byte, and bitsandbytes must load them.
"""
import os
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")

import torch
import bitsandbytes
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from bitsandbytes.functional import dequantize_blockwise
from bitsandbytes.nn import Linear4bit, Linear8bitLt, Params4bit
from safetensors.torch import load_file, save_file

SIZES = [(24, 64), (40, 512), (7, 48), (33, 128), (300, 256)]  # blocks that cross rows, many blocks of blocks
NAME = "model.layers.0.self_attn.q_proj."


def four_bit(out, into, quant_type, nested, dtype, storage):
    layer = Linear4bit(into, out, bias=False, compute_dtype=torch.float32, compress_statistics=nested,
                       quant_type=quant_type, quant_storage=storage)
    layer.weight = Params4bit(torch.randn(out, into).to(dtype), requires_grad=False, quant_type=quant_type,
                              compress_statistics=nested, quant_storage=storage)
    return layer.to("cpu")


def eight_bit(out, into):
    layer = Linear8bitLt(into, out, bias=False, has_fp16_weights=False)
    layer.load_state_dict({"weight": torch.randn(out, into)})
    return layer.to("cpu")


def decoded(layer):
    """By bitsandbytes' torch code: its CPU kernel (0.50.2) takes the blocks of a row for the next row's where they cross rows."""
    if isinstance(layer, Linear8bitLt):
        return layer.weight.data.float() * (layer.weight.SCB.view(-1, 1) / 127)
    state = layer.weight.quant_state
    absmax = state.absmax
    if state.nested:
        absmax = dequantize_blockwise(absmax, state.state2) + state.offset
    codes = layer.weight.data.view(torch.uint8).flatten()
    return _dequantize_4bit_compute(codes, absmax.float(), state.code, state.blocksize, state.shape, torch.float32)


def loaded(state, like):
    """What bitsandbytes makes of a state dict."""
    tensors = {key.removeprefix(NAME): tensor for key, tensor in state.items()}
    if isinstance(like, Linear8bitLt):
        layer = Linear8bitLt(like.in_features, like.out_features, bias=False, has_fp16_weights=False).to("cpu")
        layer.load_state_dict(tensors)
        return layer.to("cpu")
    layer = Linear4bit(like.in_features, like.out_features, bias=False)
    parts = {key: tensor for key, tensor in tensors.items() if key != "weight"}
    layer.weight = Params4bit.from_prequantized(data=tensors["weight"], quantized_stats=parts, device="cpu")
    return layer


def close(found, expected, what, name):
    error = (found - expected).abs().max().item() / expected.abs().max().item()
    assert found.shape == expected.shape and error < 1e-6, f"{name}: {what} differs by {error}"


def check(program, folder, name, layer):
    state = {NAME + key: tensor.contiguous() for key, tensor in layer.state_dict().items()}
    save_file(state, os.path.join(folder, "model.safetensors"))
    x = torch.randn(5, layer.in_features)
    save_file({"x": x}, os.path.join(folder, "x.safetensors"))
    subprocess.run([program, folder, NAME + "weight"], check=True)

    found = load_file(os.path.join(folder, "out.safetensors"))
    weight = decoded(layer)
    close(found["weight"], weight, "the decoded weight", name)
    close(found["y"], x @ weight.T, "the product", name)
    written = load_file(os.path.join(folder, "written.safetensors"))
    assert written.keys() == state.keys(), f"{name}: wrote {sorted(written)}, not {sorted(state)}"
    for key, tensor in state.items():
        same = written[key].view(torch.uint8).flatten().equal(tensor.view(torch.uint8).flatten())
        assert same, f"{name}: wrote another {key}"
    close(decoded(loaded(written, layer)), weight, "the weight that bitsandbytes loads", name)


def main():
    torch.manual_seed(0)
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        for out, into in SIZES:
            for quant_type in ("nf4", "fp4"):
                for nested in (False, True):
                    for dtype, storage in ((torch.float32, torch.uint8), (torch.bfloat16, torch.uint8),
                                           (torch.float16, torch.bfloat16)):
                        name = f"{quant_type}, nested {nested}, {dtype} as {storage}, {out} x {into}"
                        check(sys.argv[1], folder, name, four_bit(out, into, quant_type, nested, dtype, storage))
                        count += 1
            check(sys.argv[1], folder, f"int8, {out} x {into}", eight_bit(out, into))
            count += 1
    print(f"bitsandbytes {bitsandbytes.__version__}: {count} weights read, written and loaded again")


main()
