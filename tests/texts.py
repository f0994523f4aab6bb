"""Every text that the page may say, collected from its components and its code."""

import ast
from pathlib import Path

from musti_model import MustiPipeline, Sentence
from page.language import parts_of, texts_of

ROOT = Path(__file__).parents[1]
SPOKEN = {"say", "later", "Sentence", "InputError", "paragraph", "heading", "refusal", "WeightsError"}
NAMES = {"ViT", "ResNet", "Grad-CAM", "ResNet: Grad-CAM"}  # alike in all languages


def _constants(node: ast.AST) -> list[str]:
    if isinstance(node, ast.IfExp):
        return _constants(node.body) + _constants(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def texts_in_code() -> set[str]:
    """Templates given to whatever says them."""
    found = set()
    for file in [ROOT / "app.py", ROOT / "training" / "data.py", *(ROOT / "page").glob("*.py"), *(f for f in (ROOT / "musti_model").glob("*.py") if f.name != "published.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
            if name in SPOKEN and node.args:
                found.update(_constants(node.args[0]))
    return found


def texts_of_page(pipe: MustiPipeline) -> set[str]:
    """Of components, of the code, and the names of the objects that the weights know."""
    import app

    found = texts_in_code() | {name.replace("_", " ") for name in pipe.objects} | {str(pipe.card.get("caveat", ""))}
    demo = app.build(pipe)
    for component in demo.blocks.values():
        if component.elem_id is None and not getattr(component, "visible", True):
            continue  # of the endpoints, which nobody sees
        for held in texts_of(component).values():
            found.update(t.template if isinstance(t, Sentence) else t for t in parts_of(held))
    card = {b.value for b in demo.blocks.values() if b.elem_id == "card"}
    return found - card - NAMES - {""}
