"""Which prompt at which frame: from a file, the worlds, or a language model that the user names."""

import functools
from pathlib import Path
from typing import Any

from absl import flags

from experiments.painting import story_models
from geojax.methods.prompt_schedule import PromptSchedule, constant_schedule, loads_schedule
from geojax.methods.world_story import object_story, room_story

WORLDS = {"objects": object_story, "rooms": room_story}
SOURCES = ("story", "story_endpoint", "story_lm")
FLAGS = (
    *SOURCES,
    *("story_every", "story_model", "story_key", "story_timeout", "story_cache"),
)


def define_flags(values: flags.FlagValues) -> None:
    """The flags of a story; for frames that go on."""
    string = functools.partial(flags.DEFINE_string, flag_values=values)
    integer = functools.partial(flags.DEFINE_integer, flag_values=values)
    number = functools.partial(flags.DEFINE_float, flag_values=values)
    string(
        "story",
        None,
        'Prompts by frame: a JSON file {"frames": [0, ...], "prompts": ["...", ...]}, or "objects" '
        'or "rooms" for one that --seed makes up from the words of the worlds.',
    )
    string(
        "story_endpoint",
        None,
        "OpenAI-compatible endpoint to ask, such as http://localhost:8080/v1.",
    )
    string("story_lm", None, "Folder of a causal language model to ask.")
    integer("story_every", 4, "Frames that each prompt of such a story lasts.", lower_bound=1)
    string("story_model", None, "The model's name at the endpoint.")
    string("story_key", None, "Environment variable that holds the endpoint's key.")
    number("story_timeout", 60.0, "Seconds to wait for the endpoint.", lower_bound=0.1)
    string("story_cache", "runs/stories", "Folder of the answers of language models.")


def check_prompt(settings: dict[str, Any]) -> None:
    """Refuse a command without anything to say, or with too much.

    Raises:
      ValueError: no prompt, a blank one, several stories, or a flag of a story that is not told.
    """
    told = [name for name in SOURCES if settings.get(name) is not None]
    if len(told) > 1:
        raise ValueError(f"one story at a time; given are --{', --'.join(told)}")
    if (settings.get("story_endpoint") is None) != (settings.get("story_model") is None):
        raise ValueError("--story_endpoint and --story_model go together")
    if settings.get("story_key") is not None and told != ["story_endpoint"]:
        raise ValueError("--story_key is for --story_endpoint")
    prompt = settings["prompt"]
    if told == ["story"]:
        if prompt is not None:
            raise ValueError("--prompt and --story: the story has its own prompts, give one")
        return
    if prompt is None or not prompt.strip():
        raise ValueError(
            f"--prompt is {'missing' if prompt is None else 'empty'}; expected a description such "
            "as 'a red mug, side view'"
        )


def schedule_of(settings: dict[str, Any]) -> PromptSchedule:
    """The prompts of a command's frames.

    Raises:
      FileNotFoundError, ValueError: the file is absent or no schedule, or the model's answer.
      OSError: the endpoint cannot be asked.
    """
    every = settings["story_every"]
    count = settings["frames"] // every + 1  # frames 0..N
    story, prompt, seed = settings["story"], settings["prompt"], settings["seed"]
    if story in WORLDS:
        return WORLDS[story](seed, count, every)
    if story is not None:
        file = Path(story)
        if not file.is_file():
            raise FileNotFoundError(
                f"--story={story} is neither a file nor one of {', '.join(WORLDS)}"
            )
        try:
            return loads_schedule(file.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"--story={story}: {error}") from error
    cache = Path(settings["story_cache"])
    if settings["story_endpoint"] is not None:
        names = ("story_endpoint", "story_model")
        return story_models.told_story(
            lambda: story_models.chat_endpoint(
                settings["story_endpoint"],
                settings["story_model"],
                key_variable=settings["story_key"],
                seed=seed,
                timeout=settings["story_timeout"],
            ),
            {name: settings[name] for name in names} | {"seed": seed},
            prompt,
            count,
            every,
            cache,
        )
    if settings["story_lm"] is not None:
        return story_models.told_story(
            lambda: story_models.local_model(settings["story_lm"], seed=seed),
            {"story_lm": settings["story_lm"], "seed": seed},
            prompt,
            count,
            every,
            cache,
        )
    return constant_schedule(prompt)
