"""Loading: every format that is read, every defect that is refused, and what the message names."""

import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.errors import StartError
from backend.models.decoder import Decoder
from backend.weights import load as load_module
from backend.weights.load import load_checkpoint
from tests.models.checkpoints import Case, save

CASE = Case("tiny", "llama", 4, 2, 16, 96)
SHARDED = Case("tiny-sharded", "llama", 4, 2, 16, 96, shards="30KB")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture(autouse=True)
def as_loaded(monkeypatch) -> None:
    """Weights stay where they were read to, instead of being packed for the CPU at hand."""
    monkeypatch.setattr(Decoder, "prepare", lambda self, int8=False: self.config.parameters * self.dtype.itemsize)


def parameters(folder, **options):
    """All tensors of a loaded checkpoint by their names on disk."""
    loaded = load_checkpoint(folder, **options)
    return {parameter.name: parameter.target for parameter in loaded.model.parameters()}


def edit_config(folder, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder, change) -> None:
    """Apply ``change`` to the dict of tensors and write it back."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def refused(folder, *words, **options) -> None:
    """Loading fails with a ``StartError`` whose message has all ``words``."""
    with pytest.raises(StartError) as caught:
        load_checkpoint(folder, **options)
    for word in words:
        assert word in caught.value.message


def test_every_tensor_lands_in_its_place(tmp_path) -> None:
    model = save(CASE, tmp_path)
    found = parameters(tmp_path)
    expected = dict(model.named_parameters())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_shards_tied_embeddings_and_counts(tmp_path) -> None:
    for name, case in (
        ("sharded", SHARDED),
        ("tied", Case("tied", "llama", 4, 2, 16, 96, {"tie_word_embeddings": True})),
    ):
        model = save(case, tmp_path / name)
        loaded = load_checkpoint(tmp_path / name)
        assert loaded.config.parameters == sum(p.numel() for p in model.parameters())
        assert loaded.weights_bytes == 4 * loaded.config.parameters
        expected = dict(model.named_parameters())
        assert all(torch.equal(p.target, expected[p.name]) for p in loaded.model.parameters())
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2


@pytest.mark.parametrize("on_disk", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("run", ["float32", "bfloat16", "float16"])
def test_any_dtype_to_any_dtype(tmp_path, on_disk, run) -> None:
    model = save(CASE, tmp_path)
    edit_weights(tmp_path, lambda tensors: tensors.update({k: v.to(on_disk) for k, v in tensors.items()}))
    found = parameters(tmp_path, dtype=run)
    for name, expected in model.named_parameters():
        assert torch.equal(found[name], expected.to(on_disk).to(getattr(torch, run)))


def test_progress_counts_bytes_to_the_end(tmp_path) -> None:
    save(SHARDED, tmp_path)
    seen: list[tuple[str, int, int]] = []
    loaded = load_checkpoint(tmp_path, progress=lambda *report: seen.append(report))
    assert {what for what, _, _ in seen} == {"weights"}
    done = [done for _, done, _ in seen]
    assert done == sorted(done) and done[0] == 0 and done[-1] == seen[0][2] == loaded.weights_bytes


def test_missing_superfluous_and_wrong_tensors_are_named(tmp_path) -> None:
    save(CASE, tmp_path)
    name = "model.layers.1.self_attn.k_proj.weight"
    original = load_file(tmp_path / WEIGHTS)
    edit_weights(tmp_path, lambda tensors: tensors.pop(name))
    refused(tmp_path, name, "missing")
    save_file({**original, name: torch.zeros(3, 64)}, tmp_path / WEIGHTS)
    refused(tmp_path, WEIGHTS, name, "[3, 64]", "[32, 64]")
    extra = "model.layers.0.self_attn.q_proj.bias"
    save_file({**original, extra: torch.zeros(64)}, tmp_path / WEIGHTS)
    refused(tmp_path, WEIGHTS, extra)
    save_file({**original, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)}, tmp_path / WEIGHTS)
    load_checkpoint(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite(tmp_path, value) -> None:
    save(CASE, tmp_path)
    name = "model.layers.0.mlp.down_proj.weight"
    edit_weights(tmp_path, lambda tensors: tensors[name][3].fill_(value))
    refused(tmp_path, WEIGHTS, name, "not finite")


def test_values_too_large_for_the_run_dtype(tmp_path) -> None:
    save(CASE, tmp_path)
    edit_weights(tmp_path, lambda tensors: tensors["model.norm.weight"].fill_(1e6))
    load_checkpoint(tmp_path, "bfloat16")
    refused(tmp_path, "model.norm.weight", "float16", dtype="float16")


def test_truncated_files(tmp_path) -> None:
    save(CASE, tmp_path)
    content = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(content[:-100])
    refused(tmp_path, WEIGHTS, "truncated", "tensor")
    (tmp_path / WEIGHTS).write_bytes(content[:100])
    refused(tmp_path, WEIGHTS, "truncated", "header")
    for short in (b"", content[:5]):
        (tmp_path / WEIGHTS).write_bytes(short)
        refused(tmp_path, WEIGHTS, "not a safetensors file")


def write_header(path, header, data=b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_wrong_headers(tmp_path) -> None:
    save(CASE, tmp_path)
    path = tmp_path / WEIGHTS
    for header, *words in (
        (b"{not json", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ([1, 2], "not a JSON object"),
        ({"a.weight": {"dtype": "F32", "shape": [2]}}, "a.weight", "malformed"),
        ({"a.weight": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, "a.weight", "malformed"),
        ({"a.weight": 3}, "a.weight", "malformed"),
        ({"a.weight": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}, "a.weight", "F8_E4M3"),
        ({"a.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 2]}}, "a.weight", "bytes"),
        ({"a.weight": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}, "a.weight", "truncated"),
    ):
        write_header(path, header, b"\0" * 8)
        refused(tmp_path, WEIGHTS, *words)
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    refused(tmp_path, WEIGHTS, "not a safetensors file")
    # Valid for us, not for the library: overlapping tensors.
    tensors = load_file(save_copy(tmp_path))
    names = {
        name: {"dtype": "F32", "shape": list(t.shape), "data_offsets": [0, t.numel() * 4]}
        for name, t in tensors.items()
    }
    write_header(path, names, b"\0" * max(t.numel() * 4 for t in tensors.values()))
    refused(tmp_path, WEIGHTS, "cannot be read")


def save_copy(folder):
    """A sound weights file of the same case, elsewhere."""
    save(CASE, folder / "copy")
    return folder / "copy" / WEIGHTS


def test_index_files(tmp_path) -> None:
    save(SHARDED, tmp_path)
    original = json.loads((tmp_path / INDEX).read_text())
    name = "model.norm.weight"
    for shard, *words in (
        ("../" + original["weight_map"][name], "leads out"),
        ("/etc/passwd", "leads out"),
        ("..", "leads out"),
        ("gone.safetensors", "gone.safetensors", "missing"),
        (original["weight_map"]["model.embed_tokens.weight"], name, "missing"),
    ):
        (tmp_path / INDEX).write_text(json.dumps({"weight_map": {**original["weight_map"], name: shard}}))
        refused(tmp_path, *words)
    for content in ("[]", "{}", '{"weight_map": {"a": 1}}', "{"):
        (tmp_path / INDEX).write_text(content)
        refused(tmp_path, INDEX)


def test_links_are_followed(tmp_path) -> None:
    """The hub's cache is made of links that lead out of the snapshot's folder."""
    save(SHARDED, tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(file)
    load_checkpoint(tmp_path / "snapshot")


def test_folders_without_what_is_needed(tmp_path) -> None:
    refused(tmp_path / "nowhere", "nowhere", "not a folder")
    refused(tmp_path, "config.json", "missing")
    (tmp_path / "config.json").write_text("{")
    refused(tmp_path, "config.json", "not valid JSON")
    save(CASE, tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / "pytorch_model.bin")
    refused(tmp_path, "no weights", WEIGHTS)


def test_no_room_in_memory(tmp_path, monkeypatch) -> None:
    save(CASE, tmp_path)
    need = load_checkpoint(tmp_path).weights_bytes
    monkeypatch.setattr(load_module, "available_bytes", lambda device: need + 1000)
    load_checkpoint(tmp_path, reserve_bytes=1000)
    refused(tmp_path, "no room in memory", reserve_bytes=1001)
    monkeypatch.setattr(load_module, "available_bytes", lambda device: need - 1)
    refused(tmp_path, "no room in memory", "weights")


def test_a_config_that_lies_about_size_allocates_nothing(tmp_path) -> None:
    save(CASE, tmp_path)
    edit_config(tmp_path, num_hidden_layers=100_000, intermediate_size=100_000_000)
    refused(tmp_path, "no room in memory")


def test_unknown_dtype_option(tmp_path) -> None:
    save(CASE, tmp_path)
    refused(tmp_path, "int8", dtype="int8")
