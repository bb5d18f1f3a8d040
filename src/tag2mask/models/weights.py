"""Pretrained weights: find them on disk or on the hub, rename, check and load them.

Files are safetensors or torch archives, which are loaded with `weights_only` and run no code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import safetensors.torch
import torch
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from torch import Tensor, nn

from tag2mask.checkpoint import check_finite
from tag2mask.errors import WeightsError
from tag2mask.io.hub_files import is_hub_id, split_revision, verify_download
from tag2mask.io.json_files import read_object

FILE_NAMES = ("model.safetensors", "pytorch_model.bin")
"""File names of weights in a folder or a hub repository, preferred first."""
UNKNOWN_LICENSE = "unknown: see the source of the weights"
_LICENSES = (
    (re.compile(r"(?:segformer\W)?mit[-_]b[0-5]\b"), "NVIDIA Source Code License, non-commercial"),
    (re.compile(r"mobilenet_v1_[\d.]+_\d+\b"), "Apache-2.0"),
    (re.compile(r"efficientnet[-_]lite[0-4]\b"), "Apache-2.0"),
    (re.compile(r"ilsvrc-cls_rna-a1_|res(?:net)?38"), "Apache-2.0, University of Adelaide"),
)
_CARD = "README.md"
_MAX_NAMED = 3
_MAX_LENGTH = 200
"""Characters of a library's message that a line of ours repeats."""


def license(source: str) -> str:
    """Look up the license of weights by the release name at the end of a path or hub id."""
    name = Path(source).name.lower()
    return next((text for pattern, text in _LICENSES if pattern.match(name)), UNKNOWN_LICENSE)


def card_license(source: str) -> str:
    """Read the license from the model card in the weights' folder or hub repository."""
    try:
        path = locate(source, _CARD)
        card = None if path is None else path.with_name(_CARD)
        text = card.read_text(encoding="utf-8") if card is not None else ""
    except (WeightsError, OSError, UnicodeDecodeError):
        return UNKNOWN_LICENSE
    header = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    named = re.search(r"^license:\s*(\S+)", header[1], re.MULTILINE) if header else None
    return f"{named[1]} (from the model card)" if named else UNKNOWN_LICENSE


def _from_hub(source: str, file_names: Sequence[str]) -> Path | None:
    """Download the first of these files that a hub repository has, through the hub's cache."""
    repository, revision = split_revision(source)
    unreachable: LocalEntryNotFoundError | None = None
    for name in file_names:
        try:
            cache_only = unreachable is not None  # do not repeat the hub's retries
            path = huggingface_hub.hf_hub_download(
                repository, name, revision=revision, local_files_only=cache_only
            )
            return verify_download(Path(path))
        except LocalEntryNotFoundError as error:
            unreachable = error  # not in the cache, and the hub did not answer
        except EntryNotFoundError:
            continue
        except (OSError, ValueError, HfHubHTTPError) as error:
            raise WeightsError(
                f"{source}: not a local path, and the hub did not return '{name}' "
                f"({_first_line(error)})"
            ) from error
    if unreachable is not None:
        raise WeightsError(
            f"{source}: not a local path, not in the hub's cache, and the hub cannot be reached"
        ) from unreachable
    return None


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message, shortened, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:_MAX_LENGTH]


