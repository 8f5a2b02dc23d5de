"""What log options say of a container in each of its lines: chosen labels and variables, and the tag. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from engine.container import Container
from engine.errors import InvalidParameter

OPTIONS = frozenset({"labels", "labels-regex", "env", "env-regex", "tag"})
DAEMON_NAME = "swarmd"
_PLACEHOLDER = re.compile(r"\{\{\s*(.*?)\s*\}\}")
_FIELDS = ("ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "Command", "DaemonName")


def check_attributes(options: Mapping[str, str]) -> None:
    """InvalidParameter for a pattern or a tag that nothing can be made of."""
    for name in ("labels-regex", "env-regex"):
        _pattern(name, options.get(name, ""))
    for word in _PLACEHOLDER.findall(options.get("tag", "")):
        if word.removeprefix(".") not in _FIELDS or not word.startswith("."):
            known = ", ".join(f"{{{{.{field}}}}}" for field in _FIELDS)
            raise InvalidParameter(f"invalid value for tag: {{{{{word}}}}} is not known: use {known}")


def chosen_attributes(container: Container, options: Mapping[str, str]) -> dict[str, str]:
    """The labels and variables of the container that the options name, or whose names match."""
    entries = (entry.partition("=") for entry in container.config.env or ())
    known = {"labels": container.labels, "env": {name: value for name, sign, value in entries if sign}}
    chosen: dict[str, str] = {}
    for kind, values in known.items():
        names = options.get(kind, "").split(",")
        chosen |= {name: values[name] for name in names if name in values}
        pattern = _pattern(f"{kind}-regex", options.get(f"{kind}-regex", ""))
        if pattern is not None:
            chosen |= {name: value for name, value in values.items() if pattern.search(name)}
    return dict(sorted(chosen.items()))


def tag_of(container: Container, template: str) -> str:
    """A tag such as `{{.ImageName}}/{{.Name}}` filled in; its words were checked when the container was made."""
    values = {
        "ID": container.short_id,
        "FullID": container.id,
        "Name": container.name,
        "ImageID": container.image_id.removeprefix("sha256:")[:12],
        "ImageFullID": container.image_id,
        "ImageName": container.image,
        "Command": " ".join(container.process_args),
        "DaemonName": DAEMON_NAME,
    }
    return _PLACEHOLDER.sub(lambda match: values[match[1].removeprefix(".")], template)


def _pattern(option: str, text: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise InvalidParameter(f'invalid log option {option}: "{text}": {error}') from error
