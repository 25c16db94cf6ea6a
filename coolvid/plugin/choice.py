"""A plugin by name, with options."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from coolvid.errors import ConfigError, printable
from coolvid.values import check_fields

# A comma separates options only if key= follows it, which cannot happen inside a bracketed tuple.
_OUTER_COMMA = re.compile(r",(?=\s*\w+=|\s*$)")


@dataclass(frozen=True)
class PluginChoice:
    """A plugin name with the user's options: ``softround:noise=kumaraswamy``."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def parse(cls, text: str) -> PluginChoice:
        """NAME[:key=value,...]. Raises ConfigError on anything else."""
        name, _, rest = text.partition(":")
        pairs = [tuple(part.split("=", 1)) for part in _OUTER_COMMA.split(rest)] if rest else []
        if not re.fullmatch(r"[\w.-]+", name) or any(len(p) != 2 or not p[0] for p in pairs):
            raise ConfigError(f"cannot read plugin choice '{printable(text)}'; write NAME or NAME:key=value,key=value")
        return cls(name, tuple((p[0].strip(), p[1].strip()) for p in pairs))

    def __str__(self) -> str:
        options = ",".join(f"{k}={str(v).replace(', ', ',') if isinstance(v, tuple) else v}" for k, v in self.options)
        return f"{self.name}:{options}" if options else self.name
