"""The families of checkpoints: one computation, under the names that each family gives to it.

`minisbert.model` computes them all, and asks of each array by its role. What differs stands here, one record a
family: the names of tensors and of settings, and the few numbers that are not settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

__all__ = ["BUCKETS", "FAMILIES", "Family", "Table"]

# Rows of role, name in the file, and shape as letters: those of `minisbert.model`, and Y token types, E the width of
# the embeddings, and B buckets of distances.
Table: TypeAlias = tuple[tuple[str, str, str], ...]

BUCKETS = 32  # of MPNet's distances: transformers computes with 32, whatever the setting says


class HeadNames(NamedTuple):
    """The two matrices of a classifier, as they are called in the file, and the activation between them."""

    dense: str
    activation: str
    output: str


class Family(NamedTuple):
    """What sets a family apart: the tables are in the order of the file.

    `layer_tensors` stand after `layer_prefix` and the number of the layer. `projection` maps embeddings to the width
    of the layers, where the two differ. `ignored` are the beginnings of names that sentence vectors do not depend on,
    and why: buffers that can be computed, and heads. `head` is that of a classifier. `keys` has the settings that go by
    another name in this family's ``config.json``, and `refuse_unless` the values that its settings must have.
    """

    prefix: str
    tokenizer: str  # the class, where no file names one
    embedding_tensors: Table
    layer_prefix: str
    layer_tensors: Table
    ignored: Mapping[str, str]
    head: HeadNames
    projection: Table = ()
    keys: Mapping[str, str] = {}
    refuse_unless: Mapping[str, tuple[Any, ...]] = {}
    layer_norm_eps: float | None = None  # where it is no setting
    pad_token_id: int = 0  # where none is stated
    positions_follow_ids: bool = False

    @property
    def has_token_types(self) -> bool:
        """Whether there is a vector for each token type."""
        return any(role == "embeddings.token_type" for role, _, _ in self.embedding_tensors)

    def key(self, name: str) -> str:
        """Return what a setting is called in this family's ``config.json``."""
        return self.keys.get(name, name)

    def ignored_by(self, name: str) -> str | None:
        """Return the beginning of a tensor's name for which it is ignored."""
        return next((start for start in self.ignored if name.startswith(start)), None)


def _affine(role: str, name: str, shape: str) -> Table:
    """A matrix and its bias, or the scale and the shift of a norm."""
    return ((f"{role}.weight", f"{name}.weight", shape), (f"{role}.bias", f"{name}.bias", shape[0]))


_WORD_AND_POSITION: Table = (
    ("embeddings.word", "embeddings.word_embeddings.weight", "VE"),
    ("embeddings.position", "embeddings.position_embeddings.weight", "PE"),
)
_TOKEN_TYPE: Table = (("embeddings.token_type", "embeddings.token_type_embeddings.weight", "YE"),)
_EMBEDDING_NORM = _affine("embeddings.norm", "embeddings.LayerNorm", "E")
_FEED_FORWARD: Table = (
    *_affine("feed_forward.intermediate", "intermediate.dense", "FD"),
    *_affine("feed_forward.output", "output.dense", "DF"),
    *_affine("feed_forward.norm", "output.LayerNorm", "D"),
)
_BERT_LAYER: Table = (
    *_affine("attention.query", "attention.self.query", "DD"),
    *_affine("attention.key", "attention.self.key", "DD"),
    *_affine("attention.value", "attention.self.value", "DD"),
    *_affine("attention.output", "attention.output.dense", "DD"),
    *_affine("attention.norm", "attention.output.LayerNorm", "D"),
    *_FEED_FORWARD,
)
_DISTILBERT_LAYER: Table = (
    *_affine("attention.query", "attention.q_lin", "DD"),
    *_affine("attention.key", "attention.k_lin", "DD"),
    *_affine("attention.value", "attention.v_lin", "DD"),
    *_affine("attention.output", "attention.out_lin", "DD"),
    *_affine("attention.norm", "sa_layer_norm", "D"),
    *_affine("feed_forward.intermediate", "ffn.lin1", "FD"),
    *_affine("feed_forward.output", "ffn.lin2", "DF"),
    *_affine("feed_forward.norm", "output_layer_norm", "D"),
)
_MPNET_LAYER: Table = (
    *_affine("attention.query", "attention.attn.q", "DD"),
    *_affine("attention.key", "attention.attn.k", "DD"),
    *_affine("attention.value", "attention.attn.v", "DD"),
    *_affine("attention.output", "attention.attn.o", "DD"),
    *_affine("attention.norm", "attention.LayerNorm", "D"),
    *_FEED_FORWARD,
)
_POSITION_BIAS: Table = (("position_bias", "encoder.relative_attention_bias.weight", "BH"),)

