"""Hints at class lists in which a comma or a dash is missing, which YAML reads as one name of two words."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from cutsew.config.yaml_file import PlainText, plain_items

VOC_AND_COCO = (
    "aeroplane airplane apple backpack banana bear bed bench bicycle bird boat book bottle bowl broccoli bus cake car "
    "carrot cat chair clock couch cow cup dog donut elephant fork frisbee giraffe handbag horse keyboard kite knife "
    "laptop microwave motorbike motorcycle mouse orange oven person pizza refrigerator remote sandwich scissors sheep "
    "sink skateboard skis snowboard sofa spoon suitcase surfboard tie toaster toilet toothbrush train truck tv "
    "umbrella vase zebra"
)
"""The classes of PASCAL VOC and COCO that are one word."""

LONG = 60
"""Characters of a name that an editor may have wrapped."""
SEPARATORS = (",", ";", " - ")


def class_list_hints(path: Path) -> list[str]:
    """Name the classes in a config file that are probably several names, one line each.

    A name draws a hint if it goes over two lines in a list of one name per line; if it holds a comma, a semicolon or
    ` - ` and less than half of the list does; or if it is made of classes of VOC and COCO and at most half of the list
    has several words. So `dining table`, `traffic light`, lists of synonyms and lists with wrapped lines draw none, nor
    does a name in quotes.
    """
    items = plain_items(path, "classes")
    return [
        f"{path}, line {item.line}: class {item.text!r} looks like {len(parts)} names: is a comma or a dash missing? "
        f"Write [{', '.join(parts)}], or put it in quotes if it is one name"
        for item, parts in _several(items)
    ]


def _several(items: Sequence[PlainText]) -> Iterator[tuple[PlainText, list[str]]]:
    separated = [item for item in items if any(mark in item.text for mark in SEPARATORS)]
    spaced = [item for item in items if " " in item.text]
    one_per_line = len({item.line for item in items}) == len(items)
    common = set(VOC_AND_COCO.split())
    for item in items:
        words = item.text.split()
        if item in separated and 2 * len(separated) < max(len(items), 3):
            text = item.text
            for mark in SEPARATORS:
                text = text.replace(mark, "\n")
            yield item, [part.strip() for part in text.split("\n") if part.strip()]
        elif (
            one_per_line
            and _folded(item)
            or len(words) > 1
            and common.issuperset(words)
            and 2 * len(spaced) <= len(items)
        ):
            yield item, words


def _folded(item: PlainText) -> bool:
    return item.lines > 1 and len(item.text) < LONG
