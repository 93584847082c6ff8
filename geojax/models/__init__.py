"""Floor 2: networks in Flax Linen, the only floor that imports Flax."""
