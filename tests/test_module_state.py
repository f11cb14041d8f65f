"""Values that modules have in the caller are what workers use, whatever way leads to them."""

import builtins
import importlib
import sys
import textwrap
import threading
import time

import pytest

from amorsize import SerializationError, smart_map
from amorsize.identity.uses import uses
from tests import programs

FRESH = ["spawn", "forkserver"]

PACKAGE = {
    "__init__.py": """
        from .core import scaled, shifted, Model, default_table
        from . import core, settings
        SCALE = 1
        TABLE = {"plus": 0}
        LIST = [1, 2]
        FLAG = True
        class Options:
            def __init__(self):
                self.level = 1
        options = Options()
        def top(x):
            return x * SCALE + TABLE["plus"] + sum(LIST)
        def hook(x):
            return x
        def hooked(x):
            return hook(x)
        import re, threading
        class Guarded:
            def __init__(self):
                self.lock = threading.Lock()
                self.level = 1
        guarded = Guarded()
        BIG = dict.fromkeys(range(100), 0)
        def big(x):
            return BIG[x]
        HOOKS = []
        def run_hooks(x):
            for hook in HOOKS:
                x = hook(x)
            return x
        def used(x):
            return x
        def other(x):
            return -x
        PATTERN = re.compile("a")
    """,
    "core.py": """
        from . import settings
        FACTOR = 1
        def scaled(x):
            return x * FACTOR * settings.depth
        def shifted(x):
            return inner(x)
        def inner(x):
            return x + FACTOR
        def default_table(x):
            return x + settings.config.offset
        class Model:
            bias = 0
            def run(self, x):
                return x * FACTOR + self.bias
    """,
    "settings.py": """
        depth = 1
        class Config:
            offset = 0
        config = Config()
    """,
}

