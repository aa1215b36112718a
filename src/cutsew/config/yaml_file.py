"""Reading YAML that a person wrote: plain values only, no key twice, no aliases that multiply when they are read.

Also hints at class lists that lack a comma or a dash, which YAML reads as one name of two words.
"""

import json
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError

from cutsew.errors import UserError

MOST = 100_000
"""Values in a file, each alias counted with all that it stands for."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also refuses a key that stands twice: of two it would silently take the last."""

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = key.value if isinstance(key.value, str) else None
            if name in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} appears twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path, what: str = "a YAML file") -> Any:  # noqa: ANN401  # whatever stands in it
    """Read a YAML file.

    Args:
        path: the file, UTF-8.
        what: what the file should be, for the message.

    Raises:
        UserError: it cannot be read, is not YAML, holds tags of objects, says a key twice, or has aliases that hold
            themselves or stand for more than MOST values.

    """
    try:
        with path.open(encoding="utf-8-sig") as stream:
            loader = _Loader(stream)
            try:
                node = loader.get_single_node()
                _size(node, {}, set())
                return None if node is None else loader.construct_document(node)
            finally:
                loader.dispose()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name {what}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except RecursionError:
        raise UserError(f"{path}: not YAML (nested too deeply); fix this and rerun") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date of month 13
        line, reason = _explained(error, path)
        raise UserError(f"{path}{line}: not YAML ({reason}); fix this and rerun") from None


def read_config(path: Path) -> dict[str, Any]:
    """Read a config file, YAML or JSON, as Snakemake does, but refuse in one line what is wrong with it.

    Raises:
        UserError: as `read_yaml`, or it holds no settings by name.

    """
    raw = _read_json(path) or read_yaml(path, "a config file")
    if not isinstance(raw, dict):
        holds = "nothing" if raw is None else f"a {'list' if isinstance(raw, list) else 'single value'}"
        raise UserError(f"{path}: holds {holds}, not settings by name (classes: [...] and so on); name a config file")
    return raw


def _read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object, which YAML does not quite include (tabs); None where the file is none, or damaged."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if not text.lstrip().startswith("{"):
            return None
        content = json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, path))
    except json.JSONDecodeError as error:
        if path.suffix.lower() != ".json":
            return None
        raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg}); fix this and rerun") from None
    except (OSError, ValueError, RecursionError):  # read as YAML, which says what is wrong
        return None
    return content if isinstance(content, dict) else None


def _once(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise UserError(f"{path}: not JSON (the key {name!r} appears twice); fix this and rerun")
    return dict(pairs)


def _explained(error: Exception, path: Path) -> tuple[str, str]:
    """Return where an error of PyYAML is (`, line 3`, or nothing) and what it says."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        reason = error.problem or error.context or "damaged"
        line = f", line {mark.line + 1}" if mark is not None else ""
        if "'\\t'" in reason:
            reason += "; indent with spaces"
        return line, " ".join(reason.split())
    if isinstance(error, ReaderError):
        before = path.read_bytes().decode("utf-8-sig", errors="replace")[: error.position]
        return f", line {before.count(chr(10)) + 1}", str(error).splitlines()[0]
    return "", " ".join(str(error).split())


@dataclass(frozen=True)
class PlainText:
    """An item of a list in a YAML file, written without quotes.

    Attributes:
        text: as YAML reads it.
        line: where it starts, from 1.
        lines: over how many lines it goes.

    """

    text: str
    line: int
    lines: int


def plain_items(path: Path, key: str) -> list[PlainText]:
    """Read the items without quotes of the list below a top-level key, with their lines; none where there is no list.

    None either where the file is not YAML, such as JSON with tabs: `read_config` says what is wrong.
    """
    try:
        with path.open(encoding="utf-8-sig") as stream:
            root = yaml.compose(stream, Loader=_Loader)
    except yaml.YAMLError:
        return []
    if not isinstance(root, MappingNode):
        return []
    values = [value for name, value in root.value if getattr(name, "value", None) == key]
    nodes = [node for value in values if isinstance(value, SequenceNode) for node in value.value]
    return [
        PlainText(node.value, node.start_mark.line + 1, node.end_mark.line - node.start_mark.line + 1)
        for node in nodes
        if isinstance(node, ScalarNode) and node.style is None
    ]


def _size(node: Node | None, known: dict[int, int], above: set[int]) -> int:
    """Count a node's values, with those that its aliases stand for.

    Args:
        node: to count.
        known: counts by a node's identity.
        above: the nodes that hold this one.

    """
    if id(node) in known:
        return known[id(node)]
    if id(node) in above:
        raise yaml.YAMLError("an alias stands within what it names")
    children: list[Node] = []
    if isinstance(node, SequenceNode):
        children = node.value
    elif isinstance(node, MappingNode):
        children = [part for pair in node.value for part in pair]
    above.add(id(node))
    total = 1 + sum(_size(child, known, above) for child in children)
    above.discard(id(node))
    if total > MOST:
        raise yaml.YAMLError(f"its aliases stand for more than {MOST:,} values")
    known[id(node)] = total
    return total


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
