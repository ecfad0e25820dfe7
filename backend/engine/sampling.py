"""How each slot draws its tokens. Knows slots and rows; the draw itself is ``kernels.sample``.

Settings that most requests do without (min_p, penalties, bias, log-probabilities) cost nothing while no open slot has
them: no column is made and no token is counted.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from backend.engine.staging import Staging
from kernels.sample import LogitBias, Penalties, count_tokens, sample
from scheduler.plan import Sampling, TokenLogprobs

MOST_LOGPROBS = 20
MOST_BIASES = 1024
MOST_SCORED = 1 << 16
# Larger numbers say nothing that this does not; they could overflow.
LARGEST = 1e4


class _More(NamedTuple):
    """What ``kernels.sample.sample`` takes beside the columns that every draw has."""

    min_p: torch.Tensor | None = None
    penalties: Penalties | None = None
    logit_bias: LogitBias | None = None


class Draws(NamedTuple):
    """What every draw of a step takes, [rows] each: slots, positions, top_k and seed int64, temperature and top_p
    float32."""

    slots: np.ndarray
    positions: np.ndarray
    top_k: np.ndarray
    seed: np.ndarray
    temperature: np.ndarray
    top_p: np.ndarray

    def packed(self, rows: int, nobody: int = 0) -> np.ndarray:
        """[5, rows] int64 as ``drawn_from`` takes them; rows past these draw greedily for the slot ``nobody``."""
        lines = np.zeros((5, rows), np.int64)
        lines[0] = nobody
        count = len(self.slots)
        for line, values in zip(lines, self[:4], strict=False):
            line[:count] = values
        floats = lines[4].view(np.float32).reshape(2, rows)
        floats[1] = 1.0
        floats[0, :count] = self.temperature
        floats[1, :count] = self.top_p
        return lines


def drawn_from(
    logits: torch.Tensor, lines: torch.Tensor, last: torch.Tensor, more: _More | None = None
) -> torch.Tensor:
    """A token [rows] int64 for each row of logits [rows, vocab] float32, put into ``last`` at the row's slot, too.
    ``lines``: ``Draws.packed`` on the device."""
    slots, positions, top_k, seed = lines[:4]
    temperature, top_p = lines[4].view(torch.float32).view(2, -1)
    more = more or _More()
    drawn = sample(
        logits,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        position=positions,
        min_p=more.min_p,
        penalties=more.penalties,
        logit_bias=more.logit_bias,
    )
    last.index_copy_(0, slots, drawn)
    return drawn


class SlotSampling:
    """Sampling settings by slot, set when a slot is opened, and the tokens so far of the slots whose draws depend on
    them."""

    def __init__(self, slots: int, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._temperature = np.zeros(slots, np.float32)
        self._top_k = np.zeros(slots, np.int64)
        self._top_p = np.ones(slots, np.float32)
        self._seed = np.zeros(slots, np.int64)
        self._min_p = np.zeros(slots, np.float32)
        self._repetition = np.ones(slots, np.float32)
        self._presence = np.zeros(slots, np.float32)
        self._frequency = np.zeros(slots, np.float32)
        self._special: dict[int, Sampling] = {}  # slots whose draws need more than the first four columns
        self._reports: dict[int, int] = {}  # slots that report log-probabilities, and of how many alternatives
        self._staging = Staging(device)
        self._history: torch.Tensor | None = None  # [slots, vocab] int16, made when somebody has penalties

    @property
    def reports(self) -> bool:
        """Whether any open slot wants log-probabilities."""
        return len(self._reports) > 0

    def reset(self, slot: int) -> None:
        """Nobody has the slot any more: draws do without what it asked for."""
        self._special.pop(slot, None)
        self._reports.pop(slot, None)
        self._min_p[slot] = self._presence[slot] = self._frequency[slot] = 0.0
        self._repetition[slot] = 1.0

    def set(self, slot: int, sampling: Sampling, tokens: bytes = b"", prompt_tokens: int = 0) -> str:
        """Take over the settings; returns what is wrong with them, or an empty string. Wrong ones leave the slot
        greedy. ``tokens``, ``prompt_tokens``: as in ``Opened``."""
        self.reset(slot)
        problem = self._problem(sampling, prompt_tokens)
        if problem:
            sampling = Sampling(temperature=0.0)
        self._temperature[slot] = sampling.temperature
        self._top_k[slot] = min(sampling.top_k, 1 << 40)
        self._top_p[slot] = sampling.top_p
        # Any integer is a seed: its low 64 bits, as a signed number.
        self._seed[slot] = np.uint64(sampling.seed & ((1 << 64) - 1)).astype(np.int64)
        if sampling.logprobs is not None:
            self._reports[slot] = sampling.logprobs
        if sampling.min_p or sampling.penalises or sampling.logit_bias:
            self._special[slot] = sampling
            self._min_p[slot] = sampling.min_p
            self._repetition[slot] = sampling.repetition_penalty
            self._presence[slot] = sampling.presence_penalty
            self._frequency[slot] = sampling.frequency_penalty
        if sampling.penalises:
            return self._remember(slot, np.frombuffer(tokens, "<u4").astype(np.int64), prompt_tokens)
        return problem

    def draws(self, slots: np.ndarray, positions: np.ndarray) -> Draws:
        """For rows that belong to ``slots`` and get ``positions``, both [rows] int64."""
        columns = (self._top_k, self._seed, self._temperature, self._top_p)
        return Draws(slots, positions, *(column[slots] for column in columns))

    def special(self, slots: np.ndarray) -> bool:
        """Whether a draw of these slots takes more than ``Draws`` has."""
        return bool(self._special) and any(slot in self._special for slot in slots.tolist())

    def draw(self, logits: torch.Tensor, draws: Draws, last: torch.Tensor) -> torch.Tensor:
        """One token [rows] int64 for each row of logits [rows, vocab] float32; it is put into ``last`` at the row's
        slot, too. Drawn tokens count at the next draw, so each position is drawn once. Does not wait for the device."""
        more = self._more(draws.slots) if self._special else _More()
        drawn = drawn_from(logits, self._staging.place(draws.packed(len(draws.slots))), last, more)
        if more.penalties is not None:
            count_tokens(more.penalties.history, more.penalties.slot, drawn)
        return drawn

    def logprobs(self, logits: torch.Tensor, slots: np.ndarray, drawn: np.ndarray) -> dict[int, TokenLogprobs]:
        """Of the drawn tokens, by row, for the rows whose slots report them: from the logits as the model gave them, as
        OpenAI's API does."""
        rows = [row for row, slot in enumerate(slots.tolist()) if slot in self._reports]
        if not rows:
            return {}
        counts = [self._reports[int(slots[row])] for row in rows]
        return dict(zip(rows, token_logprobs(logits[rows], drawn[rows], counts), strict=True))

    def _more(self, slots: np.ndarray) -> _More:
        """For a step with these rows; each part only if one of them has it."""
        asked = [self._special.get(slot) for slot in slots.tolist()]
        those = [sampling for sampling in asked if sampling is not None]
        if not those:
            return _More()

        def column(values: np.ndarray) -> torch.Tensor:
            return self._staging.place(values[slots])

        min_p = column(self._min_p) if any(sampling.min_p for sampling in those) else None
        penalties = None
        if self._history is not None and any(sampling.penalises for sampling in those):
            lines = self._staging.place(slots)
            penalties = Penalties(
                self._history, lines, column(self._repetition), column(self._presence), column(self._frequency)
            )
        most = max(len(sampling.logit_bias) for sampling in those)
        return _More(min_p, penalties, self._bias(asked, most) if most else None)

    def _bias(self, asked: list[Sampling | None], most: int) -> LogitBias:
        tokens = np.full((len(asked), most), -1, np.int64)
        values = np.zeros((len(asked), most), np.float32)
        for row, sampling in enumerate(asked):
            if sampling is not None and sampling.logit_bias:
                count = len(sampling.logit_bias)
                tokens[row, :count] = list(sampling.logit_bias)
                values[row, :count] = list(sampling.logit_bias.values())
        return LogitBias(torch.from_numpy(tokens).to(self._device), torch.from_numpy(values).to(self._device))

    def _remember(self, slot: int, tokens: np.ndarray, prompt_tokens: int) -> str:
        """Count a slot's tokens so far; returns what is wrong with them, or an empty string."""
        if len(tokens) and int(tokens.max()) >= self._vocab_size:
            return f"token id {int(tokens.max())} is outside of the vocabulary of {self._vocab_size}"
        if self._history is None:
            self._history = torch.zeros(
                len(self._temperature), self._vocab_size, dtype=torch.int16, device=self._device
            )
        line = 2 * np.bincount(tokens[prompt_tokens:], minlength=self._vocab_size)
        line[tokens[:prompt_tokens]] |= 1
        self._history[slot] = torch.from_numpy(line.astype(np.int16)).to(self._device)
        return ""

    def _problem(self, sampling: Sampling, prompt_tokens: int) -> str:
        """What is wrong with the settings, or an empty string."""
        if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0):
            return f"temperature must be a finite number from 0, not {sampling.temperature}"
        for name in ("top_p", "min_p"):
            if not 0 <= getattr(sampling, name) <= 1:
                return f"{name} must be from 0 to 1, not {getattr(sampling, name)}"
        if sampling.top_k < 0:
            return f"top_k must not be negative, not {sampling.top_k}"
        if not 1 / LARGEST <= sampling.repetition_penalty <= LARGEST:
            return f"repetition_penalty must be from {1 / LARGEST} to {LARGEST}, not {sampling.repetition_penalty}"
        for name in ("presence_penalty", "frequency_penalty"):
            if not abs(getattr(sampling, name)) <= LARGEST:
                return f"{name} must be from {-LARGEST} to {LARGEST}, not {getattr(sampling, name)}"
        if len(sampling.logit_bias) > MOST_BIASES:
            return f"logit_bias has at most {MOST_BIASES} tokens, not {len(sampling.logit_bias)}"
        if not all(abs(value) <= LARGEST for value in sampling.logit_bias.values()):
            return f"logit_bias must be numbers from {-LARGEST} to {LARGEST}"
        if wrong := [token for token in sampling.logit_bias if not 0 <= token < self._vocab_size]:
            return f"logit_bias: token id {wrong[0]} is outside of the vocabulary of {self._vocab_size}"
        for name in ("logprobs", "prompt_logprobs"):
            count = getattr(sampling, name)
            if count is not None and not 0 <= count <= MOST_LOGPROBS:
                return f"{name} must be from 0 to {MOST_LOGPROBS}, not {count}"
        if sampling.prompt_logprobs is not None and prompt_tokens > MOST_SCORED:
            return f"prompt_logprobs: a prompt of {prompt_tokens} tokens is longer than {MOST_SCORED}"
        return ""


def token_logprobs(logits: torch.Tensor, tokens: np.ndarray, counts: list[int]) -> list[TokenLogprobs]:
    """For each row of logits [rows, vocab] the log-probability of its token and of its ``counts[row]`` most probable
    ones."""
    values = logits.float().log_softmax(-1)
    chosen = values.gather(1, torch.from_numpy(tokens)[:, None].to(values.device))[:, 0].tolist()
    top = values.topk(min(max(counts), values.shape[1]), sorted=True)
    return [
        TokenLogprobs(logprob, ids[:count], probable[:count])
        for logprob, ids, probable, count in zip(chosen, top.indices.tolist(), top.values.tolist(), counts, strict=True)
    ]
