"""Programs that want to be accepted without being right, or by means that the problem forbids: none is.

Most of them know the right answer (`right`): what they are refused for is its form, its way or its means.
"""

# ruff: noqa: E501 - programs and rows of tables stand in one line

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import bitwright
from bitwright.judge.judge import Judge
from bitwright.judge.pool import Pool
from bitwright.judge.problem import Shelf
from bitwright.judge.tiers import open_pool
from bitwright.judge.verdict import Result, Verdict

SHELF = Shelf(Path(bitwright.__file__).parent / "content")
RUN = """
import gc, json, os, struct, sys, time, threading
def right(gains):
    best = ending = gains[0]
    for gain in gains[1:]:
        ending = gain + max(ending, 0)
        best = max(best, ending)
    return best
def frame(text, size=None):
    data = text if isinstance(text, bytes) else text.encode()
    os.write(0, struct.pack("<I", len(data) if size is None else size) + data)
"""
RUNS = {
    "imports the reference": """
def largest_run(gains):
    for name in ("solution", "bitwright.content", "bitwright.judge.cases", "cases", "reference"):
        try:
            return __import__(name).largest_run(gains)
        except ImportError:
            pass
""",
    "digs in sys.modules": """
def largest_run(gains):
    for module in list(sys.modules.values()):
        for value in list(vars(module).values()):
            if hasattr(value, "expected") or getattr(value, "__name__", "") in ("reference", "compare"):
                return value.expected
    return None
""",
    "peeks into frames": """
def largest_run(gains):
    frame = sys._getframe()
    while frame:
        for name, value in frame.f_locals.items():
            if name in ("expected", "answer", "tests"):
                return value
            if name == "request":
                return value.get("expected", value["calls"][0].get("expected"))
        frame = frame.f_back
""",
    "digs in the garbage": """
def largest_run(gains):
    gc.collect()
    found = [one for one in gc.get_objects() if isinstance(one, dict) and "expected" in one]
    return found[0]["expected"] if found else -1
""",
    "reads the tests": """
def largest_run(gains):
    for folder in ("/work", "/root/.cache", os.path.expanduser("~"), "/proc/self/fd", *sys.path):
        try:
            for name in os.listdir(folder):
                if name.endswith(".json"):
                    return json.load(open(os.path.join(folder, name)))["tests"][0][3]
        except OSError:
            pass
""",
    "patches what it stands on": """
def largest_run(gains):
    import builtins
    runner = sys._getframe(1).f_globals
    class Right:
        def __eq__(self, other):
            return True
    runner["values"].encode = lambda *_: {"results": "AC"}
    json.dumps = lambda *_: '{"results": [true], "verdict": "AC"}'
    struct.pack = lambda *_: b""
    os._exit = sys.exit
    builtins.isinstance = lambda *_: True
    return Right()
""",
    "ends well without an answer": "def largest_run(gains):\n    os._exit(0)",
    "exits": "def largest_run(gains):\n    sys.exit(0)",
    "prints the answer": "def largest_run(gains):\n    print(right(gains))\n    print(json.dumps({'results': [right(gains)]}))",
    "says accepted": """
def largest_run(gains):
    frame(json.dumps({"verdict": "AC", "uses": [], "results": [], "difference": None}))
    os._exit(0)
""",
    "two frames": """
def largest_run(gains):
    frame(json.dumps({"results": [right(gains)]}))
    return right(gains)
""",
    "two frames, the second right": """
def largest_run(gains):
    frame('{"results": [0]}')
    frame(json.dumps({"results": [right(gains)]}))
    os._exit(0)
""",
    "two results": "def largest_run(gains):\n    frame(json.dumps({'results': [right(gains)] * 2}))\n    os._exit(0)",
    "all results at once": "def largest_run(gains):\n    frame(json.dumps({'results': list(range(-20, 60))}))\n    os._exit(0)",
    "truncated frame": """
def largest_run(gains):
    frame(json.dumps({"results": [right(gains)]}), size=10000)
    os._exit(0)
""",
    "oversized length": """
def largest_run(gains):
    frame(json.dumps({"results": [right(gains)]}), size=0xFFFFFFFF)
    os._exit(0)
""",
    "nested JSON": "def largest_run(gains):\n    frame('{\"results\": ' + '[' * 100000 + ']' * 100000 + '}')\n    os._exit(0)",
    "no object": "def largest_run(gains):\n    frame(json.dumps([right(gains)]))\n    os._exit(0)",
    "an error without a form": "def largest_run(gains):\n    frame('{\"error\": 5}')\n    os._exit(0)",
    "an error of odd parts": """
def largest_run(gains):
    frame(json.dumps({"error": {"phase": [], "type": {}, "text": None, "line": "<b>", "stack": 7}}))
    os._exit(0)
""",
    "an empty error": "def largest_run(gains):\n    frame('{\"error\": {}}')\n    os._exit(0)",
    "a result that is a dict": "def largest_run(gains):\n    frame(json.dumps({'results': {right(gains): 1}}))\n    os._exit(0)",
    "not UTF-8": 'def largest_run(gains):\n    frame(b\'{"results": ["\\xff\\xfe"]}\')\n    os._exit(0)',
    "NaN": "def largest_run(gains):\n    frame('{\"results\": [NaN]}')\n    os._exit(0)",
    "infinity": "def largest_run(gains):\n    return float('inf')",
    "a million digits": "def largest_run(gains):\n    frame('{\"results\": [' + '9' * 1000000 + ']}')\n    os._exit(0)",
    "four thousand digits": "def largest_run(gains):\n    return 10 ** 4000",
    "a huge integer": "def largest_run(gains):\n    return 1 << 3000000",
    "a string for a number": "def largest_run(gains):\n    return str(right(gains))",
    "bytes for a number": "def largest_run(gains):\n    return bytes([right(gains) % 256])",
    "a float for an int": "def largest_run(gains):\n    return float(right(gains))",
    "a bool for an int": "def largest_run(gains):\n    return bool(right(gains))",
    "a list around it": "def largest_run(gains):\n    return [right(gains)]",
    "a generator": "def largest_run(gains):\n    yield right(gains)",
    "a coroutine": "async def largest_run(gains):\n    return right(gains)",
    "an object that equals everything": """
class All:
    __eq__ = lambda *_: True
    __class__ = int
    __hash__ = lambda _: 0
    __repr__ = __str__ = lambda _: "9"
    __int__ = __index__ = lambda _: 9
def largest_run(gains):
    return All()
""",
    "an object with a hostile name": """
def largest_run(gains):
    return type("\\ud800<script>" * 1000, (), {"__module__": 5, "__repr__": lambda _: os._exit(0)})()
""",
    "an int that changes": """
class Sly(int):
    def __int__(self):
        return 0
    __index__ = __trunc__ = __int__
def largest_run(gains):
    return Sly(7)
""",
    "an exception that pretends": "def largest_run(gains):\n    raise MemoryError('AC')",
    "an exception called Forbidden": "class Forbidden(Exception):\n    pass\ndef largest_run(gains):\n    raise Forbidden('a\\nb')",
    "a forged stop": """
def largest_run(gains):
    frame(json.dumps({"error": {"phase": "call", "type": "Forbidden", "text": "a\\nb\\nc", "line": 0, "stack": []}}))
    os._exit(0)
""",
    "an array of nothing": """
def largest_run(gains):
    frame(json.dumps({"results": [{"array": ["int64", [1000, 1000, 1000, 1000, 1000, 0], "", "numpy"]}]}))
    os._exit(0)
""",
    "an array of many axes": """
def largest_run(gains):
    frame(json.dumps({"results": [{"array": ["int64", [1] * 50000, "AAAAAAAAAAA=", "numpy"]}]}))
    os._exit(0)
""",
    "a scalar of many": """
def largest_run(gains):
    frame(json.dumps({"results": [{"array": ["int64", [2], "AAAAAAAAAAAAAAAAAAAAAA==", "scalar"]}]}))
    os._exit(0)
""",
    "a set that collides": """
def largest_run(gains):
    frame(json.dumps({"results": [{"set": [i * (2**61 - 1) for i in range(12000)]}]}))
    os._exit(0)
""",
    "a dict that collides": """
def largest_run(gains):
    frame(json.dumps({"results": [{"dict": [[i * (2**61 - 1), 0] for i in range(10000)]}]}))
    os._exit(0)
""",
    "a list of a million lists": """
def largest_run(gains):
    frame('{"results": [[' + '[],' * 1000000 + '[]]]}')
    os._exit(0)
""",
    "a value that is none": """
def largest_run(gains):
    frame(json.dumps({"results": [{"set": [[1]], "dict": 4}]}))
    os._exit(0)
""",
    "knows the samples": """
def largest_run(gains):
    known = {(3, -5, 6, -2, 4, -9, 2): 8, (-4, -2, -7): -2}
    return known.get(tuple(gains), 0)
""",
    "remembers between tests": """
kept = {}
def largest_run(gains):
    kept[len(kept)] = gains
    return right(gains) if len(kept) > 1 or id(gains) in kept else 0
""",
    "changes its arguments": """
def largest_run(gains):
    gains.clear()
    gains.append(0)
    return gains
""",
    "answers later": """
def largest_run(gains):
    answer = [0]
    threading.Thread(target=lambda: (time.sleep(0.01), answer.__setitem__(0, right(gains)))).start()
    return answer
""",
    "a trial of all pairs": """
def largest_run(gains):
    return max(sum(gains[i:j]) for i in range(len(gains)) for j in range(i + 1, len(gains) + 1))
""",
    "sleeps in place of computing": """
def largest_run(gains):
    time.sleep(0.02 * len(gains) / 1000)
    return max(right(gains[i:]) for i in range(len(gains)))
""",
    "lets threads compute": """
def largest_run(gains):
    found = []
    def part(start):
        found.append(max(right(gains[i:]) for i in range(start, len(gains), 2)))
    threads = [threading.Thread(target=part, args=(i,)) for i in range(min(2, len(gains)))]
    [one.start() for one in threads], [one.join() for one in threads]
    return max(found)
""",
    "is slow on small inputs, too": """
def largest_run(gains):
    end = time.process_time() + (0.5 if len(gains) < 20000 and len(gains) >= 1000 else 0)
    while time.process_time() < end:
        pass
    return max(right(gains[i:i + 20000]) for i in range(len(gains))) if len(gains) > 99 else right(gains)
""",
}
SOFT = """
import numpy as np, json, os, struct, base64
def right(logits, axis):
    peak = logits.max(axis=axis, keepdims=True)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    powers = np.exp(logits - peak)
    total = powers.sum(axis=axis, keepdims=True)
    return powers / np.where(total > 0, total, 1.0)
def frame(found):
    data = json.dumps({"results": [found]}).encode()
    os.write(0, struct.pack("<I", len(data)) + data)
    os._exit(0)
def coded(found):
    return base64.b64encode(np.ascontiguousarray(found, "<f8").tobytes()).decode()
"""
SOFTS = {
    "an array that lies": """
class Lying(np.ndarray):
    __eq__ = __le__ = lambda *_: True
    def __array__(self, *_, **__):
        return np.zeros(self.shape)
    def __array_function__(self, *_):
        return True
    def __array_ufunc__(self, *_, **__):
        return True
    shape = property(lambda self: (1,))
def softmax(logits, axis):
    return np.zeros(logits.shape).view(Lying)
""",
    "patched NumPy": """
def softmax(logits, axis):
    np.allclose = np.array_equal = np.isclose = lambda *_, **__: True
    np.asarray = np.ascontiguousarray = lambda *_, **__: np.float64(0)
    return logits
""",
    "NaN everywhere": "def softmax(logits, axis):\n    return np.full(logits.shape, np.nan)",
    "infinity everywhere": "def softmax(logits, axis):\n    return np.full(logits.shape, np.inf)",
    "not quite": "def softmax(logits, axis):\n    return right(logits, axis) * (1 + 1e-6)",
    "half as exact": "def softmax(logits, axis):\n    return right(logits.astype(np.float32), axis)",
    "lists": "def softmax(logits, axis):\n    return right(logits, axis).tolist()",
    "objects": "def softmax(logits, axis):\n    return right(logits, axis).astype(object)",
    "strings": "def softmax(logits, axis):\n    return right(logits, axis).astype(str)",
    "complex": "def softmax(logits, axis):\n    return right(logits, axis) + 0j",
    "flat": "def softmax(logits, axis):\n    return right(logits, axis).ravel()[None]",
    "a wrong claim of size": """
def softmax(logits, axis):
    found = right(logits, axis)
    frame({"array": ["float64", [2, *found.shape], coded(found), "numpy"]})
""",
    "a dtype that does not exist": """
def softmax(logits, axis):
    found = right(logits, axis)
    frame({"array": ["float" + "x" * 20000, list(found.shape), coded(found), "numpy"]})
""",
    "a shape of strings": """
def softmax(logits, axis):
    found = right(logits, axis)
    frame({"array": ["float64", [str(n) for n in found.shape], coded(found), "numpy"]})
""",
    "a negative shape": """
def softmax(logits, axis):
    found = right(logits, axis)
    frame({"array": ["float64", [-1, -found.size], coded(found), "numpy"]})
""",
    "torch without torch": """
def softmax(logits, axis):
    found = right(logits, axis)
    frame({"array": ["float64", list(found.shape), coded(found), "torch"]})
""",
    "pickled": """
import pickle
class Run:
    def __reduce__(self):
        return os.system, ("touch /tmp/forged",)
def softmax(logits, axis):
    return np.frombuffer(pickle.dumps(Run()), np.uint8)
""",
    "a masked array": "def softmax(logits, axis):\n    return np.ma.masked_all(logits.shape)",
}
PAIR = """
import json, os, struct
def frame(found):
    data = json.dumps({"results": [found]}).encode()
    os.write(0, struct.pack("<I", len(data)) + data)
    os._exit(0)
"""
PAIRS = {
    "a random generator": "def pair_for_budget(sizes, budget):\n    frame({'random': -1})",
    "an array for the checker": "def pair_for_budget(sizes, budget):\n    frame({'array': ['float128', [1], 'AAAAAAAAAAA=', 'numpy']})",
    "places from behind": "def pair_for_budget(sizes, budget):\n    return [-1, -2]",
    "truths for places": "def pair_for_budget(sizes, budget):\n    return [True, False]",
    "a pair that is none": "def pair_for_budget(sizes, budget):\n    return [0, 0]",
    "always none": "def pair_for_budget(sizes, budget):\n    return None",
    "unknown things": "def pair_for_budget(sizes, budget):\n    return [object(), object()]",
    "half characters": "def pair_for_budget(sizes, budget):\n    return '\\ud800\\0' * 2",
}
DIVIDING = """
def _with(quotient, numbers):
    total, zeros = 1, numbers.count(0)
    for one in numbers:
        total = total * one if one else total
    return [0 if zeros > 1 or (zeros and one) else total if zeros else quotient(total, one) for one in numbers]
def product_except_self(numbers):
    return _with(quotient, numbers)
"""
SIGN = """
def signed(size, total, one):
    return size(abs(total), abs(one)) * (1 if (total < 0) == (one < 0) else -1)
"""
QUOTIENTS = {
    "an operator": "def quotient(a, b):\n    return a // b",
    "true division": "def quotient(a, b):\n    return round(a / b)",
    "in place": "def quotient(a, b):\n    a //= b\n    return a",
    "divmod": "def quotient(a, b):\n    return divmod(a, b)[0]",
    "divmod under another name": "d = divmod\ndef quotient(a, b):\n    return d(a, b)[0]",
    "a method": "def quotient(a, b):\n    return a.__floordiv__(b)",
    "a method of the type": "def quotient(a, b):\n    return int.__floordiv__(int(a), int(b))",
    "getattr": "def quotient(a, b):\n    return getattr(int(a), '__floor' + 'div__')(int(b))",
    "operator": "import operator\ndef quotient(a, b):\n    return operator.floordiv(int(a), int(b))",
    "operator from elsewhere": "import collections\ndef quotient(a, b):\n    return collections._sys.modules['opera' + 'tor'].floordiv(a, b)",
    "methodcaller": "from operator import methodcaller\ndef quotient(a, b):\n    return methodcaller('__floordiv__', b)(int(a))",
    "eval": "def quotient(a, b):\n    return eval('a /' + '/ b')",
    "exec of pieces": "def quotient(a, b):\n    space = {'a': a, 'b': b}\n    exec('c = a ' + chr(47) * 2 + ' b', space)\n    return space['c']",
    "compile under another name": "def quotient(a, b):\n    return __builtins__['ev' + 'al'](compile('a/' + '/b', 'solution.py', 'eval'), {'a': a, 'b': b})",
    "a negative power": "def quotient(a, b):\n    return round(a * b ** -1)",
    "pow": "def quotient(a, b):\n    return round(a * pow(int(b), -1))",
    "pow in a field": "P = 2**61 - 1\ndef quotient(a, b):\n    found = a * pow(int(b), -1, P)\n    return found",
    "math.pow": "import math\ndef quotient(a, b):\n    return round(a * math.pow(b, -1))",
    "logarithms": SIGN
    + "import math\ndef quotient(a, b):\n    return signed(lambda a, b: round(math.exp(math.log(a) - math.log(b))), a, b)",
    "hyperbolic": SIGN
    + "import math\ndef e(x):\n    return math.cosh(x) + math.sinh(x)\ndef quotient(a, b):\n    return signed(lambda a, b: round(e(math.log(a) - math.log(b))), a, b)",
    "an angle": "import math\ndef quotient(a, b):\n    return round(math.tan(math.atan2(a, b)))",
    "fmod": "import math\ndef quotient(a, b):\n    return math.remainder(a, b)",
    "Fraction": "from fractions import Fraction\ndef quotient(a, b):\n    return int(Fraction(int(a), int(b)))",
    "Decimal": "import decimal\ndef quotient(a, b):\n    c = decimal.getcontext()\n    return int(c.divide_int(c.create_decimal(int(a)), c.create_decimal(int(b))))",
    "statistics": "import statistics\ndef quotient(a, b):\n    return round(statistics.NormalDist(0, abs(b)).zscore(a)) * (1 if b > 0 else -1)",
    "datetime": "from datetime import timedelta\ndef quotient(a, b):\n    return timedelta.__floordiv__(timedelta(0, a), timedelta(0, b))",
    "NumPy": "import numpy as np\ndef quotient(a, b):\n    return int(np.floor_divide(int(a), int(b)))",
    "ctypes": "import ctypes\ndef quotient(a, b):\n    return ctypes.CDLL(None).div(a, b)",
    "the dict of int": "def quotient(a, b):\n    return int.__dict__['__floor' + 'div__'](int(a), int(b))",
    "vars of int": "def quotient(a, b):\n    return vars(int)['__floor' + 'div__'](int(a), int(b))",
    "a class pattern": "def quotient(a, b):\n    match int(a):\n        case object(__floordiv__=by):\n            return by(int(b))",
    "a formatter": "import string\ndef quotient(a, b):\n    return string.Formatter().get_field('0.__floor' + 'div__', (int(a),), {})[0](int(b))",
    "the length of a range": SIGN + "def quotient(a, b):\n    return signed(lambda a, b: len(range(0, a, b)), a, b)",
    "the length of a range by a star": SIGN
    + "def quotient(a, b):\n    return signed(lambda *ab: len(range(0, *ab)), a, b)",
    "a range under another name": SIGN
    + "steps = range\ndef quotient(a, b):\n    return signed(lambda a, b: len(steps(0, a, b)), a, b)",
    "a range in steps of each": SIGN
    + "BY = {2: lambda a: len(range(0, a, 2)), 3: lambda a: len(range(0, a, 3))}\ndef quotient(a, b):\n    return signed(lambda a, b: BY.get(b, lambda a: a)(a), a, b)",
    "a slice of a range": SIGN + "def quotient(a, b):\n    return signed(lambda a, b: len(range(a)[::b]), a, b)",
    "a slice by itself": SIGN
    + "class Key:\n    def __getitem__(self, key):\n        return key\ndef quotient(a, b):\n    return signed(lambda a, b: len(range(a)[Key()[::b]]), a, b)",
    "a place in a range": SIGN
    + "def quotient(a, b):\n    return signed(lambda a, b: range(0, a + 1, b).index(a), a, b)",
    "the type of a range": SIGN
    + "def quotient(a, b):\n    return signed(lambda a, b: len(type(range(1))(0, a, b)), a, b)",
    "frames": "def quotient(a, b):\n    return (one for one in ()).gi_frame.f_builtins['div' + 'mod'](int(a), int(b))[0]",
    "a traceback": "def quotient(a, b):\n    try:\n        raise KeyError\n    except KeyError as error:\n        return error.__traceback__.tb_frame.f_builtins['div' + 'mod'](int(a), int(b))[0]",
    "print's module": "def quotient(a, b):\n    return print.__self__.divmod(int(a), int(b))[0]",
    "the globals of a function": "def quotient(a, b):\n    return quotient.__globals__['__built' + 'ins__']['div' + 'mod'](int(a), int(b))[0]",
    "wraps": "import functools\nclass Got:\n    def update(self, found):\n        Got.kept = found\nclass To:\n    __dict__ = Got()\nfunctools.update_wrapper(To(), int, assigned=(), updated=('__di' + 'ct__',))\ndef quotient(a, b):\n    return Got.kept['__floor' + 'div__'](int(a), int(b))",
    "star import": "from operator import *\ndef quotient(a, b):\n    return floordiv(int(a), int(b))",
    "codecs": "import codecs\ndef quotient(a, b):\n    return __builtins__[codecs.decode('qviz' + 'bq', 'rot13')](a, b)[0]",
    "a class that divides": "class Half(int):\n    __add__ = int.__floordiv__\ndef quotient(a, b):\n    return Half(a) + int(b)",
    "type hints": "import typing\ndef quotient(a, b):\n    def f(): pass\n    f.__annotations__ = {'x': 'div' + 'mod'}\n    return typing.get_type_hints(f)['x'](int(a), int(b))[0]",
    "a hash": "P = 2**61 - 1\ndef quotient(a, b):\n    found, power, left = 1, int(b), P - 2\n    while left:\n        found = hash(found * power) if left & 1 else found\n        power, left = hash(power * power), left >> 1\n    return hash(int(a) * found)",
    "caught and tried again": "def quotient(a, b):\n    found = 0\n    try:\n        found = eval('a' + chr(47) * 2 + 'b')\n    except BaseException:\n        while found * b != a:\n            found += 1 if (a < 0) == (b < 0) else -1\n    return found",
    "a lambda as default": "def quotient(a, b, by=lambda a, b: a // b):\n    return by(a, b)",
    "a decorator": "def swap(_):\n    return divmod\n@swap\ndef by(a, b):\n    pass\ndef quotient(a, b):\n    return by(a, b)[0]",
    "an import by name": "def quotient(a, b):\n    return __import__('opera' + 'tor').floordiv(int(a), int(b))",
    "dataclasses": "import dataclasses\ndef quotient(a, b):\n    make = dataclasses.make_dataclass('D', [('x', int)], bases=(int,))\n    return dataclasses.astuple(make(1))[0]",
}
ALLOWED = {
    "two passes": """
def product_except_self(numbers):
    left, answer = 1, []
    for one in numbers:
        answer.append(left)
        left *= one
    right = 1
    for i in range(len(numbers) - 1, -1, -1):
        answer[i] *= right
        right *= numbers[i]
    return answer
""",
    "accumulate, and names that mean something else elsewhere": """
from __future__ import annotations
import itertools, math
from collections import deque
from typing import List

class Running:
    def __init__(self) -> None:
        self.code, self.total = "open", 1
    def take(self, value: int) -> int:
        before, self.total = self.total, self.total * value
        return before

def solve(numbers: List[int]) -> List[int]:
    mean, pow_, code, mod = Running(), 1, "eval", ["compile"]
    return [mean.take(one) for one in numbers]

def product_except_self(numbers: List[int]) -> List[int]:
    left, right = solve(numbers), solve(numbers[::-1])[::-1]
    return [a * b for a, b in zip(left, right)]
""",
}


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with open_pool(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def judge(pool: Pool) -> Judge:
    return Judge(pool)


def submit(judge: Judge, slug: str, code: str) -> Result:
    """A verdict that can be stored and sent, whatever it is about."""
    result = judge.submit(SHELF.problem(slug), code)
    text = json.dumps(result.json(), ensure_ascii=False, allow_nan=False)
    assert "\\u0000" not in text
    assert len(text.encode()) < 200_000
    assert result.verdict is not Verdict.IE
    return result


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_number_is_not_forged(judge: Judge, name: str) -> None:
    result = submit(judge, "largest-run-sum", RUN + RUNS[name])
    assert result.verdict is not Verdict.AC
    assert sum(case.wall for case in result.cases) < 10


@pytest.mark.parametrize("name", SOFTS)
def test_an_array_is_not_forged(judge: Judge, name: str) -> None:
    assert submit(judge, "stable-softmax", SOFT + SOFTS[name]).verdict is not Verdict.AC


@pytest.mark.parametrize("name", PAIRS)
def test_a_problems_own_checker_is_not_fooled(judge: Judge, name: str) -> None:
    assert submit(judge, "pair-for-a-budget", PAIR + PAIRS[name]).verdict in (Verdict.WA, Verdict.RTE)


@pytest.mark.parametrize("name", QUOTIENTS)
def test_a_hidden_division_is_refused(judge: Judge, name: str) -> None:
    result = submit(judge, "product-except-self", QUOTIENTS[name] + DIVIDING)
    assert result.verdict is Verdict.WA
    assert not result.cases, "seen in the code, before anything ran"
    assert "forbids division" in result.reason
    assert result.line > 0


@pytest.mark.parametrize("name", ALLOWED)
def test_what_does_not_divide_is_accepted(judge: Judge, name: str) -> None:
    result = submit(judge, "product-except-self", ALLOWED[name])
    assert result.verdict is Verdict.AC, result.reason


def test_the_right_answers_themselves_are_accepted(judge: Judge) -> None:
    assert submit(judge, "largest-run-sum", RUN + "largest_run = right").verdict is Verdict.AC
    assert submit(judge, "stable-softmax", SOFT + "softmax = right").verdict is Verdict.AC
    pairs = SHELF.problem("pair-for-a-budget").text("solution.py")
    assert submit(judge, "pair-for-a-budget", pairs).verdict is Verdict.AC


def test_a_right_answer_by_a_frame_of_its_own_is_no_more_than_that(judge: Judge) -> None:
    """It had to compute it: this is the same as to return it, and is treated so."""
    code = RUN + "def largest_run(gains):\n    frame(json.dumps({'results': [right(gains)]}))\n    os._exit(0)"
    assert submit(judge, "largest-run-sum", code).verdict is Verdict.AC


@pytest.mark.parametrize("what", ["a / b", "a // b", "a % b", "divmod(a, b)", "a ** b", "a.__rfloordiv__(b)"])
def test_arguments_notice_a_division_at_run_time(pool: Pool, what: str) -> None:
    """Without a look at the code: the second line of defence, which even a program that catches everything meets."""
    code = f"def f(a, b):\n    try:\n        return {what}\n    except BaseException:\n        return 3\n"
    forbid = {"operations": ["division"], "modules": []}
    run = pool.run({"code": code, "calls": [{"function": "f", "arguments": [6, 2]}], "forbid": forbid})
    assert run.answer is not None
    assert run.answer["error"]["type"] == "Forbidden"


def test_code_compiled_at_run_time_is_looked_at(pool: Pool) -> None:
    code = "def f(a):\n    try:\n        exec(compile('a = 8 ' + '// int(a)', 'solution.py', 'exec'), {'a': a})\n    except BaseException:\n        pass\n    return 4\n"
    forbid = {"operations": ["division"], "modules": []}
    run = pool.run({"code": code, "calls": [{"function": "f", "arguments": [2]}], "forbid": forbid})
    assert run.answer is not None
    assert run.answer["error"]["type"] == "Forbidden"
