"""What llama.cpp's programs are given: a model as a BF16 file, and texts of exactly the windows that other tools see.

    python bench/llama_inputs.py --model FOLDER --float FILE --calibration TEXT 128 FILE --heldout TEXT 64 FILE

The text of the calibration windows has that of special tokens in it, for programs that parse them.
"""

import argparse
import sys
from pathlib import Path

from transformers import AutoTokenizer
from windows import token_windows

sys.path.append(str(Path(__file__).resolve().parent.parent))
from tests.files.containers.gguf.write import floats


def write_text(model, source, count, length, into, special):
    """Write the text of `count` windows of a text, with or without that of special tokens."""
    tokenizer, windows = AutoTokenizer.from_pretrained(model), token_windows(model, source, int(count), length)
    if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id:  # llama.cpp begins its chunks with it by itself
        windows = windows[:, 1:]
    text = "".join(tokenizer.batch_decode(windows, skip_special_tokens=not special))
    Path(into).write_text(text, encoding="utf-8")


def main():
    """Write all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--float", type=Path, required=True, help="the BF16 file")
    parser.add_argument("--length", type=int, default=256, help="tokens of a window")
    for text in ("calibration", "heldout"):
        parser.add_argument(f"--{text}", nargs=3, required=True, help="a text, how many windows of it, and the file")
    args = parser.parse_args()
    floats(args.model, args.float)
    for (source, count, into), special in ((args.calibration, True), (args.heldout, False)):
        write_text(args.model, source, count, args.length, into, special)


if __name__ == "__main__":
    main()
