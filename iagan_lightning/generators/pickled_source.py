"""Looking at the source code within a pickle. It is never run here; the original code would run it."""

from __future__ import annotations

import ast
import warnings
from functools import lru_cache

from iagan_lightning.generators.base import WeightsError

LONGEST = 1_000_000  # characters; NVIDIA's is 37 thousand
# What a definition of layers has no reason to call, or to import from, before it is used.
FUNCTIONS = frozenset({"open", "exec", "eval", "compile", "__import__", "input", "breakpoint"})
MODULES = frozenset(
    {"os", "subprocess", "shutil", "pathlib", "io", "socket", "urllib", "http", "requests", "ctypes", "importlib",
     "builtins", "pickle", "tempfile", "runpy", "posix", "nt"}
)  # fmt: skip
READING = ("os.path.", "os.environ.", "os.getenv", "os.getcwd")  # and changes nothing


@lru_cache(maxsize=8)
def check_source(source: str) -> None:
    """Raise WeightsError for code that would touch the machine on being loaded, which no definition of layers does.

    Such a file has been tampered with: its numbers deserve no trust either.

    Example:
        >>> check_source("import os\\nclass Generator:\\n    pass")
        >>> check_source("import os as s\\ns.system('reboot')")
        Traceback (most recent call last):
        ...
        iagan_lightning.generators.base.WeightsError: holds source code that calls os.system on being loaded, ...
    """
    if not isinstance(source, str) or len(source) > LONGEST:
        raise WeightsError(f"holds source code that is no text of at most {LONGEST:,} characters")
    try:
        with warnings.catch_warnings():  # of how it is written, which is no concern of the user's
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # what cannot be read cannot be run either
        return
    origins = {
        alias.asname or alias.name.partition(".")[0]: _origin(node, alias)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    functions = {node.name: node.body for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Call):  # of a function of its own: then that is run too
            called = node.func
            pending += [called.body] if isinstance(called, ast.Lambda) else []
            pending += functions.pop(called.id, []) if isinstance(called, ast.Name) else []
        if isinstance(node, ast.Call) and (name := _called(node.func, origins)):
            raise WeightsError(
                f"holds source code that calls {name} on being loaded, which no definition of layers does: the file is "
                "refused, and nothing of it was run"
            )
        # Bodies of functions run when they are called; their decorators and defaults do on being loaded.
        inner = node.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) else []
        later = inner if isinstance(inner, list) else [inner]
        pending += [child for child in ast.iter_child_nodes(node) if not any(child is one for one in later)]


def _origin(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    if isinstance(node, ast.ImportFrom):
        return f"{node.module}.{alias.name}"
    return alias.name if alias.asname else alias.name.partition(".")[0]


def _called(function: ast.expr, origins: dict[str, str]) -> str | None:
    """Return the full name of what is called, if it is one of those; None for all others."""
    attributes: list[str] = []
    while isinstance(function, ast.Attribute | ast.Call):
        if isinstance(function, ast.Attribute):
            attributes.insert(0, function.attr)
            function = function.value
        else:  # open(...).write(...): the inner call is found by itself
            return None
    if not isinstance(function, ast.Name):
        return None
    name = ".".join([origins.get(function.id, function.id), *attributes])
    imported = function.id in origins and name.partition(".")[0] in MODULES and not name.startswith(READING)
    return name if imported or name in FUNCTIONS else None
