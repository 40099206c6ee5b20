"""Constructor signatures read from source by `ast`: the one schema of every block, without importing torch."""

from __future__ import annotations

import ast
import copy
import importlib.machinery
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

REQUIRED = object()
COMPUTED = object()


@dataclass(frozen=True)
class Param:
    """One constructor argument. `default` is REQUIRED, a plain value, or COMPUTED where the source names no literal
    (then only the constructor knows it, and it is not written into configurations)."""

    name: str
    annotation: ast.expr | None
    default: Any

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    @property
    def classes(self) -> list[str]:
        """Dotted paths of the classes that its annotation names, beside those of Python itself."""
        if self.annotation is None:
            return []
        found = [ast.unparse(node) for node in _depth_first(self.annotation) if isinstance(node, ast.Attribute)]
        found = [path for path in found if path.split(".")[0] not in _ELSEWHERE]
        return [path for path in found if not any(other.startswith(f"{path}.") for other in found)]


def _depth_first(node: ast.AST) -> Iterator[ast.AST]:
    """In the order of the source."""
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _depth_first(child)


@dataclass(frozen=True)
class Signature:
    """What a class takes. `ancestors` are dotted paths, itself first; `spec` the class-level annotation of `spec`;
    `fields` the class-level annotations by name, as dotted paths: the entries of a spec class."""

    path: str
    params: dict[str, Param]
    ancestors: tuple[str, ...]
    spec: str | None = None
    fields: dict[str, str] = field(default_factory=dict)


@dataclass
class Module:
    """The top-level names of a source file."""

    name: str
    file: Path
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    constants: dict[str, ast.expr] = field(default_factory=dict)

    def collect(self, body: list[ast.stmt]) -> None:
        package = self.name if self.file.name == "__init__.py" else self.name.rpartition(".")[0]
        for node in body:
            if isinstance(node, ast.ClassDef):
                self.classes[node.name] = node
            elif isinstance(node, ast.ImportFrom):
                origin = node.module or ""
                if node.level:
                    parts = package.split(".")
                    origin = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [origin])])
                for alias in node.names:
                    self.imports[alias.asname or alias.name] = f"{origin}.{alias.name}"
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.split(".")[0]
                    self.imports[alias.asname or top] = alias.name if alias.asname else top
            elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                self.constants[node.targets[0].id] = node.value
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                self.constants[node.target.id] = node.value
            elif isinstance(node, ast.If | ast.Try):
                self.collect(node.body)


def _find_file(dotted: str) -> Path | None:
    """The source of a module, found without importing its parents."""
    top, *rest = dotted.split(".")
    found = importlib.machinery.PathFinder.find_spec(top, sys.path)
    if found is None:
        return None
    if not rest:
        return Path(found.origin) if found.origin and found.origin.endswith(".py") else None
    for location in found.submodule_search_locations or ():
        base = Path(location, *rest)
        for candidate in (base / "__init__.py", base.with_suffix(".py")):
            if candidate.is_file():
                return candidate
    return None


@cache
def read_module(dotted: str) -> Module | None:
    file = _find_file(dotted)
    if file is None:
        return None
    module = Module(dotted, file)
    module.collect(ast.parse(file.read_text(encoding="utf-8")).body)
    return module


def _locate(dotted: str, seen: frozenset[str] = frozenset()) -> tuple[Module, ast.ClassDef] | None:
    """The class that a dotted path means, through re-exports."""
    owner, _, name = dotted.rpartition(".")
    if not owner or dotted in seen:
        return None
    module = read_module(owner)
    if module is None:
        return None
    if name in module.classes:
        return module, module.classes[name]
    if name in module.imports:
        return _locate(module.imports[name], seen | {dotted})
    return None


def _dotted(node: ast.expr) -> str:
    return ast.unparse(node.value if isinstance(node, ast.Subscript) else node)


def _absolute(name: str, module: Module) -> str:
    """A name as written in a module, as a dotted path."""
    first, _, rest = name.partition(".")
    if first in module.classes:
        return f"{module.name}.{name}"
    origin = module.imports.get(first, first)
    return f"{origin}.{rest}" if rest else origin


def _canonical(dotted: str) -> str:
    located = _locate(dotted)
    return f"{located[0].name}.{located[1].name}" if located else dotted


def _literal(node: ast.expr | None, module: Module) -> Any:
    if node is None:
        return REQUIRED
    if isinstance(node, ast.Name) and node.id in module.constants:
        node = module.constants[node.id]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return COMPUTED


_ELSEWHERE = ("typing", "collections", "torch", "numpy", "pathlib")  # packages whose names stay as they are written


