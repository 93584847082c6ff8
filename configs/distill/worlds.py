"""The family of score distillation on the embedded family `worlds-64`; DreamFusion by default.

Papers: sds        Poole et al., "DreamFusion: Text-to-3D using 2D Diffusion" (2022), in latents
        sjc        H. Wang et al., "Score Jacobian Chaining" (2023), voxels of latents
        sjc_pixels the same, voxels of colours, through the encoder
        vsd        Z. Wang et al., "ProlificDreamer" (2023)
        csd        Yu et al., "Text-to-3D with Classifier Score Distillation" (2023)
        nfsd       Katzir et al., "Noise-Free Score Distillation" (2023)
        ism        Liang et al., "LucidDreamer" (2023), interval score matching
        dreamtime  Huang et al., "DreamTime" (2023), SDS on its schedule of t
        hifa       Zhu and Zhuang, "HiFA" (2023), likewise
        pgc        Pan et al., "Enhancing High-Resolution 3D Generation through Pixel-wise
                   Gradient Clipping" (2024), in latents
        perp_neg   Armandpour et al., "Re-imagine the negative prompt algorithm" (2023), of SDS
Any model that scores images in place of the denoiser:
        classifier     of kind and colour, another one than the judge
        elbo           the autoencoder, which hears no prompt
        discriminator  of true pictures with their captions
        clip           Jain et al., "Zero-Shot Text-Guided Object Generation with Dream Fields"
                       (2022)
Command: python -m experiments.distill --config=configs/distill/worlds.py:csd \
             --prompt="a red mug" --out=runs/red_mug_csd
    without a colon: sds.
Time and figures: see README, "Results".

The cameras, lights and backgrounds are those of the world that the prior was trained on, and its
captions name 8 azimuths x 4 elevations, between which the embeddings are interpolated.
"""

import ml_collections

from geojax.worlds import captions, pictures

VARIANTS = (
    "sds",
    "sjc",
    "sjc_pixels",
    "vsd",
    "csd",
    "nfsd",
    "ism",
    "dreamtime",
    "hifa",
    "pgc",
    "perp_neg",
)
"""The family of score distillation."""

SCORERS = ("classifier", "elbo", "discriminator", "clip")
"""What scores images."""


def get_config(variant: str = "sds") -> ml_collections.ConfigDict:
    """The recipe of one of VARIANTS or SCORERS; without a name, the first.

    Raises:
      ValueError: for any other name.
    """
    variant = variant or VARIANTS[0]
    if variant not in (known := (*VARIANTS, *SCORERS)):
        raise ValueError(f"no variant {variant!r} of this recipe; there are {', '.join(known)}")
    config = _sds()
    changes = {
        "sjc": _sjc,
        "sjc_pixels": _sjc_pixels,
        "vsd": _vsd,
        "csd": _csd,
        "nfsd": _nfsd,
        "ism": _ism,
        "dreamtime": _dreamtime,
        "hifa": _hifa,
        "pgc": _pgc,
        "perp_neg": _perp_neg,
    }
    if variant in changes:
        changes[variant](config)
    if variant in SCORERS:
        _scorer(config)
        config.loss = variant
        config.scorer.weight = 0.01 if variant == "elbo" else 10.0  # nats of pixels are many
    if variant == "clip":
        # Dream Fields' 0.5 of a cosine, which the score has times 22 and 10.
        config.scorer.transmittance = 110.0
    return config