# name: (what the user's module holds beside SCALE, what the caller changes, which f differs)
CASES = {
    "attribute of a package": (
        "import mypkg\ndef f(x): return mypkg.top(x), mypkg.SCALE",
        "mypkg.SCALE = 5",
    ),
    "a package's own code": (
        "import mypkg\ndef f(x): return mypkg.scaled(x), mypkg.shifted(x)",
        "mypkg.core.FACTOR = 7",
    ),
    "a name from a package": (
        "from mypkg import scaled, shifted\ndef f(x): return scaled(x), shifted(x)",
        "mypkg.core.FACTOR = 7; mypkg.settings.depth = 2",
    ),
    "a package's container": (
        "import mypkg\ndef f(x): return mypkg.top(x)",
        "mypkg.TABLE['plus'] = 3; mypkg.LIST.append(9)",
    ),
    "an object of a package": (
        "import mypkg\ndef f(x): return mypkg.options.level + x, mypkg.default_table(x)",
        "mypkg.options.level = 8; mypkg.settings.config.offset = 3",
    ),
    "a class of a package": (
        "from mypkg import Model\ndef f(x): return Model().run(x)",
        "mypkg.Model.bias = 4; mypkg.core.FACTOR = 3",
    ),
    "an instance of a package's class": (
        "import mypkg\nM = mypkg.Model()\ndef f(x): return M.run(x)",
        "mypkg.core.FACTOR = 3",
    ),
    "a replaced function of a package": (
        "import mypkg\ndef f(x): return mypkg.hooked(x)",
        "mypkg.hook = lambda x: x + 100",
    ),
    "a replaced method of a package": (
        "from mypkg import Model\ndef f(x): return Model().run(x)",
        "mypkg.Model.run = lambda self, x: x + 100",
    ),
    "a built-in put in a package": (
        "import mypkg\ndef f(x): return mypkg.hooked(x)",
        "import math; mypkg.hook = math.sin",
    ),
    "a partial put in a package": (
        "import mypkg, functools\ndef g(x, y): return x + y\n"
        "P = functools.partial(g, 100)\ndef f(x): return mypkg.hooked(x)",
        "mypkg.hook = user.P",
    ),
    "a wrapped function of a package": (
        "import mypkg, functools\ndef wrapped(g):\n    @functools.wraps(g)\n"
        "    def inner(x): return g(x) + 100\n    return inner\n"
        "def f(x): return mypkg.hooked(x)",
        "mypkg.hook = user.wrapped(mypkg.hook)",
    ),
    "an object put in a package": (
        "import mypkg\nclass Hook:\n    n = 3\n    def __call__(self, x): return x + self.n\n"
        "HOOK = Hook()\ndef f(x): return mypkg.hooked(x)",
        "mypkg.hook = user.HOOK",
    ),
    "a deleted name of a package": (
        "import mypkg\ndef f(x): return hasattr(mypkg, 'FLAG'), getattr(mypkg, 'FLAG', None)",
        "del mypkg.FLAG",
    ),
    "a deleted name that is named": (
        "import mypkg\ndef f(x):\n    try:\n        return mypkg.FLAG\n"
        "    except AttributeError:\n        return 'gone'",
        "del mypkg.FLAG",
    ),
    "getattr of a package": (
        "import mypkg\ndef f(x): return getattr(mypkg, 'SC' + 'ALE') * x",
        "mypkg.SCALE = 5",
    ),
    "a captured module": (
        "import other\ndef make(m): return lambda x: x * m.N\nf = make(other)",
        "other.N = 5",
    ),
    "a default": ("import other\ndef f(x, m=other): return x * m.N", "other.N = 5"),
    "a keyword default": ("import other\ndef f(x, *, m=other): return x * m.N", "other.N = 5"),
    "a partial": (
        "import other, functools\ndef g(m, x): return x * m.N\nf = functools.partial(g, other)",
        "other.N = 5",
    ),
    "an attribute of an object": (
        "import other\nclass Job:\n    def __init__(self): self.m = other\n"
        "    def __call__(self, x): return x * self.m.N\nf = Job()",
        "other.N = 5",
    ),
    "a slot of an object": (
        "import other\nclass Job:\n    __slots__ = ('__m',)\n"
        "    def __init__(self): self.__m = other\n"
        "    def __call__(self, x): return x * self.__m.N\nf = Job()",
        "other.N = 5",
    ),
    "a value of a dict": (
        "import other\nMODULES = {'a': [other]}\ndef f(x): return x * MODULES['a'][0].N",
        "other.N = 5",
    ),
    "a long list": (
        "import other\nMODULES = [{}] * 50 + [other] + [{}] * 950\n"
        "def f(x): return x * MODULES[50].N",
        "other.N = 5",
    ),
    "an attribute of a class": (
        "import other\nclass Job:\n    m = other\ndef f(x): return x * Job.m.N",
        "other.N = 5",
    ),
    "a captured package": (
        "import mypkg\ndef make(m): return lambda x: x * m.SCALE\nf = make(mypkg)",
        "mypkg.SCALE = 5",
    ),
    "a bound method": (
        "import other\nclass Job:\n    def __init__(self): self.m = other\n"
        "    def run(self, x): return x * self.m.N\nf = Job().run",
        "other.N = 5",
    ),
    "getattr": ("import other\ndef f(x): return x * getattr(other, 'n'.upper())", "other.N = 5"),
    "vars": ("import other\ndef f(x): return x * vars(other)['n'.upper()]", "other.N = 5"),
    "its dictionary": (
        "import other\ndef f(x): return x * other.__dict__['n'.upper()]",
        "other.N = 5",
    ),
    "import_module": (
        "import importlib\ndef f(x): return x * importlib.import_module('ot' + 'her').N",
        "other.N = 5",
    ),
    "sys.modules": (
        "import sys, other\ndef f(x): return x * sys.modules['ot' + 'her'].N",
        "other.N = 5",
    ),
    "__import__": ("def f(x): return x * __import__('ot' + 'her').N", "other.N = 5"),
    "attrgetter": (
        "import operator, other\nGET = operator.attrgetter('n'.upper())\n"
        "def f(x): return x * GET(other)",
        "other.N = 5",
    ),
    "globals()": ("SIZE = 1\ndef f(x): return x * globals()['SI' + 'ZE']", "user.SIZE = 5"),
    "eval": ("SIZE = 1\ndef f(x): return x * eval('SI' + 'ZE')", "user.SIZE = 5"),
    "state with a lock": (
        "import threading\nclass Config:\n    def __init__(self):\n"
        "        self.lock = threading.RLock()\n        self.scale = 1\n"
        "CONFIG = Config()\ndef f(x):\n    with CONFIG.lock:\n        return x * CONFIG.scale",
        "user.CONFIG.scale = 5",
    ),
    "a dict with a lock": (
        "import threading\nSTATE = {'lock': threading.Lock(), 'inner': [1]}\ndef f(x):\n"
        "    with STATE['lock']:\n        return x * STATE['inner'][0]",
        "user.STATE['inner'][0] = 5",
    ),
    "a condition": (
        "import threading, types\nSTATE = types.SimpleNamespace(c=threading.Condition(), n=1)\n"
        "def f(x):\n    with STATE.c:\n        return x * STATE.n",
        "user.STATE.n = 5",
    ),
    "values of this thread": (
        "import threading\nOWN = threading.local()\nOWN.n = 1\ndef f(x): return x * OWN.n",
        "user.OWN.n = 5",
    ),
    "an attribute set on a function": (
        "def g(x): return x * g.n\ng.n = 1\ndef f(x): return g(x)",
        "user.g.n = 5",
    ),
    "a dict of a package too large for settings": (
        "import mypkg\ndef f(x): return mypkg.big(x)",
        "mypkg.BIG[3] = 9",
    ),
    "an object of a package that holds a lock": (
        "import mypkg\ndef f(x): return x * mypkg.guarded.level",
        "mypkg.guarded.level = 5",
    ),
    "hooks registered with a package": (
        "import mypkg\ndef more(x): return x + 100\ndef f(x): return mypkg.run_hooks(x)",
        "mypkg.HOOKS.append(user.more)",
    ),
    "a package's function under another's name": (
        "import mypkg\ndef f(x): return mypkg.used(x)",
        "mypkg.used = mypkg.other",
    ),
    "a pattern of a package": (
        "import mypkg\ndef f(x): return mypkg.PATTERN.findall('ab')",
        "import re; mypkg.PATTERN = re.compile('b')",
    ),
    "a compiled format": (
        "import struct\nFORM = struct.Struct('<i')\ndef f(x): return FORM.pack(x + 1)",
        "import struct; user.FORM = struct.Struct('>i')",
    ),
    "the closure of a decorated function": (
        "import functools\ndef times(n):\n    def decorate(g):\n        @functools.wraps(g)\n"
        "        def inner(x): return g(x) * n\n        return inner\n    return decorate\n"
        "@times(1)\ndef g(x): return x\ndef f(x): return g(x)",
        "user.g = user.times(7)(user.g.__wrapped__)",
    ),
    "a dispatched function": (
        "import functools\n@functools.singledispatch\ndef g(x): return 'any'\n"
        "def named(x): return 'int'\ndef f(x): return g(x)",
        "user.g.register(int, user.named)",
    ),
    "the globals of a function": (
        "N = 1\ndef g(x): return x\ndef f(x): return x * g.__globals__['N']",
        "user.N = 5",
    ),
    "getattr by another name": (
        "import other\nget = getattr\ndef f(x): return x * get(other, 'N')",
        "other.N = 5",
    ),
    "attributes that a module makes": (
        "import sys\n_values = {'N': 1}\ndef __getattr__(name): return _values[name]\n"
        "def f(x): return x * sys.modules[__name__].N",
        "user._values['N'] = 5",
    ),
    "a module with a class of its own": (
        "import other, sys, types\nclass Own(types.ModuleType): pass\n"
        "other.__class__ = Own\ndef f(x): return x * other.N",
        "other.N = 5",
    ),
    "an attribute of a metaclass": (
        "class Meta(type):\n    SCALE = 1\n    def times(cls, x): return x * cls.SCALE\n"
        "class C(metaclass=Meta): pass\ndef f(x): return C.times(x)",
        "user.Meta.SCALE = 5",
    ),
    "what is set among the builtins": (
        "import builtins\nbuiltins.translate = abs\ndef f(x): return translate(x)",
        "import builtins; builtins.translate = lambda x: x + 5",
    ),
    "objects that know each other": (
        "class Node: n = 1\nA, B = Node(), Node()\nA.other, B.other = B, A\n"
        "def f(x): return A.other is B and B.other is A, A.n",
        "user.A.n = 5",
    ),
    "objects made at run time that know each other": (
        "class Node: n = 1\nA = B = None\n"
        "def f(x): return A is not None and A.other is B and B.other is A",
        "user.A, user.B = user.Node(), user.Node(); user.A.other = user.B; user.B.other = user.A",
    ),
    "objects with slots that know each other": (
        "class Node:\n    __slots__ = ('n', 'other')\nA, B = Node(), Node()\n"
        "A.other, B.other, A.n = B, A, 1\n"
        "def f(x): return A.other is B and B.other is A, A.n",
        "user.A.n = 5",
    ),
    "a sentinel that is a default, too": (
        "NOTHING = object()\nTABLE = {'a': NOTHING}\n"
        "def g(x, y=NOTHING): return y is NOTHING and TABLE['a'] is NOTHING, len(TABLE)\n"
        "def f(x): return g(x)",
        "user.TABLE['b'] = 2",
    ),
    "a sentinel that is nowhere by itself": (
        "class Nothing: pass\nTABLE = {'a': Nothing()}\nOTHER = [TABLE['a']]\n"
        "def f(x): return OTHER[0] is TABLE['a'], len(TABLE)",
        "user.TABLE['b'] = 2",
    ),
    "a sentinel in a tuple": (
        "NOTHING = object()\nPAIR = (NOTHING, 1)\nLIST = [PAIR]\n"
        "def f(x): return PAIR[0] is NOTHING and LIST[0] is PAIR, len(LIST)",
        "user.LIST.append(3)",
    ),
    "a sentinel that another value is set to": (
        "NOTHING = object()\nVALUE = 3\ndef f(x): return VALUE is NOTHING",
        "user.VALUE = user.NOTHING",
    ),
    "one object under two names": (
        "A, B = [1], [1]\ndef f(x): return A is B",
        "user.A = user.B",
    ),
    "two objects for one": (
        "A = B = [1]\ndef f(x): return A is B",
        "user.A = [1]",
    ),
    "a list that holds itself": (
        "A = [1]\nA.append(A)\ndef f(x): return A[1] is A, A[0]",
        "user.A[0] = 5",
    ),
    "containers of all kinds that share": (
        "import collections as c\nclass Nothing: pass\nNOTHING = Nothing()\n"
        "DEQUE = c.deque([NOTHING], maxlen=3)\nDEFAULT = c.defaultdict(list, a=DEQUE)\n"
        "ORDERED = c.OrderedDict(a=DEFAULT)\nCOUNTER = c.Counter({NOTHING: 2})\nSET = {NOTHING}\n"
        "def f(x): return (ORDERED['a'] is DEFAULT, DEFAULT['a'] is DEQUE, DEQUE[0] is NOTHING,\n"
        "    NOTHING in SET, COUNTER[NOTHING], len(DEQUE), DEQUE.maxlen, len(DEFAULT['b']))",
        "user.DEQUE.append(1); user.COUNTER[user.NOTHING] += 1",
    ),
    "what is made from another value": (
        "class Made:\n    def __init__(self, config): self.config, self.n = config, config['n']\n"
        "    def __reduce__(self): return Made, (self.config,)\n"
        "CONFIG = {'n': 1}\nMADE = Made(CONFIG)\n"
        "def f(x): return MADE.n, MADE.config is CONFIG",
        "user.CONFIG['n'] = 5; user.MADE = user.Made(user.CONFIG)",
    ),
    "keys with a hash of their own": (
        "class Key:\n    def __init__(self, n): self.n = n\n"
        "    def __hash__(self): return hash(self.n)\n"
        "    def __eq__(self, other): return self.n == other.n\n"
        "KEY = Key(1)\nTABLE = {KEY: 1}\nKEYS = {KEY}\n"
        "def f(x): return TABLE[KEY], KEY in KEYS, next(iter(TABLE)) is KEY",
        "user.TABLE[user.KEY] = 5",
    ),
    "decorated functions in a registry": (
        "import functools\nREGISTRY = {}\ndef register(g):\n    @functools.wraps(g)\n"
        "    def inner(x): return g(x), REGISTRY.get('n')\n    REGISTRY[g.__name__] = inner\n"
        "    return inner\n@register\ndef g(x): return x\n"
        "def f(x): return g(x), REGISTRY['g'] is g, REGISTRY['g'](x)",
        "user.REGISTRY['n'] = 5",
    ),
    "a bound method of a list": (
        "LIST = []\nappend = LIST.append\nNAMES = {}\n"
        "def f(x):\n    append(x)\n    return LIST.pop() == x, NAMES.get('n')",
        "user.NAMES['n'] = 5; user.NAMES['add'] = user.append",
    ),
    "a lock that two objects share": (
        "import threading\nclass Guarded:\n"
        "    def __init__(self, lock): self.lock, self.n = lock, 1\n"
        "LOCK = threading.Lock()\nA, B = Guarded(LOCK), Guarded(LOCK)\n"
        "def f(x):\n    with A.lock:\n        return B.lock.locked(), B.lock is LOCK, A.n",
        "user.A.n = 5",
    ),
    "a wrapper that counts its own calls": (
        "import functools\ndef memoize(g):\n    @functools.wraps(g)\n    def inner(x):\n"
        "        inner.hits += 1\n        if x not in inner.cache: inner.cache[x] = g(x)\n"
        "        return inner.cache[x]\n    inner.hits, inner.cache = 0, {}\n    return inner\n"
        "@memoize\ndef g(x): return x\n"
        "def f(x):\n    before = g.hits\n    return g(x), g.hits - before, len(g.cache) > 9",
        "[user.g(x) for x in range(20)]",
    ),
    "a wrapper that calls itself": (
        "import functools\ndef again(g):\n    @functools.wraps(g)\n    def inner(x, left=3):\n"
        "        return inner(x, left - 1) if left else g(x)\n    return inner\n"
        "def g(x): return -x\nhook = None\ndef f(x): return hook and hook(x)",
        "user.hook = user.again(user.g)",
    ),
    "an object with a hash of its own that a class holds, too": (
        "class Total:\n    n = 0\n    def __eq__(self, other): return self is other\n"
        "    def __hash__(self): return 7\n"
        "TOTAL = Total()\nclass Job:\n    @staticmethod\n"
        "    def run(x, total=TOTAL): return total.n\n"
        "def f(x): return Job.run(x), TOTAL.n",
        "user.TOTAL.n = 5",
    ),
    "objects that share a logger": (
        "import logging, enum\nLOG = logging.getLogger('app')\nclass Colour(enum.Enum): RED = 1\n"
        "class Client:\n    __slots__ = ('log', 'colour')\n"
        "CLIENT = Client()\nCLIENT.log, CLIENT.colour = LOG, Colour.RED\n"
        "class Stats:\n    n = 1\nSTATS = Stats()\nSTATS.log, STATS.colour = LOG, Colour.RED\n"
        "class Job:\n    @staticmethod\n    def run(x, client=CLIENT): return client is CLIENT\n"
        "def f(x): return Job.run(x), STATS.n, CLIENT.log is STATS.log",
        "user.STATS.n = 5",
    ),
    "an object with a slot and a dictionary": (
        "class Point:\n    __slots__ = ('x', '__dict__')\n    def __init__(self, x): self.x = x\n"
        "P = Point(1)\ndef f(x): return P.x, vars(P)",
        "user.P = user.Point(7); user.P.y = 3",
    ),
    "an object that its class keeps once": (
        "class Unit:\n    known = {}\n    def __new__(cls, name):\n"
        "        if name not in cls.known: cls.known[name] = object.__new__(cls)\n"
        "        return cls.known[name]\n    def __init__(self, name): self.name = name\n"
        "    def __getnewargs__(self): return (self.name,)\n"
        "TABLE = {}\ndef f(x): return TABLE.get('unit') is Unit('m')",
        "user.TABLE['unit'] = user.Unit('m')",
    ),
    "a class with a reduction in copyreg": (
        "import copyreg\nclass Connection:\n    def __init__(self, n):\n"
        "        self.n, self.lines = n, (line for line in ())\n"
        "copyreg.pickle(Connection, lambda value: (Connection, (value.n,)))\n"
        "CONNECTION = Connection(1)\ndef f(x): return CONNECTION.n",
        "user.CONNECTION = user.Connection(5)",
    ),
    "a name set to another object while a table holds the first": (
        "DEFAULTS = {'a': 1}\nPROFILES = {'base': DEFAULTS}\n"
        "def f(x): return PROFILES['base']['a'], DEFAULTS['a'], PROFILES['base'] is DEFAULTS",
        "user.DEFAULTS = {'a': 5}",
    ),
    "a name set to an equal object while a table holds the first": (
        "DEFAULTS = {'a': 1}\nPROFILES = {'base': DEFAULTS}\n"
        "def f(x): return PROFILES['base'] is DEFAULTS",
        "user.DEFAULTS = {'a': 1}",
    ),
    "a default of a static method": (
        "OPTIONS = {'n': 1}\nclass Job:\n    @staticmethod\n"
        "    def run(x, options=OPTIONS): return x * options['n']\n"
        "def f(x): return Job.run(x + 1)",
        "user.OPTIONS['n'] = 5",
    ),
    "a default of a class method": (
        "OPTIONS = {'n': 1}\nclass Job:\n    @classmethod\n"
        "    def run(cls, x, options=OPTIONS): return x * options['n']\n"
        "def f(x): return Job.run(x + 1)",
        "user.OPTIONS['n'] = 5",
    ),
    "a default of a cached function": (
        "import functools\nOPTIONS = {'n': 1}\n@functools.lru_cache\n"
        "def g(x, n=1): return x * n\ndef f(x): return g(x + 1)",
        "user.g.__wrapped__.__defaults__ = (5,); user.g.cache_clear()",
    ),
    "minus zero": ("ZERO = 0.0\ndef f(x): return str(ZERO)", "user.ZERO = -0.0"),
}


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Give a function that writes the user's module and imports all; they are gone afterwards."""
    site = tmp_path / "site-packages"
    own = tmp_path / "own"
    (site / "mypkg").mkdir(parents=True)
    own.mkdir()
    for name, text in PACKAGE.items():
        (site / "mypkg" / name).write_text(textwrap.dedent(text))
    (own / "other.py").write_text("N = 1\n")
    for folder in (site, own):
        monkeypatch.syspath_prepend(folder)

    def load(text):
        (own / "user.py").write_text(text)
        importlib.invalidate_caches()
        return {name: importlib.import_module(name) for name in ("user", "mypkg", "other")}

    yield load
    vars(builtins).pop("translate", None)
    for name in list(sys.modules):
        if name.partition(".")[0] in ("user", "mypkg", "other"):
            del sys.modules[name]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", programs.MOSTLY_FORKSERVER)
