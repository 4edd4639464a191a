"""Train the bundled demo model: a small Llama on the Python standard library's source.

    PYTHONPATH=src python scripts/train_demo_model.py

Trains a byte-level BPE tokenizer (1024 tokens), then a 2.2 M parameter
LlamaForCausalLM on the "train" part of bitwright.models.language.corpus, measures the
"heldout" part, and writes weights (bf16), tokenizer and model card to --out.

The bundled model was made with `--steps 5500 --minutes 42` on one thread of a
busy two-core machine (2300 to 6000 tokens/s): 42 minutes, 3962 steps, held-out
loss 2.9115 nats per token, perplexity 18.385 (Python 3.11.7, torch 2.13.0).

Everything random comes from --seed; the same seed, steps, Python, torch and
thread count give the same model. With --minutes the learning-rate schedule
follows the clock whenever that is ahead of the step count, so the run ends
well-cooled and in time, but its result then depends on the machine's speed.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from bitwright.models.language import corpus

OUT = Path(__file__).resolve().parents[1] / "src/bitwright/content/demo-model"
END = "<|endoftext|>"
POSITIONS = 512  # the longest sequence the model is trained on, in tokens
BATCH = 2048  # tokens a step


def train_tokenizer(texts: list[str], folder: Path) -> Tokenizer:
    """Train a 1024-token byte-level BPE and save it so that AutoTokenizer loads it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "model_max_length": POSITIONS,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return tokenizer


def join_tokens(tokenizer: Tokenizer, texts: list[str]) -> torch.Tensor:
    """Return all texts as one stream of token ids, an end token (0) before each text."""
    return torch.tensor([i for e in tokenizer.encode_batch(texts) for i in (0, *e.ids)])


def build_model() -> LlamaForCausalLM:
    """Return a freshly initialised model in float32."""
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


