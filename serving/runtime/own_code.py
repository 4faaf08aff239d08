"""The task's own code inside a version folder, imported from there alone."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any


class OwnCode:
    """The top-level packages and modules `names` of a version folder.

    They can be imported under their own names within `installed` only. A module of the same name
    that the process has from elsewhere, such as the project that trained, steps aside meanwhile; so
    do those of another version. `modules` are those that were imported, by name.
    """

    def __init__(self, folder: Path, names: Iterable[str]):
        self.folder = Path(folder).resolve()
        self.names = frozenset(names)
        self.modules: dict[str, ModuleType] = {}
        importlib.invalidate_caches()  # the folder may be younger than what is known of it

    @contextmanager
    def installed(self) -> Iterator[None]:
        """A block in which the code is importable; it leaves no bytecode in the folder."""
        elsewhere = self._taken_out()
        sys.modules.update(self.modules)
        sys.path.insert(0, str(self.folder))
        wrote_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        try:
            yield
        finally:
            sys.dont_write_bytecode = wrote_bytecode
            sys.path.remove(str(self.folder))
            self.modules = self._taken_out()
            sys.modules.update(elsewhere)

    def import_target(self, name: str) -> Any:
        """The class or function at the dotted path `name`, of this code or an installed package.

        To be called within `installed`. Raises ImportError and AttributeError for what is not
        there, ValueError for a module of this code that came from outside the folder.
        """
        parts = name.split(".")
        found: Any = importlib.import_module(parts[0])
        for count, part in enumerate(parts[1:], start=2):
            if isinstance(found, ModuleType) and not hasattr(found, part):
                importlib.import_module(".".join(parts[:count]))
            found = getattr(found, part)
        for module, loaded in self._present().items():
            place = getattr(loaded, "__file__", None)
            if place and not Path(place).resolve().is_relative_to(self.folder):
                raise ValueError(f"{module} came from {place}, outside {self.folder}")
        return found

    def _present(self) -> dict[str, ModuleType]:
        inside = tuple(f"{name}." for name in self.names)
        return {
            name: module
            for name, module in list(sys.modules.items())
            if name in self.names or name.startswith(inside)
        }

    def _taken_out(self) -> dict[str, ModuleType]:
        present = self._present()
        for name in present:
            del sys.modules[name]
        return present
