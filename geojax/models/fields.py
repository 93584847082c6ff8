"""Fields: networks that map points to density and feature, and the background.

Symbols: sigma density (1 / length), mu a point in world units, R the radius of the bounding ball.

    (1)  sigma = activation(raw + blob(mu)) inside the ball |mu| <= R, 0 outside
    (2)  Gaussian blob  scale exp(-|mu|^2 / (2 std^2)),  5 and 0.2 with activation exp
    (3)  linear blob    scale (1 - |mu| / std),          10 and 0.5 with activation softplus
    (4)  hollow box     slope max_i (|mu_i| - h_i)       the reverse, for cameras inside

Sources: (1, 2) DreamFusion, appendix A.2; (3) Magic3D; (4) this project's. The blob goes in before
the activation: without it nothing is visible at first and nothing has a gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from geojax.geometry.integrated_encoding import integrated_encoding
from geojax.models.hash_grid import HashGrid, interpolate

PointwiseFn = Callable[[Float[Array, "..."]], Float[Array, "..."]]


class Field(NamedTuple):
    """A network as pure functions.

    Attributes:
      init: key -> params.
      apply: (params, points [N, 3]) -> (density [N], feature [N, C]). Fields that integrate over
        the pixel's cone (``MipNerfField``) also take ``variance`` [N, 3]. For a ``Background``:
        (params, directions [N, 3]) -> colour [N, C].
    """

    init: Callable[[Key[Array, ""]], PyTree]
    apply: Callable[..., PyTree]


def as_field(module: nn.Module) -> Field:
    """The pure functions of a field or background module; params without the Linen wrapping."""

    def init(key: Key[Array, ""]) -> PyTree:
        # Under jit the network's own arithmetic, which parameters do not need, is left out.
        return jax.jit(module.init)(key, jnp.ones((1, 3)))["params"]

    def apply(params: PyTree, *inputs: Array) -> PyTree:
        return module.apply({"params": params}, *inputs)

    return Field(init, apply)


@jax.custom_jvp
def truncated_exp(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """exp(x) whose derivative stops growing at x = 15 (torch-ngp): a huge density can shrink."""
    return jnp.exp(x)


@truncated_exp.defjvp
def _truncated_exp_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return jnp.exp(x), jnp.exp(jnp.minimum(x, 15.0)) * dx


def gaussian_blob(
    points: Float[Array, "N 3"], scale: float = 5.0, std: float = 0.2
) -> Float[Array, "N"]:
    """DreamFusion's density bias, eq. (2): ``scale`` at the origin."""
    return scale * jnp.exp(-jnp.sum(points**2, axis=-1) / (2 * std**2))


def linear_blob(
    points: Float[Array, "N 3"], scale: float = 10.0, std: float = 0.5
) -> Float[Array, "N"]:
    """Magic3D's density bias, eq. (3): ``scale`` at the origin, 0 at radius ``std``."""
    squared = jnp.sum(points**2, axis=-1)
    # sqrt has no derivative at 0: the cone's tip gets slope 0.
    at_origin = squared == 0
    norm = jnp.where(at_origin, 0.0, jnp.sqrt(jnp.where(at_origin, 1.0, squared)))
    return scale * (1.0 - norm / std)


def hollow_box(
    points: Float[Array, "N 3"], half: tuple[float, float, float], slope: float = 20.0
) -> Float[Array, "N"]:
    """A density bias that leaves a box about the origin empty, eq. (4): 0 on its faces."""
    return slope * jnp.max(jnp.abs(points) - jnp.asarray(half, points.dtype)[None], axis=-1)


def no_blob(points: Float[Array, "N 3"]) -> Float[Array, "N"]:
    """No density bias."""
    return jnp.zeros(points.shape[:-1], points.dtype)


def in_ball(
    density: Float[Array, "N"], points: Float[Array, "N 3"], radius: float
) -> Float[Array, "N"]:
    """Density inside the ball of ``radius`` around the origin, 0 outside."""
    return jnp.where(jnp.sum(points**2, axis=-1) <= radius**2, density, 0.0)


class HashGridField(nn.Module):
    """Hash grid with two small networks, one for density and one for the feature. The default.

    The networks have one hidden layer and no bias (threestudio). ``feature_activation`` is
    sigmoid for albedo in [0, 1], identity for latents (``lambda x: x``).
    """

    channels: int = 3
    radius: float = 1.0
    levels: int = 8
    grid_features: int = 2
    table_size: int = 2**15
    coarsest: int = 8
    finest: int = 128
    smooth: bool = False
    hidden: int = 32
    blob: Callable[[Float[Array, "N 3"]], Float[Array, "N"]] = linear_blob
    density_activation: PointwiseFn = jax.nn.softplus
    feature_activation: PointwiseFn = jax.nn.sigmoid

    @nn.compact
    def __call__(
        self, points: Float[Array, "N 3"]
    ) -> tuple[Float[Array, "N"], Float[Array, "N C"]]:
        """World points to density [N] and feature [N, channels]."""
        grid = HashGrid(
            levels=self.levels,
            features=self.grid_features,
            table_size=self.table_size,
            coarsest=self.coarsest,
            finest=self.finest,
            radius=self.radius,
            smooth=self.smooth,
            name="grid",
        )
        encoded = grid(points)

        def network(name: str, outputs: int) -> Float[Array, "N C"]:
            hidden = nn.Dense(self.hidden, use_bias=False, name=f"{name}_0")(encoded)
            return nn.Dense(outputs, use_bias=False, name=f"{name}_1")(nn.relu(hidden))

        raw = network("density", 1)[:, 0]
        density = self.density_activation(raw + self.blob(points))
        feature = self.feature_activation(network("feature", self.channels))
        return in_ball(density, points, self.radius), feature


