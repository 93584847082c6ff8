"""Geometry out of, and into, text-to-image diffusion models."""
