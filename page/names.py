"""Names of branches and objects as people read them."""

from .language import say

BRANCH_NAMES = {"vit": "ViT", "cnn": "CNN", "resnet": "ResNet", "swin": "Swin"}


def branch_name(name: str) -> str:
    """The name of a branch as people read it."""
    return BRANCH_NAMES.get(name, name)


def object_name(name: str) -> str:
    """An object of the weights as people read it."""
    return say(name.replace("_", " "))