class MipNerfField(nn.Module):
    """DreamFusion's network: integrated encoding, residual blocks, LayerNorm, swish.

    Five blocks of width 128 (DreamFusion, appendix A.2). Without ``variance`` the encoding is the
    plain positional one.
    """

    channels: int = 3
    radius: float = 1.4
    width: int = 128
    blocks: int = 5
    degrees: int = 6
    blob: Callable[[Float[Array, "N 3"]], Float[Array, "N"]] = gaussian_blob
    density_activation: PointwiseFn = truncated_exp
    feature_activation: PointwiseFn = jax.nn.sigmoid

    @nn.compact
    def __call__(
        self, points: Float[Array, "N 3"], variance: Float[Array, "N 3"] | None = None
    ) -> tuple[Float[Array, "N"], Float[Array, "N C"]]:
        """Means [N, 3] and diagonal variances [N, 3] of Gaussians to density and feature."""
        if variance is None:
            variance = jnp.zeros_like(points)
        encoded = integrated_encoding(points, variance, 0, self.degrees)
        x = nn.Dense(self.width, name="stem")(jnp.concatenate([points, encoded], axis=-1))
        for block in range(self.blocks):
            y = nn.LayerNorm(epsilon=1e-5, name=f"norms_{block}")(x)
            y = nn.swish(nn.Dense(self.width, name=f"dense_in_{block}")(y))
            x = x + nn.Dense(self.width, name=f"dense_out_{block}")(y)
        x = nn.swish(nn.LayerNorm(epsilon=1e-5, name="norm_out")(x))
        raw = nn.Dense(1, name="density")(x)[:, 0]
        density = self.density_activation(raw + self.blob(points))
        feature = self.feature_activation(nn.Dense(self.channels, name="feature")(x))
        return in_ball(density, points, self.radius), feature


class VoxelField(nn.Module):
    """Dense voxels on [-radius, radius]^3, trilinear, values at voxel centres.

    Parameters ``density`` [1, size^3] and ``feature`` [channels, size^3], x fastest, and the
    scalar ``log_scale`` k: density = activation(exp(k) raw + bias + blob). With the defaults this
    is the field of Score Jacobian Chaining: softplus(exp(k) d - 1), d = 0 and k = 0 at the start.
    ``radius`` is that of the cube; ``ball`` that of the bounding ball (None: the cube's corners).
    """

    channels: int = 3
    radius: float = 1.0
    size: int = 100
    bias: float = -1.0
    ball: float | None = None
    feature_std: float = 1.0
    smooth: bool = False
    blob: Callable[[Float[Array, "N 3"]], Float[Array, "N"]] = no_blob
    density_activation: PointwiseFn = jax.nn.softplus
    feature_activation: PointwiseFn = lambda x: x

    @nn.compact
    def __call__(
        self, points: Float[Array, "N 3"]
    ) -> tuple[Float[Array, "N"], Float[Array, "N C"]]:
        """World points to density [N] and feature [N, channels]."""
        slots = self.size**3
        density = self.param("density", nn.initializers.zeros, (1, slots))
        normal = nn.initializers.normal(self.feature_std)
        feature = self.param("feature", normal, (self.channels, slots))
        scale = jnp.exp(self.param("log_scale", nn.initializers.zeros, ()))
        table = jnp.concatenate([scale * density, feature])
        unit_points = points / (2.0 * self.radius) + 0.5
        values = interpolate(table, unit_points, self.size, self.smooth)
        sigma = self.density_activation(values[0] + self.bias + self.blob(points))
        outside = jnp.any(jnp.abs(points) > self.radius, axis=-1)
        sigma = jnp.where(outside, 0.0, sigma)
        if self.ball is not None:
            sigma = in_ball(sigma, points, self.ball)
        return sigma, self.feature_activation(values[1:].T)


class Background(nn.Module):
    """Colour of the view direction alone: a small network on its positional encoding.

    DreamFusion: 3 layers of 64. It must stay too weak to paint the object.
    """

    channels: int = 3
    width: int = 64
    layers: int = 3
    degrees: int = 4
    activation: PointwiseFn = jax.nn.sigmoid

    @nn.compact
    def __call__(self, directions: Float[Array, "N 3"]) -> Float[Array, "N C"]:
        """Unit directions [N, 3] to colour [N, channels]."""
        x = integrated_encoding(directions, jnp.zeros_like(directions), 0, self.degrees)
        for layer in range(self.layers - 1):
            x = nn.relu(nn.Dense(self.width, name=f"layers_{layer}")(x))
        return self.activation(nn.Dense(self.channels, name=f"layers_{self.layers - 1}")(x))
