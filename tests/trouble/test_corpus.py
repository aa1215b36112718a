"""Every input of the corpus ends as documented: one line that names the culprit, a listed skip, or a stated effect."""

import pytest

from trouble.case import complaints
from trouble.corpus import CASES

FEWEST = 200


def test_the_corpus_is_large_and_names_each_case_once():
    names = [(case.kind, case.name) for case in CASES]
    assert len(set(names)) == len(names) >= FEWEST


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=[f"{case.kind}: {ascii(case.name)}" for case in CASES])
def test_ends_as_documented(case, tmp_path):
    assert complaints(case, tmp_path) == []
