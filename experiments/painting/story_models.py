"""Stories from a language model: a chat endpoint, or a local folder.

What a model says is a text. It is parsed as JSON, checked field by field, never run; a text that is
no schedule is refused, and the model told why, a few times. An answer that was accepted is kept in
a file named by the request, so that the same command runs offline to the same story.

The request is that of OpenAI's chat completions, which most servers understand (llama.cpp, vLLM,
Ollama, ...): POST ENDPOINT/chat/completions.
"""

import hashlib
import importlib.util
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geojax.io.atomic import write_json
from geojax.methods.prompt_schedule import PromptSchedule, loads_schedule

ATTEMPTS = 3
MAX_BYTES = 2**20  # of an answer
MAX_NEW_TOKENS = 1024
Messages = list[dict[str, str]]
Ask = Callable[[Messages], str]


def instructions(theme: str, count: int, every: int) -> Messages:
    """What a model is asked, system and user."""
    example = {"frames": [0, every], "prompts": ["a corridor with brick walls", "a sunny kitchen"]}
    return [
        {
            "role": "system",
            "content": (
                "You write prompts for a text-to-image model that draws one continuous camera "
                "movement. Each prompt describes what is seen in a dozen plain words, and leads on "
                "from the one before. Answer with a JSON object alone, of the form "
                + json.dumps(example)
            ),
        },
        {
            "role": "user",
            "content": (
                f"Theme: {theme}\nWrite {count} prompts. The frames are "
                f"{list(range(0, count * every, every))}."
            ),
        },
    ]


def parse_answer(answer: str, count: int) -> PromptSchedule:
    """The schedule in an answer, from its first brace to its last: models like to add words.

    Raises:
      ValueError: there is none, it is not valid, or has another number of prompts.
    """
    start, end = answer.find("{"), answer.rfind("}")
    if start < 0 or end < start:
        raise ValueError(f"no JSON object in the answer, which begins {answer[:60]!r}")
    schedule = loads_schedule(answer[start : end + 1])
    if len(schedule.prompts) != count:
        raise ValueError(f"{len(schedule.prompts)} prompts in place of {count}")
    return schedule


def told_story(
    ask: Callable[[], Ask],
    source: dict[str, Any],
    theme: str,
    count: int,
    every: int,
    cache: Path,
) -> PromptSchedule:
    """The story of a source, from the cache where it was told before.

    Args:
      ask: makes the function that asks the model; not called where the cache answers.
      source: which model and seed, for the cache's name; no secrets.
      theme: what the story is about.
      count: prompts, at least 1.
      every: frames that each lasts, at least 1.
      cache: folder of the answers.

    Raises:
      ValueError: the model's answers were no schedule; the last one is quoted.
      Whatever `ask` raises.
    """
    messages = instructions(theme, count, every)
    request = {**source, "messages": messages}
    name = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:24]
    file = cache / f"{name}.json"
    if file.is_file():
        try:
            kept = json.loads(file.read_text())
            return parse_answer(kept["answer"], count)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is damaged ({error}); remove it to ask again") from error
    say, refused = ask(), ""
    for _ in range(ATTEMPTS):
        answer = say(messages)
        try:
            schedule = parse_answer(answer, count)
        except ValueError as error:
            refused = str(error)
            messages = [
                *messages,
                {"role": "assistant", "content": answer[:2000]},
                {"role": "user", "content": f"That was refused: {refused}. JSON alone, please."},
            ]
            continue
        write_json(file, {"request": request, "answer": answer, "schedule": schedule.to_dict()})
        return schedule
    raise ValueError(f"{ATTEMPTS} answers of the model were no schedule; the last: {refused}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def chat_endpoint(
    endpoint: str, model: str, *, key_variable: str | None, seed: int, timeout: float
) -> Ask:
    """A function that asks an OpenAI-compatible endpoint.

    Args:
      endpoint: such as "http://localhost:8080/v1".
      model: its name there.
      key_variable: name of the environment variable that holds the key; None sends none.
      seed: asked for; not every server heeds it.
      timeout: seconds to wait for an answer.

    Raises:
      ValueError: another scheme than http and https, or an empty variable. And, when asked: an
        answer of another form. OSError: the endpoint cannot be reached, refuses, or is too slow.
    """
    if not endpoint.startswith(("http://", "https://")):
        raise ValueError(f"--story_endpoint={endpoint} must begin with http:// or https://")
    headers = {"Content-Type": "application/json"}
    if key_variable is not None:
        secret = os.environ.get(key_variable, "").strip()
        if not secret:
            raise ValueError(f"--story_key={key_variable}: that environment variable is not set")
        headers["Authorization"] = f"Bearer {secret}"
    url = endpoint.rstrip("/") + "/chat/completions"
    opener = urllib.request.build_opener(_NoRedirect)

    def ask(messages: Messages) -> str:
        body = {"model": model, "messages": messages, "temperature": 0.8, "seed": seed}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with opener.open(request, timeout=timeout) as response:
                data = response.read(MAX_BYTES + 1)
        except urllib.error.HTTPError as error:
            said = error.read(300).decode(errors="replace")
            raise OSError(f"{url} answered {error.code} {error.reason}: {said}") from error
        except (urllib.error.URLError, TimeoutError) as error:
            reason = getattr(error, "reason", error)
            raise OSError(f"{url} cannot be asked within {timeout} s: {reason}") from error
        if len(data) > MAX_BYTES:
            raise ValueError(f"{url} answered more than {MAX_BYTES} bytes")
        try:
            answer = json.loads(data)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{url} did not answer as a chat endpoint: {data[:200]!r}") from error
        if not isinstance(answer, str):
            raise ValueError(f"{url} answered {answer!r} in place of a text")
        return answer

    return ask


def local_model(folder: str, *, seed: int) -> Ask:
    """A function that asks a causal language model in a folder of transformers' layout.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: PyTorch is not installed, or the folder holds no such model in safetensors.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"--story_lm={folder} is not a folder")
    if importlib.util.find_spec("torch") is None:
        raise ValueError("--story_lm needs PyTorch: pip install 'geojax[torch]'")
    import torch
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"--story_lm={folder} holds no causal language model: {error}") from error

    def ask(messages: Messages) -> str:
        if tokenizer.chat_template:
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        else:
            text = "\n\n".join(message["content"] for message in messages) + "\n\n"
        tokens = tokenizer(text, return_tensors="pt")
        torch.manual_seed(seed + len(messages))  # a second attempt is not the first again
        with torch.no_grad():
            out = model.generate(**tokens, max_new_tokens=MAX_NEW_TOKENS, do_sample=True)
        return tokenizer.decode(out[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True)

    return ask