def test_a_value_set_at_run_time_counts(case, method, modules):
    """In fresh workers, in kept ones, and no more once it is put back."""
    text, change = CASES[case]
    found = modules(text)
    func = found["user"].f
    as_imported = [func(x) for x in range(4)]
    assert smart_map(func, range(4), n_jobs=2, mp_context=method) == as_imported
    exec(change, found)
    changed = [func(x) for x in range(4)]
    assert changed != as_imported
    assert smart_map(func, range(4), n_jobs=2, mp_context=method) == changed


@pytest.mark.parametrize("method", FRESH)
def test_a_module_with_a_standard_name_is_the_users(method, tmp_path):
    """Its file decides: a ``queue.py`` beside the script, and values set in it."""
    (tmp_path / "profile.py").write_text("N = 1\ndef scaled(x):\n    return x * N\n")
    source = f"""
import profile
from amorsize import smart_map
profile.N = 5
print(smart_map(profile.scaled, range(4), n_jobs=2, mp_context={method!r}))
print(smart_map(lambda x: x * profile.N, range(4), n_jobs=2, mp_context={method!r}))
"""
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "[0, 5, 10, 15]\n" * 2, ended.err


@pytest.mark.parametrize("method", FRESH)
def test_the_main_module_as_a_value(method, tmp_path):
    """``import __main__`` and ``sys.modules`` lead to the caller's globals."""
    source = f"""
import sys, __main__
from amorsize import smart_map
N = 1
def first(x):
    return x * __main__.N
def second(x):
    return x * getattr(sys.modules["__main__"], "n".upper()) + globals()["hel" + "per"](x)
def helper(x):
    return N
for N in (1, 5):
    for func in (first, second):
        got = smart_map(func, range(4), n_jobs=2, mp_context={method!r})
        print(got == list(map(func, range(4))))
"""
    ended = programs.run_source(source, tmp_path)
    assert ended.out == "True\n" * 4, ended.err


