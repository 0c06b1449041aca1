"""A Llama folder that says what a test has written: after each token there is one that always follows."""

import json
import struct

import numpy as np

SPECIAL = ["<s>", "</s>"]


def byte_characters():
    """The characters that stand for bytes in GPT-2's vocabularies, by byte."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = iter(range(0x100, 0x200))
    return [chr(byte if byte in seen else next(hidden)) for byte in range(256)]


def write(folder, template, answers):
    """`answers`: of each token that the template may end a prompt with, the pieces of what the model then says. A piece
    is a token and stands in one place of one answer only."""
    folder.mkdir(parents=True)
    pieces = [piece for pieces in answers.values() for piece in pieces]
    assert len(set(pieces)) == len(pieces)
    tokens = [*SPECIAL, *byte_characters(), *answers, *pieces]
    number = {token: index for index, token in enumerate(tokens)}
    hidden = -(-len(tokens) // 16) * 16

    def tensor(*shape):
        return np.zeros(shape, np.float32)

    embedding, head = tensor(len(tokens), hidden), tensor(len(tokens), hidden)
    embedding[range(len(tokens)), range(len(tokens))] = 1
    for start, said in answers.items():
        path = [start, *said, "</s>"]
        for before, after in zip(path, path[1:], strict=False):
            head[number[after], number[before]] = 1
    layer = "model.layers.0."
    weights = {
        "model.embed_tokens.weight": embedding,
        "model.norm.weight": tensor(hidden) + 1,
        "lm_head.weight": head,
        layer + "input_layernorm.weight": tensor(hidden) + 1,
        layer + "post_attention_layernorm.weight": tensor(hidden) + 1,
        layer + "self_attn.q_proj.weight": tensor(16, hidden),
        layer + "self_attn.k_proj.weight": tensor(16, hidden),
        layer + "self_attn.v_proj.weight": tensor(16, hidden),
        layer + "self_attn.o_proj.weight": tensor(hidden, 16),
        layer + "mlp.gate_proj.weight": tensor(16, hidden),
        layer + "mlp.up_proj.weight": tensor(16, hidden),
        layer + "mlp.down_proj.weight": tensor(hidden, 16),
    }
    config = {
        "model_type": "llama", "hidden_size": hidden, "num_hidden_layers": 1, "num_attention_heads": 1,
        "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 16, "vocab_size": len(tokens),
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": False, "eos_token_id": 1,
    }
    added = [
        {"id": number[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": token in SPECIAL or token in answers}
        for token in [*SPECIAL, *answers, *pieces]
    ]
    bytes_as_characters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "added_tokens": added,
        "pre_tokenizer": bytes_as_characters, "decoder": bytes_as_characters, "post_processor": None,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": number, "merges": []},
    }
    settings = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": template}
    for name, value in (("config", config), ("tokenizer", tokenizer), ("tokenizer_config", settings)):
        (folder / f"{name}.json").write_text(json.dumps(value))
    header, data = {}, b""
    for name, values in weights.items():
        header[name] = {"dtype": "F32", "shape": values.shape, "data_offsets": [len(data), len(data) + values.nbytes]}
        data += values.tobytes()
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder
