"""State of a streaming network: inputs that the next call takes from outputs of the call before."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bitwright.errors import RecipeError
from bitwright.models.samples.preprocess import Inputs

BEFORE = r"past_key_values|past|previous|prev|input|initial|init|old|in"
AFTER = r"present_key_values|present|output|updated|final|next|new|out"
ENDINGS = ("n", "_n")
"""What exporters add to the name of a state for what becomes of it: `h` and `hn`, `state` and `stateN`."""


def find_states(inputs: Inputs, outputs: Inputs, declared: Mapping[str, str], where: str) -> dict[str, str]:
    """{input: output} of what is carried from call to call.

    `declared` comes first; "none" stands for no output. Otherwise they belong together whose names differ as `past.0`
    and `present.0`, `h_in` and `h_out` or `state` and `stateN` do, and whose types and sizes agree.
    Raises RecipeError for a declared name that is not there, or a pair that does not fit.
    """
    for name, output in declared.items():
        for known, asked in ((inputs, name), (outputs, output)):
            if asked not in known and asked != "none":
                raise RecipeError(f"no tensor is called {asked!r}", where=where, fix=f"Known: {', '.join(known)}",
                                  key="network.state")  # fmt: skip
        if output != "none" and not _alike(inputs[name], outputs[output]):
            raise RecipeError(f"{output!r} does not fit into {name!r}", where=where,
                              fix="Name an output of the same type and shape", key="network.state")  # fmt: skip
    found = {name: output for name, output in declared.items() if output != "none"}
    stems = {output: _stem(output, AFTER) for output in outputs}
    for name, facts in inputs.items():
        stem = _stem(name, BEFORE)
        for output in outputs:
            same = stem == stems[output] or stems[output] in {stem + ending for ending in ENDINGS}
            free = name not in declared and output not in found.values()
            # `input_1` and `output_1` are no state: what is left of a name must say something.
            if same and free and re.search("[a-z]", stem) and _alike(facts, outputs[output]):
                found[name] = output
                break
    return {name: found[name] for name in inputs if name in found}


def _stem(name: str, words: str) -> str:
    """`name` without the words that say before or after the call."""
    return re.sub(rf"(?:^|(?<=[._/\-]))(?:{words})(?=$|[._/\-\d])", "", name.lower()).strip("._/-").replace("__", "_")


def _alike(a: tuple[object, tuple[int | None, ...]], b: tuple[object, tuple[int | None, ...]]) -> bool:
    """Whether tensors have one type and could have one shape."""
    if a[0] != b[0] or len(a[1]) != len(b[1]) or not a[1]:
        return False
    return all(m is None or n is None or m == n for m, n in zip(a[1], b[1], strict=True))
