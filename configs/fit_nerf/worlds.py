"""A field of a walk's frames, or of any posed pictures: minutes on two cores at 64 x 64 pixels.

Paper: Mildenhall et al., "NeRF" (2020), with the hash grid of Müller et al. (2022) and the depth
       of the frames as Deng et al. (2022).
Command: python -m experiments.fit_nerf --config=configs/fit_nerf/worlds.py \
             --data=runs/corridor --out=runs/corridor_nerf
Time and figures: on 24 exact frames of a corridor of the world, --config.steps=600 gives 33.7 dB
    and a median depth error of 0.3 % on the three frames held out (15.6 dB: one plain colour), in
    54 s of one core's time.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The recipe for small frames; `configs/fit_nerf/large.py` is that for large ones."""
    config = ml_collections.ConfigDict()
    config.seed = 0

    # The scene: the ball is found from cameras and depth unless it is given.
    config.ball = (0.0, 0.0, 0.0, 0.0)  # centre and radius, world units; radius 0: found
    config.inside = 0.999  # share of the points of known depth that the ball holds
    config.near = 0.02  # of the ball's radius
    config.background = (0.0, 0.0, 0.0)
    config.learnt_background = False  # for a sky: colour by direction in place of a plain one
    config.hold_every = 8  # one frame of each so many is not fitted; 0: all are

    config.field = ml_collections.ConfigDict()
    config.field.levels = 8
    config.field.table_size = 2**16
    config.field.coarsest = 16
    config.field.finest = 256
    config.field.hidden = 32

    config.samples = 48
    config.importance = 48
    config.rays = 512
    config.steps = 2000
    config.learning_rate = 1e-2
    config.learning_rate_last_share = 0.01
    config.average = 0.99
    config.weights = ml_collections.ConfigDict()
    config.weights.depth = 0.1
    config.weights.solid = 0.1
    config.weights.entropy = 0.0

    config.checkpoint_every = 500
    config.picture_every = 500
    config.chunk = 4096  # rays of a picture at a time
    config.film_frames = 48
    config.film_sway = 0.05  # of the median depth, or of the ball's radius without depth
    config.fps = 12.0
    return config
