"""A field of large frames, 512 x 512 and more: the sizes of Instant NGP, for an accelerator.

Paper: Müller et al., "Instant Neural Graphics Primitives" (2022): 16 levels of 2^19 slots up to
       2048 vertices a side.
Command: python -m experiments.fit_nerf --config=configs/fit_nerf/large.py \
             --data=runs/corridor --out=runs/corridor_nerf
Time and figures: not measured yet: no accelerator was at hand.
"""

import ml_collections

from configs.fit_nerf import worlds


def get_config() -> ml_collections.ConfigDict:
    """The recipe of `worlds` with a larger field and more rays."""
    config = worlds.get_config()
    config.field.levels = 16
    config.field.table_size = 2**19
    config.field.finest = 2048
    config.field.hidden = 64
    config.samples = 64
    config.importance = 64
    config.rays = 4096
    config.steps = 10_000
    config.checkpoint_every = 1000
    config.picture_every = 1000
    config.chunk = 16_384
    config.film_frames = 120
    config.fps = 24.0
    return config
