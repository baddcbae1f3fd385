"""Decoder-only transformer in the Llama layout, with an output layer that saves memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gearshift.models.base import Context
from gearshift.models.common import layers
from gearshift.models.common.layers import HasFrozenParts
from gearshift.models.language.config import SIZES, Model, Size

if TYPE_CHECKING:
    from gearshift.models.language.tokenizer import Tokenizer


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Linear layer without bias and without initialized weights."""
    device = torch.get_default_device()
    return nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False, device=device)


def rotary(time: int, width: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotary angles, each [time, 1, width], float32.

    Computed in each forward pass, not stored in a buffer: engines that cast a module to bfloat16
    would round a buffer. Both halves of the last axis hold the same angles, in Hugging Face's
    order. Source: Su et al., RoFormer, 2021.
    """
    exponents = torch.arange(0, width, 2, device=device, dtype=torch.float32) / width
    positions = torch.arange(time, device=device, dtype=torch.float32)
    # base**-exponents would differ from transformers in the last bit.
    angles = positions[:, None] * (1.0 / base**exponents)
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """`x` [batch, time, heads, width] rotated by position in float32, returned in its dtype."""
    first, second = x.chunk(2, dim=-1)
    quarter_turn = torch.cat((-second, first), dim=-1)
    return (x * cosine + quarter_turn * sine).to(x.dtype)


def document_mask(boundaries: Tensor, batch: int, time: int) -> Tensor:
    """Attention mask [batch, 1, time, time]: a query sees earlier keys of its own document.

    `boundaries` as in Transformer.forward.
    """
    tokens = torch.arange(batch * time, dtype=boundaries.dtype, device=boundaries.device)
    documents = torch.searchsorted(boundaries, tokens, right=True).view(batch, time)
    is_same = documents[:, :, None] == documents[:, None, :]
    return is_same.tril()[:, None]


def causal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    documents: Tensor | None,
    kernel: str,
    is_last: bool = False,
) -> Tensor:
    """Causal attention; `q`, `k`, `v` and the result are [batch, time, heads, width].

    `documents` is a mask from document_mask, or the boundaries where takes_boundaries is true;
    None: each row is one document. `is_last`: each row of `q` is the last token, which sees all
    keys; not read from its shape, on which a compiled graph would then depend.
    """
    if documents is not None and documents.dim() == 1:
        # Imported here, because it imports the compiler.
        from torch.nn.attention.varlen import varlen_attn

        time = q.shape[1]
        mixed = varlen_attn(
            q.flatten(0, 1),
            k.flatten(0, 1),
            v.flatten(0, 1),
            documents,
            documents,
            time,
            time,
            window_size=(-1, 0),
        )
        assert isinstance(mixed, Tensor)
        return mixed.view_as(q)

    with layers.attention_kernel(kernel):
        mixed = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            documents,
            is_causal=documents is None and not is_last,
        )
    return mixed.transpose(1, 2)


Cache = dict[nn.Module, tuple[Tensor, Tensor]]
"""Keys and values of earlier tokens, [batch, time, heads, width], in each attention layer."""


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(
        self,
        width: int,
        heads: int,
        kernel: str,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = width // heads
        self.kernel = kernel
        self.q_proj = linear(width, width)
        self.k_proj = linear(width, width)
        self.v_proj = linear(width, width)
        self.o_proj = linear(width, width)

    def forward(
        self,
        x: Tensor,
        cosine: Tensor,
        sine: Tensor,
        documents: Tensor | None,
        cache: Cache | None = None,
    ) -> Tensor:
        """`x` [batch, time, width]; `documents` as in causal_attention."""
        batch, time, width = x.shape
        q = self.q_proj(x).view(batch, time, self.heads, self.head_width)
        k = self.k_proj(x).view(batch, time, self.heads, self.head_width)
        v = self.v_proj(x).view(batch, time, self.heads, self.head_width)
        q = rotate(q, cosine, sine)
        k = rotate(k, cosine, sine)
        if cache is not None:
            if self in cache:
                earlier_k, earlier_v = cache[self]
                k = torch.cat((earlier_k, k), dim=1)
                v = torch.cat((earlier_v, v), dim=1)
            cache[self] = k, v
        is_last = cache is not None and time == 1
        mixed = causal_attention(q, k, v, documents, self.kernel, is_last)
        return self.o_proj(mixed.reshape(batch, time, width))


ROTARY_BASE = 10_000.0
NORM_EPSILON = 1e-5
GENERATION = "generation_config.json"


class FeedForward(nn.Module):
    """SwiGLU feed-forward layer. Source: Shazeer, GLU Variants Improve Transformer, 2020."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = linear(width, hidden)
        self.up_proj = linear(width, hidden)
        self.down_proj = linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, width]."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One layer: attention, then feed-forward, each with a residual connection."""

    def __init__(self, size: Size, kernel: str) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(size.width, eps=NORM_EPSILON)
        self.self_attn = Attention(size.width, size.heads, kernel)
        self.post_attention_layernorm = nn.RMSNorm(size.width, eps=NORM_EPSILON)
        self.mlp = FeedForward(size.width, size.hidden)

    def forward(self, x: Tensor, *places: Any) -> Tensor:
        """`x` [batch, time, width]; `places` as in Attention.forward."""
        x = x + self.self_attn(self.input_layernorm(x), *places)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Token ids to hidden states."""

    def __init__(self, size: Size, kernel: str) -> None:
        super().__init__()
        self.head_width = size.width // size.heads
        self.kernel = kernel
        self.embed_tokens = nn.utils.skip_init(
            nn.Embedding,
            size.vocabulary,
            size.width,
            device=torch.get_default_device(),
        )
        self.layers = nn.ModuleList(Block(size, kernel) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.width, eps=NORM_EPSILON)

    def forward(
        self,
        input_ids: Tensor,
        boundaries: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Hidden states [batch, time, width] of `input_ids` [batch, time].

        With `cache` they follow its tokens; several at once only if it is empty.
        """
        begin = 0
        if cache:
            keys, _ = next(iter(cache.values()))
            begin = keys.shape[1]
        end = begin + input_ids.shape[1]
        cosine, sine = rotary(end, self.head_width, ROTARY_BASE, input_ids.device)
        cosine = cosine[begin:]
        sine = sine[begin:]
        x = self.embed_tokens(input_ids)
        documents = None
        if boundaries is not None:
            documents = self._documents(boundaries, x)
        for layer in self.layers:
            x = layer(x, cosine, sine, documents, cache)
        return self.norm(x)

    def _documents(self, boundaries: Tensor, x: Tensor) -> Tensor | None:
        """The form of `boundaries` that causal_attention takes for hidden states `x`."""
        batch, time, _ = x.shape
        if layers.takes_boundaries(self.kernel, x.device, compute_dtype(x)):
            # The number of documents differs from batch to batch; one graph serves all.
            torch._dynamo.maybe_mark_dynamic(boundaries, 0)
            return boundaries
        if len(boundaries) == batch + 1:
            return None  # one document in each row; without a mask, attention is faster
        return document_mask(boundaries, batch, time)


