"""amorsize: the result of ``list(map(func, data))``, as fast as the best hand-tuned pool.

>>> from amorsize import smart_map
>>> smart_map(abs, [-1, 2, -3])
[1, 2, 3]
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .call.latest import last_run
    from .decorator import ParallelFunction, parallelize
    from .errors import AmorsizeError, SerializationError, TaskTimeoutError, WorkerLostError
    from .executor import SmartExecutor
    from .memory.manage import (
        CacheStats,
        cache_stats,
        check_cache,
        clear_cache,
        export_cache,
        get_cache_dir,
        import_cache,
        prune_expired_cache,
    )
    from .optimizer import OptimizationResult, optimize
    from .pool import Pool
    from .register import register_joblib
    from .run.surroundings import carry_state
    from .show.report import RunReport
    from .typed.awaited import smart_imap_async, smart_map_async
    from .typed.eager import smart_map, smart_starmap
    from .typed.lazy import smart_imap, smart_imap_unordered

__version__ = "0.1.0"

__all__ = [
    "AmorsizeError",
    "CacheStats",
    "OptimizationResult",
    "ParallelFunction",
    "Pool",
    "RunReport",
    "SerializationError",
    "SmartExecutor",
    "TaskTimeoutError",
    "WorkerLostError",
    "cache_stats",
    "carry_state",
    "check_cache",
    "clear_cache",
    "export_cache",
    "get_cache_dir",
    "import_cache",
    "last_run",
    "optimize",
    "parallelize",
    "prune_expired_cache",
    "register_joblib",
    "smart_imap",
    "smart_imap_async",
    "smart_imap_unordered",
    "smart_map",
    "smart_map_async",
    "smart_starmap",
]

# The module of each name. It is loaded when the name is first used, so that an import is cheap.
_HOMES = {
    "AmorsizeError": "errors",
    "CacheStats": "memory.manage",
    "OptimizationResult": "optimizer",
    "ParallelFunction": "decorator",
    "Pool": "pool",
    "RunReport": "show.report",
    "SerializationError": "errors",
    "SmartExecutor": "executor",
    "TaskTimeoutError": "errors",
    "WorkerLostError": "errors",
    "cache_stats": "memory.manage",
    "carry_state": "run.surroundings",
    "check_cache": "memory.manage",
    "clear_cache": "memory.manage",
    "export_cache": "memory.manage",
    "get_cache_dir": "memory.manage",
    "import_cache": "memory.manage",
    "last_run": "call.latest",
    "optimize": "optimizer",
    "parallelize": "decorator",
    "prune_expired_cache": "memory.manage",
    "register_joblib": "register",
    "smart_imap": "api",
    "smart_imap_async": "asynchronous",
    "smart_imap_unordered": "api",
    "smart_map": "api",
    "smart_map_async": "asynchronous",
    "smart_starmap": "api",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'amorsize' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"amorsize.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