_IGNORED = {
    "embeddings.position_ids": "numbers that are counted here",
    "embeddings.token_type_ids": "zeros that are made here",
    "pooler.": "only heads use it",
    "classifier.": "a head that gives labels",
    "qa_outputs.": "a head that finds answers",
}
_LANGUAGE_HEAD = "a head that guesses words"

_HEAD = HeadNames("classifier.dense", "tanh", "classifier.out_proj")

_BERT = Family(
    prefix="bert.",
    tokenizer="BertTokenizer",
    embedding_tensors=(*_WORD_AND_POSITION, *_TOKEN_TYPE, *_EMBEDDING_NORM),
    layer_prefix="encoder.layer.",
    layer_tensors=_BERT_LAYER,
    ignored=_IGNORED | {"cls.": "heads of the pretraining"},
    head=HeadNames("pooler.dense", "tanh", "classifier"),
)
_ROBERTA = Family(
    prefix="roberta.",
    tokenizer="RobertaTokenizer",
    embedding_tensors=_BERT.embedding_tensors,
    layer_prefix="encoder.layer.",
    layer_tensors=_BERT_LAYER,
    ignored=_IGNORED | {"lm_head.": _LANGUAGE_HEAD},
    head=_HEAD,
    pad_token_id=1,
    positions_follow_ids=True,
)
_ELECTRA = Family(
    prefix="electra.",
    tokenizer="BertTokenizer",
    embedding_tensors=_BERT.embedding_tensors,
    projection=_affine("embeddings.projection", "embeddings_project", "DE"),
    layer_prefix="encoder.layer.",
    layer_tensors=_BERT_LAYER,
    ignored=_IGNORED
    | {
        "discriminator_predictions.": "the head of the pretraining",
        "generator_predictions.": _LANGUAGE_HEAD,
        "generator_lm_head.": _LANGUAGE_HEAD,
        "sequence_summary.": "only heads use it",
    },
    head=HeadNames("classifier.dense", "gelu", "classifier.out_proj"),
)
_DISTILBERT = Family(
    prefix="distilbert.",
    tokenizer="BertTokenizer",
    embedding_tensors=(*_WORD_AND_POSITION, *_EMBEDDING_NORM),
    layer_prefix="transformer.layer.",
    layer_tensors=_DISTILBERT_LAYER,
    ignored=_IGNORED
    | dict.fromkeys(("vocab_transform.", "vocab_layer_norm.", "vocab_projector."), _LANGUAGE_HEAD)
    | {"pre_classifier.": "only heads use it"},
    head=HeadNames("pre_classifier", "relu", "classifier"),
    keys={
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
    },
    layer_norm_eps=1e-12,
)
_MPNET = Family(
    prefix="mpnet.",
    tokenizer="MPNetTokenizer",
    embedding_tensors=(*_WORD_AND_POSITION, *_EMBEDDING_NORM, *_POSITION_BIAS),
    layer_prefix="encoder.layer.",
    layer_tensors=_MPNET_LAYER,
    ignored=_IGNORED | {"lm_head.": _LANGUAGE_HEAD},
    head=_HEAD,
    refuse_unless={"relative_attention_num_buckets": (BUCKETS,), "pad_token_id": (1,)},
    pad_token_id=1,
    positions_follow_ids=True,
)

# By the model_type of config.json. DistilRoBERTa is a RoBERTa; XLM-RoBERTa and CamemBERT differ from it in their
# tokenizers alone.
FAMILIES: Mapping[str, Family] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA._replace(tokenizer="XLMRobertaTokenizer"),
    "camembert": _ROBERTA._replace(tokenizer="CamembertTokenizer"),
    "distilbert": _DISTILBERT,
    "electra": _ELECTRA,
    "mpnet": _MPNET,
}
