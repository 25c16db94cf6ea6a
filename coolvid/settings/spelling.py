"""Fields with two names."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

T = TypeVar("T")


def spelled(field: str, other: str) -> Callable[[type[T]], type[T]]:
    """Decorator: a dataclass's constructor and attributes know `field` under another name too."""

    def decorate(cls: type[T]) -> type[T]:
        make = cls.__init__

        @wraps(make)
        def init(self: Any, *args: Any, **named: Any) -> None:
            if other in named:
                named[field] = named.pop(other)
            make(self, *args, **named)

        cls.__init__ = init  # type: ignore[method-assign]
        setattr(cls, other, property(lambda self: getattr(self, field), doc=f"Another spelling of {field}."))
        return cls

    return decorate
