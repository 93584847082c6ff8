"""A walk on the embedded family: 64 x 64 pixels, minutes on two cores.

Paper: Fridman et al., "SceneScape: Text-Driven Consistent Scene Generation" (2023), with the
       joined depth and the dome of `methods/scene_walk`.
Command: python -m experiments.walk --config=configs/walk/worlds.py \
             --prompt="a corridor with brick walls and a wooden floor" --out=runs/corridor
    --config=configs/walk/worlds.py:warp takes the plain RGBD warp in place of the mesh.
Time and figures: see README, "Results".
"""

import ml_collections

VARIANTS = ("mesh", "warp")


def get_config(variant: str = "mesh") -> ml_collections.ConfigDict:
    """The recipe of a method.

    Raises:
      ValueError: for any other name.
    """
    variant = variant or VARIANTS[0]
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r} of this recipe; there are {', '.join(VARIANTS)}")
    config = ml_collections.ConfigDict()
    config.method = variant
    config.model = "geojax/assets/worlds-64-inpainting"
    config.clip = "geojax/assets/worlds-64/clip"
    config.seed = 0
    config.size = 0  # of the shorter side; 0 is the model's
    config.fov = 54.22  # degrees across the longer side

    # The way; units are those of the scene's depth.
    config.path = ml_collections.ConfigDict()
    config.path.kind = "straight"
    config.path.step = -0.15
    config.path.angle = 0.0  # degrees a frame
    config.path.poses = ""  # transforms.json, or a folder of COLMAP text
    config.path.there_and_back = False
    config.widest_hole = 0.9
    config.shortest_step = 0.125

    # The scene.
    config.antialias = 2
    config.splat = 3
    config.dome_rows = 256
    config.farthest = 30.0
    config.crack = 1
    config.floater_margin = 0.0

    # The painting.
    config.candidates = 4
    config.sampler = "ddim"
    config.steps = 20
    config.guidance = 4.0
    config.strength = 1.0
    config.negative_prompt = ""
    config.pad = 0
    config.match = 64.0
    config.keep_known = True
    config.decoder = ml_collections.ConfigDict()
    config.decoder.steps = 60
    config.decoder.learning_rate = 5e-4
    config.decoder.preservation = 100.0

    # The depth.
    config.depth = ml_collections.ConfigDict()
    config.depth.model = "geojax/assets/worlds-64/depth"
    config.depth.fit = "tune"
    config.depth.steps = 60
    config.depth.learning_rate = 1e-4
    config.depth.relative = True
    config.depth.reach = 6.0

    config.fps = 8.0
    return config
