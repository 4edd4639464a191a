"""Turn a JSONL of texts into fixed windows of token ids, the same for every peer."""

import json
from pathlib import Path

import torch
from transformers import AutoTokenizer

SEPARATOR = 0  # the model's BOS/EOS id, put between documents


def token_windows(model, path, count, length):
    """Return an int64 tensor [count, length] of windows spread evenly over the texts of `path`."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines if line.strip()]
    ids = []
    for encoded in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]:
        ids.extend(encoded)
        ids.append(SEPARATOR)
    available = len(ids) // length
    if available < count:
        raise ValueError(f"{path} holds {available} windows of {length} tokens; {count} were asked for")
    chosen = [index * available // count for index in range(count)]
    rows = torch.tensor(ids[: available * length]).view(available, length)
    return rows[chosen].clone()
