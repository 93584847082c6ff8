"""Frozen dataclasses as pytrees."""

import dataclasses
from typing import TypeVar

import jax

T = TypeVar("T")


def register(cls: type[T]) -> type[T]:
    """Make a frozen dataclass a pytree; fields with metadata {"static": True} are its structure.

    Unlike `jax.tree_util.register_dataclass`, JAX rebuilds the object without calling `__init__`:
    leaves are then often no arrays (shapes, shardings, None), which a checked `__init__` refuses.
    """
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    static = [field.name for field in fields if field.metadata.get("static")]
    leaves = [field.name for field in fields if not field.metadata.get("static")]

    def flatten(tree):
        return [getattr(tree, name) for name in leaves], tuple(
            getattr(tree, name) for name in static
        )

    def flatten_with_keys(tree):
        children, structure = flatten(tree)
        keys = [jax.tree_util.GetAttrKey(name) for name in leaves]
        return list(zip(keys, children, strict=True)), structure

    def unflatten(structure, children):
        tree = object.__new__(cls)
        for name, value in (
            *zip(leaves, children, strict=True),
            *zip(static, structure, strict=True),
        ):
            object.__setattr__(tree, name, value)
        return tree

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls
