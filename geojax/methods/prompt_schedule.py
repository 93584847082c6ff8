"""Prompts that change along a walk, a zoom or a film.

Symbols: f_i, p_i frame and prompt of entry i, f_0 = 0 < f_1 < ...; y_i embedding of p_i [L, D];
n frame that is asked for.
    (1) held       y(n) = y_i,  i the last entry with f_i <= n
    (2) blended    y(n) = (1 - w) y_i + w y_{i+1},  w = (n - f_i) / (f_{i+1} - f_i);
                   after the last entry, its own

SceneScape (Fridman et al. 2023) and its successors hold a prompt; (2) is DreamFusion's blend of
view prompts (Poole et al. 2022, section 3.2) along time.

A schedule is written {"frames": [0, 12, 30], "prompts": ["...", "...", "..."]}. It often comes from
a language model, so it is checked field by field and never run as code.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

FIELDS = {"frames", "prompts"}
MAX_PROMPT = 1000  # characters; far over any encoder's limit of tokens


class PromptSchedule(NamedTuple):
    """Frames, rising from 0, and the prompt from each on."""

    frames: tuple[int, ...]
    prompts: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As it is written in JSON."""
        return {"frames": list(self.frames), "prompts": list(self.prompts)}


def parse_schedule(value: Any) -> PromptSchedule:
    """A schedule out of what a JSON text held.

    Raises:
      ValueError: says which field is wrong, what it holds and what was expected.
    """
    if not isinstance(value, Mapping) or set(value) != FIELDS:
        found = sorted(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
        raise ValueError(f'expected {{"frames": [...], "prompts": [...]}}, got {found}')
    frames, prompts = value["frames"], value["prompts"]
    for name, entry in (("frames", frames), ("prompts", prompts)):
        if not isinstance(entry, list) or not entry:
            raise ValueError(f"{name} must be a list of at least one entry, got {entry!r}")
    if len(frames) != len(prompts):
        raise ValueError(f"{len(frames)} frames for {len(prompts)} prompts; one each is expected")
    for i, frame in enumerate(frames):
        # True is an int in Python.
        if not isinstance(frame, int) or isinstance(frame, bool):
            raise ValueError(f"frames[{i}] must be a whole number, got {frame!r}")
    if frames[0] != 0:
        raise ValueError(f"frames must start at 0, got {frames[0]}")
    for i in range(1, len(frames)):
        if frames[i] <= frames[i - 1]:
            raise ValueError(f"frames must rise: frames[{i}] is {frames[i]} after {frames[i - 1]}")
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f"prompts[{i}] must be a text that is not blank, got {prompt!r}")
        if len(prompt) > MAX_PROMPT or not prompt.isprintable():
            raise ValueError(
                f"prompts[{i}] must be one line of at most {MAX_PROMPT} characters, "
                f"got {prompt[:60]!r}..."
            )
    return PromptSchedule(tuple(frames), tuple(prompt.strip() for prompt in prompts))


def loads_schedule(text: str) -> PromptSchedule:
    """A schedule from a JSON text.

    Raises:
      ValueError: not JSON, a key given twice, or as `parse_schedule`.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            raise ValueError(f"a field is given twice in {names}")
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}; the text begins {text[:60]!r}") from error
    except RecursionError as error:
        raise ValueError("not a schedule: the JSON is nested too deeply") from error
    return parse_schedule(value)


def constant_schedule(prompt: str) -> PromptSchedule:
    """One prompt for every frame. ValueError for a blank one."""
    return parse_schedule({"frames": [0], "prompts": [prompt]})


def blend_at(schedule: PromptSchedule, frame: int) -> tuple[int, int, float]:
    """(i, i + 1, w) of equation (2); the last entry stands for both ends after it.

    Raises:
      ValueError: a frame below 0.
    """
    if frame < 0:
        raise ValueError(f"frame must not be below 0, got {frame}")
    first = max(i for i, start in enumerate(schedule.frames) if start <= frame)
    if first + 1 == len(schedule.frames):
        return first, first, 0.0
    start, end = schedule.frames[first : first + 2]
    return first, first + 1, (frame - start) / (end - start)


def prompt_at(schedule: PromptSchedule, frame: int) -> str:
    """The prompt that is held at a frame, equation (1)."""
    return schedule.prompts[blend_at(schedule, frame)[0]]


def condition_at(
    schedule: PromptSchedule, embeddings: Float[Array, "P L D"], frame: int, *, blend: bool
) -> Float[Array, "1 L D"]:
    """The condition of a frame: equation (2) with `blend`, else (1).

    Args:
      schedule: of P prompts.
      embeddings: [P, L, D], `prior.embed(schedule.prompts)`.
      frame: at least 0.
      blend: move from prompt to prompt, or hold each until the next.

    Raises:
      ValueError: a frame below 0, or another number of embeddings than of prompts.
    """
    if embeddings.shape[0] != len(schedule.prompts):
        raise ValueError(f"{embeddings.shape[0]} embeddings for {len(schedule.prompts)} prompts")
    first, second, w = blend_at(schedule, frame)
    if not blend:
        return embeddings[first][None]
    share = jnp.asarray(w, embeddings.dtype)
    return ((1.0 - share) * embeddings[first] + share * embeddings[second])[None]