def _sds() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.model = "geojax/assets/worlds-64"
    # Which files of it, and in which type: experiments/model_options.py.
    for name in ("revision", "variant", "dtype", "lora", "tokenizer", "prediction_type"):
        config[name] = ml_collections.config_dict.placeholder(str)
    config.seed = 0
    config.steps = 400  # the schedules are of this length: another length is another run
    config.stop_after = 0  # so many steps and no more, for now; 0: to the end
    config.checkpoint_every = 100
    config.picture_every = 50

    # Field: multiresolution hash grid ("hash") or dense voxels, density blob, bounding ball.
    config.field = ml_collections.ConfigDict()
    config.field.kind = "hash"
    config.field.radius = 0.55
    config.field.levels = 6
    config.field.table_size = 2**15
    config.field.coarsest = 8
    config.field.finest = 64
    config.field.voxels = 48  # a side
    config.field.feature_std = 0.1  # of the voxels at the start
    config.field.blob_scale = 10.0
    config.field.blob_radius = 0.3
    config.optimiser = "adam"  # or "adan"
    config.field.learning_rate = 1e-2
    config.field.learning_rate_last_share = 0.1

    # Its features are the prior's latents; they need a learnt background. False: colours.
    config.latent = False
    config.background = ml_collections.ConfigDict()
    config.background.learnt = False  # random plain ones
    config.background.std = 0.1
    config.background.learning_rate = 1e-2

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

    # Distillation: which loss (experiments/recipe.py) and which schedule of t.
    config.loss = "sds"
    config.times = "linear"
    config.jump_at = 0.5  # of the run, where times = "jump"
    # None: no negative prompt. nfsd needs one, csd can have one.
    config.negative_prompt = ml_collections.config_dict.placeholder(str)
    config.perp_neg = False  # away from the front and the side where they are not seen
    config.inversion = (4, 50)  # of ism: steps, and time steps of the interval
    config.own = ml_collections.ConfigDict()  # of vsd: the network that learns the renderings
    config.own.rank = 8
    config.own.learning_rate = 1e-3
    config.own.velocity = True  # as the model predicts v
    config.guidance = 5.0
    config.t_first = (0.3, 0.98)
    config.t_last = (0.02, 0.5)
    config.weights = ml_collections.ConfigDict()
    config.weights.opacity = 0.0
    config.weights.entropy = 10.0
    config.weights.orientation = 1.0
    config.weights.emptiness = 0.0
    config.weights.centre_depth = 0.0
    config.weights.air = 0.0  # of cameras inside a scene
    config.weights.air_radius = 0.1

    # What is exported.
    config.density_threshold = 5.0
    config.mesh_resolution = 96
    config.picture_size = 96
    return config


def _voxels(config: ml_collections.ConfigDict) -> None:
    config.field.kind = "voxels"
    config.field.blob_scale = 0.0
    config.field.learning_rate = 0.05
    config.background.learnt = True
    config.small_size = 64
    config.large_size = 64
    config.samples = 64
    config.shaded_share = 0.0
    config.loss = "sjc"
    config.t_first = (0.01, 0.969)
    config.t_last = (0.01, 0.969)
    config.weights.entropy = 0.0
    config.weights.orientation = 0.0
    config.weights.emptiness = 60.0
    config.density_threshold = 2.5  # emptiness leaves no more density than the pictures ask for


def _sjc(config: ml_collections.ConfigDict) -> None:
    _voxels(config)
    config.latent = True
    config.capacity = 65_536  # all samples of 4 views of 16 x 16 rays


def _sjc_pixels(config: ml_collections.ConfigDict) -> None:
    _voxels(config)
    config.small_size = 32
    config.capacity = 100_000


def _vsd(config: ml_collections.ConfigDict) -> None:
    config.loss = "vsd"


def _csd(config: ml_collections.ConfigDict) -> None:
    config.loss = "csd"
    config.weights.entropy = 2.0


def _nfsd(config: ml_collections.ConfigDict) -> None:
    config.loss = "nfsd"
    # The worlds have no words for a bad picture. The empty prompt in their place takes all of u
    # away at t >= 200: what is left there is CSD with the weight of the guidance.
    config.negative_prompt = ""


def _ism(config: ml_collections.ConfigDict) -> None:
    config.loss = "ism"


def _dreamtime(config: ml_collections.ConfigDict) -> None:
    config.times = "dreamtime"


def _hifa(config: ml_collections.ConfigDict) -> None:
    config.times = "hifa"


def _pgc(config: ml_collections.ConfigDict) -> None:
    config.loss = "pgc"


def _perp_neg(config: ml_collections.ConfigDict) -> None:
    config.perp_neg = True


def _scorer(config: ml_collections.ConfigDict) -> None:
    """What a score needs, and score distillation does not."""
    config.scorer = ml_collections.ConfigDict()
    config.scorer.weight = 1.0  # of the score, against `weights`
    # Dream Fields' loss: its weight, the target at first and at last, and the share of the run
    # in which it rises from the one to the other.
    config.scorer.transmittance = 0.0
    config.scorer.transmittance_range = (0.4, 0.75)
    config.scorer.transmittance_over = 0.5
