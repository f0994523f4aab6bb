"""No module imports one that imports it again, by whatever way, under TYPE_CHECKING or inside a function."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("musti_model", "page", "training", "benchmarks", "tools", "tests")


def modules() -> dict[str, Path]:
    """{dotted name: file} of the project."""
    files = [ROOT / "app.py", *(f for folder in FOLDERS for f in (ROOT / folder).rglob("*.py"))]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def imported(name: str, file: Path, known: set[str]) -> set[str]:
    """The project's modules that a module names in its import statements, wherever they stand."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            whole = ".".join([*base, *((node.module or "").split(".") if node.module else [])])
            inner = {f"{whole}.{a.name}" for a in node.names}
            found |= (inner & known) or {whole}
            found |= {whole} if inner - known else set()
    return found & known - {name}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, or none."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if found := walk(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def test_a_circle_is_found():
    assert (
        circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
        and circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    )


def test_imports_of_every_kind_are_seen(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(
        "if TYPE_CHECKING:\n    from .b import y\ndef f():\n    from . import c\n    import a.d\n    from .. import V\n"
    )
    assert imported("a.e.x", file, {"a", "a.e.b", "a.e.c", "a.d", "a.e"}) == {"a", "a.e.b", "a.e.c", "a.d"}


def test_assets_hold_no_code():
    """It would lie outside the rooms that are walked here."""
    assert not list((ROOT / "assets").rglob("*.py"))


def test_no_import_goes_in_a_circle():
    files = modules()
    assert len(files) > 80
    graph = {name: imported(name, file, set(files)) for name, file in files.items()}
    assert circle(graph) == []


MAY_IMPORT = {  # a room: the other rooms that it knows
    "musti_model": set(),
    "page": {"musti_model"},
    "training": {"musti_model"},
    "app": {"musti_model", "page"},
    "benchmarks": {"app", "musti_model", "page", "tools", "training"},
    "tools": {"app", "musti_model", "page", "training"},
}


def test_rooms_import_one_way():
    """The model knows neither page nor training, and these two not each other."""
    files = modules()
    for name, file in files.items():
        room = name.split(".")[0]
        if room != "tests":
            assert {m.split(".")[0] for m in imported(name, file, set(files))} - {room} <= MAY_IMPORT[room], name


def test_imports_within_the_model_run_one_way():
    """Methods know nothing of the pipeline; figures and the config nothing of torch; results nothing of the model."""
    files = modules()
    for name, file in files.items():
        seen = imported(name, file, set(files))
        if name.startswith("musti_model.methods."):
            assert not seen & {"musti_model.pipeline", "musti_model.explain", "musti_model.figures"}, name
    assert not imported("musti_model.results", files["musti_model.results"], set(files)) & {
        "musti_model.model",
        "musti_model.question",
        "musti_model.pipeline",
    }
    for name in ("musti_model.figures", "musti_model.config", "musti_model.saving"):
        assert "torch" not in {
            n
            for node in ast.walk(ast.parse(files[name].read_text()))
            if isinstance(node, ast.Import)
            for a in node.names
            for n in [a.name]
        }
