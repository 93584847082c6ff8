"""DreamFusion with Stable Diffusion: the paper's cameras and schedule, a hash grid for its MLP.

Paper: Poole et al., "DreamFusion: Text-to-3D using 2D Diffusion" (2022); the field, the activation
    and the learning rate are those with which the public reimplementations replace it.
Command: python -m experiments.distill --config=configs/distill/stable_diffusion.py \
             --config.model=PATH_OR_HUB_ID --prompt="a DSLR photo of a squirrel" --out=runs/squirrel
    and for half the memory: --config.variant=fp16 --config.dtype=bfloat16; adaptations:
    --config.lora=FILE:SCALE
Time and figures: not measured yet: no accelerator was at hand. It is written for one GPU.
"""

import ml_collections

from configs.distill import worlds


def get_config() -> ml_collections.ConfigDict:
    """The recipe: what differs from the embedded one."""
    config = worlds.get_config()
    config.model = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    config.steps = 10_000
    config.checkpoint_every = 1000
    config.picture_every = 200

    # The paper's ball of radius 1.4 around cameras at 1 to 1.5: some stand inside it.
    config.field.radius = 1.4
    config.field.levels = 16
    config.field.table_size = 2**19
    config.field.coarsest = 16
    config.field.finest = 2048
    config.field.blob_radius = 0.5

    config.views = 4
    config.small_size = 64
    config.large_size = 64
    config.large_from = 1.0
    config.samples = 256
    config.capacity = 2**20
    config.grid_resolution = 64
    config.grid_every = 16
    config.shaded_from = 0.1
    config.shaded_share = 0.75
    config.ambient = (0.1, 0.1)
    config.textureless = 0.5

    config.cameras.distance = (1.0, 1.5)
    config.cameras.focal = (0.7, 1.35)
    config.cameras.position_jitter = 0.1
    config.cameras.target_std = 0.2

    # Front, side, back, side; the overhead name takes over above 60 degrees.
    around = (", front view", ", side view", ", back view", ", side view")
    config.view_elevations = (50.0, 70.0)
    config.view_suffixes = (around, (", overhead view",) * 4)

    config.guidance = 101.0  # the paper's omega = 100: g = 1 + omega
    config.t_first = (0.02, 0.98)
    config.t_last = (0.02, 0.98)
    config.own.velocity = False  # of vsd: the models of 1.x and the base ones of 2.x predict eps
    config.weights.opacity = 1.0
    config.weights.entropy = 0.0
    config.weights.orientation = 1.0
    return config
