"""Decoding as tokens come, and stop strings over it."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers

from backend.text.detokenize import Detokenizer
from backend.text.stop import StopStrings
from backend.text.tokenizer import TextTokenizer

texts = st.text(alphabet="abé日🙂 \n", max_size=30)


@given(text=texts | st.text())
def test_text_comes_back_in_whole_characters(tokenizer: TextTokenizer, text: str) -> None:
    stream = Detokenizer(tokenizer).stream()
    pieces = [stream.push((token,)) for token in tokenizer.encode_plain(text)]
    assert "".join(pieces) == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


@given(ids=st.lists(st.integers(0, 499), max_size=30))
def test_any_tokens_decode_as_the_library_decodes_them(tokenizer: TextTokenizer, ids: list[int]) -> None:
    stream = Detokenizer(tokenizer).stream()
    shown = "".join(stream.push((token,)) for token in ids)
    kept = [i for i in ids if i not in tokenizer.skipped]
    whole = tokenizer.library.decode(kept, skip_special_tokens=True)
    assert whole == shown if not stream.pending else whole == shown + "\ufffd"


def test_control_tokens_have_no_text(tokenizer: TextTokenizer) -> None:
    stream = Detokenizer(tokenizer).stream()
    assert stream.push(tokenizer.encode_rendering("a<|im_end|>b<|endoftext|>")) == "ab"
    assert stream.push((10**6, -1)) == ""


def test_added_tokens_that_are_not_special_are_shown(tokenizer: TextTokenizer) -> None:
    assert Detokenizer(tokenizer).stream().push(tokenizer.encode_rendering("<think>x")) == "<think>x"


@pytest.mark.parametrize("text", ["hello world", " hello", "日本 🙂 é"])
def test_sentencepiece_with_byte_fallback(tmp_path: object, text: str) -> None:
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"\u2581": 256, "h": 257, "e": 258, "l": 259, "o": 260}
    library = Tokenizer(models.BPE(vocab, [], byte_fallback=True))
    library.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    library.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = TextTokenizer(_definition(library), {}, frozenset())
    ids = library.encode(text).ids
    stream = Detokenizer(tokenizer).stream()
    assert "".join(stream.push((token,)) for token in ids) == library.decode(ids) == text


def _definition(library: Tokenizer) -> dict[str, object]:
    value = json.loads(library.to_str())
    assert isinstance(value, dict)
    return value


def test_word_pieces_go_through_the_library() -> None:
    library = Tokenizer(models.WordPiece({"[UNK]": 0, "play": 1, "##ing": 2, "now": 3}, unk_token="[UNK]"))
    library.decoder = decoders.WordPiece()
    stream = Detokenizer(TextTokenizer(_definition(library), {}, frozenset())).stream()
    assert "".join(stream.push((token,)) for token in (1, 2, 3)) == "playing now"


stops = st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3)


@given(text=st.text(alphabet="abc", max_size=20), stops=stops, cuts=st.lists(st.integers(0, 20), max_size=5))
def test_stop_strings_do_not_depend_on_the_slicing(text: str, stops: list[str], cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    watch = StopStrings(stops)
    shown = "".join(watch.push(text[a:b]) for a, b in itertools.pairwise(places))
    if watch.matched is None:
        shown += watch.flush()
    ends = [n for n in range(len(text) + 1) if any(text[:n].endswith(stop) for stop in stops)]
    if not ends:
        assert (shown, watch.matched) == (text, None)
    else:
        longest = max((stop for stop in stops if text[: ends[0]].endswith(stop)), key=len)
        assert (shown, watch.matched) == (text[: ends[0] - len(longest)], longest)


def test_only_a_possible_beginning_is_held_back() -> None:
    watch = StopStrings(["###"])
    assert [watch.push(t) for t in ("a#", "#", "b", "#", "#", "#", "c")] == ["a", "", "##b", "", "", "", ""]
    assert watch.matched == "###"


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopStrings([""])
