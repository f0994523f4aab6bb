"""What is said about published weights: the model card and metrics.json, filled from the run and its evaluation."""

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from musti_model.config import MustiConfig
from musti_model.fusion import GATES

TASK = "image-text-to-text"
TASK_NAME = "Same smell source in picture and passage (MUSTI subtask 1)"
SETS = {"dev": "dev (choices were made on these pairs)", "test": "**test** (held out)"}


@dataclass(frozen=True)
class Facts:
    """What a card is made of.

    repo: user/name; config: of the weights; record: run.json; report: the evaluation of these very weights, None
    without one; dataset: name of the pairs; figures: paths in the repository.
    """

    repo: str
    config: MustiConfig
    record: dict[str, Any]
    report: dict[str, Any] | None
    dataset: str = "MUSTI"
    license: str = "mit"
    figures: list[str] = field(default_factory=list)

    @property
    def caveat(self) -> str:
        """What a reader of the scores must know; the page shows it too."""
        if self.report is None:
            return "These weights were not evaluated; nothing is known about how well they answer."
        collapsed = (
            "These weights collapsed: practically the same probability for every pair. "
            if self.report["collapsed"]
            else ""
        )
        split = self.report.get("split") or "unknown"
        return (
            f"{collapsed}Scores on an own split of {self.dataset} ({split}), which are not the scores of an "
            "official test file."
        )


def metrics(facts: Facts) -> dict[str, Any]:
    """What metrics.json holds: the report, versions and caveat. A score that is no number is None, which every reader
    of JSON knows."""
    run = {key: facts.record.get(key) for key in ("system", "seed", "versions")}
    return _finite(run | (facts.report or {}) | {"caveat": facts.caveat})


def eval_results(facts: Facts) -> list[EvalResult]:
    """F1-macro and AUC of the test pairs, and F1-macro of each language. Scores that are no number are left out."""
    if facts.report is None:
        return []
    test, report = facts.report["test"], facts.report
    rows = [
        (None, "f1", test),
        (None, "roc_auc", test),
        *((tag, "f1", s) for tag, s in test.get("languages", {}).items()),
    ]
    return [
        EvalResult(
            task_type=TASK,
            task_name=TASK_NAME,
            dataset_type=re.sub(r"\W+", "-", facts.dataset.lower()),
            dataset_name=f"{facts.dataset} (own split)" + (f", {tag}" if tag else ""),
            dataset_config=tag or "all",
            dataset_split="test",
            dataset_revision=report.get("split"),
            dataset_args={
                "split": report.get("split"),
                "data": report.get("data"),
                "fold": report.get("fold"),
                "pairs": scores.get("pairs"),
            },
            metric_type=metric,
            metric_name="F1-macro" if metric == "f1" else "ROC-AUC",
            metric_args={"average": "macro"} if metric == "f1" else None,
            metric_value=round(value, 4),
        )
        for tag, metric, scores in rows
        if (value := _number(scores.get("f1_macro" if metric == "f1" else "auc"))) is not None
    ]


def model_card(facts: Facts) -> str:
    """The text of README.md: front matter with ``model-index``, then what people read."""
    results = eval_results(facts)
    data = ModelCardData(
        license=facts.license,
        library_name="musti",
        pipeline_tag=TASK,
        tags=["musti", "olfaction", "image-text-matching"],
        language=_languages(facts.report) or None,
        model_name=facts.repo.split("/")[1],
        eval_results=results or None,
        metrics=sorted({r.metric_type for r in results}) or None,
    )
    sections = [_head(facts), _scores(facts), _training(facts), _limits(facts), _use(facts), _citation(facts)]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(s for s in sections if s) + "\n"


# Sections of the card -------------------------------------------------------------------------------------------------


MEETINGS = {
    "place": "words meet the picture's places in reading order",
    "content": "words look for the places that fit what they mean",
}


def _head(facts: Facts) -> str:
    config = facts.config
    branches = " and ".join(f"`{b.backbone}` ({b.image_size} px)" for b in config.branches)
    text, about = config.text, f" {facts.record['about']}" if facts.record.get("about") else ""
    gate = GATES[config.gate].about + (f" ({MEETINGS[config.meeting]})" if config.gate != "none" else "")
    vote = "a learned vote" if config.voting == "learned" else "the mean"
    naming = f" A naming head knows {len(config.objects)} objects." if config.objects else ""
    return (
        f"# {facts.repo.split('/')[1]}\n\nWeights that say whether a picture and a historical passage evoke the "
        f"same smell source: YES or NO, with a probability.\n\n**{facts.caveat}**\n\nSystem "
        f"`{facts.record.get('system', config.name)}`.{about} Pictures are read by {branches}, the passage by a "
        f"BERT of {text.get('num_hidden_layers', '?')} layers and {text.get('hidden_size', '?')} features; {gate}; "
        f"text and picture are compared by cosine, branch by branch, and {vote} of the cosines gives the logit "
        f"(`{config.logit}`; padding `{config.padding}`).{naming}"
    )


