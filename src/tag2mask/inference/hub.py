"""Save a segmenter as a folder with a model card, share it on the Hugging Face hub, load it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tag2mask.checkpoint import save_weights
from tag2mask.errors import RunError, WeightsError
from tag2mask.inference.model_card import model_card, read_facts
from tag2mask.io.files import staging_beside, write_text

if TYPE_CHECKING:
    from tag2mask.config.recipe import Recipe
    from tag2mask.methods.base import Method

CARD = "README.md"


class HubModel:
    """What a segmenter can write to folders and to repositories of the hub.

    A saved folder is a run folder, so `Segmenter.from_pretrained`, `tag2mask label` and
    `tag2mask predict` take it.
    """

    method: Method
    recipe: Recipe
    origin: dict[str, str]

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write weights, recipe and a model card.

        The card has the classes, data, scores with their class source, limits and the license of
        the backbone's weights. Paths of this machine are left out.

        Args:
            folder: New or empty.

        Returns:
            The folder.

        Raises:
            RunError: If the folder is not empty or cannot be written.
        """
        target = Path(folder)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise RunError(f"{target}: is not empty; choose a new folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        with staging_beside(target) as staging:
            self._write(staging / target.name)
            if target.exists():
                target.rmdir()
            (staging / target.name).rename(target)
        return target

    def _write(self, folder: Path) -> None:
        """Write the files of a saved segmenter."""
        recipe, license = _without_paths(self.recipe), self.method.backbone.weights_license
        state = self.method.state_dict()
        save_weights(folder / "weights" / "best.safetensors", state, recipe, license)
        write_text(folder / "recipe.yaml", recipe.to_yaml())
        write_text(folder / CARD, model_card(recipe, read_facts(self.origin, license)))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload a model of tag2mask",
    ) -> str:
        """Upload what `save_pretrained` writes; `from_pretrained(repo_id)` loads it.

        Args:
            repo_id: `owner/name`; created if it does not exist.
            private: Whether a new repository is private; None: the default of the owner.
            token: Access token; None: that of `hf auth login`.
            commit_message: Of the commit.

        Returns:
            Address of the commit.

        Raises:
            WeightsError: If the hub refuses or cannot be reached.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        with tempfile.TemporaryDirectory() as temporary:
            folder = self.save_pretrained(Path(temporary) / "model")
            try:
                api = HfApi(token=token)
                api.create_repo(repo_id, private=private, exist_ok=True)
                commit = api.upload_folder(
                    repo_id=repo_id, folder_path=folder, commit_message=commit_message
                )
            except (HfHubHTTPError, HFValidationError, OSError) as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise WeightsError(
                    f"{repo_id}: the hub did not accept the model ({reason}); 'hf auth login' "
                    "signs in"
                ) from error
        return str(commit.commit_url)


def _without_paths(recipe: Recipe) -> Recipe:
    """Drop the paths of data and weights, which mean nothing on another machine."""
    blank = recipe.blank()
    known = type(blank.data).model_fields
    paths: dict[str, Any] = {key: known[key].default for key in ("root", "labels") if key in known}
    data = blank.data.model_copy(update=paths)
    earlier = {name: _without_paths(past) for name, past in blank.earlier.items()}
    return blank.model_copy(update={"data": data, "earlier": earlier})
