"""Vision-language models that name what a photo shows."""

from typing import TYPE_CHECKING

from cutsew.config.teacher import Teacher as Settings

if TYPE_CHECKING:  # scores that were made elsewhere need no torch
    from cutsew.teachers.base import Teacher as Teacher


def build(teacher: Settings, device: str) -> "Teacher":
    """Build the teacher that is set.

    Args:
        teacher: of kind open_clip or conse; kind scores has no model.
        device: cpu or cuda.

    Raises:
        UserError: a model or its weights cannot be had.

    """
    if teacher.kind == "open_clip":
        from cutsew.teachers.open_clip import OpenClipTeacher  # noqa: PLC0415

        return OpenClipTeacher(teacher, device)
    if teacher.kind == "conse":
        from cutsew.teachers.conse import ConseTeacher  # noqa: PLC0415

        return ConseTeacher(teacher, device)
    raise ValueError(f"a teacher of kind {teacher.kind} has no model")
