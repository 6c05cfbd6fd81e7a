"""Registries: find worlds, encoders, backbones and methods by name.

Each entry registers itself in its own module. Another package adds an entry without a change here:
it declares an entry point in the registry's group::

    [project.entry-points."alam.worlds"]
    my_world = "my_package.world:make_world"
"""

import importlib
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from alam_core.errors import UserError

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to entries of one kind.

    kind: what an entry is, for error messages. group: group of entry points in which installed
    packages declare further entries. modules: imported at the first look-up, so that the library's
    own entries register themselves.
    """

    def __init__(self, kind: str, group: str, modules: Iterable[str] = ()) -> None:
        self.kind = kind
        self.group = group
        self._modules = tuple(modules)
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers an entry. Raises ValueError for a name that is taken."""

        def add(entry: T) -> T:
            if self._entries.setdefault(name, entry) is not entry:
                raise ValueError(f"the {self.kind} '{name}' is registered twice")
            return entry

        return add

    def names(self) -> list[str]:
        """All names, including those of installed packages, in alphabetical order."""
        self._import_modules()
        return sorted({*self._entries, *(entry.name for entry in entry_points(group=self.group))})

    def get(self, name: str) -> T:
        """The entry of a name; the library's own come first. Raises UserError for an unknown name,
        listing the known ones, and for an installed package that cannot be imported.
        """
        self._import_modules()
        if name not in self._entries:
            for entry in entry_points(group=self.group):
                if entry.name != name:
                    continue
                try:
                    self._entries[name] = entry.load()
                except (ImportError, AttributeError) as error:
                    raise UserError(
                        f"the {self.kind} '{name}' is in '{entry.value}', which cannot be "
                        f"imported ({error}): install what is missing there"
                    ) from error
        if name not in self._entries:
            known = ", ".join(self.names())
            raise UserError(f"there is no {self.kind} '{name}'; there are: {known}")
        return self._entries[name]

    def _import_modules(self) -> None:
        for module in self._modules:
            importlib.import_module(module)
