"""The project's prose: words of its early dialect do not come back."""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BANNED = re.compile(
    r"\b(anew|mend(?:s|ed|ing)?|surest|unlabelled|photos? is named|counts? as named|what is usual|usual for|"
    r"is at work on|given away|beside it stands|whole story|kept features?|goes on from|shall|told (?:are|is)|"
    r"(?:the same command|it) goes on|nothing twice|as it was made|is there and no|says? no \w+, as|going on with|"
    r"most maps|least seconds|what can go wrong|lost to alpha|floor and ceiling|made from one another|say together|"
    r"looks? at (?:four )?tiles|asks? (?:it|the teacher) again|seem absent|one photo's|nor ever|"
    r"lay \w+ corrections over|cleared away|narrowing)\b",
    re.IGNORECASE,
)
"""Recomputed, fix, most confident, unlabeled, decision threshold, mean and standard deviation, cached features, ..."""

FILES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "config/**/*.md", "config/**/*.yaml", "workflow/**/*.smk", "src/**/*.py")
    for path in ROOT.glob(pattern)
    if path.is_file()
)


def prose(path):
    """Give the lines of a file that people read: of Python, comments and strings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT):
            yield from enumerate(token.string.splitlines(), token.start[0])


def test_every_kind_of_file_is_searched():
    assert {path.suffix for path in FILES} == {".md", ".yaml", ".smk", ".py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_banned_word(path):
    for number, line in prose(path):
        words = {match[0].lower() for match in BANNED.finditer(line)}
        assert not words, f"{path.relative_to(ROOT)}, line {number}: {', '.join(sorted(words))}: {line.strip()}"
