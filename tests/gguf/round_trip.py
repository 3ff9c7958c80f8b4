# SPDX-License-Identifier: MIT
"""GGUF files that the package gguf writes, read and written by this library, against gguf itself.

    python round_trip.py PROGRAM

PROGRAM is round_trip.cpp, built. Weights of every served type must be those that gguf decodes, the updates of an adapter
those of its tensors; the adapter that PROGRAM writes must have the same tensors and metadata, in F32 and in Q8_0.
"""
import os
import subprocess
import sys
import tempfile

import gguf
import numpy
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import load_file

SIZES = [(3, 32), (64, 256), (17, 96)]
random = numpy.random.default_rng(0)


def numbers(*shape):
    return random.standard_normal(shape).astype(numpy.float32)


def write_weights(path):
    """The numbers that gguf decodes, by name."""
    expected = {}
    writer = gguf.GGUFWriter(path, "llama")
    for rows, cols in SIZES:
        for kind in (Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0):
            name = f"{kind.name}.{rows}.{cols}"
            data = gguf.quants.quantize(numbers(rows, cols), kind)
            expected[name] = gguf.quants.dequantize(data, kind)
            writer.add_tensor(name, data, raw_dtype=kind)
    finish(writer)
    return expected


def write_adapter(path):
    """A and B of each tensor."""
    tensors = {}
    for name, shape_a, shape_b in [("blk.0.attn_q.weight", (4, 32), (64, 4)), ("blk.0.ffn_down.weight", (4, 96), (32, 4)),
                                   ("blk.1.ffn_up_exps.weight", (3, 4, 32), (3, 24, 4))]:
        tensors[name + ".lora_a"], tensors[name + ".lora_b"] = numbers(*shape_a), numbers(*shape_b)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 6.0)
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    finish(writer)
    return tensors


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def field(reader, key):
    return reader.get_field(key).contents()


def check_written(path, tensors, error):
    reader = gguf.GGUFReader(path)
    assert field(reader, "general.type") == "adapter" and field(reader, "adapter.type") == "lora"
    assert field(reader, "general.architecture") == "llama" and field(reader, "adapter.lora.alpha") == 6
    found = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    assert found.keys() == tensors.keys(), f"wrote {sorted(found)}"
    for name, expected in tensors.items():
        close(found[name], expected, error, "written " + name)
        if path.endswith("q8_0.gguf") and expected.shape[-1] % 32 == 0:
            data = next(tensor.data for tensor in reader.tensors if tensor.name == name)
            own = gguf.quants.quantize(expected, Type.Q8_0)
            assert (numpy.asarray(data).ravel() == own.ravel()).all(), f"other codes in {name}"


def close(found, expected, error, name):
    found = found.reshape(expected.shape)
    difference = numpy.abs(found - expected).max() / numpy.abs(expected).max()
    assert difference <= error, f"{name}: differs by {difference}"


def main():
    with tempfile.TemporaryDirectory() as folder:
        weights = write_weights(os.path.join(folder, "weights.gguf"))
        tensors = write_adapter(os.path.join(folder, "adapter.gguf"))
        subprocess.run([sys.argv[1], folder], check=True)
        found = load_file(os.path.join(folder, "out.safetensors"))
        for name, expected in weights.items():
            close(found[name], expected, 0, name)
        for name in {name.removesuffix(".lora_a") for name in tensors if name.endswith(".lora_a")}:
            a, b = tensors[name + ".lora_a"], tensors[name + ".lora_b"]
            updates = 6 / 4 * (b @ a if a.ndim == 3 else (b @ a)[None])
            for expert, update in enumerate(updates):
                close(found[f"{name}.{expert}"], update, 1e-6, f"update {expert} of {name}")
        check_written(os.path.join(folder, "written.gguf"), tensors, 0)
        check_written(os.path.join(folder, "written_q8_0.gguf"), tensors, 0.01)
    print(f"gguf: {len(weights)} weights read, {len(tensors)} tensors of an adapter read and written")


main()