def measure_loss(model: LlamaForCausalLM, ids: torch.Tensor) -> float:
    """Return the mean loss in nats per token over whole windows of POSITIONS tokens."""
    windows = ids[: len(ids) // POSITIONS * POSITIONS].view(-1, POSITIONS)
    with torch.no_grad():
        losses = [compute_loss(model, batch) * len(batch) for batch in windows.split(4)]
    return float(sum(losses)) / len(windows)


def compute_loss(model: LlamaForCausalLM, batch: torch.Tensor) -> torch.Tensor:
    """Return the mean next-token loss of a batch of token ids, in nats per token."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=batch, use_cache=False).logits
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), batch[:, 1:].flatten())


def train(
    model: LlamaForCausalLM, ids: torch.Tensor, steps: int, minutes: float, rate: float, seed: int
) -> tuple[int, float]:
    """Train in place with AdamW, warmup and cosine decay; return (steps done, seconds taken)."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
    chance = torch.Generator().manual_seed(seed)
    start = time.monotonic()
    step, done, loss_sum, last_step, last_time = 0, 0.0, 0.0, 0, start
    while done < 1:
        # Every fourth step is at full length, so that all positions are trained.
        length = POSITIONS if step % 4 == 3 else 256
        offsets = torch.randint(len(ids) - length + 1, (BATCH // length,), generator=chance)
        batch = torch.stack([ids[i : i + length] for i in offsets.tolist()])
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / 100, 0.01 + 0.99 * math.cos(done * math.pi / 2) ** 2)
        loss = compute_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss_sum += loss.item()
        step += 1
        now = time.monotonic()
        done = max(step / steps, (now - start) / (60 * minutes))
        if step % 100 == 0 or done >= 1:
            count = step - last_step
            speed = count * BATCH / (now - last_time)
            left = (now - start) * (1 - done) / done if done < 1 else 0
            print(
                f"step {step}  loss {loss_sum / count:.3f}  {speed:.0f} tokens/s  ETA {left:.0f} s",
                flush=True,
            )
            loss_sum, last_step, last_time = 0.0, step, now
    return step, time.monotonic() - start


CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# Bitwright demo model

A small Llama-style language model that writes Python, bundled with Bitwright so
that every method can be tried in seconds without a download. It is for trying
out compression, not for writing software.

| | |
|---|---|
| Architecture | `LlamaForCausalLM`, 3 layers, hidden 256, intermediate 512, 4 heads of 64, tied embeddings |
| Parameters | {parameters:,} (bf16) |
| Tokenizer | byte-level BPE, 1024 tokens; id 0 `<|endoftext|>` starts and separates texts |
| Longest sequence | 512 tokens |
| Held-out loss | {loss:.4f} nats per token |
| Held-out perplexity | {perplexity:.3f} a token ({bits:.3f} bits a byte) |

## Training

Trained from scratch on the source of Python {python}'s own standard library, the
"train" part of `bitwright.models.language.corpus`: {train_bytes:.1f} MB, {train_tokens:,} tokens. {steps:,}
steps of 2048 tokens ({epochs:.1f} passes), AdamW with warmup to a rate of {rate:g} and
cosine decay, bf16 autocast, seed {seed}: {minutes:.0f} minutes on {threads} CPU thread(s), torch {torch}.
Command:

    PYTHONPATH=src python scripts/train_demo_model.py {limits} --seed {seed} --threads {threads}

Held-out figures are for the bf16 weights as stored, over consecutive windows of
512 tokens of the "heldout" part ({heldout_tokens:,} tokens of modules the model never
saw). On another Python version that text, and so the figure, differs a little.

## Licence

The weights and tokenizer are ours, under Apache-2.0. The training text is the
source of the Python standard library, under the Python Software Foundation
License; the model may reproduce short pieces of it.
"""


def main() -> None:
    """Train, measure and save the demo model."""
    parser = argparse.ArgumentParser(
        description="Train the bundled demo model on the Python standard library's source."
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write the model to")
    parser.add_argument("--steps", type=int, default=5500, help="steps of 2048 tokens")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this long")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--seed", type=int, default=0, help="seed of all that is random")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)

    texts, heldout_texts = corpus.read("train"), corpus.read("heldout")
    tokenizer = train_tokenizer(texts, options.out)
    ids, heldout = join_tokens(tokenizer, texts), join_tokens(tokenizer, heldout_texts)
    print(f"{len(ids)} training tokens, {len(heldout)} held-out tokens", flush=True)

    model = build_model()
    steps, seconds = train(model, ids, options.steps, options.minutes, options.rate, options.seed)
    model.to(torch.bfloat16).save_pretrained(options.out)
    (options.out / "model.safetensors").chmod(0o644)  # it is written for its owner alone

    AutoTokenizer.from_pretrained(options.out)  # raises when the tokenizer files do not load
    stored = LlamaForCausalLM.from_pretrained(options.out, dtype=torch.bfloat16)
    loss = measure_loss(stored, heldout)
    limits = ["steps"] if options.minutes == math.inf else ["steps", "minutes"]
    heldout_bytes = sum(len(text.encode()) for text in heldout_texts)
    card = CARD.format(
        parameters=stored.num_parameters(),
        loss=loss,
        perplexity=math.exp(loss),
        bits=loss / math.log(2) * len(heldout) / heldout_bytes,
        python=platform.python_version(),
        torch=torch.__version__.split("+")[0],
        train_bytes=sum(len(text.encode()) for text in texts) / 1e6,
        train_tokens=len(ids),
        heldout_tokens=len(heldout),
        epochs=steps * BATCH / len(ids),
        steps=steps,
        limits=" ".join(f"--{name} {getattr(options, name):g}" for name in limits),
        rate=options.rate,
        seed=options.seed,
        minutes=seconds / 60,
        threads=options.threads,
    )
    (options.out / "README.md").write_text(card, encoding="utf-8")
    print(f"held-out loss {loss:.4f} nats per token, perplexity {math.exp(loss):.3f}")


if __name__ == "__main__":
    main()