UNSENDABLE = """
import threading
LOG = open({path!r})
SCALE = 1
POOL = {{"count": 1, "file": LOG}}
def f(x):
    return x * POOL["count"]
"""


@pytest.mark.parametrize("how", ["n_jobs", "backend", "initializer"])
def test_state_that_cannot_be_sent_is_said_where_workers_were_asked_for(how, modules, tmp_path):
    """The call goes on with the worker's own, and the report names the variable."""
    (tmp_path / "log").write_text("text")
    func = modules(UNSENDABLE.format(path=str(tmp_path / "log")))["user"].f
    options = {"n_jobs": {"n_jobs": 2}, "backend": {"backend": "process"},
               "initializer": {"initializer": time.monotonic}}[how]  # fmt: skip
    reports = []
    got = smart_map(func, range(4), mp_context="spawn", report=reports.append, **options)
    assert got == [0, 1, 2, 3]
    assert [text for text in reports[0].warnings if "user.POOL (dict)" in text]
    func.__globals__["LOG"].close()


def test_state_that_cannot_be_sent_keeps_the_automatic_mode_in_the_caller(modules, tmp_path):
    """Results are the caller's, and the report says which variable it was."""
    (tmp_path / "log").write_text("text")
    text = UNSENDABLE + "import time\ndef g(x):\n    time.sleep(0.01)\n    return f(x)\n"
    found = modules(text.format(path=str(tmp_path / "log")))["user"]
    found.POOL["count"] = 5
    reports = []
    got = smart_map(found.g, range(100), mp_context="spawn", report=reports.append)
    assert got == [5 * x for x in range(100)]
    assert reports[0].backend == "serial"
    assert [text for text in reports[0].warnings if "user.POOL (dict)" in text]
    found.LOG.close()


