"""Olfactory image-text matching: do a picture and a historical passage evoke the same smell?"""

from .config import ImageBranchConfig, MustiConfig, preset
from .errors import InputError, Sentence, WeightsError
from .model import MustiModel, MustiOutput
from .pipeline import MustiPipeline
from .processing import MustiProcessor
from .question import Question
from .results import Explanation, Prediction
from .version import VERSION as __version__
from .what_if import Alteration

__all__ = [
    "Alteration",
    "Explanation",
    "ImageBranchConfig",
    "InputError",
    "MustiConfig",
    "MustiModel",
    "MustiOutput",
    "MustiPipeline",
    "MustiProcessor",
    "Prediction",
    "Question",
    "Sentence",
    "WeightsError",
    "__version__",
    "preset",
]
