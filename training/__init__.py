"""The loop, losses, data, evaluation and publishing."""
