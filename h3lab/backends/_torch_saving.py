"""A TorchModel as a document: weights as arrays, and a network made of torch.nn layers alone as JSON.

A layer is told by its class and the arguments of its constructor, which are read off its attributes; that this was
enough is proved when it is saved, by building it again. Whatever cannot be told so needs ``build=`` when it is loaded.
Constructors come from :data:`LAYERS` alone, first on the meta device, where a wrong size takes no memory.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from h3lab.backends._torch import TorchModel
from h3lab.backends._torch_keras import is_keras
from h3lab.errors import DamagedData, ModelError, Untrusted
from h3lab.spec import Spec

CONTAINERS = {"Sequential": nn.Sequential, "ModuleList": nn.ModuleList}
_EACH_DIMENSION = (
    "Conv ConvTranspose BatchNorm InstanceNorm MaxPool AvgPool LPPool AdaptiveMaxPool AdaptiveAvgPool "
    "ReflectionPad ReplicationPad ConstantPad ZeroPad CircularPad"
)
_OTHERS = (
    "Linear Bilinear Identity Flatten Unflatten Embedding EmbeddingBag LayerNorm GroupNorm RMSNorm LocalResponseNorm "
    "Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout Upsample PixelShuffle PixelUnshuffle Fold "
    "Unfold ChannelShuffle ReLU ReLU6 LeakyReLU PReLU RReLU ELU SELU CELU GELU SiLU Mish GLU Sigmoid LogSigmoid "
    "Hardsigmoid Hardswish Hardtanh Hardshrink Softshrink Tanhshrink Tanh Softplus Softsign Softmin Softmax Softmax2d "
    "LogSoftmax Threshold CosineSimilarity"
)
_NAMES = [f"{name}{n}d" for name in _EACH_DIMENSION.split() for n in (1, 2, 3)] + _OTHERS.split()
#: The layers whose constructors a file may ask for.
LAYERS: dict[str, type[nn.Module]] = {name: getattr(nn, name) for name in _NAMES if hasattr(nn, name)}

_PLAIN = (bool, int, float, str, type(None))


class Lost:
    """Stands for an argument of TorchModel that was code: the model answers as it did, and says what training lacks."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *given: Any) -> Any:
        raise ModelError(
            f"this model was loaded from a file, and its {self.name} was code, which a file does not hold. Set it "
            f"before you train it on: actor.model.set_params({self.name}=...)."
        )


