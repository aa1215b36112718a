"""The columns of labels.csv and labels.parquet, a row per image.

Columns: id; path; split (train or test); stage, whose labels they are; labels, a human's corrections applied;
model_labels, the stage's own; by_human, the classes that a human set or crossed out; and `p_<class>`, the stage's
probability of each class in [0, 1] (not in a CSV of more than 1,000 classes). The stage of training images starts from
the corrections, so its labels and probabilities contain them. LISTS are lists of class names in Parquet, and joined by
`;` in CSV.
"""

import re
from collections.abc import Iterable

LABELS, MODEL_LABELS, BY_HUMAN = "labels", "model_labels", "by_human"
LISTS = (LABELS, MODEL_LABELS, BY_HUMAN)
COLUMNS = ("id", "path", "split", "stage", *LISTS)
SEPARATOR = ";"


def joined(names: Iterable[str]) -> str:
    r"""Join names by `;`; a `;` or `\` in a name is written with a `\` before it."""
    return SEPARATOR.join(re.sub(r"([\\;])", r"\\\1", name) for name in names)


def names_in(text: str) -> list[str]:
    """Take apart what `joined` wrote, or a person; spaces around names are dropped, and each name is given once."""
    parts = re.findall(r"(?:\\.|[^\\;]|\\$)+", text, flags=re.DOTALL)
    names = (re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL).strip() for part in parts)
    return list(dict.fromkeys(filter(None, names)))
