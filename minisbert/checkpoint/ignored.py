"""What a checkpoint may have that changes no result, and why: what `minisbert check` says of it.

Of tensors, `minisbert.checkpoint.families` says the same.
"""

from __future__ import annotations

from pathlib import Path

from minisbert.checkpoint import repository
from minisbert.checkpoint.jsonfile import KeyLog, read_json

__all__ = ["FILES", "NOT_NEEDED", "SETTINGS", "tokenizer_keys"]

# Settings that nobody asks for, in whichever file.
_SETTINGS: dict[str, tuple[str, ...]] = {
    "used in training only": (
        "attention_dropout", "attention_probs_dropout_prob", "classifier_dropout", "dropout",
        "gradient_checkpointing", "hidden_dropout_prob", "initializer_factor", "initializer_range", "layerdrop",
        "qa_dropout", "seq_classif_dropout",
    ),
    "only heads use it": (
        "finetuning_task", "id2label", "label2id", "num_labels", "pooler_fc_size", "pooler_num_attention_heads",
        "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type", "problem_type", "summary_activation",
        "summary_first_dropout", "summary_last_dropout", "summary_proj_to_labels", "summary_type",
        "summary_use_proj", "task_specific_params", "tie_weights_", "tie_word_embeddings",
    ),
    "for models that generate text": (
        "bos_token_id", "cls_token_id", "decoder_start_token_id", "eos_token_id", "output_past", "sep_token_id",
        "use_cache",
    ),
    "vectors come from the states alone": (
        "output_attentions", "output_hidden_states", "return_dict", "torchscript", "use_return_dict",
    ),
    "how the reference computes, not what": (
        "_attn_implementation", "_attn_implementation_autoset", "attn_implementation", "cache_dir",
        "chunk_size_feed_forward", "unpad_inputs", "use_bfloat16",
    ),
    "the weights' file says how its numbers are stored": ("dtype", "torch_dtype"),
    "the weights have the vectors of the positions": ("sinusoidal_pos_embds",),
    "nothing reads it": ("directionality",),
    "a record of where the checkpoint comes from": (
        "__version__", "_name_or_path", "architectures", "is_local", "local_files_only", "name_or_path",
        "requirements", "special_tokens_map_file", "tokenizer_file", "transformers_version", "version", "vocab_file",
    ),
    "texts are cut at max_seq_length and never padded": (
        "max_length", "pad_to_multiple_of", "pad_token_type_id", "padding", "padding_side", "stride",
        "truncation", "truncation_strategy",
    ),
    "for turning ids back into text": ("clean_up_tokenization_spaces", "decoder", "errors", "trim_offsets"),
    "the tokenizers library decides": (
        "backend", "do_basic_tokenize", "from_slow", "never_split", "processor_class", "sp_model_kwargs",
        "use_fast", "wordpieces_prefix",
    ),
    "max_seq_length, in another file, comes before it": ("max_len", "model_max_length"),
    "modules run in the order of the list": ("idx", "name"),
    "names of arguments that no module here takes": ("kwargs",),
}  # fmt: skip
SETTINGS = {key: reason for reason, keys in _SETTINGS.items() for key in keys}

NOT_NEEDED = "what is read comes before it, or does without it"
# Files that nobody opens, by their names. The first that fits counts.
FILES: dict[str, tuple[str, ...]] = {
    "bookkeeping of Git and of downloads": (".*",),
    "documentation": ("*.jpeg", "*.jpg", "*.md", "*.pdf", "*.png", "*.svg", "license*", "notice*", "readme*"),
    "left over from training": (
        "*.csv", "*_results.json", "checkpoint-*", "data_config.json", "eval", "logs", "optimizer.*", "rng_state*",
        "runs", "scaler.pt", "scheduler.*", "trainer_state.json", "training_args*",
    ),
    "a pickle, which can run code and is never opened; safetensors files have the weights": (
        "*.bin", "*.bin.index.json", "*.ckpt", "*.pickle", "*.pkl", "*.pt", "*.pth",
    ),
    "weights for other programs": (
        "*.gguf", "*.h5", "*.mlpackage", "*.msgpack", "*.onnx", "*.onnx_data", "*.ot", "*.tflite", "coreml", "onnx",
        "openvino", "openvino_*",
    ),
    "tokenizer.json has the vocabulary": ("*.model", "*.vocab", "merges.txt", "vocab.*"),
    "code of a checkpoint is never run": ("*.ipynb", "*.py", "*.sh"),
    NOT_NEEDED: (*repository.SETTINGS, "*.safetensors", repository.INDEX),
}  # fmt: skip


def tokenizer_keys(path: Path) -> KeyLog:
    """Return the files of a tokenizer and their keys: the library reads all of tokenizer.json but what is overruled."""
    if path.name == repository.TOKENIZER:
        return {path: {key: key not in SETTINGS for key in read_json(path).values}}
    return {
        path.with_name(name): {} for names in repository.VOCABULARIES if path.name in names for name in names
    }
