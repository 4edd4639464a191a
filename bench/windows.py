"""Turn texts into fixed windows of token ids, the same for every peer."""

import json
from pathlib import Path

import torch
from transformers import AutoTokenizer


def token_windows(model, path, count, length):
    """Return an int64 tensor [count, length] of windows spread evenly over the texts of `path`.

    `path` is a JSONL of {"text": ...} or plain text. Documents end with the tokenizer's end of text; each window
    begins as the tokenizer begins a text.
    """
    tokenizer = AutoTokenizer.from_pretrained(model)
    whole = Path(path).read_text(encoding="utf-8")
    texts = [whole]
    if Path(path).suffix == ".jsonl":
        texts = [json.loads(line)["text"] for line in whole.splitlines() if line.strip()]
    ids = []
    for encoded in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]:
        ids.extend(encoded)
        ids.append(tokenizer.eos_token_id)
    first = [tokenizer.bos_token_id] if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else []
    step = length - len(first)
    available = len(ids) // step
    if available < count:
        raise ValueError(f"{path} holds {available} windows of {length} tokens; {count} were asked for")
    chosen = [index * available // count for index in range(count)]
    return torch.tensor([first + ids[index * step : (index + 1) * step] for index in chosen])
