"""Noise schedules, parameterizations, guidance and samplers; no networks (floor 0)."""
