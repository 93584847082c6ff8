"""The suites of evaluate.py."""
