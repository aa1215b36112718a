"""Settings: every one of the schema with values that it cannot have, and the tricks of YAML."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cutsew.config import load
from cutsew.config.sweep import read_sweep, sweep_files, variants_of
from cutsew.config.yaml_file import read_config, read_yaml
from cutsew.pipeline.config_docs import schema
from cutsew.pipeline.preflight import validate_inputs
from cutsew.pipeline.snakemake_call import config_files, refuse_swallowed_targets
from cutsew.stages.options import _parse
from trouble.case import ACCEPTED, REFUSED, Case

BASE = {"classes": ["cat", "dog", "bus"]}
ELSEWHERE = {"dataset.download.archives": "dataset.download.archives", "runs": "runs"}


def leaves(node: dict, whole: dict, prefix: str = "", kinds: tuple[str, ...] = ()) -> Iterator[tuple[str, dict, tuple]]:
    """Give each setting's dotted name, its schema, and the settings of kinds (name=value) without which it is idle."""
    for key, field in node["properties"].items():
        if "discriminator" not in field:
            yield from below(field, whole, f"{prefix}{key}", kinds)
            continue
        tag, seen = field["discriminator"]["propertyName"], set()
        for kind in field["anyOf"]:
            value = whole["$defs"][kind["$ref"].rpartition("/")[2]]["properties"][tag]
            value = value["const"] if "const" in value else value["enum"][0]
            for leaf in below(kind, whole, f"{prefix}{key}", (*kinds, f"{prefix}{key}.{tag}={value}")):
                if leaf[0] != f"{prefix}{key}.{tag}" and leaf[0] not in seen:
                    seen.add(leaf[0])
                    yield leaf


def below(field: dict, whole: dict, name: str, kinds: tuple[str, ...]) -> Iterator[tuple[str, dict, tuple]]:
    target = whole["$defs"][field["$ref"].rpartition("/")[2]] if "$ref" in field else field
    if "properties" in target:
        yield from leaves(target, whole, f"{name}.", kinds)
    else:
        yield name, target, kinds


def kinds(field: dict) -> list[dict]:
    return field.get("anyOf", [field])


def wrong_values(field: dict) -> Iterator[tuple[str, Any]]:
    """Give values that a setting of this schema cannot have."""
    options = kinds(field)
    types = {option.get("type") for option in options}
    choice = any("enum" in option or "const" in option for option in options)
    if "string" not in types or choice:
        yield "a word", "no such thing"
    if "string" not in types or choice:
        yield "an empty word", ""
    if "array" not in types:
        yield "a list", [1, 2]
        yield "a list within itself", [[[]]]
    if "object" not in types:
        yield "a mapping", {"a": 1}
    if "null" not in types:
        yield "nothing", None
    if not types & {"integer", "number"}:
        yield "a number", 12345
    if "boolean" not in types and not any("off" in option.get("enum", ()) for option in options):  # YAML's off is false
        yield "yes", True
    for option in options:
        yield from out_of_range(option)


def out_of_range(option: dict) -> Iterator[tuple[str, Any]]:
    if option.get("type") in ("number", "integer"):
        yield "not a number", math.nan
        yield "infinity", math.inf
        yield "minus infinity", -math.inf
    if option.get("type") == "integer":
        yield "half", 1.5
    for bound, sign in (("minimum", -1), ("exclusiveMinimum", 0), ("maximum", 1), ("exclusiveMaximum", 0)):
        if bound in option:
            yield f"{bound} passed", option[bound] + sign
            yield (
                f"{bound} passed by far",
                option[bound] + (sign or (-1 if "M" in bound and "inimum" in bound else 1)) * 10**9,
            )


def nested(dotted: str, value: Any) -> dict:
    *groups, key = dotted.split(".")
    result: dict = {key: value}
    for group in reversed(groups):
        result = {group: result}
    return result


def merged(first: dict, second: dict) -> dict:
    both = {
        key: merged(first[key], value) if isinstance(value, dict) and isinstance(first.get(key), dict) else value
        for key, value in second.items()
    }
    return first | both


def _kinds(kinds: tuple[str, ...]) -> dict:
    result: dict = {}
    for setting in kinds:
        name, _, value = setting.partition("=")
        result = merged(result, nested(name, value))
        if name == "dataset.kind" and value not in ("demo", "ids"):  # the others need one
            result["dataset"]["root"] = "images"
    return result


