# SPDX-License-Identifier: MIT
"""Layers with the module trees of forks of peft: HydraLoRA, FlyLoRA and SMoRA, as their authors released them.

A class has the names and shapes that the fork saves and computes what its paper and the fork do in evaluation, in one way
that is easy to follow. Each wraps a linear layer, as peft does; state() is what the fork would save of it.
"""
import torch
from torch import nn


class Hydra(nn.Module):
    """Clin0212/HydraLoRA: a softmax over experts that share one A."""
    config = dict(peft_type="LORA", r=4, lora_alpha=6, lora_nums=3, blc_alpha=0.0, blc_weight=0.0, lora_dropout=0.1)

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.lora_A = nn.Linear(base.in_features, 4, bias=False)
        for expert in range(3):
            setattr(self, f"lora_B{expert}", nn.Linear(4, base.out_features, bias=False))
        self.lora_route = nn.Linear(base.in_features, 3, bias=False)

    def forward(self, x):
        experts = torch.stack([getattr(self, f"lora_B{expert}")(self.lora_A(x)) for expert in range(3)], dim=-1)
        return self.base(x) + 6 / 4 * (experts @ self.lora_route(x).softmax(-1)[..., None])[..., 0]


class Fly(nn.Module):
    """gfyddha/FlyLoRA, its fork of peft: ranks of the largest A x + bias, of a sparse A."""
    config = dict(peft_type="LORA", r=8, lora_alpha=16, top_k=2, bias_u=0.01, init_lora_weights="sparse", use_rslora=False,
                  use_dora=False, lora_bias=False, rank_pattern={}, alpha_pattern={})

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.lora_A = nn.Linear(base.in_features, 8, bias=False)
        with torch.no_grad():
            for row in self.lora_A.weight:
                row[torch.randperm(len(row))[len(row) // 4:]] = 0
        self.lora_B = nn.Linear(8, base.out_features, bias=False)
        self.lora_topk_bias = nn.Parameter(torch.randn(8) / 4)

    def forward(self, x):
        response = self.lora_A(x)
        wanted = response + self.lora_topk_bias
        chosen = wanted >= wanted.topk(2).values[..., -1:]
        return self.base(x) + 16 / 8 * self.lora_B(response * chosen)


class Smora(nn.Module):
    """StyxXuan/smora: ranks of the largest sigmoid + bias, two ranks for each row of the router."""
    config = dict(peft_type="SRMOLE", r=8, lora_alpha=16, activate_r=3, rank_partition=2, epsilon_greedy=False,
                  dense_compute=False, lora_dropout=0.05)

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.lora_A = nn.Linear(base.in_features, 8, bias=False)
        self.lora_B = nn.Linear(8, base.out_features, bias=False)
        self.lora_router = nn.Linear(base.in_features, 4, bias=False)
        self.lora_biases = nn.Parameter(torch.randn(8) / 4)

    def forward(self, x):
        gates = self.lora_router(x).sigmoid().repeat_interleave(2, dim=-1) + self.lora_biases
        gates = gates * (gates >= gates.topk(3).values[..., -1:])
        return self.base(x) + 16 / 3 * self.lora_B(3 * gates / gates.sum(-1, keepdim=True) * self.lora_A(x))


def state(path, layer):
    return {f"base_model.model.{path}.{name}": tensor.detach().clone() for name, tensor in layer.state_dict().items()
            if "lora_" in name}
