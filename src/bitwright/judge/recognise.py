"""What a wrong answer looks like beside the expected one: a table of recognisers, each a guess that is said as one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .values import Array


@dataclass(frozen=True)
class Found:
    """A class of mistake: its name, what happens, and what to try next."""

    name: str
    says: str
    next: str
    how: str = "difference"


@dataclass(frozen=True)
class Pair:
    """Expected and given answer, decoded, with their numbers laid out flat."""

    expected: Any
    yours: Any
    arguments: list[Any] = field(default_factory=list)
    wanted: list[float] = field(default_factory=list)
    got: list[float] = field(default_factory=list)

    @property
    def even(self) -> bool:
        """Whether both have the same number of numbers, and some."""
        return len(self.wanted) == len(self.got) > 0

    @property
    def wrong(self) -> list[int]:
        """Places that differ by more than rounding does."""
        return [i for i, (a, b) in enumerate(zip(self.wanted, self.got, strict=False)) if not near(a, b)]


def recognise(expected: Any, yours: Any, arguments: list[Any]) -> Found | None:
    """The first class of mistake that fits a wrong answer."""
    if isinstance(expected, tuple) and isinstance(yours, tuple) and len(expected) == len(yours):
        for number, (one, other) in enumerate(zip(expected, yours, strict=True)):
            pair = _pair(one, other, arguments)
            if pair.wrong or shape(one) != shape(other) or type(one) is not type(other):
                found = _first(pair)
                if found:
                    return Found(f"{found.name} (result {number})", found.says, found.next)
        return None
    return _first(_pair(expected, yours, arguments))


def _first(pair: Pair) -> Found | None:
    return next((found for test in RECOGNISERS if (found := test(pair))), None)


def _pair(expected: Any, yours: Any, arguments: list[Any]) -> Pair:
    return Pair(expected, yours, arguments, numbers(expected) or [], numbers(yours) or [])


def numbers(value: Any) -> list[float] | None:
    """All numbers of an answer in order; None where something else is among them."""
    if isinstance(value, Array):
        return [float(one) for one in value.items]
    if isinstance(value, bool | int | float):
        try:
            return [float(value)]
        except OverflowError:
            return None
    if isinstance(value, list | tuple):
        parts = [numbers(one) for one in value]
        return None if any(part is None for part in parts) else [one for part in parts for one in part or ()]
    return None


def shape(value: Any) -> tuple[int, ...]:
    """The shape of an array, or of lists in lists."""
    if isinstance(value, Array):
        return value.shape
    if isinstance(value, list | tuple):
        inner = {shape(one) for one in value}
        return (len(value), *(inner.pop() if len(inner) == 1 else ()))
    return ()


def near(a: float, b: float, relative: float = 1e-9) -> bool:
    """Equal but for rounding."""
    return (a != a and b != b) or a == b or (math.isfinite(a - b) and abs(a - b) <= relative * max(abs(a), abs(b)))


def _all_near(one: list[float], other: list[float], relative: float = 1e-9) -> bool:
    return len(one) == len(other) and all(near(a, b, relative) for a, b in zip(one, other, strict=True))


def _constant(found: list[float], relative: float = 1e-7) -> float | None:
    """The number that all of a list are, None where they differ or are none."""
    finite = all(map(math.isfinite, found))
    return found[0] if found and finite and all(near(one, found[0], relative) for one in found) else None


# --- kinds of answers


def _nothing(pair: Pair) -> Found | None:
    if pair.yours is None and pair.expected is not None:
        return Found(
            "Returns nothing",
            "On this input your function ends without a result, so Python returns None.",
            "Follow the steps to the line where the function ends: which branch has no return, or returns too early?",
        )
    return None


def _something(pair: Pair) -> Found | None:
    if pair.expected is None and pair.yours is not None:
        return Found(
            "An answer where there is none",
            "On this input there is nothing to return, None is asked for, and your function returns a value.",
            "Ask how your program notices that nothing was found, and what it returns then.",
        )
    return None


def _container(pair: Pair) -> Found | None:
    if type(pair.expected) is type(pair.yours) or not pair.even or pair.wrong:
        return None
    if isinstance(pair.expected, int) and isinstance(pair.yours, float):
        says = "The value is right, but it is a float where an integer is asked for."
        return Found("A float for an integer", says, "Find the operation that makes a float of integers.")
    says = "The values are right, but they come in another kind of container than is asked for."
    return Found("Right values, wrong type", says, "Compare the type you return with the one in the statement.")


def _dtype(pair: Pair) -> Found | None:
    if not (isinstance(pair.expected, Array) and isinstance(pair.yours, Array)):
        return None
    if pair.expected.dtype == pair.yours.dtype or pair.expected.shape != pair.yours.shape or pair.wrong:
        return None
    return Found(
        "Right values, wrong dtype",
        f"The values are right, but stored as {pair.yours.dtype} where {pair.expected.dtype} is asked for.",
        "Find the line where the dtype is decided; mixing dtypes widens them.",
    )


# --- shapes and lengths


def _shapes(pair: Pair) -> Found | None:
    wanted, got = shape(pair.expected), shape(pair.yours)
    if wanted == got or not isinstance(pair.expected, Array):
        return None
    if len(wanted) > 1 and got == wanted[::-1]:
        return Found(
            "Transposed",
            f"Yours has the shape {_axes(got)}, asked for is {_axes(wanted)}: rows and columns have changed places.",
            "Write the shape of each intermediate result beside its line, and see where the axes turn.",
        )
    if [n for n in wanted if n != 1] == [n for n in got if n != 1]:
        return Found(
            "An axis of length one too many, or missing",
            f"Yours has the shape {_axes(got)}, asked for is {_axes(wanted)}: they differ in axes of length one.",
            "Look at the reductions: do they keep the axis they reduce, and should they?",
        )
    if len(got) < len(wanted):
        return Found(
            "Reduces too many axes",
            f"Yours has the shape {_axes(got)}, asked for is {_axes(wanted)}: an axis is gone.",
            "For each sum, mean or maximum, ask along which axis alone it should run.",
        )
    return None


def _turned(pair: Pair) -> Found | None:
    wanted = shape(pair.expected)
    if len(wanted) != 2 or wanted != shape(pair.yours) or wanted[0] != wanted[1] or not pair.wrong:
        return None
    n = wanted[0]
    if _all_near(pair.wanted, [pair.got[j * n + i] for i in range(n) for j in range(n)]):
        says = "Your matrix is the expected one with rows and columns exchanged."
        return Found("Transposed", says, "Check which index counts rows, and along which axis you work.")
    return None


def _axes(sizes: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"


def _lengths(pair: Pair) -> Found | None:
    if not isinstance(pair.expected, list) or not isinstance(pair.yours, list):
        return None
    wanted, got = pair.expected, pair.yours
    if len(wanted) == len(got):
        return None
    ends = "Look at where your loop begins and ends, and at what is still in hand after its last round."
    if not got:
        says = "Your list is empty where there is something to return."
        return Found("Nothing is collected", says, "Step to the line that should add to the result: is it reached?")
    for more, less, word in ((wanted, got, "is missing"), (got, wanted, "is too many")):
        if len(more) == len(less) + 1 and more[:-1] == less:
            return Found(f"The last item {word}", f"All is right but for the last item, which {word}.", ends)
        if len(more) == len(less) + 1 and more[1:] == less:
            return Found(f"The first item {word}", f"All is right but for the first item, which {word}.", ends)
    try:
        if set(map(repr, wanted)) == set(map(repr, got)):
            word = "left out" if len(got) < len(wanted) else "repeated"
            says = f"The same values occur, but equal ones are {word}."
            return Found(f"Equal items are {word}", says, "Ask how often an item that occurs twice should count.")
    except RecursionError:
        pass
    return None


def _order(pair: Pair) -> Found | None:
    if not isinstance(pair.expected, list) or not isinstance(pair.yours, list) or pair.expected == pair.yours:
        return None
    wanted, got = [repr(one) for one in pair.expected], [repr(one) for one in pair.yours]
    if len(wanted) < 2 or Counter(wanted) != Counter(got):
        return None
    if wanted == got[::-1]:
        says = "Your list holds the right items from the last to the first."
        return Found("The other way round", says, "Ask from which end you collect, or by what you sort.")
    says = "Your list holds the right items in another order."
    return Found(
        "Right items, wrong order", says, "Compare the order that the statement asks for with the one you build in."
    )


# --- numbers


def _infinite(pair: Pair) -> Found | None:
    if not pair.even:
        return None
    bad = [i for i in pair.wrong if not math.isfinite(pair.got[i]) and math.isfinite(pair.wanted[i])]
    if not bad:
        return None
    if any(pair.got[i] != pair.got[i] for i in bad):
        return Found(
            "NaN",
            "NaN comes from zero over zero, infinity minus infinity or infinity over infinity; it spreads to all it "
            "meets.",
            "Step to the first variable that shows nan, and ask what its divisor or its exponent was just before.",
        )
    return Found(
        "Infinity",
        "Infinity comes from a division by zero, or from a number that grew beyond what a float can hold.",
        "Step to the first variable that shows inf: what was divided, or how large was the exponent?",
    )


def _truth(pair: Pair) -> Found | None:
    flags = isinstance(pair.expected, bool) or (isinstance(pair.expected, Array) and pair.expected.dtype == "bool")
    if flags and pair.even and len(pair.wrong) == len(pair.wanted):
        says = "Every yes is a no and every no a yes."
        return Found("The opposite", says, "Read the condition aloud: which side of it is asked for?")
    return None


def _sign(pair: Pair) -> Found | None:
    wrong = pair.wrong
    if pair.even and wrong and all(pair.wanted[i] and near(pair.got[i], -pair.wanted[i]) for i in wrong):
        all_ = len(wrong) == sum(one != 0 for one in pair.wanted)
        says = "Yours has the right size and the wrong sign" + ("." if all_ else f" at {len(wrong)} places.")
        return Found(
            "Wrong sign", says, "Look for a difference taken the other way round, or a size where a sign counts."
        )
    return None


def _offset(pair: Pair) -> Found | None:
    if not pair.even or not pair.wrong:
        return None
    gaps = [b - a for a, b in zip(pair.wanted, pair.got, strict=True)]
    gap = _constant(gaps)
    if gap is None or (len(gaps) == 1 and abs(gap) != 1):
        return None
    if abs(gap) == 1:
        more = "more" if gap > 0 else "less"
        says = f"Yours is one {more} than expected{' everywhere' if len(gaps) > 1 else ''}."
        return Found(
            "Off by one",
            says,
            "Count by hand on this input: gaps or posts, from zero or from one, end included or not?",
        )
    says = f"Yours differs from the expected result by {gap:.6g} at every place."
    return Found(
        "Shifted by a constant",
        says,
        "Look for a term that is added or left out once: an offset, a start value, a zero point.",
    )


FACTORS = (
    (math.log(2), "natural and binary logarithm are mixed up"),
    (math.log(10), "natural and decimal logarithm are mixed up"),
    (256 / 255, "256 levels have 255 steps between them"),
    (128 / 127, "the largest code of eight bits with a sign is 127"),
    (16 / 15, "16 levels have 15 steps between them"),
    (8 / 7, "the largest code of four bits with a sign is 7"),
    (math.sqrt(2), "a root of two"),
    (2.0, "a factor of two"),
    (10.0, "a factor of ten"),
    (20.0, "a factor of twenty"),
    (100.0, "a factor of a hundred"),
)
"""Factors that have a usual cause; they and what one over them is."""


def _factor(pair: Pair) -> Found | None:
    if not pair.even or not pair.wrong:
        return None
    pairs = [(a, b) for a, b in zip(pair.wanted, pair.got, strict=True) if a or b]
    if any(a == 0 or b == 0 for a, b in pairs):
        return None
    factor = _constant([b / a for a, b in pairs], 1e-6)
    if factor is None or near(factor, 1, 1e-6):
        return None
    said = next(
        (words for value, words in FACTORS if near(factor, value, 1e-6) or near(1 / factor, value, 1e-6)), ""
    ) or _by_size(pair, factor)
    if not said and len(pairs) < 2:
        return None
    says = f"Yours is {factor:.6g} times the expected result{' at every place' if len(pairs) > 1 else ''}" + (
        f": {said}." if said else "."
    )
    return Found(
        "Off by a factor",
        says,
        "Look for what is multiplied or divided once too often, or not at all; try it on one number by hand.",
    )


def _by_size(pair: Pair, factor: float) -> str:
    """Where a factor comes from that an input's size explains."""
    sizes = {n for one in pair.arguments for n in shape(one) if n > 1}
    for n in sorted(sizes):
        for value, words in (
            (n, f"{n}, as many as the input has: a sum for a mean"),
            (1 / n, f"one over {n}, as many as the input has: a mean for a sum"),
            (n / (n - 1), f"{n} over {n - 1}: divided by one less than the {n} that there are"),
            ((n - 1) / n, f"{n - 1} over {n}: divided by {n}, where one is to be left out"),
            (math.sqrt(n), f"the root of {n}"),
            (1 / math.sqrt(n), f"one over the root of {n}"),
            (math.sqrt(n / (n - 1)), f"the root of {n} over {n - 1}"),
        ):
            if near(factor, value, 1e-6):
                return words
    return ""