def of_settings() -> Iterator[Case]:
    whole = schema()
    for dotted, field, kinds in leaves(whole, whole):
        for what, value in wrong_values(field):

            def act(_: Path, dotted=dotted, value=value, kinds=kinds) -> str:
                load(merged(BASE | _kinds(kinds), nested(dotted, value)))
                return f"{value!r} is taken"

            says = rf"^{dotted.replace('.', '[.]')}\b"
            yield Case("configs", f"{dotted} is {what}", REFUSED, says, act)
    sections = {dotted.rpartition(".")[0]: kinds for dotted, _, kinds in reversed(list(leaves(whole, whole)))}
    for section, kinds in sorted(sections.items()):
        for key in ("nonsense", "__class__", "a.b"):

            def unknown(_: Path, section=section, key=key, kinds=kinds) -> str:
                load(merged(BASE | _kinds(kinds), _at(section, {key: 1})))
                return "taken"

            where = f"{section}.{key}" if section else key
            yield Case(
                "configs", f"unknown key {where}", REFUSED, rf"^{where.replace('.', '[.]')}: unknown setting", unknown
            )
        if section:

            def no_section(_: Path, section=section, kinds=kinds) -> str:
                load(merged(BASE | _kinds(kinds), nested(section, 5)))
                return "taken"

            yield Case("configs", f"{section} is a number", REFUSED, rf"^{section.replace('.', '[.]')}\b", no_section)


def _at(section: str, values: dict) -> dict:
    return nested(section, values) if section else values


