"""What tiny_knn.h declares, as plain data: functions, values of enumerations, fields of structs.

Reads the style that the header is written in, and refuses what it does not know: a declaration that it skipped would be
one that no test compares.
"""

import dataclasses
import re


@dataclasses.dataclass
class Header:
    functions: dict  # name -> (return type, [(type, name)])
    values: dict  # enumerator or ABI version -> int
    structs: dict  # name -> [(type, name, elements or None)]
    aliases: dict  # typedef of an integer -> what it is
    opaque: list


def _type_and_name(text):
    text = " ".join(text.split())
    match = re.fullmatch(r"(.*?[ *])(\w+)(?:\[(\d+)\])?", text)
    if not match:
        raise ValueError(f"not a declaration: {text!r}")
    kind = re.sub(r"\s*\*\s*", "*", " ".join(match.group(1).split()))
    return kind, match.group(2), int(match.group(3)) if match.group(3) else None


def parse(text):
    header = Header({}, {}, {}, {}, [])
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    for name, value in re.findall(r"^#define (TKNN_ABI_VERSION) (\d+)$", text, re.MULTILINE):
        header.values[name] = int(value)
    text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    text = text.replace('extern "C" {', "", 1)
    text = text[: text.rindex("}")] if text.rstrip().endswith("}") else text
    position = 0
    patterns = [
        (re.compile(r"\s*typedef struct (\w+) \{(.*?)\} \1;", re.DOTALL), "struct"),
        (re.compile(r"\s*typedef struct (\w+) \1;"), "opaque"),
        (re.compile(r"\s*typedef (\w+) (\w+);"), "alias"),
        (re.compile(r"\s*enum \{(.*?)\};", re.DOTALL), "enum"),
        (re.compile(r"\s*TKNN_API ([^;()]*?)(\w+)\((.*?)\);", re.DOTALL), "function"),
    ]
    while text[position:].strip():
        for pattern, kind in patterns:
            match = pattern.match(text, position)
            if match:
                break
        else:
            raise ValueError(f"not understood: {text[position:].strip()[:80]!r}")
        position = match.end()
        if kind == "struct":
            header.structs[match.group(1)] = [_type_and_name(f) for f in match.group(2).split(";") if f.strip()]
        elif kind == "opaque":
            header.opaque.append(match.group(1))
        elif kind == "alias":
            header.aliases[match.group(2)] = match.group(1)
        elif kind == "enum":
            for item in match.group(1).split(","):
                name, value = item.split("=")
                header.values[name.strip()] = int(value)
        else:
            result = re.sub(r"\s*\*\s*", "*", match.group(1).strip())
            parameters = match.group(3)
            header.functions[match.group(2)] = (
                result,
                [] if parameters.strip() == "void" else [_type_and_name(p)[:2] for p in parameters.split(",")],
            )
    return header


def describe(header):
    """One line for everything that a program which was compiled may depend on."""
    lines = [f"value {name} = {value}" for name, value in header.values.items()]
    lines += [f"type {name} = {kind}" for name, kind in header.aliases.items()]
    lines += [f"type {name}" for name in header.opaque]
    for name, fields in header.structs.items():
        text = "; ".join(f"{kind} {field}" + (f"[{count}]" if count else "") for kind, field, count in fields)
        lines.append(f"struct {name} {{ {text} }}")
    for name, (result, parameters) in header.functions.items():
        text = ", ".join(f"{kind} {parameter}" for kind, parameter in parameters)
        lines.append(f"function {result} {name}({text})")
    return "".join(line + "\n" for line in sorted(lines))
