"""The table of labels: names are joined without loss, whatever they hold."""

from hypothesis import given
from hypothesis import strategies as st

from cutsew.storage.label_table import joined, names_in

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(bool)


@given(st.lists(NAMES, unique=True))
def test_joined_names_come_back(names):
    assert names_in(joined(names)) == names


def test_what_a_person_types_is_read():
    assert names_in(" cat ;dog;; cat; ") == ["cat", "dog"] and names_in("") == []
    assert joined(["cat", "dog"]) == "cat;dog" and joined(["a;b", "c\\"]) == "a\\;b;c\\\\"
