"""What people use every day has a fingerprint that the next process knows again."""

import json
import os
import textwrap

import pytest

from . import programs

# By name: (package it needs, set-up, an expression for one thing, one for another of its kind).
# The fingerprint is that of ``lambda x: (x, thing)``.
KINDS = {
    "array function": ("numpy", "from numpy import mean, median", "mean", "median"),
    "array function of a submodule": (
        "numpy", "from numpy.linalg import norm, inv", "norm", "inv"),
    "seeded generator": ("numpy", "import numpy as np",
                         "np.random.default_rng(1)", "np.random.default_rng(2)"),
    "drawn generator": ("numpy", "from numpy.random import *",
                        "Generator(PCG64())", "Generator(Philox())"),
    "used generator": ("numpy", "import numpy as np\nr = np.random.default_rng(1)\nr.random(5)",
                       "r", "np.random.default_rng(3)"),
    "bit generator": ("numpy", "from numpy.random import *", "PCG64(1)", "PCG64(2)"),
    "old generator": ("numpy", "from numpy.random import rand, randn", "rand", "randn"),
    "forest": ("sklearn", """
        import numpy as np
        from sklearn.ensemble import RandomForestClassifier
        X = np.arange(60.0).reshape(20, 3) % 7
        def fit(depth):
            forest = RandomForestClassifier(3, max_depth=depth, random_state=0)
            return forest.fit(X, X[:, 0] > 3)
        """, "fit(1)", "fit(2)"),
    "tree": ("sklearn", """
        import numpy as np
        from sklearn.tree import DecisionTreeRegressor
        X = np.arange(60.0).reshape(20, 3) % 7
        """, "DecisionTreeRegressor(random_state=0).fit(X, X[:, 0]).tree_",
        "DecisionTreeRegressor(random_state=0).fit(X, X[:, 1] * 2).tree_"),
    "model": ("pydantic", """
        from pydantic import BaseModel, Field
        class A(BaseModel):
            x: int = 1
            names: list[str] = Field(default_factory=list)
        """, "A(x=1)", "A(x=2)"),
    "model's class": ("pydantic", """
        from pydantic import BaseModel, field_validator
        class A(BaseModel):
            x: int = 1
            @field_validator("x")
            def check(cls, value): return value
        class B(BaseModel):
            x: int = 2
            @field_validator("x")
            def check(cls, value): return value
        """, "A", "B"),
    "model's validator": ("pydantic", """
        from pydantic import BaseModel, field_validator
        def make(k):
            class A(BaseModel):
                x: int = 1
                @field_validator("x")
                def check(cls, value): return value + k
            return A
        """, "make(1)", "make(2)"),
    "compiled by Cython": ("pandas", "from pandas._libs import lib",
                           "lib.infer_dtype", "lib.is_datetime_array"),
    "Struct": ("", "import struct", "struct.Struct('<i')", "struct.Struct('<q')"),
    "method of a Struct": (
        "", "import struct", "struct.Struct('<i').unpack", "struct.Struct('<q').unpack"),
    "large set of text": ("", "", "set(map(str, range(5_000)))", "set(map(str, range(1, 5_001)))"),
    "large set of numbers": ("", "", "{*range(5_000)}", "{*range(4_999), 7_000}"),
    "large set of pairs": ("", "", "{(str(i), i) for i in range(3_000)}",
                           "{(str(i), i + (i == 7)) for i in range(3_000)}"),
    "large frozenset": ("", "", "frozenset(map(str, range(700)))",
                        "frozenset(map(str, range(1, 701)))"),
    "huge set": ("", "", "set(map(str, range(50_000)))", "set(map(str, range(50_001)))"),
    "set of sets": ("", "", "{frozenset(map(str, range(i))) for i in range(90)}",
                    "{frozenset(map(str, range(i + 1))) for i in range(90)}"),
    "set of objects": ("", """
        class A:
            def __init__(self, *names): self.names = names
        """, "{A('a', 'b'), A('c'), A()}", "{A('a', 'b'), A('c'), A('d')}"),
    "single dispatch": ("", """
        import functools
        def make(k):
            @functools.singledispatch
            def f(x): return k
            f.register(int, lambda x: x + 1)
            return f
        used = make(1)
        used(3), used('a'), used(2.0)
        """, "used", "make(2)"),
    "case of a single dispatch": ("", """
        import functools
        def make(k):
            @functools.singledispatch
            def f(x): return x
            f.register(int, lambda x: x + k)
            return f
        """, "make(1)", "make(2)"),
    "context variable": ("", "from contextvars import ContextVar",
                         "ContextVar('a')", "ContextVar('b')"),
    "thread's own": ("", """
        import threading
        class Mine(threading.local): pass
        kept = threading.local()
        kept.file = open(__file__)
        """, "kept", "Mine()"),
    "lock": ("", "import threading", "threading.Lock()", "threading.RLock()"),
    "condition": ("", "import threading", "threading.Condition()", "threading.Event()"),
    "environment": ("", "from os import environ, environb", "environ", "environb"),
    "random's own generator": ("", "from random import randint, choice",
                               "randint", "choice"),
    "random's method in C": (
        "", "from random import random, getrandbits", "random", "getrandbits"),
    "standard stream": ("", "from sys import stdout, stderr", "stdout", "stderr"),
    "weak references": ("", "import weakref", "weakref.WeakSet()", "weakref.WeakKeyDictionary()"),
    "views": ("", "", "dict.fromkeys('abc').keys()", "dict.fromkeys('abd').keys()"),
    "default of a dict": ("", "from collections import defaultdict",
                          "defaultdict(int)", "defaultdict(list)"),
    "library of ctypes": ("", "import ctypes", "ctypes.CDLL(None)", "ctypes.PyDLL(None)"),
    "function of ctypes": ("", "import ctypes\nc = ctypes.CDLL(None)", "c.abs", "c.labs"),
    "array of ctypes": ("", "import ctypes", "(ctypes.c_int * 3)(1, 2, 3)",
                        "(ctypes.c_int * 3)(1, 2, 4)"),
    "logger of loguru": ("loguru", "from loguru import logger", "logger", "logger.bind(a=1)"),
    "bound logger of loguru": ("loguru", "from loguru import logger",
                               "logger.bind(a=1)", "logger.bind(a=2)"),
    "tenacious": ("tenacity", """
        import tenacity
        def make(k):
            @tenacity.retry(stop=tenacity.stop_after_attempt(k))
            def f(x): return x
            return f
        used = make(3)
        used(1)
        """, "used", "make(4)"),
    "tenacious body": ("tenacity", """
        import tenacity
        def make(k):
            @tenacity.retry
            def f(x): return x + k
            return f
        """, "make(1)", "make(2)"),
    "missing value": ("pandas", "import pandas as pd", "pd.NA", "pd.NaT"),
    "frame with missing values": ("pandas", "import pandas as pd",
                                  "pd.DataFrame({'a': [pd.NA, 'x', pd.NaT]}, dtype=object)",
                                  "pd.DataFrame({'a': [pd.NA, 'y', pd.NaT]}, dtype=object)"),
    "categories": ("pandas", "import pandas as pd", "pd.Series(list('aab'), dtype='category')",
                   "pd.Series(list('abb'), dtype='category')"),
    "tensor": ("torch", "import torch", "torch.arange(5.0)", "torch.arange(1.0, 6.0)"),
    "network": ("torch", """
        import torch
        def make(k):
            torch.manual_seed(k)
            return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())
        """, "make(1)", "make(2)"),
    "vectorized": ("numpy", """
        import numpy as np
        def make(k):
            def f(x): return x + k
            return np.vectorize(f)
        used = make(1)
        used([1, 2])
        """, "used", "make(2)"),
    "array function of Python's": ("numpy", """
        import numpy as np
        def make(k):
            def f(x): return x + k
            return np.frompyfunc(f, 1, 1)
        """, "make(1)", "make(2)"),
    "record": ("numpy", "import numpy as np",
               "np.array([(1, 2)], dtype=[('a', 'i4'), ('b', 'i4')])[0]",
               "np.array([(1, 2)], dtype=[('b', 'i4'), ('a', 'i4')])[0]"),
    "time stamp": ("pandas", "import pandas as pd",
                   "pd.Timestamp('2020', tz='UTC')", "pd.Timestamp('2021', tz='UTC')"),
    "time span": ("pandas", "import pandas as pd", "pd.Timedelta('1s')", "pd.Timedelta('1001ms')"),
    "period": ("pandas", "import pandas as pd", "pd.Period('2020')", "pd.Period('2021')"),
    "interval": ("pandas", "import pandas as pd", "pd.Interval(0, 1)", "pd.Interval(0, 2)"),
    "offset": ("pandas", "import pandas as pd", "pd.offsets.BDay(1)", "pd.offsets.BDay(2)"),
    "categorical": ("pandas", "import pandas as pd",
                    "pd.Categorical(['a', 'b'])", "pd.Categorical(['a', 'a'])"),
    "unused categories": (
        "pandas", "import pandas as pd",
        "pd.Series(['a', 'b'], dtype=pd.CategoricalDtype(['a', 'b', 'c']))",
        "pd.Series(['a', 'b'], dtype=pd.CategoricalDtype(['a', 'b', 'd']))"),
    "order of categories": (
        "pandas", "import pandas as pd",
        "pd.CategoricalDtype(['a', 'b'])", "pd.CategoricalDtype(['a', 'b'], ordered=True)"),
    "names of levels": (
        "pandas", "import pandas as pd",
        "pd.MultiIndex.from_tuples([(1, 2)], names=['a', 'b'])",
        "pd.MultiIndex.from_tuples([(1, 2)], names=['b', 'a'])"),
    "name of the columns": (
        "pandas", "import pandas as pd", "pd.DataFrame([[1]], columns=pd.Index(['a'], name='x'))",
        "pd.DataFrame([[1]], columns=pd.Index(['a'], name='y'))"),
    "notes on a frame": ("pandas", """
        import pandas as pd
        def make(k):
            frame = pd.DataFrame([[1]])
            frame.attrs["unit"] = k
            return frame
        """, "make('m')", "make('s')"),
    "zoned times": ("pandas", "import pandas as pd",
                    "pd.Series(pd.date_range('2020', periods=3, tz='UTC'))",
                    "pd.Series(pd.date_range('2020', periods=3, tz='Europe/Berlin'))"),
    "comparison as a key": ("", """
        import functools
        def make(k):
            return functools.cmp_to_key(lambda a, b: k * (a - b))
        """, "make(1)", "make(-1)"),
    "callback of ctypes": ("", """
        import ctypes
        def make(k):
            return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda x: x * k)
        """, "make(1)", "make(2)"),
    "decoder": ("", "import json, decimal",
                "json.JSONDecoder()", "json.JSONDecoder(parse_float=decimal.Decimal)"),
    "iterator": ("", "", "zip([1, 2], [3])", "zip([1, 2], [4])"),
    "mapped": ("", "", "map(abs, enumerate([1]))", "map(abs, enumerate([2]))"),
    "user's datetime": ("", """
        import datetime
        class Mine(datetime.datetime): pass
        """, "Mine(2020, 1, 1)", "Mine(2021, 1, 1)"),
    "user's time span": ("", """
        import datetime
        class Mine(datetime.timedelta): pass
        """, "Mine(1)", "Mine(2)"),
    "user's decimal": ("", """
        import decimal
        class Mine(decimal.Decimal): pass
        """, "Mine(1)", "Mine(2)"),
    "user's generator": ("", """
        import random
        class Mine(random.Random): pass
        """, "Mine(1)", "Mine(2)"),
    "user's exception": ("", "class Mine(Exception): pass", "Mine('a')", "Mine('b')"),
    "user's path": ("", """
        import pathlib
        class Mine(type(pathlib.Path())): pass
        used = Mine('/a/b')
        hash(used), str(used)
        """, "used", "Mine('/a/c')"),
    "hash that is kept": ("", """
        class A:
            def __init__(self, name): self.name, self._hash = name, None
            def __hash__(self):
                self._hash = self._hash or hash(self.name)
                return self._hash
        used = A('a')
        hash(used)
        """, "used", "A('b')"),
    "frozen class of attrs": ("attr", """
        import attr
        def make(kind):
            @attr.frozen
            class A: name: kind
            return A
        """, "make(str)", "make(int)"),
    "object of attrs that keeps its hash": ("attr", """
        import attr
        @attr.s(auto_attribs=True, frozen=True, cache_hash=True)
        class A: name: str
        used = A('a')
        hash(used)
        """, "used", "A('b')"),
    "choice of attrs": ("attr", "import attr",
                        "attr.validators.in_({'a', 'b'})", "attr.validators.in_({'a', 'c'})"),
    "converter of attrs": ("attr", """
        import attr
        def make(convert):
            @attr.define
            class A: x: int = attr.field(converter=convert)
            return A
        """, "make(abs)", "make(int)"),
    "default of a model": ("pydantic", """
        from pydantic import BaseModel
        def make(k):
            class A(BaseModel): x: int = k
            return A
        """, "make(1)", "make(2)"),
    "bounds of a model": ("pydantic", """
        from pydantic import BaseModel, Field
        def make(k):
            class A(BaseModel): x: int = Field(default=9, gt=k)
            return A
        """, "make(1)", "make(2)"),
    "types of a model": ("pydantic", """
        from pydantic import BaseModel
        def make(kind):
            class A(BaseModel): x: kind
            return A
        """, "make(int)", "make(float)"),
    "default of a msgspec": ("msgspec", """
        import msgspec
        def make(k):
            class A(msgspec.Struct): x: int = k
            return A
        """, "make(1)", "make(2)"),
    "types of a msgspec": ("msgspec", """
        import msgspec
        def make(kind):
            class A(msgspec.Struct): x: kind
            return A
        """, "make(int)", "make(float)"),
    "remembered by joblib": ("joblib", """
        import joblib
        def make(k):
            def f(x): return x + k
            return joblib.Memory(__file__ + ".kept", verbose=0).cache(f)
        """, "make(1)", "make(2)"),
    "curried": ("toolz", "import toolz", "toolz.curry(pow, 2)", "toolz.curry(pow, 3)"),
    "composed": ("toolz", """
        import toolz
        def make(k):
            def f(x): return x + k
            return toolz.compose(abs, f)
        """, "make(1)", "make(2)"),
    "masked array": ("numpy", "import numpy as np", "np.ma.array([1, 2], mask=[0, 1])",
                     "np.ma.array([1, 2], mask=[1, 0])"),
}  # fmt: skip

