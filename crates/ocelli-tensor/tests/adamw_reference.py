"""Writes adamw_reference.txt: parameters after each of ten torch.optim.AdamW steps on fixed gradients.

Two parameter groups, gradient-norm clipping at 1.0. The gradient of element i of a parameter at step t is
sin(i * 0.7 + t) * 0.5 * (k + 1) for the k-th parameter, its initial value cos(i * 0.3 + k).
Usage: python adamw_reference.py > adamw_reference.txt      (torch 2.11)
"""
import torch

shapes = [(3, 4), (5,)]
index = [torch.arange(torch.Size(s).numel(), dtype=torch.float64).reshape(s) for s in shapes]
params = [torch.nn.Parameter(torch.cos(i * 0.3 + k).float()) for k, i in enumerate(index)]
groups = [dict(params=[params[0]], lr=1e-2, weight_decay=0.1), dict(params=[params[1]], lr=3e-2, weight_decay=0.0)]
optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
for t in range(10):
    for k, (p, i) in enumerate(zip(params, index)):
        p.grad = (torch.sin(i * 0.7 + t) * 0.5 * (k + 1)).float()
    norm = torch.nn.utils.clip_grad_norm_(params, 1.0)
    optimizer.step()
    values = [norm.item()] + [x for p in params for x in p.flatten().tolist()]
    print(" ".join(f"{x:.9g}" for x in values))
