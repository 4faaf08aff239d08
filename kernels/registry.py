"""The operators of this package, found in the folder kernels/ops without importing them."""

import ast
from functools import cache
from pathlib import Path

from kernels.backend import KernelError

ROOT = Path(__file__).parent


@cache
def operator_modules() -> dict[str, str]:
    """Module of every operator by its public name, from the `__all__` of each file in kernels/ops.

    The files are parsed, not imported. Raises KernelError when two of them export one name.
    """
    found: dict[str, str] = {}
    for path in sorted((ROOT / "ops").rglob("*.py")):
        module = ".".join(("kernels", *path.relative_to(ROOT).with_suffix("").parts))
        for name in exported_names(path):
            if name in found:
                raise KernelError(f"{name} is in the __all__ of both {found[name]} and {module}")
            found[name] = module
    return found


def exported_names(path: Path) -> list[str]:
    """The literal `__all__` of a Python file; empty when it has none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
        ):
            return list(ast.literal_eval(node.value))
    return []
