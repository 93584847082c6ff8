"""SceneScape's own setting: Stable Diffusion 2 inpainting, DPT-Large, 512 x 512, on an accelerator.

Paper: Fridman et al., "SceneScape: Text-Driven Consistent Scene Generation" (2023), released code.
Command: python -m experiments.walk --config=configs/walk/stable_diffusion.py --frames=50 \
             --prompt="indoor scene, interior, candy house, fantasy, beautiful" --out=runs/candy
Time: the released code takes about 3 minutes a frame on a V100.

Numbers are the released code's, but for CLIP's choice (the paper's, which the code leaves out), the
joined depth and the dome; `depth.reach = 0`, `farthest = inf` and `candidates = 1` are its way.
"""

import ml_collections

from configs.walk import worlds


def get_config() -> ml_collections.ConfigDict:
    """The recipe."""
    config = worlds.get_config("mesh")
    config.model = "stabilityai/stable-diffusion-2-inpainting"
    config.clip = "openai/clip-vit-large-patch14"
    config.path.kind = "scenescape"
    config.path.step = 0.0065625
    config.path.angle = 1.71887  # 0.03 radians
    config.dome_rows = 2048
    config.farthest = 80.0
    config.floater_margin = 0.1
    config.candidates = 4
    config.steps = 50
    config.guidance = 7.5
    config.pad = 44
    config.match = 512.0
    config.keep_known = False
    config.decoder.steps = 100
    config.decoder.learning_rate = 1e-4
    config.depth.model = "Intel/dpt-large"
    config.depth.steps = 300
    config.depth.learning_rate = 1e-7
    config.depth.relative = False
    config.depth.reach = 24.0
    config.fps = 10.0
    return config
