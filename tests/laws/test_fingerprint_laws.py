"""Laws of the fingerprint over generated functions and captured values."""

from hypothesis import given, settings
from hypothesis import strategies as st

from amorsize.identity.fingerprint import fingerprint

atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=10)
    | st.binary(max_size=10)
)
values = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.frozensets(atoms, max_size=4)
    ),
    max_leaves=12,
)


def over(value):
    """Return a function that captures a value."""
    return lambda x: (x, value)


def typed(value):
    """Return a value as text that tells types and order apart, but not the order of sets."""
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}[{','.join(map(typed, value))}]"
    if isinstance(value, dict):
        return f"dict[{','.join(f'{typed(k)}:{typed(v)}' for k, v in value.items())}]"
    if isinstance(value, frozenset):
        return f"set[{','.join(sorted(map(typed, value)))}]"
    return f"{type(value).__name__}({value!r})"


@settings(max_examples=300, deadline=None)
@given(values, values)
def test_captured_values_have_equal_fingerprints_exactly_when_they_are_alike(first, second):
    """Same types and content, same fingerprint; any difference, another one."""
    same = fingerprint(over(first)).digest == fingerprint(over(second)).digest
    assert same == (typed(first) == typed(second))


@settings(max_examples=200, deadline=None)
@given(values)
def test_a_fingerprint_is_repeatable_and_stable(value):
    """The same value gives the same fingerprint again, and it is good across processes."""
    assert fingerprint(over(value)) == fingerprint(over(value))
    assert fingerprint(over(value)).stable


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**6), 10**6), st.sampled_from("+-*"), st.integers(0, 3), st.booleans())
def test_generated_functions_differ_by_source(constant, operator, default, keyword):
    """Functions made of different parts differ, equal ones do not."""
    star = "*, " if keyword else ""

    def make(c, o, d):
        return eval(f"lambda x, {star}k={d}: x {o} ({c}) + k")

    base = fingerprint(make(constant, operator, default)).digest
    assert fingerprint(make(constant, operator, default)).digest == base
    assert fingerprint(make(constant + 1, operator, default)).digest != base
    assert fingerprint(make(constant, operator, default + 1)).digest != base
    others = [o for o in "+-*" if o != operator]
    assert all(fingerprint(make(constant, o, default)).digest != base for o in others)