def test_a_package_is_not_walked_through(modules):
    """A function over NumPy and pandas reaches few values of theirs, and no data."""
    pandas = pytest.importorskip("pandas")
    numpy = pytest.importorskip("numpy")

    def work(x):
        frame = pandas.DataFrame({"a": numpy.arange(x)})
        return numpy.linalg.norm(frame.groupby("a").sum().to_numpy())

    found = uses(work)
    assert found.whole
    assert len(found.values) < 2_000
    assert smart_map(work, [3, 4], n_jobs=2, mp_context="spawn") == [work(3), work(4)]


def test_a_function_that_needs_too_much_still_has_its_helpers(modules):
    """Code is looked through before data: 100,000 records hide no global."""
    text = "RECORDS = [{'a': [x]} for x in range(100_000)]\nSCALE = 1\n"
    text += "def f(x): return g(x) + len(RECORDS)\ndef g(x): return h(x)\n"
    text += "def h(x): return x * SCALE\n"
    found = modules(text)["user"]
    found.SCALE = 5
    found.RECORDS.append({})
    names = {name for owner, name, _ in uses(found.f).values if owner == "user"}
    assert {"RECORDS", "SCALE", "g", "h"} <= names


def test_errors_say_what_to_do():
    """A captured stream is named with the function that holds it."""
    with open(__file__) as log, pytest.raises(SerializationError) as caught:
        smart_map(lambda x: log.name, range(3), n_jobs=2, mp_context="spawn")
    assert "the captured variable 'log' of function" in str(caught.value)


