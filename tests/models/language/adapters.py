"""Adapters and their exports, which tests compare with transformers and peft."""

import torch


def exported(task, folder):
    """Random adapters, written to `folder`/adapter and merged to `folder`/merged.

    Returns tokens [2, 9] and the logits of the model with these adapters.
    """
    model = task.build().eval()
    torch.manual_seed(0)
    weights = {n: p.data.normal_(std=0.2) for n, p in model.named_parameters() if p.requires_grad}
    ids = torch.randint(10, 300, (2, 9))
    expected = model(ids)
    for name, is_merged in (("adapter", False), ("merged", True)):
        (folder / name).mkdir()
        task.write_adapted(weights, folder / name, merged=is_merged)
    return ids, expected
