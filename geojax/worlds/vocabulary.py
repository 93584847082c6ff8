"""A CLIP byte-pair vocabulary in which every word of the worlds is one token.

CLIP's tokenizer starts a word from its characters, the last one marked `</w>`, and applies merges
in the order of their rank. The merges here are learnt as usual, the most frequent pair first, but
until every known word is whole; other words still come out as pieces, so any prompt has tokens.

Source of the scheme: Sennrich et al., "Neural machine translation of rare words with subword
units" (2016), and the file layout of CLIP's tokenizer (vocab.json, merges.txt).
"""

import collections
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from geojax.worlds import captions, solids

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 24
"""Tokens of a prompt, start and end included."""

_FUNCTION_WORDS = (
    "a an the of and with in on at from one photo picture image rendering view views side front "
    "back left right above below high eye level overhead small big large , ."
)
# The rooms world speaks these; they stand here so that the vocabulary need not change for it.
_ROOM_WORDS = (
    "room corridor hall hallway wall walls floor floors ceiling door doors window windows pillar "
    "pillars sofa bed shelf lamp carpet rug table chair brick bricks stone stones wooden wood "
    "plaster tile tiles tiled marble concrete striped checkered plain painted white grey "
    "black brown beige long narrow wide bright dark sunny empty furnished living bathroom kitchen "
    "office library museum church cellar end open closed two three four many"
)


def world_words() -> list[str]:
    """Every word that a caption of the worlds may hold, sorted."""
    words = set(f"{_FUNCTION_WORDS} {_ROOM_WORDS}".split())
    words |= set(solids.COLOURS) | set(solids.KINDS)
    for phrase in (*captions.AZIMUTHS, *(name for _, name in captions.ELEVATIONS)):
        words |= set(phrase.split())
    return sorted(words)


def learn_merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Merges, in order of rank, after which every word is one symbol."""
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while any(len(symbols) > 1 for symbols in spelled):
        pairs = collections.Counter(pair for s in spelled for pair in itertools.pairwise(s))
        # Ties go to the pair that is first in the alphabet, so that the result is reproducible.
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = [_apply(best, symbols) for symbols in spelled]
    return merges


def _apply(pair: tuple[str, str], symbols: list[str]) -> list[str]:
    merged: list[str] = []
    i = 0
    while i < len(symbols):
        if tuple(symbols[i : i + 2]) == pair:
            merged.append(pair[0] + pair[1])
            i += 2
        else:
            merged.append(symbols[i])
            i += 1
    return merged


def _byte_symbols() -> list[str]:
    """CLIP's 256 byte symbols: printable characters stand for themselves, others are shifted up."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(shifted))]


def write_tokenizer(folder: Path) -> int:
    """Write the files of a CLIP tokenizer (vocab.json, merges.txt, ...); returns its size."""
    merges = learn_merges(world_words())
    symbols = _byte_symbols()
    tokens = [*symbols, *(s + "</w>" for s in symbols), *(a + b for a, b in merges), START, END]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_TOKENS,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    special = {k: v for k, v in config.items() if k.endswith("_token")}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    return len(vocabulary)
