"""Bad models: no traceback, nothing lost, exit code 2, and one line that names what is wrong."""

import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from icl_circuits.errors import InputError
from icl_circuits.models import load_model
from icl_circuits.studies import load_results, save_results

DEEP, HUGE = "[" * 100_000, 10**400
Spoil = Callable[[Path], Any]


def config(**fields: Any) -> Spoil:
    """Change fields of the configuration."""

    def spoil(folder: Path) -> None:
        written = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(written | fields))

    return spoil


def file(name: str, data: str | bytes) -> Spoil:
    """Put other data into a file."""
    return lambda folder: (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def tokenizer(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    """Change the tokenizer."""

    def spoil(folder: Path) -> None:
        written = json.loads((folder / "tokenizer.json").read_text())
        change(written)
        (folder / "tokenizer.json").write_text(json.dumps(written))

    return spoil


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Spoil:
    """Change the weights."""

    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


def instead(name: str, put: Callable[[Path], Any]) -> Spoil:
    """Put something that is no file in the place of one."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        put(folder / name)

    return spoil


def words(*known: str, unknown: str) -> dict[str, Any]:
    """A tokenizer that knows whole words alone."""
    return {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(known)}, "unk_token": unknown}


EMBEDDING = "transformer.wte.weight"
SPOILED: dict[str, tuple[Spoil, str]] = {
    "empty configuration": (file("config.json", ""), "not a valid JSON file"),
    "null": (file("config.json", "null"), "config.json says what cannot be"),
    "list": (file("config.json", "[]"), "config.json says what cannot be"),
    "number": (file("config.json", "3"), "config.json says what cannot be"),
    "deep": (file("config.json", DEEP), "RecursionError"),
    "no text": (file("config.json", b"\xff\xfe\x00\x80"), "not a valid JSON file"),
    "folder": (instead("config.json", Path.mkdir), "has no config.json"),
    "fifo": (instead("config.json", os.mkfifo), "has no config.json"),
    "loop": (instead("config.json", lambda path: path.symlink_to(path.name)), "has no config.json"),
    "no layers": (config(n_layer=0), "n_layer that is not in 1..10000"),
    "layers below 0": (config(n_layer=-1), "n_layer that is not in 1..10000"),
    "a billion layers": (config(n_layer=10**9), "n_layer that is not in 1..10000"),
    "huge layers": (config(n_layer=HUGE), "n_layer that is not in 1..10000"),
    "layers as text": (config(n_layer="3"), "expected int, got str"),
    "half layers": (config(n_layer=1.5), "expected int, got float"),
    "layers within": (config(text_config={"num_hidden_layers": HUGE}), "num_hidden_layers that is not in 1..10000"),
    "more layers": (config(n_layer=5), "lack 24 tensors"),
    "no words": (config(vocab_size=0), "do not fit together"),
    "words below 0": (config(vocab_size=-1), "do not fit together"),
    "huge vocabulary": (config(vocab_size=HUGE), "do not fit together"),
    "few words": (config(vocab_size=5), "do not fit together"),
    "no width": (config(n_embd=0), "do not fit together"),
    "width below 0": (config(n_embd=-32), "do not fit together"),
    "odd width": (config(n_embd=33), "divisible by num_heads"),
    "no heads": (config(n_head=0), "do not fit together"),
    "heads below 0": (config(n_head=-4), "no conversion for GPT2LMHeadModel of this shape"),
    "huge heads": (config(n_head=HUGE), "divisible by num_heads"),
    "no positions": (config(n_positions=0), "do not fit together"),
    "huge positions": (config(n_positions=HUGE), "do not fit together"),
    "huge epsilon": (config(layer_norm_epsilon=HUGE), "OverflowError"),
    "epsilon below 0": (config(layer_norm_epsilon=-5.0), "NaN or infinite logits"),
    "odd activation": (config(activation_function="os.system"), "KeyError: 'os.system'"),
    "odd kind": (config(model_type=["gpt2"]), "config.json says what cannot be"),
    "escapes": (config(model_type="\x1b[2J\u202e"), r"\x1b[2J\u202e"),
    "odd dtype": (config(dtype="zzz"), "no attribute 'zzz'"),
    "odd quantization": (config(quantization_config=3), "config.json says what cannot be"),
    "empty tokenizer": (file("tokenizer.json", ""), "tokenizer files"),
    "null tokenizer": (file("tokenizer.json", "null"), "tokenizer files"),
    "deep tokenizer": (file("tokenizer.json", DEEP), "RecursionError"),
    "odd tokenizer": (file("tokenizer_config.json", "[]"), "tokenizer files"),
    "deep settings": (file("tokenizer_config.json", DEEP), "RecursionError"),
    "tokenizer of another kind": (tokenizer(lambda t: t["model"].update(type="zzz")), "tokenizer files"),
    "huge ids": (tokenizer(lambda t: t["model"]["vocab"].update(a=HUGE)), "number out of range"),
    "ids below 0": (tokenizer(lambda t: t["model"]["vocab"].update(a=-1)), "expected u32"),
    "tokenizer of a larger model": (
        tokenizer(lambda t: t["model"]["vocab"].update({w: i + 10**6 for w, i in t["model"]["vocab"].items()})),
        "is not in the vocabulary, which has ids 0..",
    ),
    "a label beyond the vocabulary": (
        tokenizer(lambda t: t["added_tokens"].append({**t["added_tokens"][0], "id": 10**7, "content": " foo"})),
        "label 'foo': id",
    ),
    "nothing unknown": (tokenizer(lambda t: t.update(model=words("a", unknown="?"))), "tokenizer cannot read 'x : foo"),
    "nothing known": (tokenizer(lambda t: t.update(model=words("b", unknown="?"))), "Missing [UNK]"),
    "one word": (tokenizer(lambda t: t.update(model=words("a", unknown="a"))), "no token tells label 'foo' from"),
    "all one token": (
        tokenizer(lambda t: t["model"]["vocab"].update(dict.fromkeys(t["model"]["vocab"], 0))),
        "no token tells label 'foo' from label 'bar'",
    ),
    "empty weights": (file("model.safetensors", b""), "incomplete or corrupt"),
    "weights of text": (file("model.safetensors", "x" * 100), "incomplete or corrupt"),
    "long header": (file("model.safetensors", struct.pack("<Q", 2**62) + b"{}"), "incomplete or corrupt"),
    "deep header": (file("model.safetensors", struct.pack("<Q", 100_000) + DEEP.encode()), "incomplete or corrupt"),
    "other weights": (weights(lambda w: (w.clear(), w.update(x=torch.zeros(1)))), "lack 41 tensors"),
    "NaN": (weights(lambda w: w[EMBEDDING].fill_(torch.nan)), "NaN or infinity in 'transformer.wte.weight'"),
    "infinity": (weights(lambda w: w[EMBEDDING].fill_(torch.inf)), "NaN or infinity in 'transformer.wte.weight'"),
    "another shape": (weights(lambda w: w.update({EMBEDDING: w[EMBEDDING][:5].clone()})), "do not fit together"),
    "weights are a folder": (instead("model.safetensors", Path.mkdir), "cannot load model"),
    "weights are a loop": (instead("model.safetensors", lambda path: path.symlink_to(path.name)), "cannot load model"),
    "weights are a pickle": (
        instead("model.safetensors", lambda path: path.with_name("pytorch_model.bin").write_bytes(b"\x80\x04bad")),
        "incomplete or corrupt",
    ),
    "an index to elsewhere": (
        instead(
            "model.safetensors",
            lambda path: path.with_name(f"{path.name}.index.json").write_text('{"weight_map": {"a": "../../x"}}'),
        ),
        "cannot load model",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SPOILED)
def test_models_that_cannot_be(
    refused: Callable[..., str], folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    shutil.copytree(folders["gpt2"], tmp_path / "m")
    spoil, message = SPOILED[name]
    spoil(tmp_path / "m")
    said = refused(
        "heads",
        "--model",
        "m",
        "--prompts",
        "4",
        "--shots",
        "1",
        "--heads",
        "2",
        "--select",
        "paper",
        "--device",
        "cpu",
    )
    assert message in said
    assert "'m'" in said or "label" in said or "tokenizer" in said or "GPT2LMHeadModel" in said


PATHS = [
    ("", "has no config.json"),
    ("/", "has no config.json"),
    ("x" * 256, "File name too long"),
    ("a/" * 3000, "File name too long"),
    ("loop", "is a link that leads nowhere"),
    ("loop/m", "there is no folder 'loop/m' here"),
    ("~no-such-user/m", "home directory"),
    ("nul\0", "not text in UTF-8"),
    ("\udcff", "not text in UTF-8"),
    ("\x1b[2J", r"\x1b[2J"),
    ("/dev/zero", "neither a file nor a folder"),
    ("file", "is a file: give the folder"),
    ("file/m", "there is no folder 'file/m' here"),
    ("none.gguf", "does not exist"),
    ("bad.gguf", "is not a GGUF file"),
]


@pytest.mark.parametrize(("path", "message"), PATHS, ids=range(len(PATHS)))
def test_paths_that_lead_to_no_model(refused: Callable[..., str], tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file", "bad.gguf"):
        (tmp_path / name).write_text("mine")
    assert message in refused("heads", "--model", path, "--device", "cpu")


@pytest.fixture
def stranger() -> Iterator[Path]:
    """A folder that everyone may read; afterwards this process has its rights back."""
    folder, user = Path(tempfile.mkdtemp()), os.geteuid()
    folder.chmod(0o755)
    yield folder
    os.seteuid(user)
    for path in folder.iterdir():
        path.chmod(0o700)
    shutil.rmtree(folder)


def lose_rights() -> None:
    """Be nobody from here on, where this process was root, which may read everything."""
    if os.geteuid() == 0:
        os.seteuid(65534)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_files_that_may_not_be_read(folders: dict[str, Path], stranger: Path, name: str) -> None:
    shutil.copytree(folders["gpt2"], stranger / "m")
    (stranger / "m").chmod(0o755)
    for path in (stranger / "m").iterdir():
        path.chmod(0 if path.name == name else 0o644)
    lose_rights()
    with pytest.raises(InputError, match=rf"{name}' of model .* cannot be read \(Permission denied\): change its perm"):
        load_model(str(stranger / "m"), device="cpu")


def test_folders_that_may_not_be_read(folders: dict[str, Path], stranger: Path) -> None:
    shutil.copytree(folders["gpt2"], stranger / "m")
    (stranger / "m").chmod(0)
    lose_rights()
    with pytest.raises(InputError, match="is no path that can be read .*Permission denied"):
        load_model(str(stranger / "m"), device="cpu")


def test_results_that_may_not_be_read(stranger: Path) -> None:
    save_results({"x": np.zeros(2)}, stranger / "r.safetensors")
    (stranger / "r.safetensors").chmod(0)
    lose_rights()
    with pytest.raises(InputError, match=r"no results at .*Permission denied"):
        load_results(stranger / "r.safetensors")
