"""Which version of the project this is."""

VERSION = "0.2.0"
