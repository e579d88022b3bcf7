"""Sentence-transformers models with a few random weights, saved as a hub's folder is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

WORDS = (
    "the a of and in is was lighthouse keeper counted ship s before fog came word large red harbour crane to all "
    "##s ##ing ##er b c d e f g h i j k l m n o p q r t u v w x y z 0 1 2 3 4 5 6 7 8 9 . , ! ? & ' UPPER Größe"
).split()
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]  # the padding's id is 1, as in RoBERTa's line
LENGTH = 24  # tokens that a model reads
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": SIZES,
    "Roberta": SIZES,
    "XLMRoberta": SIZES,
    "Camembert": SIZES,
    "MPNet": SIZES,
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "Electra": {**SIZES, "embedding_size": 32},
}


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    fast = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    fast.normalizer = normalizers.NFC()
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def tiny_model(
    folder: Path,
    family: str = "Bert",
    *,
    pooling: str | tuple[str, ...] = "mean",
    normalize: bool = True,
    dense: bool = False,
    prompts: dict[str, str] | None = None,
    default_prompt_name: str | None = None,
    lower: bool = False,
    length: int = LENGTH,
    seed: int = 7,
    **config: Any,
) -> Path:
    """Save a model under `folder` and return its folder."""
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    torch.manual_seed(seed)
    words = tokenizer()
    settings = getattr(transformers, f"{family}Config")(
        vocab_size=len(words), pad_token_id=words.pad_token_id, max_position_embeddings=40, **FAMILIES[family] | config
    )
    model = getattr(transformers, f"{family}Model")(settings)
    for name, weights in model.named_parameters():  # as made, many are 0 or 1, which would hide a mistake
        scale = name.endswith("orm.weight")
        torch.nn.init.normal_(weights, mean=float(scale), std=1.0 if "embeddings." in name and not scale else 0.3)
    plain = folder.with_name(f"{folder.name}-transformer")
    model.save_pretrained(plain)
    words.save_pretrained(plain)
    modules: list[Any] = [Transformer(str(plain), max_seq_length=length, do_lower_case=lower)]
    modules.append(Pooling(modules[0].get_embedding_dimension(), pooling_mode=pooling))
    if dense:
        modules.append(Dense(32, 16))
    if normalize:
        modules.append(Normalize())
    sentence_model = SentenceTransformer(
        modules=modules, prompts=prompts, default_prompt_name=default_prompt_name, device="cpu"
    )
    sentence_model.save(str(folder), create_model_card=False)
    shutil.rmtree(plain)
    return folder


def as_fetched(folder: Path, root: Path, repository: str) -> Path:
    """Move a model's folder to where the hub's client would have put it, and return its folder there."""
    kept = root / f"models--{repository.replace('/', '--')}"
    revision = "0123456789abcdef0123456789abcdef01234567"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text(revision, encoding="ascii")
    return Path(shutil.move(folder, kept / "snapshots" / revision))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
