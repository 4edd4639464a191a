"""How a byte-level tokenizer splits text before it merges, by the name that llama.cpp has for it.

llama.cpp's converter knows a tokenizer by the hash of its answer to one text (`get_vocab_base_pre` in
`conversion/base.py`); what has no such hash is known here by its definition, where llama.cpp's `llama-vocab.cpp` splits
by the same expressions.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from tokenizers import Tokenizer

from bitwright.errors import ModelError

PROBE = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫️ (multiple emojis concatenated) ✅ 🦙🦙 "
    "3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ "
    "------======= нещо на Български ''''''```````\"\"\"\"......!!!!!!?????? "
    "I've been 'told he's there, 'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL"
)
"""The text whose tokens tell tokenizers apart; a fact of llama.cpp, to the character."""
HASHES = {
    "b0a6b1c0bd5998ebd9df08611efde34a4ff03faed45ae09c43e6b31ebd4b94cf": "a.x-4.0",
    "7b3e7548e4308f52a76e8229e4e6cc831195d0d1df43aed21ac6c93da05fec5f": "codeshell",
    "9c2227e4dd922002fb81bde4fc02b0483ca4f12911410dee2255e4987644e3f8": "command-r",
    "a8594e3edff7c29c003940395316294b2c623e09894deebbc65f33f1515df79e": "dbrx",
    "347715f544604f9118bb75ed199f68779f423cabb20db6de6f31b908d04d7821": "deepseek-coder",
    "049ecf7629871e3041641907f3de7c733e4dbfdc736f57d882ba0b0845599754": "deepseek-llm",
    "b3f499bb4255f8ca19fccd664443283318f2fd2414d5e0b040fbdd0cc195d6c5": "deepseek-r1-qwen",
    "4e2b24cc4770243d65a2c9ec19770a72f08cffc161adbb73fcbb6b7dd45a0aae": "exaone",
    "2085e1638f6c377a0aa4ead21b27bb4cb941bf800df86ed391011769c1758dfb": "exaone4",
    "862f827721df956049dff5ca81a57f29e575280bc622e290d3bf4e35eca29015": "f2llmv2",
    "9d032fcbd5501f4a38150912590928bfb36091efb5df11b8e2124b0390e3fb1e": "falcon3",
    "ad851be1dba641f2e3711822f816db2c265f788b37c63b4e1aeacb9ee92de8eb": "gigachat",
    "0fe1cf6eda062318a1af7270f3331a85c539a01778ff948e24388e949c5282f4": "gpt-2",
    "3ce83efda5659b07b1ad37ca97ca5797ea4285d9b9ab0dc679e4a720c9da7454": "gpt-2",
    "ccc2ef013c104be7bae2965776d611e1d7a8a2a9c547dd93a682c9a9fc80352e": "gpt-4o",
    "bc01ce58980e1db43859146dc51b1758b3b88729b217a74792e9f8d43e479d21": "gpt3-finnish",
    "53e325976a6e142379c19b09afcae354f2f496f147afa8f9e189a33fe4e3024e": "granite-docling",
    "789696f5946cc0fc59371f39f6097cafed196b3acded6140432f26bbb1ae1669": "granite-embed-multi-311m",
    "4a2e2abae11ca2b86d570fc5b44be4d5eb5e72cc8f22dd136a94b37da83ab665": "kormo",
    "9e454714343b69b99b71795c1d27a68c2a1d15dab111f4d353109f966af29da7": "lfm2",
    "169bf0296a13c4d9b7672313f749eb36501d931022de052aad6e36f2bf34dd51": "lfm2",
    "0ef9807a4087ebef797fc749390439009c3b9eda9ad1a097abbe738f486c01e5": "llama-bpe",
    "d353350c764d8c3b39c763113960e4fb4919bea5fbf208a0e3b22e8469dc7406": "llama4",
    "d4c8f286ea6b520b3d495c4455483cfa2302c0cfcd4be05d781b6a8a0a7cdaf1": "megrez",
    "a1e163ecab2e718a4c829d1148b6e86824ec36163bb71941c3dca9cd5ac25756": "mellum",
    "f6791d196f87ce6b56a7d234be618e0d58f8cda3549416635b2bebcd22cd95c4": "midm-2.0",
    "1431a23e583c97432bc230bff598d103ddb5a1f89960c8f1d1051aaa944d0b35": "minerva-7b",
    "b6dc8df998e1cfbdc4eac8243701a65afe638679230920b50d6f17d81c098166": "mpt",
    "fcace8b9cac38ce847670c970cd5892031a753a1ef381abd1d9af00f713da085": "phi-2",
    "0e9433cbbb161f89e264eb32e8e64bfe69e834973ffca5d41d3948a604a3e2a3": "pixtral",
    "c7ea5862a53e4272c035c8238367063e2b270d51faa48c0f09e9d5b54746c360": "poro-chat",
    "d4540891389ea895b53b399da6ac824becc30f2fba0e9ddbb98f92e55ca0e97c": "qwen2",
    "e636dc30a262dcc0d8c323492e32ae2b70728f4df7dfe9737d9f920a282b8aea": "qwen2",
    "6221ad2852e85ce96f791f476e0b390cf9b474c9e3d1362f53a24a06dc8220ff": "refact",
    "d5f1dd6f980fec569fb218a81a7658ac45fc56b38c5a0adeb1c232fbe04ef5ec": "seed-coder",
    "c136ed14d01c2745d4f60a9596ae66800e2b61fa45643e72436041855ad4089d": "smaug-bpe",
    "855059429035d75a914d1eda9f10a876752e281a054a7a3d421ef0533e5b6249": "smollm",
    "32d85c31273f8019248f2559fed492d929ea28b17e51d81d3bb36fff23ca72b3": "stablelm2",
    "35d91631860c815f952d711435f48d356ebac988362536bed955d43bfa436e34": "starcoder",
    "7dec86086fcc38b66b7bc1575a160ae21cf705be7718b9d5598190d7c12db76f": "superbpe",
    "63b97e4253352e6f357cc59ea5b583e3a680eaeaf2632188c2b952de2588485e": "tekken",
    "1994ffd01900cfb37395608534236ecd63f2bd5995d6cb1004dda1af50240f15": "trillion",
    "7fc505bd3104ca1083b150b17d088b59534ede9bde81f0dd2090967d7fe52cee": "viking",
}
"""SHA-256 of the list of the probe's tokens -> name, for the tokenizers of the architectures that are written here."""
GPT2 = "ByteLevel"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
DEFINITIONS = {
    (GPT2,): "gpt-2",
    ("Digits", GPT2): "smollm",
    (LLAMA3,): "smaug-bpe",
    (LLAMA3, "whole"): "llama-bpe",
    (QWEN2,): "qwen2",
}
"""The steps of a definition, as `steps` tells them -> name."""


