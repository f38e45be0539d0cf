"""Owns finding the checkpoint: a directory as it is, or a hub id's files through huggingface_hub."""

import re
from dataclasses import dataclass
from pathlib import Path

from convert.checkpoint import CONFIG_NAME, INDEX_NAME, TOKENIZER_NAME
from convert.errors import CheckpointError, DownloadError, OptionError

# No Python file and no pickle is ever fetched.
ALLOWED = (CONFIG_NAME, INDEX_NAME, "*.safetensors", TOKENIZER_NAME, "tokenizer_config.json")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class FoundCheckpoint:
    """A directory, and where its content came from."""

    directory: Path
    source_id: str  # hub id, or the directory's name
    revision: str | None  # hub commit, None for a directory


def find_checkpoint(checkpoint: str, revision: str | None = None) -> FoundCheckpoint:
    """Use the directory `checkpoint`, or download that hub id (resuming; HF_HUB_OFFLINE is respected).

    Raises CheckpointError for what is neither, OptionError for a directory's revision, DownloadError.
    """
    directory = Path(checkpoint)
    if directory.is_dir():
        if revision is not None:
            raise OptionError("--revision belongs to a hub id, but --checkpoint names a directory: drop one")
        return FoundCheckpoint(directory, directory.resolve().name, None)
    if not _HUB_ID.fullmatch(checkpoint):
        raise CheckpointError(f"{checkpoint} is neither a directory nor a hub id such as openbmb/MiniCPM-V-2")
    return _download(checkpoint, revision)


def _download(hub_id: str, revision: str | None) -> FoundCheckpoint:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        path = Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(ALLOWED)))
    except HFValidationError:
        raise CheckpointError(f"{hub_id} is no hub id such as openbmb/MiniCPM-V-2") from None
    except GatedRepoError:
        raise DownloadError(
            f"{hub_id} asks for consent: accept it on the hub and run `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise DownloadError(f"{hub_id} has no revision {revision}: give a commit of it") from None
    except RepositoryNotFoundError:
        raise DownloadError(f"the hub has no {hub_id}, or it is private: check the id, or log in") from None
    except LocalEntryNotFoundError:
        raise DownloadError(
            f"{hub_id} is not wholly in the local cache and the hub was not asked or not reached: unset "
            "HF_HUB_OFFLINE, check the network, or name a directory"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise DownloadError(
            f"downloading {hub_id} failed ({type(error).__name__}): run the same command again, it resumes"
        ) from error
    return FoundCheckpoint(path, hub_id, path.name)  # snapshots/<commit>
