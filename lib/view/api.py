"""The HTTP interface for people: the endpoints of an OpenAPI description, in groups."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Parameter:
    """One parameter or field.

    Args:
        name: of it.
        place: "path", "query", "header", "form" or "JSON".
        kind: of its value, in words.
        required: whether a request needs it.
        default: as JSON; "" without one.
    """

    name: str
    place: str
    kind: str
    required: bool
    default: str


@dataclass(frozen=True)
class Endpoint:
    """One request.

    Args:
        group: that it belongs to.
        method: in capitals.
        path: with its parameters in braces.
        summary: one line.
        parameters: of path, query and body.
    """

    group: str
    method: str
    path: str
    summary: str
    parameters: tuple[Parameter, ...]

    def curl(self, base: str) -> str:
        """A command line that makes the request, with what it needs in capitals."""
        path, query, form = self.path, [], []
        for p in self.parameters:
            if p.place == "path":
                path = path.replace("{" + p.name + "}", p.name.upper())
            elif p.place == "query" and p.required:
                query.append(f"{p.name}={p.name.upper()}")
            elif p.place == "form" and p.required:
                form.append(f"-F {p.name}={'@FILE' if p.kind == 'file' else p.name.upper()}")
        address = base + path + ("?" + "&".join(query) if query else "")
        verb = "" if self.method == "GET" else f"-X {self.method} "
        body = "-H 'Content-Type: application/json' -d '{}' " if self._json else ""
        return f"curl {verb}{body}{' '.join(form) + ' ' if form else ''}{shlex.quote(address)}"

    @property
    def _json(self) -> bool:
        return any(p.place == "JSON" for p in self.parameters)


def endpoints(description: Mapping[str, Any]) -> list[Endpoint]:
    """Every request of an OpenAPI description, by group and path."""
    schemas = dict(description.get("components", {}).get("schemas", {}))
    found = []
    for path, methods in description["paths"].items():
        for method, told in methods.items():
            parameters = [
                Parameter(
                    p["name"], p["in"], _kind(p.get("schema", {})), bool(p.get("required")),
                    _default(p.get("schema", {})),
                )
                for p in told.get("parameters", [])
            ]  # fmt: skip
            parameters += _body(told.get("requestBody", {}), schemas)
            group = (told.get("tags") or ["Others"])[0]
            summary = told.get("summary") or ""
            found.append(Endpoint(group, method.upper(), path, summary, tuple(parameters)))
    return sorted(found, key=lambda e: (e.group, e.path, e.method))


def _body(body: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[Parameter]:
    for media, told in body.get("content", {}).items():
        schema = told.get("schema", {})
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rsplit("/", 1)[1]]
        if media == "application/json":
            yield Parameter("body", "JSON", _kind(schema), bool(body.get("required")), "")
            continue
        for name, field in schema.get("properties", {}).items():
            needed = name in schema.get("required", [])
            yield Parameter(name, "form", _kind(field), needed, _default(field))


def _kind(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        kinds = [_kind(s) for s in schema["anyOf"] if s.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds)) or "anything"
    if schema.get("format") == "binary" or "contentMediaType" in schema:
        return "file"
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    return str(schema.get("type") or schema.get("$ref", "anything").rsplit("/", 1)[-1])


def _default(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema["default"]) if schema.get("default") is not None else ""