IN_MAIN = {
    "names in the body of a class": """
SCALE = 5
def f(x):
    class Local:
        factor = SCALE
    return x * Local.factor
""",
    "what only the items reach": """
import user
user.N = 5
items = [user.Job(i) for i in range(4)]
def f(job):
    return job.run()
""",
    "one object under a name of main's and of a module's": """
import user
from user import STATE
def f(x):
    STATE["last"] = x
    return user.last(), STATE is user.STATE
""",
    "what is told by being it": """
import user
from user import UNSET
def f(x):
    return user.is_unset(UNSET), user.is_unset(x)
""",
    "a function that finds its globals in another way": """
SIZE = 5
def f(x):
    return x * f.__globals__["SIZE"]
""",
    "a class in a class": """
class Outer:
    class Inner(Exception):
        pass
def f(x):
    try:
        raise Outer.Inner(x)
    except Outer.Inner as error:
        return repr(type(error)), type(error).__qualname__
""",
}
USER = """
N = 1
class Job:
    def __init__(self, i): self.i = i
    def run(self): return self.i * N
STATE = {"last": None}
def last(): return STATE["last"]
UNSET = object()
def is_unset(x=UNSET): return x is UNSET
"""


@pytest.mark.parametrize("case", IN_MAIN)
@pytest.mark.parametrize("method", FRESH)
def test_functions_of_main_find_what_they_reach(tmp_path, case, method):
    """As in the caller, whatever way leads there; in new workers and in kept ones."""
    (tmp_path / "user.py").write_text(USER)
    source = (
        f"from amorsize import smart_map\nitems = range(4)\n{IN_MAIN[case]}\n"
        f"for _ in range(2):\n"
        f"    got = smart_map(f, items, n_jobs=2, mp_context={method!r}, chunksize=1)\n"
        f"    print(got == list(map(f, items)))\n"
    )
    ended = programs.run_source(source, tmp_path)
    assert ended.out.split() == ["True", "True"], ended.out + ended.err


