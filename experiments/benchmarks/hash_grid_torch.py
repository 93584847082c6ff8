"""The hash-grid field written plainly in PyTorch, as the measure of ours.

What one writes first: for each level the eight corners at once, an index tensor, a gather, a
weighted sum, and autograd. Equations (1) to (3) of geojax/models/hash_grid.py, so that the two
agree number by number.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from geojax.models.hash_grid import level_sizes

_PRIMES = (1, 2654435761, 805459861)
_CORNERS = torch.tensor([[(c >> axis) & 1 for axis in range(3)] for c in range(8)])


class HashGridField(torch.nn.Module):
    """Points [N, 3] in world units to density [N] and feature [N, 3]."""

    def __init__(self, sizes: Any, params: Mapping[str, Any]):
        """From the recipe's `field` and the parameters of geojax's field."""
        super().__init__()
        self.sizes = level_sizes(sizes.levels, sizes.coarsest, sizes.finest)
        self.radius = sizes.radius
        self.blob = (sizes.blob_scale, sizes.blob_radius)
        slots = [min(size**3, sizes.table_size) for size in self.sizes]
        levels = np.split(np.asarray(params["grid"]["table"]), np.cumsum(slots)[:-1], axis=1)
        self.tables = torch.nn.ParameterList(
            torch.nn.Parameter(torch.tensor(level.T.copy())) for level in levels
        )
        self.layers = torch.nn.ParameterDict(
            {
                name: torch.nn.Parameter(torch.tensor(np.asarray(params[name]["kernel"])))
                for name in ("density_0", "density_1", "feature_0", "feature_1")
            }
        )

    def encode(self, points: torch.Tensor) -> torch.Tensor:
        """Features [N, F * levels]: all levels of feature 0, coarse first, then of feature 1."""
        unit = points / (2.0 * self.radius) + 0.5
        encoded = []
        for size, table in zip(self.sizes, self.tables, strict=True):
            p = torch.clamp(unit * size - 0.5, 0.0, size - 1.0)
            low = torch.clamp(torch.floor(p), max=size - 2.0)
            fraction = (p - low)[:, None]
            vertex = low.long()[:, None] + _CORNERS  # [N, 8, 3]
            if size**3 <= len(table):
                index = vertex[..., 0] + size * (vertex[..., 1] + size * vertex[..., 2])
            else:
                mixed = [(vertex[..., a] * _PRIMES[a]) & 0xFFFFFFFF for a in range(3)]
                index = (mixed[0] ^ mixed[1] ^ mixed[2]) % len(table)
            weight = torch.where(_CORNERS.bool(), fraction, 1.0 - fraction).prod(dim=-1)
            encoded.append((weight[..., None] * table[index]).sum(dim=1))
        return torch.stack(encoded, dim=-1).flatten(1)

    def forward(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Density [N] and feature [N, 3]."""
        encoded = self.encode(points)

        def network(name: str) -> torch.Tensor:
            hidden = torch.relu(encoded @ self.layers[f"{name}_0"])
            return hidden @ self.layers[f"{name}_1"]

        norm = points.norm(dim=-1)
        scale, std = self.blob
        raw = network("density")[:, 0] + scale * (1.0 - norm / std)
        density = torch.where(norm <= self.radius, torch.nn.functional.softplus(raw), 0.0)
        return density, torch.sigmoid(network("feature"))

    def gradient(self, points: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
        """Gradient of sum(weights * output) by the parameters' names."""
        density, feature = self(points)
        loss = (weights * torch.cat([density[:, None], feature], dim=-1)).sum()
        names, values = zip(*self.named_parameters(), strict=True)
        return dict(zip(names, torch.autograd.grad(loss, values), strict=True))


def tensors(*arrays: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Numpy arrays as tensors."""
    return tuple(torch.from_numpy(array) for array in arrays)