def _root(pair: Pair) -> Found | None:
    if not pair.even or not pair.wrong or any(a < 0 for a in pair.wanted) or all(a in (0, 1) for a in pair.wanted):
        return None
    if _all_near([a * a for a in pair.wanted], pair.got, 1e-7):
        return Found(
            "A root is missing",
            "Yours is the square of the expected result.",
            "Compare the last line with the formula.",
        )
    if _all_near([math.sqrt(a) for a in pair.wanted], pair.got, 1e-7):
        return Found(
            "A root too many", "Yours is the root of the expected result.", "Compare the last line with the formula."
        )
    return None


def _moved(pair: Pair) -> Found | None:
    n = len(pair.wanted)
    if not pair.even or n < 3 or not pair.wrong or len(set(pair.wanted)) < 3:
        return None
    for by in (1, -1):
        kept = [(pair.wanted[i + by], pair.got[i]) for i in range(n) if 0 <= i + by < n]
        if all(near(a, b) for a, b in kept):
            side = "early" if by > 0 else "late"
            says = f"The right numbers stand one place too {side}."
            return Found(
                "Shifted by one place", says, "Look at when a place is read and when it is written within one round."
            )
    return None


def _unclipped(pair: Pair) -> Found | None:
    wrong = pair.wrong
    if not pair.even or not wrong or len(pair.wanted) < 2:
        return None
    low, high = min(pair.wanted), max(pair.wanted)
    beyond = all(
        (pair.wanted[i] == high and pair.got[i] > high) or (pair.wanted[i] == low and pair.got[i] < low) for i in wrong
    )
    if beyond and low < high:
        says = f"Yours leaves the range from {low:.6g} to {high:.6g} where the expected result stays at its end."
        return Found("Not clipped", says, "Ask which values the result may have at most, and where that is enforced.")
    return None


