"""Emotion conditioning: a vector-quantised emotion bank read by attention (paper section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn
from torch.nn import functional as F

from dicetalk.models.discriminator import EmotionDiscriminator
from dicetalk.models.projection import TokenProjection

COMMITMENT_WEIGHT = 0.25  # weight of mse(code, sg[z]) against mse(sg[code], z) in the official vq_loss


@dataclass
class EmotionOutput(BaseOutput):
    """Result of the emotion model.

    Args:
        tokens: emotion condition `(batch, frames, num_tokens, dim)`.
        vq_loss: scalar; 0 in whole-bank mode, where no code is looked up.
        indices: nearest code of each prior `(batch, frames)`; `None` in whole-bank mode and without a bank.
    """

    tokens: torch.Tensor
    vq_loss: torch.Tensor
    indices: torch.Tensor | None = None


class EmotionBank(nn.Module):
    """Codebook of emotions; a prior is replaced by its nearest code (squared L2)."""

    def __init__(self, prior_dim: int, dim: int, num_codes: int):
        super().__init__()
        self.fc = nn.Linear(prior_dim, dim)
        self.codebook = nn.Embedding(num_codes, dim)
        nn.init.uniform_(self.codebook.weight, -1 / num_codes, 1 / num_codes)

    def forward(self, prior: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Quantise priors.

        Args:
            prior: `(..., prior_dim)`.

        Returns:
            Codes `(..., dim)` with a straight-through gradient to `prior`, the scalar VQ loss, and the code
            indices `(...)`.
        """
        # 1. Nearest code
        z = self.fc(prior)
        bank = self.codebook.weight
        distances = z.pow(2).sum(-1, keepdim=True) + bank.pow(2).sum(-1) - 2 * z @ bank.T
        indices = distances.argmin(-1)
        code = self.codebook(indices)

        # 2. The codebook term moves codes towards priors, the commitment term moves `fc` towards codes
        vq_loss = F.mse_loss(code, z.detach()) + COMMITMENT_WEIGHT * F.mse_loss(code.detach(), z)

        # 3. Straight-through
        return z + (code - z).detach(), vq_loss, indices


class EmotionAttention(nn.Module):
    """Multi-head attention with biased projections and no output projection, residual or norm."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.fc_q = nn.Linear(dim, dim)
        self.fc_k = nn.Linear(dim, dim)
        self.fc_v = nn.Linear(dim, dim)

    def forward(self, query: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Attend from `query` `(batch, queries, dim)` to `context` `(batch, keys, dim)`; shape of `query`."""
        q, k, v = self.fc_q(query), self.fc_k(context), self.fc_v(context)
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def weights(self, query: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return the attention weights `(batch, num_heads, queries, keys)` that `forward` applies."""
        q, k = self.fc_q(query), self.fc_k(context)
        q, k = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k))
        return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)


class EmotionModel(ModelMixin, ConfigMixin):
    """Emotion prior to emotion tokens, through the emotion bank (official `EmotionModel`, `emo_model.pth`).

    Args:
        prior_dim: width of the emotion prior (the embedder's `mu`).
        dim: width of bank codes and tokens, the UNet's `cross_attention_dim`.
        num_codes: emotions in the bank.
        num_tokens: tokens per prior, and keys per code.
        num_heads: attention heads.
        hidden_dim: width of the projection MLPs.
        classifier_in_channels: channels of the UNet features the emotion discriminator sees.
        num_classes: (emotion, level) classes.
        retrieval: the mode `forward` uses unless told otherwise; False is the release's inference setting.
        use_bank: False leaves out bank and attention, so that the tokens are the projected prior alone: the
            paper's ablation without the emotion bank (its table 4). Such a model has no `codebook`,
            `kv_tokens_linear` and `attention`, and is none of the released shape.
    """

    @register_to_config
    def __init__(
        self,
        prior_dim: int = 256,
        dim: int = 1024,
        num_codes: int = 64,
        num_tokens: int = 32,
        num_heads: int = 8,
        hidden_dim: int = 1024,
        classifier_in_channels: int = 1280,
        num_classes: int = 22,
        retrieval: bool = False,
        use_bank: bool = True,
    ):
        super().__init__()
        self.emo_linear = TokenProjection(prior_dim, hidden_dim, num_tokens, dim)
        if use_bank:
            self.kv_tokens_linear = TokenProjection(dim, hidden_dim, num_tokens, dim)
            self.codebook = EmotionBank(prior_dim, dim, num_codes)
            self.attention = EmotionAttention(dim, num_heads)
        self.classifier = EmotionDiscriminator(classifier_in_channels, num_classes)

    def forward(
        self,
        prior: torch.Tensor,
        drop_mask: torch.Tensor | None = None,
        retrieval: bool | None = None,
        gradient_to_bank: bool = False,
    ) -> EmotionOutput:
        """Turn emotion priors into tokens.

        Args:
            prior: `(batch, frames, prior_dim)`.
            drop_mask: boolean `(batch, frames)`; True replaces the prior and its code by zeros. The VQ loss
                still sees the prior.
            retrieval: True attends to the tokens of the one code nearest to the prior, False to the tokens of
                all codes; `None` takes the configured mode.
            gradient_to_bank: whole-bank mode only. The official code blocks this gradient, so that the bank
                learns in retrieval mode alone; True lets the attention train the codes.

        Returns:
            Tokens, VQ loss and code indices; the modes are the same without a bank.
        """
        batch, frames = prior.shape[:2]
        retrieval = self.config.retrieval if retrieval is None else retrieval
        keep = None if drop_mask is None else (~drop_mask[..., None]).to(prior.dtype)
        if not self.config.use_bank:
            tokens = self.emo_linear(prior if keep is None else prior * keep)
            return EmotionOutput(tokens, prior.new_zeros(()))

        # 1. Keys and values: one code per prior, or the whole bank once for all of them
        if retrieval:
            code, vq_loss, indices = self.codebook(prior)
            code = code if keep is None else code * keep
            context = self.kv_tokens_linear(code).flatten(0, 1)
        else:
            vq_loss, indices = prior.new_zeros(()), None
            context = self.bank_tokens(gradient_to_bank)

        # 2. Queries: with a shared context all of them fold into one sequence
        query = self.emo_linear(prior if keep is None else prior * keep)
        query = query.flatten(0, 1) if retrieval else query.flatten(0, 2)[None]

        # 3. Attention
        tokens = self.attention(query, context)
        return EmotionOutput(tokens.reshape(batch, frames, -1, tokens.shape[-1]), vq_loss, indices)

    def bank_tokens(self, gradient_to_bank: bool = False) -> torch.Tensor:
        """Return the tokens of all codes `(1, num_codes * num_tokens, dim)`."""
        bank = self.codebook.codebook.weight
        return self.kv_tokens_linear(bank if gradient_to_bank else bank.detach()).flatten(0, 1)[None]

    def null_tokens(self, retrieval: bool | None = None) -> torch.Tensor:
        """Return the unconditional tokens `(1, 1, num_tokens, dim)`: the model fed an all-zero prior.

        In retrieval mode `drop_mask` gives something else: it replaces the code by zeros as well.
        """
        prior = self.emo_linear.proj1.weight.new_zeros(1, 1, self.config.prior_dim)
        return self(prior, retrieval=retrieval).tokens