LAUGHS = "a0: &a0 [ha, ha]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
YAML = [
    ("missing", None, r"c\.yaml: cannot be read"),
    ("a tab", b"classes:\n\t- cat\n", r"c\.yaml, line 2: not YAML .*indent with spaces"),
    ("a bracket that is not closed", b"classes: [cat, dog\n", r"c\.yaml, line \d+: not YAML"),
    ("not UTF-8", b"classes: [caf\xe9, dog]\n", r"c\.yaml: not UTF-8"),
    ("UTF-16", "classes: [cat, dog]".encode("utf-16"), r"c\.yaml: not UTF-8"),
    ("NUL bytes", b"classes: [cat, dog\0]\n", r"c\.yaml, line \d+: not YAML"),
    ("binary", bytes(range(256)), r"c\.yaml.*: not"),
    (
        "a key twice",
        b"classes: [cat, dog]\nfuse: {alpha: 0.1}\nfuse: {alpha: 0.5}\n",
        r"c\.yaml.*: .*'fuse' appears twice",
    ),
    ("a key twice within a section", b"fuse: {alpha: 0.1, alpha: 0.5}\n", r"c\.yaml.*: .*'alpha' appears twice"),
    ("two documents", b"classes: [cat, dog]\n---\nclasses: [a, b]\n", r"c\.yaml, line \d+: not YAML"),
    ("a billion laughs", LAUGHS.encode(), r"c\.yaml.*: .*stand for more than 100,000 values"),
    ("an alias within itself", b"a: &a [*a]\n", r"c\.yaml.*: .*stands within what it names"),
    ("an alias of nothing", b"a: *a\n", r"c\.yaml, line \d+: not YAML"),
    ("nested 20,000 deep", b"a: " + b"[" * 20_000, r"c\.yaml: not YAML \(nested too deeply\)"),
    (
        "a tag that calls a function",
        b"a: !!python/object/apply:os.system ['touch x']\n",
        r"c\.yaml, line \d+: not YAML",
    ),
    (
        "a tag that makes an object",
        b"a: !!python/object/new:subprocess.Popen [[touch, x]]\n",
        r"c\.yaml, line \d+: not YAML",
    ),
    ("a tag that names a module", b"a: !!python/module:os\n", r"c\.yaml, line \d+: not YAML"),
    ("a tag of one's own", b"a: !include /etc/passwd\n", r"c\.yaml, line \d+: not YAML"),
    ("a list as a key", b"? [a, b]\n: 1\n", r"c\.yaml, line \d+: not YAML"),
    ("a date of month 13", b"a: 2020-13-01\n", r"c\.yaml: not YAML"),
    ("a merge of a number", b"fuse:\n  <<: 5\n", r"c\.yaml, line \d+: not YAML"),
    ("a control character", b"a: \x07\n", r"c\.yaml, line \d+: not YAML"),
]
CONTENT = [
    ("empty", b"", REFUSED, r"c\.yaml: holds nothing, not settings"),
    ("nothing but comments", b"# classes: [a, b]\n", REFUSED, r"c\.yaml: holds nothing, not settings"),
    ("a list", b"[cat, dog]\n", REFUSED, r"c\.yaml: holds a list, not settings"),
    ("a word", b"cat\n", REFUSED, r"c\.yaml: holds a single value, not settings"),
    (
        "classes that are yes and no",
        b"classes: [yes, no]\n",
        REFUSED,
        r"^classes\.0: .*, not True; put quotes around it",
    ),
    (
        "classes that are numbers",
        b"classes: [2007, 2012]\n",
        REFUSED,
        r"^classes\.0: .*, not 2007; put quotes around it",
    ),
    ("a class that is null", b"classes: [cat, null]\n", REFUSED, r"^classes\.1: .*valid string; put quotes around it"),
    ("a class that is a date", b"classes: [cat, 2020-01-01]\n", REFUSED, r"^classes\.1: .*; put quotes around it"),
    ("classes in quotes", b"classes: ['no', '1', '2020-01-01', '=1+1', 'a, b', 'a/b']\n", ACCEPTED, "fuse.alpha"),
    (
        "classes named like columns",
        b"classes: [id, path, image, class, split, map, all, labels]\n",
        ACCEPTED,
        "fuse.alpha",
    ),
    ("a very long class", b"classes: [cat, " + b"dog " * 500 + b"]\n", ACCEPTED, "fuse.alpha"),
    ("half an emoji", b'classes: [cat, "\\uD83D"]\n', REFUSED, r"^classes: '.+' contains a character that text"),
    ("an escaped NUL", b'classes: [cat, "\\0"]\n', REFUSED, r"^classes: '.+' contains a character that text"),
    (
        "half an emoji as a key",
        b'classes: [cat]\nprompts: {names: {"\\uD83D": [a]}}\n',
        REFUSED,
        r"^prompts\.names: '.+' contains a character that text",
    ),
    (
        "half an emoji in a run",
        b'classes: [cat, dog]\nruns: {a: {prompts.background: ["\\uDC15"]}}\n',
        REFUSED,
        r"^runs\.a\.prompts\.background: '.+' contains a character that text",
    ),
    ("an emoji", "classes: [cat, \U0001f415]\n".encode(), ACCEPTED, "fuse.alpha"),
    (
        "one class composed and decomposed",
        "classes: ['\u00e9', 'e\u0301']\n".encode(),
        REFUSED,
        r"^classes: names '.' and '.+', which differ only in spaces or accents; keep one",
    ),
    ("one class with spaces", b"classes: [cat, 'cat ']\n", REFUSED, "^classes: names 'cat' and 'cat ', which differ"),
    (
        "one class in two cases",
        b"classes: [Turkey, turkey]\n",
        REFUSED,
        "^classes: 'Turkey' and 'turkey' differ only in case",
    ),
    (
        "one class in two cases and wordings",
        b"classes: [Turkey, turkey]\nprompts: {names: {turkey: turkey bird}}\n",
        ACCEPTED,
        "fuse.alpha",
    ),
    ("classes twice", b"classes: [cat, cat]\n", REFUSED, "^classes: names cat more than once"),
    ("no class", b"classes: []\n", REFUSED, "^classes: is empty"),
    (
        "one class in every image",
        b"classes: [a]\ncorrect: {rule: hard}\n",
        REFUSED,
        r"^correct\.rule: hard would set the only class",
    ),
    ("no wording", b"classes: [a, b]\nprompts: {names: {a: []}}\n", REFUSED, r"^prompts\.names: wordings of a"),
    (
        "an empty wording",
        b"classes: [a, b]\nprompts: {names: {a: [' ']}}\n",
        REFUSED,
        r"^prompts\.names: wordings of a",
    ),
    (
        "a wording twice",
        b"classes: [a, b]\nprompts: {names: {a: [x, x]}}\n",
        REFUSED,
        r"^prompts\.names: wordings of a: x is given more than once",
    ),
    ("a wording that is a number", b"classes: [a, b]\nprompts: {names: {a: [1]}}\n", REFUSED, r"^prompts\.names\.a"),
    ("an empty background word", b"classes: [a, b]\nprompts: {background: ['']}\n", REFUSED, r"^prompts\.background"),
    (
        "a background word twice",
        b"classes: [a, b]\nprompts: {background: [sky, sky]}\n",
        REFUSED,
        r"^prompts\.background: words: sky is given more than once",
    ),
    ("a class of spaces", b"classes: [cat, ' ']\n", REFUSED, "^classes: holds an empty name"),
    ("octal and sexagesimal numbers", b"classes: [a, b]\ncut: {passes: 1:30}\n", ACCEPTED, "cut.passes=90"),
    ("a number as text", b"classes: [a, b]\ncut: {passes: '12'}\n", ACCEPTED, "cut.passes=12"),
    ("1e-3 without a point", b"classes: [a, b]\nfuse: {alpha: 1e-3}\n", ACCEPTED, "fuse.alpha=0.001"),
    (
        "anchors in moderation",
        b"classes: [a, b]\nfuse: &f {alpha: 0.3}\nruns: {x: {fuse: *f}}\n",
        ACCEPTED,
        "fuse.alpha=0.3",
    ),
    ("a byte order mark", b"\xef\xbb\xbfclasses: [a, b]\n", ACCEPTED, "fuse.alpha=0.1"),
    ("a merge key", b"x: &x {alpha: 0.3}\nclasses: [a, b]\n", REFUSED, "^x: unknown setting"),
    ("numbers as keys", b"classes: [a, b]\n5: 1\n", REFUSED, r"^5\b"),
    (
        "a number as a key in a run",
        b"classes: [a, b]\nruns: {x: {fuse: {1: 2}}}\n",
        REFUSED,
        r"^runs\.x: fuse\.1: unknown",
    ),
    ("a number as a run", b"classes: [a, b]\nruns: {5: {}}\n", REFUSED, r"^runs\.5\b"),
    ("a run that is a list", b"classes: [a, b]\nruns: {x: [1]}\n", REFUSED, r"^runs\.x\b"),
    ("a run named ../../x", b"classes: [a, b]\nruns: {../../x: {}}\n", REFUSED, r"^runs\.\.\./\.\./x: not a name"),
    (
        "a run named $(touch x)",
        b"classes: [a, b]\nruns: {$(touch x): {}}\n",
        REFUSED,
        r"^runs\.\$\(touch x\): not a name",
    ),
    ("a run named default", b"classes: [a, b]\nruns: {default: {}}\n", REFUSED, r"^runs\.default: not a name"),
    ("a dataset named ../x", b"classes: [a, b]\ndataset: {name: ../x}\n", REFUSED, r"^dataset\.name"),
    ("a dataset named $(touch x)", b"classes: [a, b]\ndataset: {name: $(touch x)}\n", REFUSED, r"^dataset\.name"),
    ("a dataset named with a line break", b'classes: [a, b]\ndataset: {name: "x\\ny"}\n', REFUSED, r"^dataset\.name"),
    (
        "a benchmark that is a list",
        b"classes: [a, b]\ndataset: {benchmark: [voc2007]}\n",
        REFUSED,
        r"^dataset\.benchmark",
    ),
    (
        "classes that are one text",
        b"classes: cat, dog\n",
        REFUSED,
        r"^classes: is one text.*write classes: \[cat, dog\]",
    ),
    ("classes in lines without dashes", b"classes:\n  cat\n  dog\n", REFUSED, r"^classes: is one text"),
    ("a file of classes", b"classes: classes.txt\n", REFUSED, r"^classes: is one text"),
    (
        "two wrong settings",
        b"classes: [a, b]\nfuse: {alpha: -1}\nsew: {p: 7}\n",
        REFUSED,
        r"^fuse\.alpha: .*, not -1\nsew\.p: .*, not 7$",
    ),
    (
        "twelve unknown settings",
        b"classes: [a, b]\n" + b"".join(b"zz%d: 1\n" % i for i in range(12)),
        REFUSED,
        r"^zz0: unknown setting; .*\n(zz.*\n){9}and 2 more errors; correct these and try again$",
    ),
    (
        "two characters that no file can hold",
        b'classes: ["a\\0", "b\\0"]\n',
        REFUSED,
        r"^classes: .*; remove it\nclasses: .*; remove it$",
    ),
    ("a class named </script>", b"classes: [a, </script>]\n", ACCEPTED, "fuse.alpha"),
    (
        "a template without the class",
        b"classes: [a, b]\nprompts: {templates: [x]}\n",
        REFUSED,
        "^prompts: template 'x' lacks",
    ),
    ("no template", b"classes: [a, b]\nprompts: {templates: []}\n", REFUSED, r"^prompts\.templates"),
    (
        "a wording of another class",
        b"classes: [a, b]\nprompts: {names: {c: d}}\n",
        REFUSED,
        r"^prompts\.names: c not among",
    ),
    (
        "an archive by file://",
        b"classes: [a, b]\ndataset: {kind: voc, root: d, download: {folder: d, archives: [{url: 'file:///etc/x.zip'}]}}\n",
        REFUSED,
        r"^dataset\.download\.archives\.0\.url",
    ),
    ("more passes fused than made", b"classes: [a, b]\nfuse: {passes: 30}\n", REFUSED, r"^fuse\.passes: 30 is more"),
    (
        "a setting of another fusion rule",
        b"classes: [a, b]\nfuse: {rule: mean, gate: 0.1}\n",
        REFUSED,
        r"^fuse\.gate: is a setting of rule gated, and fuse\.rule is mean; leave it out, or set fuse\.rule$",
    ),
    (
        "a setting of another layout",
        b"classes: [a, b]\ncut: {layout: windows, passes: 3}\n",
        REFUSED,
        r"^cut\.passes: is a setting of layout random or spread, and cut\.layout is windows; leave it out",
    ),
    (
        "a setting of another teacher",
        b"classes: [a, b]\nteacher: {kind: conse, open_clip: {model: RN50}}\n",
        REFUSED,
        r"^teacher\.open_clip: is a setting of kind open_clip, and teacher\.kind is conse; leave it out",
    ),
    (
        "a model of a teacher that is a file",
        b"classes: [a, b]\nteacher: {kind: scores, scores: {file: s.npz}, compiled: true}\n",
        REFUSED,
        r"^teacher\.compiled: is a setting of kind open_clip or conse, and teacher\.kind is scores; leave it out",
    ),
    (
        "a setting of another student",
        b"classes: [a, b]\nstudent: {timm: {model: resnet50}}\n",
        REFUSED,
        r"^student\.timm: is a setting of kind timm, and student\.kind is open_clip; leave it out",
    ),
    (
        "a precision without a student",
        b"classes: [a, b]\nstudent: {kind: none, precision: float32}\n",
        REFUSED,
        r"^student\.precision: is a setting of kind open_clip or timm, and student\.kind is none; leave it out",
    ),
    (
        "TagCLIP's settings without TagCLIP",
        b"classes: [a, b]\nscore: {tagclip: {votes: 2}}\n",
        REFUSED,
        r"^score\.tagclip: is a setting of rule tagclip, and score\.rule is softmax; leave it out",
    ),
    (
        "a setting of another head",
        b"classes: [a, b]\nmethod: cutsew\ntrain: {epochs: 3}\n",
        REFUSED,
        r"^train\.epochs: is a setting of head adapter, and train\.head is linear; leave it out, or set train\.head$",
    ),
    (
        "a parameter of another correction",
        b"classes: [a, b]\nmethod: cutsew\ncorrect: {beta: 2}\n",
        REFUSED,
        r"^correct\.beta: is a setting of rule sqrt or linear, and correct\.rule is identity; leave it out",
    ),
    (
        "an overlay without sewing",
        b"classes: [a, b]\nsew: {kind: none, p: 0.5}\n",
        REFUSED,
        r"^sew\.p: is a setting of kind overlays, and sew\.kind is none; leave it out, or set sew\.kind$",
    ),
    (
        "maps without the stage that draws them",
        b"classes: [a, b]\nexplain: {kind: none, num_maps: 4}\n",
        REFUSED,
        r"^explain\.num_maps: is a setting of kind maps, and explain\.kind is none; leave it out, or set explain\.kind$",
    ),
    (
        "a run without sewing and maps",
        b"classes: [a, b]\nsew: {p: 0.5}\nexplain: {num_maps: 4}\nruns: {x: {sew.kind: none, explain.kind: none}}\n",
        ACCEPTED,
        "fuse.alpha=0.1",
    ),
    (
        "a run of another teacher and correction",
        b"classes: [a, b]\nteacher: {open_clip: {model: RN50}}\ncorrect: {beta: 2}\n"
        b"runs: {x: {teacher.kind: conse, correct.rule: hard}}\n",
        ACCEPTED,
        "fuse.alpha=0.1",
    ),
    (
        "a run of another fusion rule",
        b"classes: [a, b]\nfuse: {alpha: 0.3}\nruns: {x: {fuse.rule: mean}}\n",
        ACCEPTED,
        "fuse.alpha=0.3",
    ),
    (
        "a fusion rule that is a list",
        b"classes: [a, b]\nfuse: {rule: [max]}\n",
        REFUSED,
        r"^fuse\.rule: input should be",
    ),
    ("a section without settings", b"classes: [a, b]\nfuse:\n", REFUSED, r"^fuse: input should be a valid dictionary"),
    (
        "a width that heads do not divide",
        b"classes: [a, b]\ntrain: {adapter: {width: 9}}\n",
        REFUSED,
        r"^train: adapter\.heads 8 does not",
    ),
]


