"""Load the configuration: defaults, then a YAML file, then single keys.

A bad key or value stops with the key's path, what was found and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from lib.configs.settings import Settings
from lib.labels.hierarchy import LabelHierarchy, flat_hierarchy, load_hierarchy

SECTIONS = tuple(Settings.model_fields)


def load_settings(
    file: Path | str | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Read settings.

    Args:
        file: a YAML file with any of the sections; None for the defaults.
        overrides: single keys by path, `{"training.num_pos_points": "3"}`; text values are
            read as YAML scalars, so "3", "0.5", "true" and "[automatic]" mean what they say.

    Raises:
        ValueError: key path, found, allowed; one line for each fault.
    """
    data: dict[str, Any] = {}
    if file is not None:
        try:
            data = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"configuration {file}: {error}") from error
        if not isinstance(data, dict):
            raise ValueError(f"configuration {file}: expected sections {', '.join(SECTIONS)}")
        # A section whose keys are all commented out is None in YAML.
        data = {name: {} if keys is None else keys for name, keys in data.items()}
    for path, value in (overrides or {}).items():
        section, _, key = path.partition(".")
        if not key or section not in SECTIONS:
            raise ValueError(f"{path}: expected SECTION.KEY, sections: {', '.join(SECTIONS)}")
        if not isinstance(inner := data.setdefault(section, {}), dict):
            raise ValueError(f"{section}: expected keys and values, found {inner!r}")
        inner[key] = _scalar(path, value)
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise ValueError("\n".join(_explain(fault) for fault in error.errors())) from error


def load_from_conf(conf: Mapping[str, str]) -> Settings:
    """Settings from MONAI Label's `--conf`: key `config` names a file, `section.key` one key.

    Other keys of `conf` belong to MONAI Label and are left alone.
    """
    overrides = {k: v for k, v in conf.items() if k.partition(".")[0] in SECTIONS and "." in k}
    return load_settings(conf.get("config") or None, overrides)


def hierarchy_of(settings: Settings) -> LabelHierarchy:
    """The label hierarchy that `labels.hierarchy` names."""
    if settings.labels.hierarchy == "default":
        return load_hierarchy()
    if settings.labels.hierarchy == "none":
        return flat_hierarchy(settings.labels.num_classes)
    return load_hierarchy(settings.labels.hierarchy)


def dump_settings(settings: Settings, origins: Mapping[str, str] | None = None) -> str:
    """The resolved configuration as YAML, written beside each checkpoint.

    Args:
        origins: key path -> where its value comes from, written as comments.
    """
    if not origins:
        return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
    lines = []
    for section, values in settings.model_dump(mode="json").items():
        lines.append(f"{section}:")
        for key, value in values.items():
            text = yaml.safe_dump({key: value}, sort_keys=False)
            first, *more = text.rstrip("\n").split("\n")
            origin = origins.get(f"{section}.{key}")
            lines.append(f"  {first}" + (f"  # {origin}" if origin else ""))
            lines += [f"  {line}" for line in more]
    return "\n".join(lines) + "\n"


def _scalar(path: str, value: Any) -> Any:
    """A key's value; text is read as YAML."""
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: no YAML value: {value!r}") from error


def _explain(fault: Any) -> str:
    path = [str(p) for p in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        known = _model_at(path[:-1])
        return f"{'.'.join(path)}: unknown key; known: {', '.join(known.model_fields)}"
    if fault["type"] == "value_error" and isinstance(fault["input"], Mapping):
        # Of a section's own check: the message names the key and what was found.
        return ".".join([*path, str(fault["ctx"]["error"])])
    return f"{'.'.join(path)}: {fault['msg']}, found {fault['input']!r}"


def _model_at(path: list[str]) -> type[BaseModel]:
    model: type[BaseModel] = Settings
    for key in path:
        annotation = model.model_fields[key].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        model = annotation
    return model
