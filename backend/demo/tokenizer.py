"""The demo model's tokenizer: a small byte-level BPE in which numbers of up to three digits are one token.

Knows: how the vocabulary is made and stored, the ChatML template, and how a conversation becomes tokens with the
answers marked. Does not know: models or losses.

Numbers are whole because a small model copies one token far more reliably than a run of digits.

    python -m backend.demo.tokenizer     trains the tokenizer anew and writes it into backend/demo/model/
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from backend.demo.conversations import Conversation, make_conversation
from backend.demo.words import INGREDIENTS, ITEM_NOUNS, MODIFIERS, ROLES

MODEL_DIR = Path(__file__).parent / "model"
END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END)
VOCABULARY_TOKENS = 2_560
MAX_POSITIONS = 4_096
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# A word with the space before it, up to three digits, a run of other signs, a line break. Punctuation never takes in
# a line break: a sentence must have the same tokens as a line of the prompt and as an answer.
_SPLIT = r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|[\r\n]|\s+(?!\S)|\s+"


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _number_merges() -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens and merges that make every number of two or three digits one token.

    A number of three digits can be reached by two ways, since BPE may join its last two digits first.
    """
    pairs = [f"{n:02d}" for n in range(100)]
    triples = [f"{n:03d}" for n in range(1000)]
    merges = [(p[0], p[1]) for p in pairs]
    merges += [(t[:2], t[2]) for t in triples]
    merges += [(t[0], t[1:]) for t in triples]
    return pairs + triples, merges


def _texts(conversations: int, seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    for _ in range(conversations):
        conversation = make_conversation(20, 20, rng, held_out=False)
        yield conversation.system
        for turn in conversation.turns:
            yield turn.question
            yield turn.answer
        yield from ("system\n", "user\n", "assistant\n")
    # Common words become one token each, so that the businesses people see are mostly made of whole words.
    words = ITEM_NOUNS + MODIFIERS + INGREDIENTS + ROLES
    for _ in range(conversations // 10):
        yield " " + " ".join(words)


def train_tokenizer(conversations: int = 4_000, seed: int = 0) -> Tokenizer:
    """A tokenizer of VOCABULARY_TOKENS tokens, trained on synthetic conversations; the same for the same seed."""
    numbers, number_merges = _number_merges()
    learner = Tokenizer(models.BPE())
    # Digits stay apart while training: all of their merges are given.
    learner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _pre_tokenizer()])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_TOKENS - len(numbers),
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(_texts(conversations, seed), trainer)
    learnt = json.loads(learner.to_str())["model"]
    vocabulary = dict(learnt["vocab"])
    for number in numbers:
        vocabulary[number] = len(vocabulary)
    merges = number_merges + [tuple(pair) for pair in learnt["merges"]]

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def tokenizer_config() -> dict[str, Any]:
    """The content of tokenizer_config.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MAX_POSITIONS,
        "bos_token": None,
        "eos_token": IM_END,
        "pad_token": END_OF_TEXT,
        "unk_token": None,
        "additional_special_tokens": [IM_START, IM_END],
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "add_eos_token": False,
        "chat_template": CHAT_TEMPLATE,
    }


class ChatEncoder:
    """Turns messages into tokens exactly as the rendered chat template would be tokenised.

    Text never yields a control token: what looks like one is spelt out in ordinary tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self.start = self._control(IM_START)
        self.end = self._control(IM_END)
        (self._newline,) = self.text("\n")

    @classmethod
    def load(cls, folder: Path = MODEL_DIR) -> "ChatEncoder":
        return cls(Tokenizer.from_file(str(folder / "tokenizer.json")))

    @property
    def vocabulary_tokens(self) -> int:
        return self._tokenizer.get_vocab_size()

    def _control(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise ValueError(f"the tokenizer has no {token}")
        return number

    def text(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=False)

    def message(self, role: str, content: str) -> list[int]:
        return [self.start, *self.text(f"{role}\n{content}"), self.end, self._newline]

    def answer_start(self) -> list[int]:
        return [self.start, *self.text("assistant\n")]

    def conversation(self, conversation: Conversation, most_tokens: int) -> tuple[list[int], list[bool]]:
        """Tokens, and for each whether it is part of an answer (its <|im_end|> included).

        Whole turns are dropped from the end until `most_tokens` is kept; the system prompt never is.
        """
        tokens = self.message("system", conversation.system)
        is_answer = [False] * len(tokens)
        start = self.answer_start()
        for turn in conversation.turns:
            question = self.message("user", turn.question) + start
            answer = [*self.text(turn.answer), self.end]
            if len(tokens) + len(question) + len(answer) + 1 > most_tokens:
                break
            tokens += question + answer + [self._newline]
            is_answer += [False] * len(question) + [True] * len(answer) + [False]
        return tokens, is_answer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(), indent=2) + "\n")


if __name__ == "__main__":
    save_tokenizer(train_tokenizer(), MODEL_DIR)