def _scores(facts: Facts) -> str:
    report = facts.report
    if report is None:
        return (
            f"## Scores\n\nNone. The weights carry the threshold {facts.config.threshold:.3f} and the "
            f"temperature {facts.config.temperature:.3f}."
        )
    rows = [_row(SETS[name], report[name]) for name in SETS]
    rows += [_row(f"test, {tag}", scores) for tag, scores in report["test"].get("languages", {}).items()]
    start = facts.record.get("start", "")
    read = (
        "\n\n" + start + " Pairs held out here may have been read by those weights, so these scores may be too high."
        if "tensors start from" in start
        else ""
    )
    figures = read + "".join(f"\n\n![{path.split('/')[-1].rsplit('.', 1)[0]}]({path})" for path in facts.figures)
    return (
        (
            f"## Scores\n\nYES from a probability of {report['threshold']:.3f}; the logit is divided by the "
            f"temperature {report['temperature']:.3f} first. Both are stored with the weights. Intervals are 95 % "
            "bootstrap intervals.\n\n| pairs | F1-macro | interval | F1 of NO | F1 of YES | ROC-AUC | ECE | "
            "number | YES among them |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        )
        + "\n".join(rows)
        + figures
    )


def _row(name: str, scores: dict[str, Any]) -> str:
    numbers = [_shown(scores.get(key)) for key in ("f1_no", "f1_yes", "auc", "ece")]
    interval = " to ".join(_shown(bound) for bound in scores.get("interval", {}).get("f1_macro", [])) or "–"
    share = _number(scores.get("yes_share"))
    cells = [
        name,
        _shown(scores.get("f1_macro")),
        interval,
        *numbers,
        str(scores.get("pairs", "–")),
        "–" if share is None else f"{share:.0%}",
    ]
    return "| " + " | ".join(cells) + " |"


def _training(facts: Facts) -> str:
    record, report = facts.record, facts.report or {}
    rows = {key: record.get(key) for key in ("seed", "data", "split")} | {
        "fold": report.get("fold"),
        "pairs file": report.get("pairs_file"),
    }
    rows |= (
        {"batch": record.get("batch")} | _flat(record.get("options") or {}) | _flat(record.get("loss") or {}, "loss.")
    )
    rows |= _flat(record.get("settings") or {}) | _flat(record.get("versions") or {}, "version of ")
    table = "\n".join(f"| {_cell(key)} | {_cell(value)} |" for key, value in rows.items() if value is not None)
    split = "No picture and no passage stands in two parts of the split. " if record.get("split") else ""
    return (
        f"## How it was trained\n\n{split}`run.json` holds everything needed to repeat the run.\n\n| setting | "
        f"value |\n| --- | --- |\n{table}"
    )


def _limits(facts: Facts) -> str:
    lines = ["- Attention, gate and Grad-CAM show where the model looked; they do not prove why it answered as it did."]
    if facts.report is not None:
        languages = ", ".join(_languages(facts.report)) or "none"
        lines.insert(0, f"- Measured on passages in: {languages}. Of other languages nothing is known.")
        lines.insert(
            1,
            (
                f"- The intervals tell how far {facts.report['test']['pairs']} test pairs can be trusted, not how "
                "another training run would do."
            ),
        )
    if facts.config.objects:
        lines.append(f"- The naming head knows these objects only: {', '.join(facts.config.objects)}.")
    if facts.report is not None and facts.dataset == "MUSTI":
        lines.append(
            "- MMM2024 reported F1-macro .7442 on the 814 pairs of MUSTI's test file. The scores above are of "
            "other pairs; the two cannot be put side by side."
        )
    return f"## Limits\n\n{facts.caveat}\n\n" + "\n".join(lines)


def _use(facts: Facts) -> str:
    return (
        "## Use\n\nFrom a clone of the project's code:\n\n```python\nfrom musti_model import MustiPipeline\n\n"
        f'pipe = MustiPipeline.from_pretrained("{facts.repo}@COMMIT")  # pin the commit that you tested\nanswer = '
        'pipe("picture.jpg", "The roses smelled sweet in the garden.")\nprint(answer.label, answer.probability, '
        "answer.threshold)\n```\n\n"
        "COMMIT is the 40 digits of a commit in this repository's history. The page starts from the same: "
        f"`MUSTI_MODEL={facts.repo}@COMMIT python app.py`."
    )


def _citation(facts: Facts) -> str:
    return (
        "## Cite\n\nThe task is MUSTI (Multimodal Understanding of Smells in Texts and Images) of MediaEval; the "
        "architecture follows MMM2024, a system of MUSTI 2023. Please cite the paper of MMM2024, and these weights "
        f"as `{facts.repo}` with the commit."
    )


# Values ---------------------------------------------------------------------------------------------------------------


def _languages(report: dict[str, Any] | None) -> list[str]:
    """Language tags of dev and test; the Hub takes ISO 639 codes only."""
    tags = {tag for name in SETS for tag in (report or {}).get(name, {}).get("languages", {})}
    return sorted(tag for tag in tags if re.fullmatch("[a-z]{2,3}", tag))


def _number(value: Any) -> float | None:
    """A finite number, else None (an AUC of pairs that are all NO is no number)."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _shown(value: Any) -> str:
    number = _number(value)
    return "–" if number is None else f"{number:.3f}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"lr_of": {"gate": 1}} -> {"lr_of.gate": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split()).replace("|", "\\|")
