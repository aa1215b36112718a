"""Items made ahead come in order; a failure comes in its turn; nothing is made on after the end."""

import threading

import pytest

from cutsew.training.ahead import DEPTH, ahead


def test_order_and_thread():
    made_by = set()

    def items():
        for number in range(7):
            made_by.add(threading.get_ident())
            yield number

    assert list(ahead(items())) == list(range(7))
    assert len(made_by) == 1 and threading.get_ident() not in made_by


def test_a_failure_comes_after_what_was_made_before_it():
    def items():
        yield 1
        raise ValueError("bad photo")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="bad photo"):
        next(found)


def test_nothing_is_made_once_nobody_asks():
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    found = ahead(items())
    next(found)
    found.close()
    count = len(made)
    assert count <= 1 + DEPTH
    assert threading.active_count() == 1 or len(made) == count


def test_none_at_all():
    assert list(ahead(iter(()))) == []
