"""Who imports whom: from the command line down to the configuration, never upward."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "dlx"
LAYERS = [
    {"cli"},
    {"dashboard", "claims"},
    {"methods"},
    {"sweeps"},
    {"batched"},
    {"training"},
    {"data", "tasks", "regularization", "optim", "tracking", "models"},
    {"runs"},
    {"config"},
    {"random"},
]
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}
PACKAGES = sorted(path.stem for path in ROOT.iterdir() if path.name not in ("__pycache__", "__init__.py", "py.typed"))


def imported(package: str) -> dict[str, str]:
    """The other packages of dlx that this one imports anywhere, also for types, each with one place where it does."""
    found = {}
    path = ROOT / package
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                first, _, rest = module.partition(".")
                if first == "dlx" and rest:
                    found[rest.partition(".")[0]] = f"{file.relative_to(ROOT)}:{node.lineno}"
    return found


@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "__main__"])
def test_nothing_is_imported_from_above(package):
    assert package in LEVEL, f"dlx/{package} has no layer"
    for other, where in imported(package).items():
        assert LEVEL[other] >= LEVEL[package], f"{where} imports {other}"


def test_no_packages_import_each_other():
    graph = {name: set(imported(name)) - {name} for name in PACKAGES}
    while leaves := [name for name, others in graph.items() if not others & set(graph)]:
        for name in leaves:
            del graph[name]
    assert not graph, "these import each other in a circle"


def test_configurations_name_the_models_and_nothing_else_imports_them():
    assert [name for name in PACKAGES if name != "models" and "models" in imported(name)] == []
    # A system also makes pictures and texts (dlx/runs/media.py), and draws by sample (dlx/random.py).
    assert set(imported("models")) <= {"models", "tasks", "runs", "random", "config", "regularization"}
