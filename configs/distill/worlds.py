"""DreamFusion on the embedded family `worlds-64`.

Paper: Poole et al., "DreamFusion: Text-to-3D using 2D Diffusion" (2022), in latent space.
Command: python -m experiments.distill --config=configs/distill/worlds.py --prompt="a red mug" \
             --out=runs/red_mug
Time and figures: see README, "Results".

The cameras, lights and backgrounds are those of the world that the prior was trained on, and its
captions name 8 azimuths x 4 elevations, between which the embeddings are interpolated.
"""

import ml_collections

from geojax.worlds import captions, pictures


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = ml_collections.ConfigDict()
    config.model = "geojax/assets/worlds-64"
    config.seed = 0
    config.steps = 400
    config.checkpoint_every = 100
    config.picture_every = 50

    # Field: multiresolution hash grid, density blob, bounding ball.
    config.field = ml_collections.ConfigDict()
    config.field.radius = 0.55
    config.field.levels = 6
    config.field.table_size = 2**15
    config.field.coarsest = 8
    config.field.finest = 64
    config.field.blob_scale = 10.0
    config.field.blob_radius = 0.3
    config.field.learning_rate = 1e-2
    config.field.learning_rate_last_share = 0.1

    # Rendering: small first, at the prior's size for the last part of the run.
    config.views = 4
    config.small_size = 32
    config.large_size = 64
    config.large_from = 0.5  # of the run
    config.samples = 48
    config.capacity = 40_000  # at the small size; four times as many at the large one
    config.grid_resolution = 32
    config.grid_every = 8
    config.shaded_from = 0.5  # of the run
    config.shaded_share = 0.5
    config.ambient = pictures.AMBIENT
    config.textureless = 0.0

    config.cameras = ml_collections.ConfigDict()
    config.cameras.elevation = pictures.VIEWS.elevation
    config.cameras.distance = pictures.VIEWS.distance
    config.cameras.focal = pictures.VIEWS.focal
    config.cameras.position_jitter = pictures.VIEWS.position_jitter
    config.cameras.target_std = pictures.VIEWS.target_std
    config.cameras.up_std = pictures.VIEWS.up_std

    # Views named in prompts: rows of elevation (degrees), columns of azimuth 2 pi k / K.
    config.view_elevations = tuple(degrees for degrees, _ in captions.ELEVATIONS)
    config.view_suffixes = tuple(
        tuple(captions.view_suffix(a, e) for a in range(len(captions.AZIMUTHS)))
        for e in range(len(captions.ELEVATIONS))
    )

    # Distillation.
    config.guidance = 5.0
    config.t_first = (0.3, 0.98)
    config.t_last = (0.02, 0.5)
    config.weights = ml_collections.ConfigDict()
    config.weights.opacity = 0.0
    config.weights.entropy = 10.0
    config.weights.orientation = 1.0

    # What is exported.
    config.density_threshold = 5.0
    config.mesh_resolution = 96
    config.picture_size = 96
    return config
