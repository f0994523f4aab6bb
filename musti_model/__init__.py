"""Olfactory image-text matching: do a picture and a historical passage evoke the same smell?"""

__version__ = "0.1.0"

from .config import ImageBranchConfig, MustiConfig, preset
from .errors import InputError, Sentence, WeightsError
from .explain import Explanation
from .model import MustiModel, MustiOutput
from .pipeline import MustiPipeline, Prediction
from .processing import MustiProcessor

__all__ = [
    "Explanation",
    "ImageBranchConfig",
    "InputError",
    "MustiConfig",
    "MustiModel",
    "MustiOutput",
    "MustiPipeline",
    "MustiProcessor",
    "Prediction",
    "Sentence",
    "WeightsError",
    "preset",
]
