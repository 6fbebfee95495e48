"""Checkers of Jepsen histories, as a library: see jepsen/README.md."""
