"""Where a model lies: a folder on this disk, or a repository of the Hugging Face hub.

A hub id can be pinned to a revision, and only the files that geojax reads are fetched: no pickles,
no single-file copies, no safety checker. Without a network the local cache answers.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
COMPONENTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
# A repository that is one component, as CLIP's: beside its weights lie copies for other libraries.
ROOT = ("model", "diffusion_pytorch_model")


def resolve_folder(
    path_or_id: str | Path,
    *,
    revision: str | None = None,
    variant: str | None = None,
    local_files_only: bool = False,
    components: Sequence[str] = COMPONENTS,
) -> Path:
    """The local folder of a model.

    Args:
      path_or_id: a folder, or a hub id such as "owner/name" where no such folder exists.
      revision: of the hub repository: a branch, tag or, to be reproducible, a commit.
      variant: fetch `*.fp16.safetensors` ("fp16") in place of the plain weights.
      local_files_only: take the hub's files from the cache without asking the network.
      components: sub-folders to fetch; "." is a component in the repository's own folder.

    Raises:
      FileNotFoundError: neither a folder nor a hub id; an unknown repository or revision; or not in
        the cache and the hub cannot be reached.
      ValueError: a revision for a local folder.
    """
    path = Path(path_or_id).expanduser()
    if path.exists():
        if revision is not None:
            raise ValueError(f"{path} is a local folder, revision={revision!r} is for a hub id")
        return path
    name = str(path_or_id)
    if not HUB_ID.fullmatch(name):
        raise FileNotFoundError(f"{name} is neither a folder nor a hub id of the form owner/name")
    weights = f"*.{variant}*.safetensors" if variant else "*.safetensors"
    allow = ["model_index.json"]
    for component in components:
        if component == ".":
            allow += ["*.json", "*.txt", *(stem + weights for stem in ROOT)]
        else:
            allow += [f"{component}/{pattern}" for pattern in ("*.json", "*.txt", weights)]
    ignore = [] if variant else ["*.fp16*", "*.non_ema*"]
    at = f" at revision {revision}" if revision else ""
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=allow,
            ignore_patterns=ignore,
            local_files_only=local_files_only,
        )
    # A missing cache entry is what being offline looks like.
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"no folder {name} here, and the hub repository {name}{at} is not in the local cache"
            + ("" if local_files_only else " and the hub cannot be reached")
            + f". Fetch it once with a network (`hf download {name}`), or give a folder."
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise FileNotFoundError(
            f"no folder {name} here, and the hub has no repository {name}{at} that you may read"
        ) from error
    return Path(folder)
