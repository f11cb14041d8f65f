"""``register_joblib``: makes amorsize known to joblib."""

from __future__ import annotations

__all__ = ["register_joblib"]


def register_joblib() -> None:
    """Make ``joblib.parallel_config(backend="amorsize")`` work.

    Whatever uses joblib, such as scikit-learn's ``n_jobs``, then runs in workers of amorsize. It
    may be called several times.

    Raises:
        ImportError: joblib is not installed; it is the extra ``amorsize[joblib]``.

    >>> import joblib
    >>> register_joblib()
    >>> with joblib.parallel_config(backend="amorsize", n_jobs=2):
    ...     joblib.Parallel()(joblib.delayed(pow)(x, 2) for x in range(4))
    [0, 1, 4, 9]
    """
    try:
        from joblib import register_parallel_backend
    except ImportError as error:
        raise ImportError(
            "register_joblib needs joblib: pip install 'amorsize[joblib]'", name="joblib"
        ) from error
    from .joblib_backend import AmorsizeBackend

    register_parallel_backend("amorsize", AmorsizeBackend)