def of_files() -> Iterator[Case]:
    for name, content, says in YAML:

        def read(folder: Path, content=content) -> str:
            if content is not None:
                (folder / "c.yaml").write_bytes(content)
            return str(read_yaml(folder / "c.yaml", "a config file"))[:100]

        yield Case("configs", f"YAML: {name}", REFUSED, says, read)
    for name, content, outcome, says in CONTENT:

        def settings(folder: Path, content=content) -> str:
            (folder / "c.yaml").write_bytes(content)
            config = load(read_config(folder / "c.yaml"))
            return f"cut.passes={config.cut.passes} fuse.alpha={config.fuse.alpha}"

        yield Case("configs", f"config file: {name}", outcome, says, settings)


SIGLIP = b"teacher: {open_clip: {model: ViT-B-16-SigLIP2, pretrained: webli}}\n"
ACTIVATION = [
    ("one class with a softmax", b"classes: [cat]\n", REFUSED, "^classes: one class needs something to compete with"),
    ("one class with a sigmoid", b"classes: [cat]\n" + SIGLIP, ACCEPTED, "1 classes"),
    ("one class with background words", b"classes: [cat]\nprompts: {background: [sky]}\n", ACCEPTED, "1 classes"),
    (
        "one class with itself as the background",
        b"classes: [cat]\nprompts: {names: {cat: [kitten, tom]}, background: [Kitten, CAT]}\n",
        REFUSED,
        "^classes: one class needs something to compete with",
    ),
    (
        "a sigmoid of a model without a bias",
        b"classes: [cat, dog]\nscore: {activation: sigmoid}\n",
        REFUSED,
        r"^score\.activation: sigmoid needs the logit bias .* RN50x64 has none",
    ),
    ("a softmax of SigLIP", b"classes: [cat, dog]\nscore: {activation: softmax}\n" + SIGLIP, ACCEPTED, "2 classes"),
    (
        "background words with a sigmoid",
        b"classes: [cat]\nprompts: {background: [sky]}\n" + SIGLIP,
        REFUSED,
        r"^prompts\.background: takes part in a softmax",
    ),
    (
        "a softening that is found with a sigmoid",
        b"classes: [cat]\nfuse: {rule: soft, soften: auto}\n" + SIGLIP,
        REFUSED,
        r"^fuse\.soften: auto",
    ),
    (
        "two classes standardized",
        b"classes: [cat, dog]\nfuse: {rule: standard}\n",
        REFUSED,
        r"^fuse\.rule: standard compares each class with the others and needs at least 3, and there are 2",
    ),
    (
        "two classes of TagCLIP, which fuses no views",
        b"classes: [cat, dog]\nscore: {rule: tagclip}\nteacher: {open_clip: {model: ViT-B-16, pretrained: openai}}\n",
        ACCEPTED,
        "2 classes",
    ),
    (
        "a fusion rule of TagCLIP, which fuses no views",
        b"classes: [cat, dog]\nfuse: {rule: standard}\nscore: {rule: tagclip}\n"
        b"teacher: {open_clip: {model: ViT-B-16, pretrained: openai}}\n",
        REFUSED,
        r"^fuse\.rule: has no effect with score\.rule tagclip",
    ),
    ("TagCLIP with a sigmoid", b"classes: [cat]\nscore: {rule: tagclip}\n" + SIGLIP, REFUSED, r"^score\.rule: tagclip"),
]