class Layers:
    """``build(spec)`` of layers that came from a file: fresh weights each time, as a function of one's own gives."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        self.description = description

    def __call__(self, spec: Spec) -> nn.Module:
        return _rebuild(self.description)

    def __repr__(self) -> str:
        kinds = [layer["class"] for _, layer in self.description.get("children", [])]
        return f"{self.description['class']}({', '.join(kinds)})"


def to_document(model: TorchModel) -> dict[str, Any]:
    """The codec tree. ``layers``: the network as JSON, or None where ``build`` (what to type) has to be passed to
    :func:`from_document`; ``lost``: arguments of TorchModel that are code."""
    module, given = model.native, model.get_params()
    made = given.pop("build")
    del given["device"]  # another machine has others
    layers = describe(module)
    name = "build_net" if isinstance(made, nn.Module) else getattr(made, "__name__", "")
    return {
        "layers": layers,
        "class": type(module).__name__,
        "weights_kept": isinstance(made, nn.Module),
        "parameters": model.parameters(),
        "frozen": _frozen(module),
        "arguments": {name: value for name, value in given.items() if isinstance(value, _PLAIN)},
        "lost": [name for name, value in given.items() if not isinstance(value, _PLAIN)],
        "types": [],
        "build": "" if layers is not None else name if name.isidentifier() else "build_net",
    }


def from_document(tree: Mapping[str, Any], spec: Spec, build: Any, types: Iterable[Any]) -> TorchModel:
    """The inverse. ``build``: ``build(spec)`` or a module, instead of the layers of the document; ``types`` are for
    scikit-learn. ModelError where ``build`` is missing or makes another network."""
    if build is None and tree["layers"] is None:
        raise ModelError(
            f"this file holds the weights of a {tree['class']}, which has code of your own in it. Give the function "
            f"that builds it: h3.load(path, build={tree['build']})."
        )
    if build is None:
        module = rebuild(tree["layers"], {name: np.shape(value) for name, value in tree["parameters"].items()})
        build = module if tree["weights_kept"] else Layers(tree["layers"])
    arguments: dict[str, Any] = {**tree["arguments"], **{name: Lost(name) for name in tree["lost"]}}
    model = TorchModel(build, **arguments)
    model.build(spec, 0)
    model.load_parameters(tree["parameters"])
    if tree["weights_kept"] and tree["layers"] is not None:
        # It was given as a module, whose weights training goes on from; those of then are gone, so from these.
        model.set_params(build=copy.deepcopy(model.module_).cpu())
    if not is_keras(model.module_):
        for name, value in model.module_.named_parameters():
            value.requires_grad_(name not in tree["frozen"])
    return model


def _frozen(module: nn.Module) -> list[str]:
    # A layer of Keras knows itself whether it is trainable, and its names differ from process to process.
    named = [] if is_keras(module) else module.named_parameters()
    return [name for name, value in named if not value.requires_grad]


def describe(module: nn.Module) -> dict[str, Any] | None:
    """JSON of a module of torch.nn layers, or None where that would not make it again: layers of one's own, tied
    weights, hooks, methods replaced."""
    if any(_altered(part) for part in module.modules()) or _tied(module):
        return None
    layers = _describe(module)
    if layers is None:
        return None
    try:
        again = rebuild(layers, {name: tuple(value.shape) for name, value in module.state_dict().items()})
    except (DamagedData, Untrusted):
        return None
    return layers if all(_same(old, new) for old, new in zip(_parts(module), _parts(again), strict=True)) else None


def rebuild(layers: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """The module of :func:`describe`. Untrusted for a class that is not in LAYERS, DamagedData where its parameters
    would not have these shapes."""
    with torch.device("meta"):
        there = {name: tuple(value.shape) for name, value in _rebuild(layers).state_dict().items()}
    if there != dict(shapes):
        raise DamagedData("the layers and the weights of this file do not belong together; it is damaged.")
    return _rebuild(layers)


def _describe(module: nn.Module) -> dict[str, Any] | None:
    name = type(module).__name__
    if CONTAINERS.get(name) is type(module):
        children = [[key, None if child is None else _describe(child)] for key, child in module._modules.items()]
        return None if any(child is None for _, child in children) else {"class": name, "children": children}
    if LAYERS.get(name) is not type(module):
        return None
    arguments: dict[str, Any] = {}
    for parameter in inspect.signature(type(module)).parameters.values():
        varies = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if varies or parameter.name in ("device", "dtype") or parameter.name.startswith("_"):
            continue
        value = getattr(module, parameter.name, parameter.default)
        if parameter.name == "bias" and not isinstance(value, bool):
            value = value is not None  # the constructor asks whether, the attribute is the bias itself
        value = list(value) if isinstance(value, tuple) else value
        if not all(isinstance(item, _PLAIN) for item in (value if isinstance(value, list) else [value])):
            return None
        arguments[parameter.name] = value
    return {"class": name, "arguments": arguments}


def _rebuild(layers: Mapping[str, Any]) -> nn.Module:
    name = layers.get("class")
    if name in CONTAINERS:
        children = [(key, _rebuild(child)) for key, child in layers["children"]]
        if name == "ModuleList":
            return nn.ModuleList([child for _, child in children])
        made = nn.Sequential()
        for key, child in children:
            made.add_module(key, child)
        return made
    if name not in LAYERS:
        raise Untrusted(
            f"this file asks for a layer {name!r}, which is not on the list of torch.nn layers it may ask for."
        )
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in layers["arguments"].items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers without elements, and of what their own classes deprecate
            return LAYERS[name](**arguments)
    except Exception as error:  # a layer's constructor checks its arguments as it likes
        raise DamagedData(f"torch.nn.{name} refuses the arguments of this file ({error}); it is damaged.") from error


def _altered(module: nn.Module) -> bool:
    """Whether somebody hung code on it."""
    hooks = (value for name, value in vars(module).items() if name.endswith("_hooks"))
    return any(hooks) or any(callable(value) for name, value in vars(module).items() if not name.startswith("_"))


def _tied(module: nn.Module) -> bool:
    """Whether a parameter or buffer stands in two places."""
    every = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return len(every) > len([*module.parameters(), *module.buffers()])


def _parts(module: nn.Module) -> list[nn.Module]:
    return [part for _, part in module.named_modules(remove_duplicate=False)]


def _same(old: nn.Module, new: nn.Module) -> bool:
    """Whether attributes agree; tensors are compared by name and shape alone."""
    if type(old) is not type(new) or vars(old).keys() != vars(new).keys():
        return False
    return all(
        value == vars(new)[name]
        for name, value in vars(old).items()
        if name != "training" and isinstance(value, (*_PLAIN, tuple))
    )
