"""Errors that people read: one sentence, what is wrong and what to do."""


class InputError(ValueError):
    """A picture or a passage that cannot be used."""


class WeightsError(RuntimeError):
    """Weights that cannot be had: missing, private, offline, or corrupt."""
