"""The text side: a transformers text model of the BERT kind, taken apart into embedding, encoder and pooler."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, PretrainedConfig, PreTrainedModel, XLMRobertaConfig, XLMRobertaModel

# Architectures whose embeddings, encoder layers and pooler are BERT's; others hand out their attention and layers in
# other ways.
ARCHITECTURES: dict[str, tuple[Callable[..., PretrainedConfig], type[PreTrainedModel]]] = {
    "bert": (BertConfig, BertModel),
    "xlm-roberta": (XLMRobertaConfig, XLMRobertaModel),
}


class TextTower(nn.Module):
    """Word embeddings, encoder and pooler; axes: B passages, T positions, H hidden size.

    Args:
        settings: "model_type" (a key of ARCHITECTURES; "bert" where it is left out) and the arguments of its
            configuration.

    Raises: ValueError for a model type that is not there.
    """

    embeddings: Any  # transformers' modules
    encoder: Any
    pooler: Any

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        kind = settings.get("model_type", "bert")
        if kind not in ARCHITECTURES:
            raise ValueError(f"text.model_type is one of {', '.join(ARCHITECTURES)}, not {kind!r}.")
        config_class, model_class = ARCHITECTURES[kind]
        values = {k: v for k, v in settings.items() if k != "model_type"}
        model: Any = model_class(config_class(**values, attn_implementation="sdpa"))
        self.config = model.config
        self.embeddings, self.encoder, self.pooler = model.embeddings, model.encoder, model.pooler

    @property
    def hidden(self) -> int:
        """H."""
        return self.config.hidden_size

    @property
    def pad_id(self) -> int:
        """Id of the wordpiece that fills up a shorter passage."""
        return self.config.pad_token_id or 0

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """int [B, T] -> [B, T, H]; token_type_ids: 0 and 1 for a first and a second sentence, None: all one."""
        return self.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)

    def encode(self, states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Encoder layers. [B, T, H] -> [B, T, H]; attention_mask: 0/1 [B or 1, T], None: all positions take part,
        padding too."""
        if attention_mask is None:
            return self.encoder(states, attention_mask=None).last_hidden_state
        # Additive, so that every attention implementation of transformers understands it; the number also exists in
        # bfloat16.
        mask = (1 - attention_mask[:, None, None, :]) * torch.finfo(torch.bfloat16).min
        return self.encoder(states, attention_mask=mask.to(states.dtype)).last_hidden_state

    def pool(self, states: Tensor) -> Tensor:
        """The first position through a dense layer and tanh. [B, T, H] -> [B, H]."""
        return self.pooler(states)