def name_of(tokenizer: Tokenizer, definition: dict[str, Any], where: str, given: str | None = None) -> str:
    """What llama.cpp calls the splitting of a byte-level tokenizer, of which `definition` is the JSON.

    `given` is the name that the user says, which goes before all others. ModelError where it is not known.
    """
    if given:
        return given
    found = digest(tokenizer)
    name = HASHES.get(found) or DEFINITIONS.get(tuple(steps(definition)))
    if name is None:
        raise ModelError(
            f"llama.cpp's name for how its tokenizer splits text is not known "
            f"({' > '.join(steps(definition)) or 'no split'}; hash {found})",
            where=where,
            fix="Say it as tokenizer_pre, such as gpt-2, where you know it",
            key="tokenizer_pre",
        )
    return name


def digest(tokenizer: Tokenizer) -> str:
    """By what llama.cpp's converter knows a tokenizer."""
    return sha256(str(tokenizer.encode(PROBE).ids).encode()).hexdigest()


def steps(definition: dict[str, Any]) -> list[str]:
    """What is done to text before merging, one word or expression a step; byte-level coding alone is none."""
    found = []
    if (normalizer := definition.get("normalizer") or {}).get("type", "NFC") != "NFC":
        found.append(f"normalizer {normalizer['type']}")
    splitter = definition.get("pre_tokenizer") or {}
    for step in splitter.get("pretokenizers", [splitter] if splitter else []):
        kind = step.get("type")
        if kind == "ByteLevel":
            if step.get("add_prefix_space"):
                found.append("prefix space")
            if step.get("use_regex", True):
                found.append(GPT2)
        elif kind == "Digits" and step.get("individual_digits"):
            found.append("Digits")
        elif kind == "Split" and "Regex" in step.get("pattern", {}) and step.get("behavior") == "Isolated":
            found.append(str(step["pattern"]["Regex"]))
        else:
            found.append(f"{kind} {sorted(step)}")
    return [*found, "whole"] if definition["model"].get("ignore_merges") else found
