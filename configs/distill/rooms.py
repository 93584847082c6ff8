"""A room from inside, by score distillation: which cameras leave something of it.

Variants: random    cameras anywhere in the box, also where the density is
          free      cameras in the free space of the current density
          schedule  the same, in a region that grows from the middle of the box
Papers: Poole et al., "DreamFusion" (2022); that cameras drawn at random stand in walls indoors and
    empty the scene, and that they have to be chosen along with it: Bautista et al., "GAUDI" (2022).
    The rules: geojax/geometry/inside_cameras.py.
Command: python -m experiments.distill --config=configs/distill/rooms.py:schedule \
             --prompt="a room with red walls and a brown wooden floor" --out=runs/red_room
    python -m experiments.study_rooms --out=runs/study_rooms runs all three.
Time: 2 to 5 minutes a run on one core. Figures: see README, "Results".

The prior is the embedded inpainting family, which was trained on rooms too, with the whole picture
as its hole: a text-to-image model of them. Captions of rooms name no view.
"""

import ml_collections

from configs.distill import worlds


def get_config(variant: str = "free") -> ml_collections.ConfigDict:
    """The recipe with one of the rules for its cameras.

    Raises:
      ValueError: for any other name.
    """
    variant = variant or "free"
    if variant not in (known := ("random", "free", "schedule")):
        raise ValueError(f"no variant {variant!r} of this recipe; there are {', '.join(known)}")
    config = worlds.get_config()
    config.model = "geojax/assets/worlds-64-inpainting"
    config.steps = 200
    config.field.radius = 1.0
    config.field.blob_scale = 0.0
    config.field.levels = 6
    config.field.finest = 64

    config.views = 4
    config.large_from = 1.0
    config.samples = 32
    config.capacity = 50_000
    config.shaded_share = 0.0  # the light of a room is in its colours
    config.view_elevations = (0.0,)
    config.view_suffixes = (("",),)
    config.weights.orientation = 0.0
    config.weights.air = 100.0  # keeps fog from where cameras stand
    config.weights.air_radius = 0.06
    config.guidance = 8.0

    config.inside = ml_collections.ConfigDict()
    config.inside.rule = variant
    config.inside.inpainting = True  # of the model: paint the whole picture
    config.inside.half = (0.9, 0.9, 0.15)  # half sides of the box of the cameras, world units
    # The start: a hollow of these half sides in a solid that thickens outward; () is a fog. From
    # its middle the floor takes a quarter of a picture, as in those that the prior has seen.
    config.inside.hollow = (0.65, 0.65, 0.16)
    config.inside.slope = 60.0
    config.inside.pitch = (-10.0, 5.0)  # degrees
    config.inside.focal = (0.9, 1.07)  # times the image width: those of the rooms
    config.inside.start = (0.0, 0.0, 0.0)  # of the schedule: the point that it sets out from
    config.inside.first_share = 0.1  # of the box, at step 0
    config.inside.open_at = 0.75  # of the run: all of the box
    config.inside.free = ml_collections.ConfigDict()
    config.inside.free.candidates = 64  # a camera
    config.inside.free.clearance = 0.06  # about the camera
    config.inside.free.thickness = 0.2  # optical, over the clearance
    config.inside.free.sight = 0.3  # least distance ahead
    config.inside.free.reach = 1.0
    config.inside.free.samples = 12
    return config
