"""Train a small tokeniser on this repository's text, for tools that want one and may not download.

Runs in the clients' own venv: ``python tests/clients/make_tokeniser.py DIRECTORY``.
"""

import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).parents[2]
NUM_TOKENS = 4096
END = "<|end|>"


def main(directory: str) -> None:
    """Write what ``AutoTokenizer.from_pretrained`` reads."""
    tokeniser = Tokenizer(models.BPE())
    tokeniser.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokeniser.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_TOKENS,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pages = [*sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("agent_runtime/**/*.py"))]
    tokeniser.train_from_iterator((page.read_text() for page in pages), trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokeniser, bos_token=END, eos_token=END, pad_token=END
    )
    wrapped.save_pretrained(directory)


if __name__ == "__main__":
    main(sys.argv[1])
