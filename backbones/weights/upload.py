"""A folder of weights put onto the Hugging Face hub: the files that are named, in one commit, and nothing else."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backbones.weights.hub import endpoint, is_unreachable, one_line

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # that huggingface_hub looks into, the first that is set
REFUSED = (401, 403)


def check_repository(repository: str) -> None:
    """Raise ValueError for what is no OWNER/NAME."""
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError(f"--to {repository}: it should be OWNER/NAME.")


def upload(files: Sequence[Path], repository: str, *, private: bool = False) -> str:
    """Put the files at the top of the model OWNER/NAME, made where it is not there, and return the commit's name.

    Raises ValueError that says which token is refused or missing, or that the hub is not reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants, errors, get_token

    check_repository(repository)
    if constants.HF_HUB_OFFLINE:
        raise ValueError(f"{repository}: HF_HUB_OFFLINE is set, so that nothing is sent; unset it.")
    if get_token() is None:
        raise ValueError(
            f"{repository}: no token. Make one that may write at {endpoint()}/settings/tokens, and give it as HF_TOKEN."
        )
    api = HfApi(endpoint=endpoint())
    try:
        api.create_repo(repository, repo_type="model", private=private or None, exist_ok=True)
        added = [CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in files]
        made = api.create_commit(repository, added, commit_message=f"Add {', '.join(path.name for path in files)}")
    except errors.HfHubHTTPError as error:
        raise ValueError(f"{repository}: {_meaning(error)}") from error
    except Exception as error:
        if not is_unreachable(error):
            raise
        raise ValueError(f"{repository}: {endpoint()} is not reached ({one_line(error)}); nothing was sent.") from error
    return f"hf:{repository}@{made.oid}"


def _meaning(error: Any) -> str:
    status = error.response.status_code
    if status in REFUSED:
        return (
            f"{endpoint()} refused {_token()} ({status}): it is no longer valid, or may not write to this model. Make "
            f"one that may at {endpoint()}/settings/tokens, and give it as HF_TOKEN."
        )
    return f"the server answered {status} ({one_line(error)})."


def _token() -> str:
    """Return which token it is, never the token."""
    from huggingface_hub import constants

    named = next((name for name in VARIABLES if os.environ.get(name)), None)
    return f"the token of {named}" if named else f"the token in {constants.HF_TOKEN_PATH}"
