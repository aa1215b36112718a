"""Reading YAML that a person wrote: plain values only, nothing said twice, nothing that swells when it is read."""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

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
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} stands twice", key.start_mark)
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
        raise UserError(f"{path}: not YAML (nested too deeply); mend it") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date of month 13
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())}); mend it") from None


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

    Raises:
        yaml.YAMLError: not YAML; `read_yaml` words it.

    """
    with path.open(encoding="utf-8-sig") as stream:
        root = yaml.compose(stream, Loader=_Loader)
    if not isinstance(root, MappingNode):
        return []
    found = [value for name, value in root.value if getattr(name, "value", None) == key]
    nodes = [node for value in found if isinstance(value, SequenceNode) for node in value.value]
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
