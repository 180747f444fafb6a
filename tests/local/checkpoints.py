"""Small checkpoints in the layout of jina-embeddings-v3-hf: real classes and tokenizer, random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from tests.models.paragraphs import paragraphs
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import JinaEmbeddingsV3Config, JinaEmbeddingsV3Model

from samespace.backends.jina_local.checkpoint import folder_of
from samespace.models import MODELS

RANK, ALPHA = 4, 8.0
SPECIAL: Final = ("<s>", "<pad>", "</s>", "<unk>")


def make_checkpoint(
    folder: Path, *, layers: int = 2, inner: int = 128, strength: float = 0.3
) -> Path:
    """A model of v3's width with these layers and inner size, and five adapters of this strength."""
    torch.manual_seed(0)
    vocabulary = _tokenizer(folder)
    config = JinaEmbeddingsV3Config(
        vocab_size=vocabulary,
        hidden_size=MODELS["jina-embeddings-v3"].dimensions,
        num_hidden_layers=layers,
        num_attention_heads=16,
        intermediate_size=inner,
    )
    model = JinaEmbeddingsV3Model(config, add_pooling_layer=False)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("weight") and weight.ndim == 2:
                weight.normal_(0, 0.06)
    model.save_pretrained(folder)
    for task in MODELS["jina-embeddings-v3"].tasks:
        _adapter(folder / folder_of(task), model, strength)
    return folder


def _tokenizer(folder: Path) -> int:
    """Train a Unigram tokenizer like v3's, and write it; how many tokens it has."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=600, special_tokens=list(SPECIAL), unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(paragraphs(300), trainer)
    begin, end = (tokenizer.token_to_id(token) for token in ("<s>", "</s>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", begin), ("</s>", end)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return int(tokenizer.get_vocab_size())


def _adapter(folder: Path, model: JinaEmbeddingsV3Model, strength: float) -> None:
    tensors = {}
    for name, module in model.named_modules():
        stem = f"base_model.model.{name}"
        if isinstance(module, torch.nn.Linear):
            out, into = module.weight.shape
            tensors[f"{stem}.lora_A.weight"] = strength * torch.randn(RANK, into) / into**0.5
            tensors[f"{stem}.lora_B.weight"] = strength * torch.randn(out, RANK)
        elif name == "embeddings.word_embeddings":
            tokens, size = module.weight.shape
            tensors[f"{stem}.lora_embedding_A"] = strength * torch.randn(RANK, tokens)
            tensors[f"{stem}.lora_embedding_B"] = strength * torch.randn(size, RANK) / size**0.5
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "use_dora": False}
    (folder / "adapter_config.json").write_text(json.dumps(said))