def _rounded(pair: Pair) -> Found | None:
    wrong = pair.wrong
    whole = all(math.isfinite(one) and one == int(one) for one in (*pair.wanted, *pair.got))
    if not pair.even or not wrong or not whole or len(wrong) == len(pair.wanted) or len(pair.wanted) < 2:
        return None
    gaps = {pair.got[i] - pair.wanted[i] for i in wrong}
    if not gaps <= {1.0, -1.0}:
        return None
    lower = all(abs(pair.got[i]) < abs(pair.wanted[i]) for i in wrong)
    kind = (
        "as if fractions were cut off"
        if lower
        else "as if all were rounded down"
        if gaps == {-1.0}
        else "by one, up or down"
    )
    says = f"At {len(wrong)} of {len(pair.wanted)} places yours is off {kind}."
    return Found(
        "Rounds another way",
        says,
        "Name the rounding that the statement asks for, also for halves and for negative numbers.",
    )


def _constant_answer(pair: Pair) -> Found | None:
    if not pair.even or len(pair.wanted) < 2 or not pair.wrong or len(set(pair.wanted)) == 1 or len(set(pair.got)) != 1:
        return None
    says = f"Every place of yours is {pair.got[0]:.6g}, whatever the input."
    return Found(
        "The same everywhere", says, "Step through: which line should make the places differ, and does it run?"
    )