EDITED = """
import sys, threading, time
from pathlib import Path
from amorsize import smart_map
import edited
new = ["import time", "def f(x):", "    time.sleep(0.004)", "    return 'new'"]
Path(edited.__file__).write_text("\\n".join(new))
got = smart_map(edited.f, range(150), mp_context=sys.argv[1])
print(got == list(range(150)))
"""


@pytest.mark.parametrize("method", FRESH)
def test_a_file_that_was_edited_since_its_import_does_not_count(tmp_path, method):
    """In the automatic mode: workers would import other code, so the caller runs the items."""
    (tmp_path / "edited.py").write_text(
        "import time\ndef f(x):\n    time.sleep(0.004)\n    return x\n"
    )
    path = tmp_path / "program.py"
    path.write_text(EDITED)
    ended = programs.run("-B", path, method)
    assert ended.out == "True\n", ended.out + ended.err


def test_a_lock_that_is_held_keeps_the_automatic_mode_in_the_caller(modules):
    """Fresh workers would have one that is free."""
    found = modules(
        "import threading, time\nLOCK = threading.Lock()\nheld = threading.Event()\n"
        "done = threading.Event()\ndef hold():\n    with LOCK:\n        held.set()\n"
        "        done.wait(60)\ndef f(x):\n    time.sleep(0.003)\n    return LOCK.locked()"
    )
    user = found["user"]
    thread = threading.Thread(target=user.hold)
    thread.start()
    user.held.wait(60)
    try:
        assert smart_map(user.f, range(100)) == [True] * 100
    finally:
        user.done.set()
        thread.join(60)


