"""Builds a Qwen3 with random weights and a tokenizer of its own: all that vLLM needs to serve.

    .venv-vllm/bin/python tests/vllm/tiny_model.py DIRECTORY [--small]

The tokenizer is trained on Python's own source files. 22 M parameters: with fewer, the engine
outruns vLLM's own front end, which then answers nothing else. With ``--small`` 135 M: there the
engine's steps are mostly arithmetic, as on an accelerator, and not vLLM's own code.
"""

import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tool_call>",
    "</tool_call>",
    "<think>",
    "</think>",
]
MAX_CONTEXT = 32_768

# ChatML as Qwen has it; an assistant's message comes back to the tokens it was generated as.
CHAT_TEMPLATE = """
{%- if tools %}<|im_start|>system
# Tools
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}<|im_end|>
{% endif %}
{%- for m in messages %}<|im_start|>{{ 'user' if m['role'] == 'tool' else m['role'] }}
{{ m['content'] or '' }}
{%- for call in (m['tool_calls'] or []) %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE of 4,096 tokens."""
    sources = sorted(Path(json.__file__).parent.parent.glob("*.py"))[:120]
    tok = Tokenizer(models.BPE(unk_token=None))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tok.train_from_iterator([path.read_text(errors="ignore") for path in sources], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tok,
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[0],
        model_max_length=MAX_CONTEXT,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


TINY = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
SMALL = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
}


def build(directory: Path, sizes: dict[str, int]) -> None:
    """Write model and tokenizer."""
    fast = tokenizer()
    fast.save_pretrained(directory)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(fast),
        **sizes,
        max_position_embeddings=MAX_CONTEXT,
        tie_word_embeddings=True,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        bos_token_id=None,
    )
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    generation = {
        "eos_token_id": fast.eos_token_id,
        "pad_token_id": fast.pad_token_id,
        "do_sample": True,
    }
    (directory / "generation_config.json").write_text(json.dumps(generation))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--small", action="store_true", help="135 M parameters instead of 22 M")
    args = parser.parse_args()
    build(args.directory, SMALL if args.small else TINY)
