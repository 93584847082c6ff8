"""Recipes, one a file: paper, exact command, time, expected figures."""
