"""A schema as a page for people: a table for each object, from its ``description``s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfmeasure import jsonio

if TYPE_CHECKING:
    from collections.abc import Iterator

Schema = dict[str, Any]


def _target(schema: Schema) -> str:
    """Name of the definition that ``schema`` refers to, or nothing."""
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _link(name: str) -> str:
    return f"[{name}](#{name})"


def _values(schema: Schema) -> Schema | None:
    """What an object holds by names that are not fixed, if it is such a one."""
    for held in (*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")):
        if isinstance(held, dict):
            return held
    return None


def type_of(schema: Schema) -> str:
    """What stands in the column of types; definitions are links."""
    if "$ref" in schema:
        return _link(_target(schema))
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        texts = (
            value if isinstance(value, str) else jsonio.canonical(value).decode().strip()
            for value in values
        )
        return ", ".join(f"`{text}`" for text in texts)
    if schema.get("type") == "array":
        items = schema["items"]
        if isinstance(items, list):
            return "[" + ", ".join(type_of(item) for item in items) + "]"
        return f"list of {type_of(items)}"
    if schema.get("type") == "object" and "properties" not in schema:
        held = _values(schema)
        return f"name → {type_of(held)}" if held else "object"
    name: str = schema.get("type", "object")
    return {"string": "text", "boolean": "true, false"}.get(name, name)


def _is_copied(schema: Schema) -> bool:
    """Whether it is a part of a log line, copied field by field under the log's own names."""
    return "properties" in schema and isinstance(schema.get("additionalProperties"), dict)


def _rows(schema: Schema, before: str = "") -> Iterator[tuple[str, bool, Schema]]:
    """Yield path, whether it is always there, and schema of each field; objects in place."""
    if _is_copied(schema):
        return
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        path = f"{before}{name}"
        yield path, name in required, field
        below, suffix = field, "."
        if field.get("type") == "array" and isinstance(field["items"], dict):
            below, suffix = field["items"], "[]."
        elif "properties" not in field and (held := _values(field)):
            below, suffix = held, ".*."
        for alternative in below.get("oneOf", ()):
            yield path + suffix.rstrip("."), False, alternative
            yield from _rows(alternative, path + suffix)
        yield from _rows(below, path + suffix)


def undescribed(schema: Schema) -> list[str]:
    """Fields and objects that have no description, neither of their own nor of what they are."""
    definitions = schema["definitions"]
    lacking = [name for name, found in definitions.items() if not found.get("description")]
    for name, found in (("", schema), *definitions.items()):
        lacking += [
            f"{name}.{path}"
            for path, _, field in _rows(_items(found))
            if not field.get("description") and _target(field) not in definitions
        ]
    return lacking


def _items(schema: Schema) -> Schema:
    """An object, or of a list of objects one of them."""
    items = schema.get("items")
    return items if isinstance(items, dict) else schema


def _table(schema: Schema, definitions: dict[str, Schema]) -> Iterator[str]:
    rows = list(_rows(_items(schema)))
    if not rows:
        return
    yield "| field | type | |"
    yield "|---|---|---|"
    for path, is_always_there, field in rows:
        text = field.get("description") or definitions[_target(field)]["description"]
        name = f"**`{path}`**" if is_always_there else f"`{path}`"
        yield f"| {name} | {type_of(field)} | {text} |"
    yield ""


def page(schema: Schema, head: str) -> str:
    """Return ``head`` and a section for the document and each definition, in reading order."""
    definitions = schema["definitions"]
    lines = [head, *_table(schema, definitions)]
    for name in reading_order(schema):
        found = definitions[name]
        lines += [f"## {name}", "", found["description"], ""]
        if _is_copied(found):
            lines += [
                "Fields: " + ", ".join(f"`{field}`" for field in found["properties"]) + ".",
                "",
            ]
            continue
        lines += list(_table(found, definitions)) or [f"Type: {type_of(found)}.", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def reading_order(schema: Schema) -> list[str]:
    """Names of the definitions, each where it is first referred to, what it holds behind it."""
    order: list[str] = []

    def visit(part: object) -> None:
        if isinstance(part, dict):
            name = _target(part)
            if name and name not in order:
                order.append(name)
                visit(schema["definitions"][name])
            for key, below in part.items():
                if key != "definitions":
                    visit(below)
        elif isinstance(part, list):
            for below in part:
                visit(below)

    visit(schema)
    return order
