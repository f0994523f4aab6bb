"""Every text that the page may say, collected from its components and its code."""

import ast
from pathlib import Path

from jinja2 import nodes

from musti_model import MustiPipeline, Sentence
from page.language import parts_of, texts_of
from page.markup import TEMPLATES

ROOT = Path(__file__).parents[1]
SPOKEN = {"say", "later", "Sentence", "InputError", "paragraph", "heading", "refusal", "WeightsError"}
NAMES = {"ViT", "ResNet", "CNN", "Grad-CAM", "ResNet: Grad-CAM", "CNN: Grad-CAM"}  # alike in all languages


def _constants(node: ast.AST) -> list[str]:
    if isinstance(node, ast.IfExp):
        return _constants(node.body) + _constants(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def texts_in_code() -> set[str]:
    """Templates given to whatever says them."""
    found = set()
    for file in [
        ROOT / "app.py",
        *(ROOT / "page").rglob("*.py"),
        *(f for f in (ROOT / "musti_model").glob("*.py") if f.name != "mmm2024.py"),
    ]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
            if name in SPOKEN and node.args:
                found.update(_constants(node.args[0]))
    return found


def texts_in_templates() -> set[str]:
    """The same in the page's templates."""
    calls = [
        c
        for name in TEMPLATES.list_templates(["html"])
        for c in TEMPLATES.parse(TEMPLATES.loader.get_source(TEMPLATES, name)[0]).find_all(nodes.Call)
    ]
    return {
        c.args[0].value
        for c in calls
        if getattr(c.node, "name", "") in ("say", "tagged") and c.args and isinstance(c.args[0], nodes.Const)
    }


def texts_of_page(pipe: MustiPipeline) -> set[str]:
    """Of components, of the code, and the names of the objects that the weights know."""
    import app

    found = (
        texts_in_code()
        | texts_in_templates()
        | {name.replace("_", " ") for name in pipe.objects}
        | {str(pipe.card.get("caveat", ""))}
    )
    demo = app.build(pipe)
    for component in demo.blocks.values():
        if component.elem_id is None and not getattr(component, "visible", True):
            continue  # of the endpoints, which nobody sees
        for held in texts_of(component).values():
            found.update(t.template if isinstance(t, Sentence) else t for t in parts_of(held))
    card = {b.value for b in demo.blocks.values() if b.elem_id == "card"}
    return found - card - NAMES - {""}
