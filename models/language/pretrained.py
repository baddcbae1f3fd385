"""Causal language model of a local Hugging Face folder, also with low-rank adapters."""

from __future__ import annotations

import copy
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_model
from torch import Tensor, nn
from torch._guards import active_fake_mode
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gearshift.models.base import Context, DataError, Tensors
from gearshift.models.common import hugging_face, layers
from gearshift.models.common.hugging_face import (
    CONFIG,
    Coverage,
    StoredTensor,
    StoredWeights,
    cache_name,
    from_pretrained,
    load_errors,
    weights_of,
    without_values,
)
from gearshift.models.common.layers import HasFrozenParts
from gearshift.models.language.config import SIZES, Lora, Model, context_of
from gearshift.models.language.model import (
    CHUNK,
    GENERATION,
    IGNORE,
    Head,
    decoder_layers,
    token_scores,
)

if TYPE_CHECKING:
    from gearshift.models.common.nf4 import Quantizer
    from gearshift.models.language.tokenizer import Tokenizer

PLAIN_HEADS = (
    "gemma",
    "gemma3_text",
    "glm4",
    "gpt2",
    "gpt_neox",
    "llama",
    "mistral",
    "olmo2",
    "opt",
    "phi3",
    "qwen2",
    "qwen3",
    "smollm3",
    "stablelm",
    "starcoder2",
)
"""Architectures whose logits are the output layer of the last hidden state, and nothing else."""
ALLOWED = "a folder with config.json and *.safetensors of a causal language model"
Unread = list[tuple[Tensor, StoredTensor]]
"""Weights of a model without values, and what they are to be read from."""
Opened = tuple[Any, Coverage, Unread]
"""A model of transformers, what its files have, and the weights that are not read yet."""