IGNORE = -100
"""Label excluded from the loss."""

CHUNK = 2**26
"""Logits in memory at one time: 256 MiB in float32."""


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype of matrix products with `tensor`."""
    device = tensor.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return tensor.dtype


def token_scores(
    outputs: Tensor,
    labels: Tensor,
    rows: int,
    logits_of: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each token in nats (0 where ignored), and whether the argmax is correct.

    `outputs` [batch, time, any], of which `logits_of` makes logits for `rows` tokens at a time;
    `labels` [batch, time]. float32 and bool, [batch, time].
    """
    nats = []
    correct = []
    chunks = outputs.flatten(0, 1).split(rows)
    for chunk, target in zip(chunks, labels.flatten().split(rows), strict=True):
        logits = logits_of(chunk)
        loss = F.cross_entropy(
            logits.float(),
            target,
            ignore_index=IGNORE,
            reduction="none",
        )
        nats.append(loss)
        correct.append(logits.argmax(-1) == target)
    return torch.cat(nats).view(labels.shape), torch.cat(correct).view(labels.shape)


class _ChunkedLoss(torch.autograd.Function):
    """Summed cross-entropy of a linear layer's output; computes its gradients in the forward pass.

    The loss is a scalar, so backward only multiplies the gradients by the incoming scalar. Each
    chunk of logits is freed before the next one and nothing is computed twice. Source: Hsu et al.,
    Liger Kernel: Efficient Triton Kernels for LLM Training, 2024, section 3.2.

    Not torch.nn.functional.linear_cross_entropy: in bfloat16 it rounds the summed loss to 8 bits
    and adds up the weight gradient in bfloat16.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        low: torch.dtype,
        rows: int,
        chunk_loss: Callable[..., Tensor],
    ) -> Tensor:
        # Detached: evaluation shares the compiled graphs.
        hidden = hidden.detach()
        narrow = weight.detach().to(low)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = None
        if ctx.needs_input_grad[1]:
            weight_gradient = torch.zeros_like(weight, dtype=torch.float32)
        for begin in range(0, len(labels), rows):
            chunk = slice(begin, begin + rows)
            total += chunk_loss(
                hidden[chunk].to(low),
                narrow,
                labels[chunk],
                hidden_gradient[chunk],
                weight_gradient,
            )
        if weight_gradient is not None:
            weight_gradient = weight_gradient.to(weight.dtype)
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        if weight is not None:
            weight = weight * incoming
        return hidden * incoming, weight, None, None, None, None


def _chunk_loss(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    hidden_gradient: Tensor,
    weight_gradient: Tensor | None,
) -> Tensor:
    """Loss of a chunk, summed, float32; writes one gradient, and adds to the other if there is one.

    The gradient of the logits overwrites them: on a GPU, reading and writing logits takes most of
    the time beside the matrix products.
    """
    logits = hidden @ weight.t()
    valid = (labels != IGNORE)[:, None]
    logp = logits.log_softmax(-1, dtype=torch.float32)
    index = labels.clamp(min=0)[:, None]
    label_logp = logp.gather(-1, index)
    loss = -(label_logp * valid).sum()
    gradient = torch.exp(logp, out=logits)
    del logp
    # In float32: a likely target leaves only the last bits of its probability.
    target = label_logp.exp() - 1
    gradient.scatter_(-1, index, target.to(gradient.dtype))
    # Ignored labels are excluded here: these have fewer columns than the logits.
    hidden_gradient.copy_((gradient @ weight) * valid)
    if weight_gradient is not None:
        weight_gradient += gradient.t() @ (hidden * valid)
    return loss


class Head(nn.Module):
    """Linear layer without bias to the vocabulary; one module, so that engines gather it once."""

    compiles_parts = True

    def __init__(self, weight: nn.Parameter, chunk: int = CHUNK) -> None:
        super().__init__()
        self.weight = weight
        self.rows = max(1, chunk // weight.shape[0])
        self.chunk_loss = _chunk_loss

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the loss of a chunk: a graph of all chunks would grow with their number."""
        self.chunk_loss = torch.compile(_chunk_loss, *args, **options)

    def forward(
        self,
        hidden: Tensor,
        labels: Tensor | None = None,
        measure: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Output of Transformer.forward from `hidden` [batch, time, width]."""
        if labels is None:
            return F.linear(hidden, self.weight)
        if measure:
            return token_scores(
                hidden,
                labels,
                self.rows,
                lambda x: F.linear(x, self.weight),
            )
        return _ChunkedLoss.apply(
            hidden.flatten(0, 1),
            self.weight,
            labels.flatten(),
            compute_dtype(hidden),
            self.rows,
            self.chunk_loss,
        )


class Transformer(HasFrozenParts):
    """Transformer whose output layer shares the token embedding.

    Weights are drawn from N(0, s²) with s² = 2/5d for width d; projections that add to the
    residual stream from N(0, s²/2L). s is 0.02 near 124M and 350M; narrow models train much slower
    with 0.02 (embedded:commands, tiny, 400 steps: validation loss 0.93 against 0.54). Sources:
    Nguyen and Salazar, Transformers without Tears, 2019; Radford et al., Language Models are
    Unsupervised Multitask Learners, 2019, section 2.3.
    """

    def __init__(self, size: Size, kernel: str = "auto") -> None:
        super().__init__()
        self.model = Decoder(size, kernel)
        self.lm_head = Head(self.model.embed_tokens.weight)
        deviation = math.sqrt(2 / (5 * size.width))
        residual = deviation / math.sqrt(2 * size.layers)
        for name, parameter in self.named_parameters():
            is_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=residual if is_residual else deviation)

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        boundaries: Tensor | None = None,
        measure: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [batch, time, vocabulary]; with `labels` the loss in nats, summed over tokens.

        `input_ids`, `labels` [batch, time], int64. `labels` holds the token that follows each
        input, or -100 to exclude it; without any label the loss is 0 with gradients. `boundaries`
        [documents + 1], int32, holds the first token of each document, counted over all rows, and
        the number of tokens; attention stays within a document, and each row begins one. Rotary
        positions are relative, so documents need no restart. With `measure`: instead of the sum,
        the loss of each token and whether it was the likeliest token,
        [batch, time].
        """
        return self.lm_head(self.model(input_ids, boundaries), labels, measure)

    def begin(self) -> Callable[[Sequence[int]], Tensor]:
        """A function that gives the logits [vocabulary] after further tokens of one text."""
        cache = Cache()

        def logits_after(tokens: Sequence[int]) -> Tensor:
            ids = torch.tensor([tokens], device=self.lm_head.weight.device)
            return self.lm_head(self.model(ids, cache=cache)[:, -1])[0]

        return logits_after


def decoder_layers(model: nn.Module, count: int | None) -> list[nn.Module]:
    """Layers of a decoder in order: the first list of `count` modules."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return list(module)
    return []


class BuiltIn:
    """Where a task has its model from: this transformer, with random weights."""

    folder = None
    longest = None
    has_adapters = False
    coverage = ""
    inputs = ("boundaries",)
    single_document = False
    """See FromFolder."""

    def __init__(self, model: Model, context: Context) -> None:
        size = SIZES[model.size]
        if model.tokenizer == "bpe":
            size = replace(size, vocabulary=model.vocabulary or max(512, size.vocabulary))
        self.size = size
        self.context = size.context
        self.num_layers = size.layers
        self._kernel = context.attention

    def fit(self, tokenizer: Tokenizer) -> None:
        """Take the vocabulary of a tokenizer from a file, rounded up to a multiple of 8."""
        self.size = replace(self.size, vocabulary=-(-tokenizer.size // 8) * 8)

    def build(self) -> Transformer:
        return Transformer(self.size, self._kernel)

    def configs(self, length: int, tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
        """Configurations for transformers by file, for samples of `length`."""
        size = self.size
        special_tokens = {
            "bos_token_id": tokenizer.start,
            "eos_token_id": tokenizer.end,
            "pad_token_id": tokenizer.pad,
        }
        config = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": size.vocabulary,
            "hidden_size": size.width,
            "intermediate_size": size.hidden,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.heads,
            "head_dim": size.width // size.heads,
            "hidden_act": "silu",
            "max_position_embeddings": length,
            "rms_norm_eps": NORM_EPSILON,
            "rope_theta": ROTARY_BASE,
            "attention_bias": False,
            "mlp_bias": False,
            "attention_dropout": 0.0,
            "tie_word_embeddings": True,
            "torch_dtype": "float32",
            **special_tokens,
        }
        return {"config.json": config, GENERATION: special_tokens}