class _Names(ast.NodeTransformer):
    """Writes an annotation out: aliases as what they stand for, classes by their dotted paths."""

    def __init__(self, module: Module, depth: int = 0) -> None:
        self.module, self.depth = module, depth

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        name = ast.unparse(node.value).rpartition(".")[2]
        if name == "Literal":
            return node  # its texts are values
        return ast.Subscript(self.visit(node.value), self.visit(node.slice), node.ctx)

    def visit_Constant(self, node: ast.Constant) -> Any:
        return self.visit(ast.parse(node.value, mode="eval").body) if isinstance(node.value, str) else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return ast.parse(_absolute(ast.unparse(node), self.module), mode="eval").body

    def visit_Name(self, node: ast.Name) -> Any:
        module, name = self.module, node.id
        for _ in range(5):  # through imports of imports
            if name in module.constants and self.depth < 5:
                return _Names(module, self.depth + 1).visit(copy.deepcopy(module.constants[name]))
            if name in module.classes:
                return ast.parse(f"{module.name}.{name}", mode="eval").body
            origin = module.imports.get(name)
            if origin is None or origin.split(".")[0] in _ELSEWHERE:
                return node
            owner, _, name = origin.rpartition(".")
            found = read_module(owner) if owner else None
            if found is None:
                return ast.parse(origin, mode="eval").body
            module = found
        return node


def _own_params(init: ast.FunctionDef, module: Module) -> tuple[dict[str, Param], bool]:
    arguments = init.args
    positional = [*arguments.posonlyargs, *arguments.args][1:]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    pairs = [*zip(positional, [*defaults, *arguments.defaults], strict=False)]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    params = {}
    for arg, default in pairs:
        annotation = _Names(module).visit(copy.deepcopy(arg.annotation)) if arg.annotation else None
        params[arg.arg] = Param(arg.arg, annotation, _literal(default, module))
    return params, arguments.kwarg is not None


@cache
def read(dotted: str) -> Signature | None:
    """The signature of the class at a dotted path, or None where there is none."""
    located = _locate(dotted)
    if located is None:
        return None
    module, node = located
    path = f"{module.name}.{node.name}"
    bases = [base for base in (read(_absolute(_dotted(b), module)) for b in node.bases) if base]
    ancestors = (path, *(ancestor for base in bases for ancestor in base.ancestors))
    inherited = bases[0] if bases else None
    params = inherited.params if inherited else {}
    spec = inherited.spec if inherited else None
    fields = {name: kind for base in reversed(bases) for name, kind in base.fields.items()}
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            own, takes_more = _own_params(statement, module)
            params = {**params, **own} if takes_more else own
        elif isinstance(statement, ast.FunctionDef) and statement.name == "spec" and statement.returns:
            spec = _canonical(_absolute(_dotted(statement.returns), module))
        elif isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == "spec":
            spec = _canonical(_absolute(_dotted(statement.annotation), module))
        elif isinstance(statement, ast.AnnAssign) and not ast.unparse(statement.annotation).startswith("ClassVar"):
            kind = _dotted(statement.annotation)
            kind = kind if "|" in kind else _canonical(_absolute(kind, module))
            fields[ast.unparse(statement.target)] = kind
    return Signature(path, params, ancestors, spec, fields)


def read_method(dotted: str, name: str) -> dict[str, Param] | None:
    """The arguments of a class's method, without those of its caller (`self` and the first one); None where neither
    the class nor its bases have it."""
    signature = read(dotted)
    for path in signature.ancestors if signature else ():
        located = _locate(path)
        for statement in located[1].body if located else ():
            if isinstance(statement, ast.FunctionDef) and statement.name == name:
                params, _ = _own_params(statement, located[0])  # type: ignore[index]
                return dict(list(params.items())[1:])
    return None


def accepted_specs(dotted: str) -> tuple[str, ...]:
    """The spec classes that a model's constructor says it takes; empty where it does not say."""
    signature = read(dotted)
    if signature is None or "spec" not in signature.params:
        return ()
    return tuple(map(_canonical, signature.params["spec"].classes))


def missing_entries(accepted: str, held: Mapping[str, str]) -> list[str]:
    """The entries of a spec class that are not among these, by name and kind (both dotted paths)."""
    spec = read(accepted)
    missing = []
    for name, kind in spec.fields.items() if spec else ():
        if kind.endswith("| None"):  # it may be left out
            continue
        found = read(held[name]) if name in held else None
        if found is None or kind not in found.ancestors:
            missing.append(name)
    return missing


def class_names(module: str) -> list[str]:
    """Names of the classes in a module, for hints."""
    found = read_module(module)
    return [*found.classes, *found.imports] if found else []
