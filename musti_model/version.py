"""Which version of the project this is."""

VERSION = "0.1.0"