KEPT = """
TABLE = {"a": 1}
def direct(x):
    return TABLE["a"]
class Job:
    @staticmethod
    def run(x, table=TABLE):
        return table["a"]
def f(x):
    return Job.run(x)
"""


@pytest.mark.parametrize("method", FRESH)
def test_what_was_put_into_an_object_is_taken_out_before_the_next_call(method, modules):
    """A kept worker remembers nothing of a change that was undone, whatever leads there."""
    user = modules(KEPT)["user"]
    user.TABLE["a"] = 5
    assert smart_map(user.direct, range(4), n_jobs=2, mp_context=method) == [5] * 4
    user.TABLE["a"] = 1
    assert smart_map(user.f, range(4), n_jobs=2, mp_context=method) == [1] * 4


SHARED_LOCK = """
import threading
LOCK = threading.Lock()
class Guarded:
    def __init__(self):
        self.lock, self.n = LOCK, 1
A, B = Guarded(), Guarded()
def f(x):
    return A.n + B.n
"""


def test_a_lock_that_is_taken_now_and_then_never_fails_a_call(modules):
    """Between two looks at it another thread may have taken it."""
    user = modules(SHARED_LOCK)["user"]
    over = threading.Event()

    def take():
        while not over.is_set():
            with user.LOCK:
                pass

    thread = threading.Thread(target=take)
    thread.start()
    try:
        for _ in range(10):
            got = smart_map(user.f, range(8), n_jobs=2, mp_context="forkserver")
            assert got == [2] * 8
    finally:
        over.set()
        thread.join()