def _untouched(pair: Pair) -> Found | None:
    for one in pair.arguments:
        given = numbers(one)
        if pair.wrong and given and len(given) > 1 and _all_near(given, pair.got):
            says = "Your answer is the input as it came."
            return Found("Returns its input", says, "Check that the result is stored in what you return.")
    return None


def _precision(pair: Pair) -> Found | None:
    if not pair.even or not pair.wrong:
        return None
    errors = [abs(b - a) / abs(a) for a, b in zip(pair.wanted, pair.got, strict=True) if a and math.isfinite(b - a)]
    worst = max(errors, default=1.0)
    if len(errors) < len(pair.wrong) or worst > 1e-4:
        return None
    says = f"Yours is right to about {-math.log10(max(worst, 1e-17)):.0f} digits, and more are asked for."
    return Found(
        "Not precise enough",
        says,
        "Look for a narrower dtype on the way, a small number added, or a difference of two large numbers.",
    )


def _edge(pair: Pair) -> Found | None:
    n = len(pair.wanted)
    if not pair.even or n < 3 or len(pair.wrong) != 1:
        return None
    [place] = pair.wrong
    if place in (0, n - 1):
        word = "first" if place == 0 else "last"
        says = f"All places are right but the {word} one."
        return Found(
            f"Only the {word} place is wrong",
            says,
            f"Follow the {word} place alone: what has it no neighbour for, or which round misses it?",
        )
    return None


def _off_one(pair: Pair) -> Found | None:
    whole = isinstance(pair.expected, int) and not isinstance(pair.expected, bool)
    if whole and isinstance(pair.yours, int) and pair.even and len(pair.wanted) == 1:
        more = "larger" if pair.got[0] > pair.wanted[0] else "smaller"
        says = f"Yours is {more} than expected."
        next_ = "Work this input out by hand, and find in the steps the first value that you would not have written."
        return Found(f"Too {'large' if more == 'larger' else 'small'}", says, next_)
    return None


def _table() -> Iterator[Callable[[Pair], Found | None]]:
    yield from (_nothing, _something, _dtype, _shapes, _container, _lengths, _order, _infinite, _truth)
    yield from (
        _turned,
        _sign,
        _offset,
        _factor,
        _root,
        _untouched,
        _constant_answer,
        _unclipped,
        _moved,
        _edge,
        _rounded,
    )
    yield from (_precision, _off_one)


RECOGNISERS = tuple(_table())
"""In the order in which they are asked: the surer first."""
