"""The training loop, its losses, and the memory it works in."""