def of_activation() -> Iterator[Case]:
    for name, content, outcome, says in ACTIVATION:

        def act(folder: Path, content=content) -> str:
            (folder / "c.yaml").write_bytes(content)
            config = load(read_yaml(folder / "c.yaml", "a config file"))
            validate_inputs(config)
            return f"{len(config.classes)} classes"

        yield Case("configs", f"activation: {name}", outcome, says, act)


JSON = [
    ("sound", b'{"classes": ["a", "b"]}', ACCEPTED, "fuse.alpha=0.1"),
    ("indented with tabs", b'{\n\t"classes": ["a", "b"]\n}', ACCEPTED, "fuse.alpha=0.1"),
    ("a byte order mark", b'\xef\xbb\xbf{"classes": ["a", "b"]}', ACCEPTED, "fuse.alpha=0.1"),
    ("a comma too many", b'{\n"classes": ["a", "b"],\n}', REFUSED, r"c\.json, line 3: not JSON"),
    ("cut short", b'{"classes": ["a"', REFUSED, r"c\.json, line 1: not JSON"),
    ("a key twice", b'{"fuse": {}, "fuse": {}}', REFUSED, r"c\.json: not JSON .*'fuse' appears twice"),
    ("a list", b'["a"]', REFUSED, r"c\.json: holds a list"),
    ("a number", b"5", REFUSED, r"c\.json: holds a single value"),
    ("an empty object", b"{}", REFUSED, "^classes: is not set"),
    ("NaN", b'{"classes": ["a", "b"], "fuse": {"alpha": NaN}}', REFUSED, r"^fuse\.alpha"),
    ("nested 20,000 deep", b'{"a": ' + b"[" * 20_000, REFUSED, r"c\.json: not YAML .nested too deeply"),
]


