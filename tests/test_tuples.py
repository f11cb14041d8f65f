"""Named tuples made quickly are those of ``typing`` in all that is used of them."""

from __future__ import annotations

import copy
import inspect
import pickle
import typing

import pytest

from amorsize.tuples import NamedTuple


class Quick(NamedTuple):
    """Has a doc."""

    first: int
    make: str = "made"  # names that mean something where classes are made
    cls: tuple[()] = ()

    def doubled(self) -> int:
        """Return twice the first."""
        return 2 * self.first


class Usual(typing.NamedTuple):
    """Has a doc."""

    first: int
    make: str = "made"
    cls: tuple[()] = ()


class Below(Quick):
    """A class below one."""


@pytest.mark.parametrize("kind", [Quick, Below])
def test_fields_defaults_and_methods_are_as_of_a_usual_named_tuple(kind):
    one, usual = kind(1, make="x"), Usual(1, make="x")
    assert one == usual == (1, "x", ())
    assert (one.first, one.make, one.cls, one.doubled()) == (1, "x", (), 2)
    assert repr(one) == repr(usual).replace("Usual", kind.__name__)
    assert one._asdict() == usual._asdict()
    assert (kind._fields, kind._field_defaults) == (Usual._fields, Usual._field_defaults)
    assert one._replace(cls=3) == usual._replace(cls=3)
    assert type(one._replace(cls=3)) is type(kind._make([1, 2, 3])) is kind
    assert kind.__match_args__ == Usual.__match_args__
    assert typing.get_type_hints(Quick) == typing.get_type_hints(Usual)
    assert pickle.loads(pickle.dumps(one)) == one
    assert type(pickle.loads(pickle.dumps(one))) is kind


def test_its_signature_and_doc_are_what_help_shows():
    assert (
        str(inspect.signature(Quick))
        == "(first: 'int', make: 'str' = 'made', cls: 'tuple[()]' = ())"
    )
    assert Quick.__doc__ == "Has a doc."
    assert (Quick.__module__, Quick.__qualname__) == (__name__, "Quick")


@pytest.mark.parametrize(
    "wrong",
    [
        Quick,
        lambda: Quick(1, 2, 3, 4),
        lambda: Quick(1, second=2),
        lambda: Quick(1)._replace(second=2),
        lambda: Quick._make([1, 2, 3, 4]),
    ],
)
def test_wrong_fields_are_refused(wrong):
    with pytest.raises(TypeError):
        wrong()


def test_no_field_can_be_set_and_none_added():
    for name in ("first", "other"):
        with pytest.raises(AttributeError):
            setattr(Quick(1), name, 2)


@pytest.mark.skipif(not hasattr(copy, "replace"), reason="from Python 3.13 on")
def test_copy_replace_makes_another():
    assert copy.replace(Quick(1), first=2) == Quick(2)


def test_wrong_arguments_are_told_with_the_name_of_the_class():
    with pytest.raises(TypeError, match=r"Quick\.__new__\(\) missing 1 required"):
        Quick()


class Own(Quick):
    """A class below one that is made of something else."""

    def __new__(cls, text):
        return super().__new__(cls, len(text))


def test_a_class_below_one_may_be_made_in_a_way_of_its_own():
    assert Own("abc")._replace(make="x") == (3, "x", ())
    assert type(Own._make([1, 2, 3])) is Own
