"""The tokenizer of a folder of weights: ``tokenizer.json`` tells all of it, ``tokenizer_config.json`` only names its
special tokens.

transformers' own loader is not used: it chooses a class, and may run code, by what the files ask for.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from .folder import read_json, read_text

# Classes that do nothing but what their tokenizer.json says.
CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast", "PreTrainedTokenizer", "BertTokenizer", "BertTokenizerFast")
SPECIAL = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
MAX_GROWTH = 64  # characters that a normaliser may make of one
MAX_WORD = 1000  # characters of a word cut into pieces, the cost of which is their square
# One sign again and again, as of spaces that become one: the only pattern that may repeat.
RUN = re.compile(r"(?:\\s|[ \w])(?:\+|\{\d{1,3},\})")
# Cut into pieces when loaded: short and long, with letters, marks and signs that few vocabularies have.
PROBES = ("Roses, 1790.", "Žena je kuhala čaj; l'été — ſo süß! 漢字 \U0001f339 " + "x" * 300 + " smell" * 600)


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """From a folder that ``save_pretrained`` wrote; nothing that the files may ask for is run, fetched or read.

    Raises: OSError for a missing file; ValueError for files that are damaged, ask for code or for a tokenizer of
        another kind than BERT's.
    """
    settings = read_json(folder, "tokenizer_config.json")
    if not isinstance(settings, dict):
        raise ValueError("tokenizer_config.json does not hold named values")
    if "auto_map" in settings:
        raise ValueError("tokenizer_config.json asks to run code (auto_map), which is not done")
    kind = settings.get("tokenizer_class", CLASSES[0])
    if kind not in CLASSES:
        raise ValueError(
            f"tokenizer_config.json asks for the class {str(kind)[:60]!r}; only tokenizers of BERT's kind are read"
        )
    if any(settings.get(side, "right") != "right" for side in ("padding_side", "truncation_side")):
        raise ValueError(
            "tokenizer_config.json pads or cuts passages on the left; the model reads them from the first word"
        )
    try:
        tokenizer = Tokenizer.from_str(read_text(folder, "tokenizer.json"))
    except Exception as error:  # the library has no class of its own
        raise ValueError(f"tokenizer.json cannot be read: {str(error)[:100]}") from error
    _check_rules(read_json(folder, "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    special: dict[str, Any] = {name: _content(settings.get(name)) for name in SPECIAL}
    wrong = [
        name
        for name, token in special.items()
        if name != "mask_token" and (token is None or tokenizer.token_to_id(token) is None)
    ]
    if wrong:
        raise ValueError(f"tokenizer_config.json does not name a wordpiece as {', '.join(wrong)}")
    if special["mask_token"] is None or tokenizer.token_to_id(special["mask_token"]) is None:
        del special["mask_token"]
    longest = settings.get("model_max_length")
    if isinstance(longest, int):
        special["model_max_length"] = longest
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        padding_side="right",
        truncation_side="right",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **special,
    )


def _content(token: Any) -> str | None:
    """A special token's text; it may be written with its settings."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) and len(token) <= 100 else None


def _check_rules(values: dict[str, Any]) -> None:
    """Raises ValueError for rules by which one passage is cut in two ways, a short one becomes endless, or the library
    gives up in the middle."""
    model, frame = values["model"], values.get("post_processor") or {}
    if model.get("dropout"):
        raise ValueError("tokenizer.json cuts words at random (dropout)")
    if model.get("max_input_chars_per_word", 100) > MAX_WORD:
        raise ValueError(f"max_input_chars_per_word in tokenizer.json is at most {MAX_WORD}")
    growth = 1.0
    for part in _parts([values.get("normalizer"), values.get("pre_tokenizer")]):
        if any(sign in part.get("Regex", "") for sign in "*+?{") and not RUN.fullmatch(part["Regex"]):
            raise ValueError("tokenizer.json has a pattern that repeats, for which some passages take for ever")
        growth *= _growth(part)
    if growth > MAX_GROWTH:
        raise ValueError(f"the normaliser in tokenizer.json makes over {MAX_GROWTH} characters of one")
    named = [
        part["SpecialToken"]["id"]
        for part in _parts([frame.get("single"), frame.get("pair")])
        if "SpecialToken" in part
    ]
    if set(named) - set(frame.get("special_tokens", ())):
        raise ValueError("the post-processor in tokenizer.json adds wordpieces that it does not define")


def _parts(values: Any) -> Iterator[dict[str, Any]]:
    """All dictionaries in nested lists and dictionaries."""
    if isinstance(values, dict):
        yield values
    for value in values.values() if isinstance(values, dict) else values if isinstance(values, list) else ():
        yield from _parts(value)


def _growth(part: dict[str, Any]) -> float:
    """How many characters one rule may make of one, at most."""
    added = len(str(part.get("content") or part.get("prepend") or part.get("replacement") or ""))
    pattern = part["pattern"] if isinstance(part.get("pattern"), dict) else {}
    replaced = "x" if RUN.fullmatch(pattern.get("Regex", "")) else pattern.get("String")  # of a run at least one
    # a pattern may match between any two characters
    return max(1.0, added / len(replaced)) if replaced else 1.0 + added


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, vocabulary: int, length: int) -> None:
    """Whether a model that embeds ``vocabulary`` wordpieces, ``length`` at a time, can read what the tokenizer makes of
    passages.

    Raises: ValueError.
    """
    last = max(tokenizer.get_vocab().values(), default=-1)
    if last >= vocabulary:
        raise ValueError(f"the tokenizer numbers its wordpieces up to {last}, the model embeds {vocabulary}")
    try:
        rows = tokenizer(list(PROBES), truncation=True, max_length=length, return_offsets_mapping=True)
    except Exception as error:
        raise ValueError(f"the tokenizer fails on a passage: {str(error)[:100]}") from error
    for text, ids, spans in zip(PROBES, rows["input_ids"], rows["offset_mapping"], strict=True):
        if not 3 <= len(ids) <= length or ids[0] != tokenizer.cls_token_id or ids[-1] != tokenizer.sep_token_id:
            raise ValueError(
                f"the tokenizer does not put a passage between {tokenizer.cls_token} and {tokenizer.sep_token}"
            )
        if not all(0 <= i < vocabulary for i in ids) or not all(0 <= a <= b <= len(text) for a, b in spans):
            raise ValueError("the tokenizer gives wordpieces that are not in its vocabulary or not in the passage")
