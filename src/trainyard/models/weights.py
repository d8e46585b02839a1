"""Weights in files: tied ones once, and starting from those of a file, where the output layer may be another one."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from trainyard.base.errors import UsageError

logger = logging.getLogger(__name__)

State = dict[str, Tensor]
SUFFIXES = (".safetensors", ".pt", ".pth")
SHOWN_KEYS = 3
BATCHES = ".num_batches_tracked"


def tied_names(network: nn.Module) -> dict[str, str]:
    """The names in a network's state behind which another name's tensor lies, each with the first such name."""
    first: dict[object, str] = {}
    tied = {}
    for name, tensor in network.state_dict().items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        # Tensors without elements all lie at 0.
        kept = first.setdefault(place, name) if tensor.numel() else name
        if kept != name:
            tied[name] = kept
    return tied


def untied_state(network: nn.Module) -> State:
    """A network's state for safetensors, on the CPU: each tensor in memory of its own, a tied one by its first name.

    That is also the name by which transformers looks for it: the one that its model ties the others to.
    """
    left_out, state = tied_names(network), {}
    for name, tensor in network.state_dict().items():
        if name not in left_out:
            kept = tensor.cpu().contiguous()
            # A view of a larger tensor may share it with other views.
            state[name] = kept.clone() if kept.untyped_storage().nbytes() > kept.nbytes else kept
    return state


def with_tied_names(network: nn.Module, state: State) -> State:
    """A state as a network wants it that ties what ``untied_state`` left out."""
    return {name: state[kept] for name, kept in tied_names(network).items() if kept in state} | state


def find_weights(pretrained: str) -> Path:
    """The weights file that ``model.pretrained`` names: a file, or that of a bundle or a run folder.

    Raises:
        UsageError: there is none.
    """
    path = Path(pretrained).expanduser()
    for candidate in (path, path / "model.safetensors", path / "bundle" / "model.safetensors"):
        if candidate.is_file() and candidate.suffix in SUFFIXES:
            return candidate
    raise UsageError(
        f"model.pretrained={pretrained} isn't there or holds no weights: "
        f"give a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file, or a bundle's folder"
    )


def read_weights(path: Path) -> State:
    """Reads a network's state; one that lies under ``state_dict`` or ``model`` in its file is unwrapped.

    Raises:
        UsageError: the file is damaged, or holds something else. Nothing in it is ever run.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path} can't be read as weights ({reason}); save network.state_dict() there") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UsageError(f"{path} doesn't hold weights by name; save network.state_dict() there")
    return content


def load_weights(network: nn.Module, state: State, replaceable: Sequence[str], source: str) -> None:
    """Loads ``state`` into ``network``. A replaceable layer that doesn't fit stays as initialised, with a log line.

    Args:
        network: What gets the weights.
        state: Weights by name.
        replaceable: Names of the layers that may differ: the output layer, a stem.
        source: Where the weights are from, for messages.

    Raises:
        UsageError: another tensor is missing, additional, or of another shape.
    """
    state = with_tied_names(network, state)
    # Batch norms count their batches only since torch 0.4.1; torchvision's older files don't.
    own = {key: tensor for key, tensor in network.state_dict().items() if key in state or not key.endswith(BATCHES)}
    fits = {key for key in own.keys() & state.keys() if own[key].shape == state[key].shape}
    wrong = {key: _layer_of(key, replaceable) for key in own.keys() | state.keys() if key not in fits}
    serious = sorted(key for key, layer in wrong.items() if layer is None)
    if serious:
        shown = ", ".join(serious[:SHOWN_KEYS]) + (", ..." if len(serious) > SHOWN_KEYS else "")
        raise UsageError(
            f"the weights in {source} are of another network, {len(serious)} tensors differ ({shown}): "
            "set model.name and data.image_size to what they were trained with"
        )
    fresh = {layer for layer in wrong.values() if layer is not None}
    for layer in sorted(fresh):
        logger.info("%s: the layer %s doesn't fit and starts afresh", source, layer)
    kept = {key: state[key] for key in fits if _layer_of(key, replaceable) not in fresh}
    network.load_state_dict(kept, strict=False)


def _layer_of(key: str, layers: Sequence[str]) -> str | None:
    return next((layer for layer in layers if key.startswith(f"{layer}.")), None)


def set_dropout(network: nn.Module, probability: float, name: str) -> None:
    """Sets every dropout layer's probability.

    Raises:
        UsageError: there is none.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    # DenseNet calls the function instead, with this attribute.
    dense_layers = [module for module in network.modules() if isinstance(getattr(module, "drop_rate", None), float)]
    if not layers and not dense_layers:
        raise UsageError(f"model.name={name} has no dropout: leave model.dropout out")
    for layer in layers:
        layer.p = probability
    for dense_layer in dense_layers:
        dense_layer.drop_rate = probability  # type: ignore[assignment]