def of_json() -> Iterator[Case]:
    for name, content, outcome, says in JSON:

        def settings(folder: Path, content=content) -> str:
            (folder / "c.json").write_bytes(content)
            return f"fuse.alpha={load(read_config(folder / 'c.json')).fuse.alpha}"

        yield Case("configs", f"JSON: {name}", outcome, says, settings)


CALLS = [
    ("--cores all --configfile c.yaml", ACCEPTED, "fine"),
    ("labels --cores all --configfile c.yaml", ACCEPTED, "fine"),
    ("--configfile c.yaml c.yaml -n labels", ACCEPTED, "fine"),
    ("--cores all --configfile c.yaml labels", REFUSED, "^--configfile takes .*: .*snakemake labels --cores all --"),
    ("--configfile c.yaml labels -n", REFUSED, "snakemake labels --configfile c.yaml -n$"),
    ("--configfile=c.yaml labels", ACCEPTED, "fine"),
    ("--configfile c.yaml results/x/default/report.html", REFUSED, "snakemake results/x/default/report.html --"),
    ("--configfile c.yaml --config sweep=alpha sweep", REFUSED, "^--config takes .*: .*snakemake sweep --configfile"),
    ("--set-threads train=2 labels", REFUSED, "^--set-threads takes .*: .*snakemake labels --set"),
    ("--forcerun train labels", REFUSED, "^--forcerun takes .*: .*snakemake labels --forcerun train$"),
    ("--config alpha", REFUSED, "^--config: 'alpha' is not name=value; write it so$"),
    ("--set-resources train:mem_mb", REFUSED, "^--set-resources: 'train:mem_mb' is not rule:resource=value"),
    ("--forcerun labels", ACCEPTED, "fine"),
    ("--forcerun results/x/default/report.html results/y", ACCEPTED, "fine"),
    ("--until override", ACCEPTED, "fine"),
    ("--configfile labels", REFUSED, "^labels: cannot be read .*; name a config file"),
    ("--configfile nowhere.yaml", REFUSED, r"^nowhere\.yaml: cannot be read .*; name a config file"),
    ("--configfile c.yaml folder", REFUSED, "^--configfile takes every word after it, folder too"),
    ("--configfile folder", REFUSED, "^folder: cannot be read .Is a directory"),
]