class Pretrained(HasFrozenParts):
    """Wraps a model loaded by transformers; tied weights stay tied.

    The output layer of PLAIN_HEADS is replaced by Head, under the same name. The logits of other
    models are in memory as a whole; only their float32 copies are made chunk by chunk.
    """

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        if _has_plain_head(inner):
            inner.set_output_embeddings(Head(self.lm_head.weight))

    @property
    def lm_head(self) -> Any:
        """The output layer."""
        return self.inner.get_output_embeddings()

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        measure: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """As Transformer.forward; `attention_mask` [batch, time] is False at padding."""
        head = self.lm_head
        is_fused = isinstance(head, Head) and labels is not None
        inner = self.inner.base_model if is_fused else self.inner
        output = inner(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        if is_fused:
            return head(output.last_hidden_state, labels, measure)
        if labels is None:
            return output.logits
        rows = max(1, CHUNK // output.logits.shape[-1])
        if measure:
            return token_scores(output.logits, labels, rows, lambda logits: logits)
        losses = []
        logits = output.logits.flatten(0, 1)
        for z, y in zip(logits.split(rows), labels.flatten().split(rows), strict=True):
            losses.append(checkpoint(self._sum, z, y, use_reentrant=False))
        return torch.stack(losses).sum()

    def begin(self) -> Callable[[Sequence[int]], Tensor]:
        """As Transformer.begin; of an architecture without a cache, all is computed again."""
        head = self.lm_head
        all_tokens: list[int] = []
        cache = None
        is_plain = isinstance(head, Head)
        inner: Any = self.inner.base_model if is_plain else self.inner
        name = cache_name(inner)
        device = next(self.parameters()).device

        def logits_after(tokens: Sequence[int]) -> Any:
            nonlocal cache
            all_tokens.extend(tokens)
            new = all_tokens if cache is None else tokens
            output = inner(
                input_ids=torch.tensor([new], device=device),
                use_cache=True,
                **{name: cache},
            )
            cache = getattr(output, name, None)
            if is_plain:
                return head(output.last_hidden_state[:, -1:])[0, -1]
            return output.logits[0, -1]

        return logits_after

    def _sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(
            logits.float(),
            labels,
            ignore_index=IGNORE,
            reduction="sum",
        )


def _has_plain_head(inner: Any) -> bool:
    """Whether the logits are a product with the last hidden state: not shifted, scaled, capped."""
    head = inner.get_output_embeddings()
    config = inner.config
    is_known = config.model_type in PLAIN_HEADS
    is_capped = getattr(config, "final_logit_softcapping", None) is not None
    return is_known and not is_capped and type(head) is nn.Linear and head.bias is None


def read_config(folder: Path) -> Any:
    """The configuration of the model in `folder`. Reads the disk. Raises DataError.

    A token of the model must see earlier tokens only. transformers builds a causal model of an
    encoder, too, such as BERT, whose tokens see later ones unless `is_decoder` is set.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    config = hugging_face.read_config(folder, ALLOWED)
    kind = type(config)
    is_decoder = getattr(config, "is_decoder", False) or config.is_encoder_decoder
    is_causal = is_decoder or kind not in MODEL_FOR_MASKED_LM_MAPPING
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING or not is_causal:
        raise DataError(
            f"model.pretrained '{folder}' is no causal language model: "
            f"its model_type is {config.model_type}",
            where=str(folder / "config.json"),
            allowed=ALLOWED,
        )
    return config


def read_weights(
    inner: Any,
    unread: Unread,
    folder: Path,
    quantizer: Quantizer | None = None,
) -> None:
    """Read the weights that are `unread`; `quantizer` puts frozen layers into 4 bits meanwhile.

    Disk access. Raises DataError.
    """
    with load_errors(folder, ALLOWED):
        if quantizer is not None:
            quantizer.quantize(inner, unread)
        for tensor, source in unread:
            source.read_into(tensor)


def open_inner(folder: Path) -> Opened:
    """The model of transformers in `folder`, in float32 on the CPU.

    Disk access; no download, no pickle, no code of the folder is run. Raises DataError.
    """
    from transformers import AutoModelForCausalLM

    config = read_config(folder)
    with load_errors(folder, ALLOWED):
        opened = _by_name(folder, config)
        inner, coverage, unread = opened or (*from_pretrained(AutoModelForCausalLM, folder), [])
    if coverage.random:
        raise DataError(
            f"the weights in model.pretrained '{folder}' do not fit its config.json: "
            f"{coverage.render()}",
            where=str(folder / "config.json"),
            allowed="files with all tensors of the model",
        )
    tensors = [*inner.parameters(), *inner.buffers()]
    if {tensor.dtype for tensor in tensors if tensor.is_floating_point()} != {torch.float32}:
        inner.float()  # of thousands of weights, which takes time in a plan
    return inner, coverage, unread


def _by_name(folder: Path, config: Any) -> Opened | None:
    """The model of `config`, each tensor to be read by its own operator, which can be deferred.

    None if the files lack names or shapes of the model: transformers must convert them, or reports
    which ones. Disk access.
    """
    from transformers import AutoModelForCausalLM

    if getattr(config, "quantization_config", None):
        return None
    inner = without_values(AutoModelForCausalLM, copy.deepcopy(config))
    stored = StoredWeights(inner, folder)
    # A plan needs no values, so that config.json alone will do.
    needs_none = not stored.tensors and active_fake_mode() is not None
    unread: Unread = []
    for name, tensor in weights_of(inner).items():
        source = StoredTensor("", name, tuple(tensor.shape)) if needs_none else stored.source(name)
        if source is None or source.shape != tensor.shape:
            return None
        unread.append((tensor, source))
    return inner.eval(), Coverage(unexpected=stored.unexpected()), unread


class FromFolder:
    """Where a task has its model from: a folder of transformers, also with adapters."""

    inputs = ()
    single_document = True
    """What the model takes of a batch beside tokens and labels; whether a row holds one document:
    padding at its end needs no mask, but not every architecture accepts one for documents."""

    def __init__(self, folder: Path, model: Model, context: Context) -> None:
        """Read the settings. Raises DataError."""
        self.folder = folder
        self.context = SIZES[model.size].context
        self._kernel = context.attention
        self.lora = model.lora
        self.has_adapters = model.lora.rank is not None
        self._quantizer: Quantizer | None = None
        if self.has_adapters and model.quantize is not None:
            from gearshift.models.common.nf4 import Quantizer

            self._quantizer = Quantizer(context.device)
        self._entries = 0
        self.num_layers = None
        self.coverage = ""

    @cached_property
    def longest(self) -> int | None:
        """The longest sample that the model allows; None: any. Reads the disk. Raises DataError."""
        read_config(self.folder)
        return context_of(self.folder)

    def fit(self, tokenizer: Tokenizer) -> None:
        """Check in `build` that the model has embeddings for all tokens."""
        self._entries = tokenizer.size

    def build(self) -> Pretrained:
        inner, coverage, unread = open_inner(self.folder)
        self.coverage = coverage.render()
        self.num_layers = getattr(inner.config, "num_hidden_layers", None)
        model = Pretrained(inner)
        if self.has_adapters:
            add_adapters(inner, self.lora)
        rows = inner.get_input_embeddings().weight.shape[0]
        if self._entries > rows:
            raise DataError(
                f"the tokenizer has {self._entries} tokens, model.pretrained has {rows} embeddings",
                where="model.tokenizer, model.pretrained",
                allowed="the tokenizer of the pretrained model",
                hint="leave out model.tokenizer  the pretrained folder has its own",
            )
        layers.restrict_blocks(decoder_layers(model, self.num_layers), self._kernel)
        read_weights(inner, unread, self.folder, self._quantizer)
        return model

    def configs(self, length: int, tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
        """Those of the folder, with dtype float32 and the tokens that end an answer.

        Reads the disk. Raises DataError.
        """
        read_config(self.folder)
        config = json.loads((self.folder / CONFIG).read_bytes())
        config.pop("dtype", None)
        config["torch_dtype"] = "float32"
        file = self.folder / GENERATION
        if file.is_file():
            generation = json.loads(file.read_bytes())
        else:
            names = ("bos_token_id", "eos_token_id", "pad_token_id")
            generation = {name: config.get(name) for name in names}
        known = generation.get("eos_token_id")
        ends = known if isinstance(known, list) else [known]
        all_ends = dict.fromkeys([*ends, *tokenizer.stops])
        generation["eos_token_id"] = [token for token in all_ends if token is not None]
        return {CONFIG: config, GENERATION: generation}

    def write_adapted(self, weights: Tensors, folder: Path, *, merged: bool) -> None:
        """Write adapters as peft reads them; or model.safetensors with them merged.

        `weights` are those of the adapters, by the names of a model with them. Disk access.
        """
        from peft import get_peft_model, set_peft_model_state_dict

        inner, _, unread = open_inner(self.folder)
        read_weights(inner, unread, self.folder)
        if self._quantizer is not None and merged:  # the weights that the adapters were trained on
            self._quantizer.round(inner)
        named = {}
        for name, tensor in weights.items():
            named["base_model.model." + name.replace(_NAME, "")] = tensor
        with _expected_warnings():
            model = get_peft_model(inner, _config(self.lora))
            result: Any = set_peft_model_state_dict(model, named)
            assert not result.unexpected_keys, result.unexpected_keys
            if merged:
                file = folder / "model.safetensors"
                save_model(
                    model.merge_and_unload(),
                    str(file),
                    metadata={"format": "pt"},
                )
                return
            model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # a form to describe the model


_NAME = ".default"
"""peft's name of the only adapter, within the names of its weights."""


def add_adapters(inner: Any, settings: Lora) -> None:
    """Freeze the weights of `inner`, a model of transformers, and add trainable adapters.

    Raises DataError if a name of `settings.layers` is of no layer, or of a shared one. Source: Hu
    et al., LoRA, 2021.
    """
    from peft import inject_adapter_in_model

    weights = {}
    for name, module in inner.named_modules():
        weight = getattr(module, "weight", None)
        if weight is not None and weight.dim() == 2:
            weights[name] = id(weight)
    uses = Counter(weights.values())
    free = [name for name, weight in weights.items() if uses[weight] == 1]
    ends = list(dict.fromkeys(name.rpartition(".")[2] for name in free))
    for layer in settings.layers:
        named = {name for name in weights if f".{name}".endswith(f".{layer}")}
        if named and named.issubset(free):
            continue
        problem = "shares its weight" if named else "is of no layer"
        raise DataError(
            f"model.lora.layers: '{layer}' {problem}",
            where="model.lora.layers",
            allowed=f"names of linear layers: {', '.join(ends)}; [] for all",
            did_you_mean="".join(get_close_matches(layer, ends, 1)),
        )
    with _expected_warnings():
        inject_adapter_in_model(_config(settings), inner)


def _config(settings: Lora) -> Any:
    from peft import LoraConfig

    assert settings.rank is not None
    return LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank if settings.alpha is None else settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.layers) or "all-linear",
        task_type="CAUSAL_LM",
    )


@contextmanager
def _expected_warnings() -> Iterator[None]:
    """Hide that peft adapts a setting to the transposed layers of GPT-2, and uses old names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")
        yield
