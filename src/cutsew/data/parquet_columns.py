"""Which columns of a Parquet file hold its images and their ids, and the ids as text."""

from collections.abc import Sequence
from typing import Any

from cutsew.errors import UserError, some

IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "img", "bytes")
"""Columns that hold the images where several hold bytes."""


def image_column(schema: Any, chosen: str | None, container: str) -> tuple[str, bool]:  # noqa: ANN401 - pyarrow's
    """Return the column of the images, and whether it is a struct of `bytes` and `path`.

    Args:
        schema: pyarrow's.
        chosen: `dataset.image`.
        container: path or URL of the file, for messages.

    Raises:
        UserError: there is none, or there are several and none is chosen.

    """
    import pyarrow as pa  # noqa: PLC0415  # only this kind needs it

    nested = {
        field.name
        for field in schema
        if pa.types.is_struct(field.type)
        and field.type.get_field_index("bytes") >= 0
        and _is_bytes(field.type["bytes"].type)
    }
    known = [field.name for field in schema if field.name in nested or _is_bytes(field.type)]
    if chosen is None:
        chosen = known[0] if len(known) == 1 else next((name for name in IMAGE_COLUMNS if name in known), None)
    if chosen is None or chosen not in known:
        what = "a column of bytes, or of a struct of bytes and path"
        columns = some([f"{field.name} ({str(field.type).partition('<')[0]})" for field in schema], 20)
        cure = f"name {some(known, 20)}" if known else "write the file again with one"
        raise UserError(f"dataset.image: has to be {what}; {container} has the columns {columns}; {cure}")
    return chosen, chosen in nested


def _is_bytes(kind: Any) -> bool:  # noqa: ANN401 - pyarrow's
    import pyarrow as pa  # noqa: PLC0415  # as above

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def id_column(schema: Any, chosen: str | None, image: str, container: str, *, nested: bool) -> str | None:  # noqa: ANN401
    """Return the column of the ids: the chosen one, img2dataset's `key`, or the path next to the bytes.

    Args:
        schema: pyarrow's.
        chosen: `dataset.id`.
        image: the column of the images.
        container: path or URL of the file, for messages.
        nested: whether `image` is a struct.

    Raises:
        UserError: the chosen column is not there.

    """
    if chosen is not None:
        if chosen not in schema.names:
            raise UserError(f"dataset.id: {container} has no column {chosen}; its columns are {some(schema.names, 20)}")
        return chosen
    if "key" in schema.names:
        return "key"
    return f"{image}.path" if nested and schema.field(image).type.get_field_index("path") >= 0 else None


def texts_of(values: Sequence[Any], column: str | None, container: str) -> list[str]:
    """Return ids as text; missing and empty ones are left out.

    Args:
        values: the column's, or structs of `path`.
        column: its name, for messages.
        container: path or URL of the file, for messages.

    Raises:
        UserError: they are neither text nor numbers, or hold NUL.

    """
    values = [value.get("path") if isinstance(value, dict) else value for value in values]
    given = [value for value in values if value not in (None, "", b"")]
    if any(isinstance(value, list | tuple) for value in given):
        raise UserError(f"dataset.id: column {column} of {container} holds lists; name one of text or numbers")
    try:
        texts = [value.decode() if isinstance(value, bytes) else str(value) for value in given]
    except UnicodeDecodeError:
        raise UserError(f"dataset.id: column {column} of {container} is not UTF-8; name one of text") from None
    if any("\0" in text for text in texts):
        raise UserError(
            f"dataset.id: column {column} of {container} holds NUL characters, which no CSV can; name another"
        )
    return texts