def locate(source: str, *file_names: str) -> Path | None:
    """Find the first of `file_names` in a local folder or hub repository.

    Returns:
        Its path; `source` itself if that is a file; None if there is no such file.

    Raises:
        WeightsError: If the source is not a local path and cannot be downloaded from the hub.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return next((path / name for name in file_names if (path / name).is_file()), None)
    if not is_hub_id(source):
        raise WeightsError(
            f"{source}: no such file or folder; give a path or a hub id (owner/name)"
        )
    return _from_hub(source, file_names)


def read_tensors(source: str) -> dict[str, Tensor]:
    """Read all tensors of a weights file, of a folder with one, or of a hub repository.

    Raises:
        WeightsError: If there is no weights file or it cannot be read.
    """
    path = locate(source, *FILE_NAMES)
    if path is None:
        raise WeightsError(f"{source}: contains no weights ({' or '.join(FILE_NAMES)})")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or malicious archive can raise nearly every error
        raise WeightsError(f"{path}: not a readable weights file ({_first_line(error)})") from error
    return _state_dict(content, path)


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a torch archive, which may be under the key `state_dict`."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: contains a {type(content).__name__} instead of named tensors")
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def read_config(source: str) -> dict[str, Any]:
    """Read the `config.json` next to the weights; empty if there is none.

    Raises:
        WeightsError: If it is not a JSON object.
    """
    return read_json(source, "config.json")


def read_json(source: str, file_name: str) -> dict[str, Any]:
    """Read a JSON file next to the weights; empty if there is none.

    Raises:
        WeightsError: If it is not a JSON object.
    """
    path = locate(source, file_name)
    if path is not None and path.name != file_name:
        path = path.with_name(file_name)
    if path is None or not path.is_file():
        return {}
    return read_object(path, kind=WeightsError)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> frozenset[str]:
    """Load tensors into a network, with names and shapes that match one to one.

    Args:
        module: Network whose persistent state has the names of `tensors`.
        tensors: Complete state; `num_batches_tracked` counters may be missing.
        source: Origin of the tensors, for messages.

    Returns:
        Names of the loaded parameters, without buffers.

    Raises:
        WeightsError: If names or shapes differ, or values are not finite. The message lists up to
            three tensors.
    """
    expected = module.state_dict()
    names = sorted(expected.keys() | tensors.keys())
    differing = [
        f"{name} {_shape(tensors.get(name))} in the file, "
        f"{_shape(expected.get(name))} in the network"
        for name in names
        if _shape(tensors.get(name)) != _shape(expected.get(name))
        and not name.endswith("num_batches_tracked")
    ]
    if differing:
        more = f" and {len(differing) - _MAX_NAMED} more" if len(differing) > _MAX_NAMED else ""
        raise WeightsError(
            f"{source}: weights of another architecture: {'; '.join(differing[:_MAX_NAMED])}{more}"
        )
    check_finite(tensors, source, "download the file again, or use other weights")
    module.load_state_dict(dict(tensors), strict=False)
    return frozenset(name for name, _ in module.named_parameters() if name in tensors)


def _shape(tensor: Tensor | None) -> str:
    """Format a shape, such as "(64, 3, 7, 7)"; "missing" for None."""
    return "missing" if tensor is None else str(tuple(tensor.shape))


_MIT_RENAMES = (
    (re.compile(r"^patch_embeddings\.(\d)\."), "patch_embed{}."),
    (re.compile(r"^layer_norm\.(\d)\."), "norm{}."),
    (re.compile(r"^block\.(\d)\."), "block{}."),
)
_MIT_PARTS = (
    ("attention.self.query", "attn.q"),
    ("attention.self.layer_norm", "attn.norm"),
    ("attention.self.sr", "attn.sr"),
    ("attention.output.dense", "attn.proj"),
    ("mlp.dense1", "mlp.fc1"),
    ("mlp.dense2", "mlp.fc2"),
    ("layer_norm_1", "norm1"),
    ("layer_norm_2", "norm2"),
)


def official_mit_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename MiT weights of either public layout to the official names and drop the head.

    Source:
        Specification 1, "Hugging Face mapping": stages count from 1 instead of 0; key and value
        are concatenated to `kv`, key first.
    """
    prefix = "segformer.encoder."
    encoder = {name.removeprefix(prefix).removeprefix("encoder."): t for name, t in tensors.items()}
    official: dict[str, Tensor] = {}
    for name, tensor in encoder.items():
        if name.startswith(("head.", "classifier.", "decode_head.")):
            continue
        if ".attention.self.value." in name:
            continue
        if ".attention.self.key." in name:
            value = encoder.get(name.replace(".self.key.", ".self.value."))
            joined = tensor if value is None else torch.cat([tensor, value])
            official[_official_mit_name(name.replace("attention.self.key", "attn.kv"))] = joined
        else:
            official[_official_mit_name(name)] = tensor
    return official


def _official_mit_name(name: str) -> str:
    """Rename one tensor of the encoder; official names do not change."""
    for pattern, official in _MIT_RENAMES:
        match = pattern.match(name)
        if match:
            name = official.format(int(match[1]) + 1) + name[match.end() :]
            if not official.startswith("block"):
                return name.replace("layer_norm", "norm")
            break
    for part, official in _MIT_PARTS:
        name = name.replace(part, official)
    return name