# Two types each, made with ``from typing import *``.
TYPES = [
    ("int | str", "int | float"),
    ("list[int]", "list[str]"),
    ("List[int]", "List[str]"),
    ("Union[int, str]", "Union[int, float]"),
    ("Optional[int]", "Optional[str]"),
    ("Callable[[int], str]", "Callable[[str], str]"),
    ("Annotated[int, 1]", "Annotated[int, 2]"),
    ("Literal['a', 'b']", "Literal['a', 'c']"),
    ("NewType('U', int)", "NewType('U', str)"),
    ("TypeVar('T', bound=int)", "TypeVar('T', bound=str)"),
    ("TypeVar('T', int, str)", "TypeVar('T', int, float)"),
    ("List['A']", "List['B']"),
]
KINDS |= {first: ("", "from typing import *", first, second) for first, second in TYPES}

PROGRAM = """
import json
from amorsize.identity.fingerprint import fingerprint
def over(value):
    return lambda x: (x, value)
first = fingerprint(over({first}))
print(json.dumps([*first, fingerprint(over({second})).digest]))
"""


def printed(name, folder, seed):
    """Return what a process with this hash seed finds of a kind."""
    _, setup, first, second = KINDS[name]
    source = textwrap.dedent(setup) + PROGRAM.format(first=first, second=second)
    ended = programs.run_source(source, folder, name=f"program{seed}.py", PYTHONHASHSEED=seed)
    assert ended.code == 0, ended.err
    return json.loads(ended.out.splitlines()[-1])


@pytest.mark.parametrize("name", KINDS)
def test_every_process_knows_it_again(name, tmp_path):
    """Its fingerprint is stable, equal under another hash seed, and differs from its like's."""
    if KINDS[name][0]:
        pytest.importorskip(KINDS[name][0])
    if os.name == "nt" and ("environb" in KINDS[name][1] or "None)" in "".join(KINDS[name][1:])):
        pytest.skip("Windows has no environb, nor a library that is the program itself")
    first, second = printed(name, tmp_path, "1"), printed(name, tmp_path, "2")
    assert first[1], "not stable"
    assert first == second
    assert first[0] != first[2], "another of its kind has the same fingerprint"