def of_calls() -> Iterator[Case]:
    for call, outcome, says in CALLS:

        def act(folder: Path, call=call) -> str:
            words = call.split()
            (folder / "folder").mkdir()
            (folder / "c.yaml").write_text("classes: [a, b]\n")
            with contextlib.chdir(folder):
                refuse_swallowed_targets(words)
                for path in config_files(words):
                    read_config(path)
            return "fine"

        yield Case("configs", f"snakemake {call}", outcome, says, act)


SWEEPS = [
    ("missing", None, r"^sweep: .*s\.yaml does not exist"),
    ("empty", b"", r"s\.yaml: "),
    ("a list", b"[1]\n", r"s\.yaml: "),
    ("no title", b"seeds: [1]\n", r"s\.yaml: title: is not set"),
    ("nothing that varies", b"title: x\n", r"s\.yaml: varies nothing"),
    ("an unknown key", b"title: x\nsedes: [1]\n", r"s\.yaml: sedes: unknown setting; did you mean seeds"),
    ("an unknown setting", b"title: x\ngrid: {fuse.alfa: [1]}\n", r"s\.yaml: fuse\.alfa: unknown setting"),
    (
        "a setting out of range",
        b"title: x\ngrid: {fuse.alpha: [-1]}\n",
        r"s\.yaml: fuse\.alpha: input should be greater",
    ),
    (
        "a parameter that one of the rules lacks",
        b"title: x\ngrid: {fuse.rule: [max, mean], fuse.alpha: [0, 1]}\n",
        r"s\.yaml: fuse\.alpha: is a setting of rule max or soft, and fuse\.rule is mean",
    ),
    (
        "a model that one of the teachers lacks",
        b"title: x\ngrid: {teacher.kind: [open_clip, conse], teacher.open_clip.model: [RN50]}\n",
        r"s\.yaml: teacher\.open_clip: is a setting of kind open_clip, and teacher\.kind is conse",
    ),
    ("a grid that is no list", b"title: x\ngrid: {fuse.alpha: 1}\n", r"s\.yaml: grid\.fuse\.alpha"),
    ("a grid without values", b"title: x\ngrid: {fuse.alpha: []}\n", r"s\.yaml: grid\.fuse\.alpha: holds no value"),
    ("seeds that are words", b"title: x\nseeds: [a]\n", r"s\.yaml: seeds\.0"),
    ("a device", b"title: x\ngrid: {compute.device: [cpu]}\n", r"s\.yaml: compute\.device: cannot vary"),
    ("a seed twice", b"title: x\nseeds: [1]\ngrid: {train.seed: [2]}\n", r"s\.yaml: train\.seed: is varied by `seeds`"),
    ("a key twice", b"title: x\ntitle: y\nseeds: [1]\n", r"s\.yaml, line 2: .*'title' appears twice"),
    ("a billion laughs", LAUGHS.encode(), r"s\.yaml: .*100,000 values"),
    ("a section that is a number", b"title: x\ngrid: {fuse: [5]}\n", r"s\.yaml: fuse\b"),
    ("a number as a setting", b"title: x\ngrid: {5: [1]}\n", r"s\.yaml: grid"),
    ("not UTF-8", b"title: \xff\n", r"s\.yaml: not UTF-8"),
    ("NaN", b"title: x\ngrid: {fuse.alpha: [.nan]}\n", r"s\.yaml: fuse\.alpha"),
    (
        "too many runs",
        b"title: x\ngrid: {fuse.alpha: [0, 1], fuse.passes: [0, 1]}\nseeds: [" + b"1," * 9 + b"1]\n",
        "4 runs",
    ),
]


def of_sweeps() -> Iterator[Case]:
    for name, content, says in SWEEPS:

        def act(folder: Path, content=content) -> str:
            path = folder / "s.yaml"
            if content is not None:
                path.write_bytes(content)
            return f"{len(variants_of(read_sweep(path), BASE, str(path)))} runs"

        yield Case("configs", f"sweep: {name}", ACCEPTED if "runs" in says else REFUSED, says, act)
    for name in ("$(touch x).yaml", "a b.yaml", "-rf.yaml", ".hidden.yaml", "new\nline.yaml"):
        says = "^sweep: .* cannot name a folder of results"
        yield Case(
            "configs", f"sweep: a file named {name!r}", REFUSED, says, lambda _, name=name: sweep_files(name, Path())
        )
    for text in ("", "{", "[]", "5", "null", "{'a': 1}", "[" * 100_000):
        yield Case(
            "configs", f"--settings: {text[:9]!r}", REFUSED, "^--settings: not", lambda _, text=text: _parse(text)
        )


def cases() -> Iterator[Case]:
    for part in (of_settings, of_files, of_activation, of_json, of_calls, of_sweeps):
        yield from part()
