"""Layout of maps.zarr: where teacher and student see classes, and what they make of a sample of photos."""

from cutsew.artefacts.layout import Spec


def map_specs(
    teacher: tuple[int, ...], student: tuple[int, ...], before: tuple[int, int], after: int
) -> dict[str, Spec]:
    """Describe maps.zarr, each array in one chunk.

    Args:
        teacher: (n, g, g), its class activation maps of n (photo, class) pairs; coordinates image and class.
        student: (n, h, w), likewise.
        before: (m, D), the teacher's embeddings of m photos; coordinate sample.
        after: W, width of the student's features of the same photos.

    """
    shapes = {
        "teacher": (teacher, ("pair", "teacher_row", "teacher_column")),
        "student": (student, ("pair", "student_row", "student_column")),
        "before": (before, ("sample", "embedding")),
        "after": ((before[0], after), ("sample", "feature")),
    }
    return {
        name: Spec(
            shape, "float16", dims, shape, attributes={"coordinates": "image class"} if dims[0] == "pair" else {}
        )
        for name, (shape, dims) in shapes.items()
    }
