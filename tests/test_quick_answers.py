"""What is answered before weights are loaded, in the words of the command line."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from conftest import require_smollm2, save_model, save_tokenizer

from icl_circuits import cli
from icl_circuits.cli.options import with_options
from icl_circuits.errors import InputError
from icl_circuits.models import LensModel, outline, outlines
from icl_circuits.models.source import read_without_weights
from icl_circuits.prompts import PromptBatch, Rows, encode, load_rows, sample_prompts
from icl_circuits.prompts.rows import Row
from icl_circuits.store import Store
from icl_circuits.studies.shown import marked_tokens, with_whole_characters

SMALL = ("--prompts", "6", "--heads", "2", "--select", "paper", "--shots", "2", "--device", "cpu")
HANZI = "红橙黄绿蓝紫黑白灰粉猫狗鸡鸭牛羊马猪鱼鸟"


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody loads weights."""

    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("weights are loaded")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run the command line in this process; gives what it prints."""
    monkeypatch.setattr(cli.app, "obey_signals", lambda: None)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["icl-circuits", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr()
        assert not stopped.value.code, said.err
        return said.out

    return run


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("name", ["gpt2", "llama", "neox", "gptj", "qwen2"])
def test_an_outline_reads_text_as_the_model_does(folders: dict[str, Path], words: Rows, name: str) -> None:
    known = outline(str(folders[name]))
    assert known is not None
    assert (known.cfg.n_ctx, known.cfg.n_layers, known.cfg.n_heads) == (256, 3, 4)
    assert known.cfg.d_vocab == len(known.tokenizer)


def test_an_outline_encodes_what_the_model_encodes(gpt2: LensModel, folders: dict[str, Path], words: Rows) -> None:
    known, prompts = outline(str(folders["gpt2"])), sample_prompts(words, 3, shots=2)
    assert known is not None
    ours, theirs = encode(known, prompts), encode(gpt2, prompts)
    assert (ours.tokens == theirs.tokens).all()
    assert ours.n_prepended == theirs.n_prepended
    assert (known.cfg.n_ctx, known.cfg.d_vocab) == (gpt2.cfg.n_ctx, gpt2.cfg.d_vocab)


@pytest.mark.usefixtures("no_weights")
def test_prompts_need_no_weights(run: Callable[..., str], folders: dict[str, Path]) -> None:
    assert "| foo<label " in run("prompts", "--model", str(folders["llama"]), "--shots", "1")


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("command", ["report", "circuit", "heads"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--labels", "foo,foobar"), "no token tells label 'foo' from label 'foobar': choose another word (--labels)"),
        (("--heads", "7"), "select at most 6 (--heads)"),
        (("--shots", "19"), "shorter texts (--shots)"),
        (("--shots", "-1"), "--shots is -1: ask for 0"),
        (("--labels", "foo"), "without spaces around them (--labels)"),
        (("--n-ctx", "9"), "reads at most 9"),
        (("--n-ctx", "999"), "--n-ctx is 999, but the model reads 1 to 256"),
        (("--device", "nonsense"), "device 'nonsense' does not exist"),
        (("--text-column", "label"), "--text-column and --label-column are both 'label'"),
    ],
)
def test_mistakes_are_answered_before_weights_are_loaded(
    refused: Callable[..., str], folders: dict[str, Path], command: str, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused(command, "--model", str(folders["gpt2"]), *SMALL, *arguments)


@pytest.mark.usefixtures("no_weights")
def test_other_studies_check_their_prompts_first(refused: Callable[..., str], folders: dict[str, Path]) -> None:
    assert "ask for at most 1 (--heads)" in refused("relations", "--model", str(folders["gpt2"]), "--heads", "2")
    assert "label 'foobar' has no tokens" in refused("development", "--labels", "foo,foobar")


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prompt", "foo " * 300, "--answer", "bar"), "reads at most 256"),
        (("--prompt", "foo", "--answer", " "), "--answer is ' ': give some words"),
        (("--per-type", "0"), "cannot keep 0 facts of a type"),
        (("--text-column", "nothing"), "--text-column"),
    ],
)
def test_facts_are_checked_before_weights_are_loaded(
    refused: Callable[..., str], folders: dict[str, Path], arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused("subvalues", "--model", str(folders["gpt2"]), "--device", "cpu", *arguments)


def test_columns_and_halves_are_named(refused: Callable[..., str], tmp_path: Path) -> None:
    rows = "".join(f"{kind}{i},{kind}\n" for kind in ("x", "y") for i in range(9))
    (tmp_path / "d.csv").write_text("body,label\n" + rows)
    assert "its columns are body, label; name the right one with --text-column" in refused("heads", "--data", "d.csv")
    said = refused("heads", "--data", "d.csv", "--text-column", "body", "--shots", "4")
    assert "class 'x' has 9 different texts, 4 of them in the half to test on, but 4 shots and a query need 5" in said
    assert "lower --shots" in said


def test_arguments_are_options_on_the_command_line() -> None:
    assert with_options("use backend='bridge' or n_ctx=9") == "use --backend bridge or --n-ctx=9"
    assert with_options("job 'towers seed=1' twice, n_ctx=9") == "job 'towers seed=1' twice, --n-ctx=9"
    assert with_options("seed is -1: give 0") == "--seed is -1: give 0"
    assert with_options("the seed is -1") == "the seed is -1"
    assert with_options("text_column is 'text_column'") == "--text-column is 'text_column'"
    assert with_options("file 'n_ctx.csv' of /tmp/n_ctx.csv: shots") == "file 'n_ctx.csv' of /tmp/n_ctx.csv: shots"


@pytest.fixture
def hanzi(tmp_path: Path) -> Path:
    """A model whose tokenizer has bytes of Chinese characters alone."""
    vocabulary = save_tokenizer(tmp_path)
    save_model(tmp_path, transformers.GPT2Config(vocab_size=vocabulary, n_embd=8, n_head=2, n_layer=2))
    return tmp_path


def test_parts_of_a_character_are_shown_joined(run: Callable[..., str], hanzi: Path) -> None:
    rows = "".join(f"{text},{'色' if i < 10 else '动物'}\n" for i, text in enumerate(HANZI))
    (hanzi / "d.csv").write_text("text,label\n" + rows, encoding="utf-8")
    given = ("--data", str(hanzi / "d.csv"), "--shots", "1", "--labels", "红,蓝")
    shown = run("prompts", "--model", str(hanzi), *given).splitlines()[0]
    assert "\ufffd" not in shown
    assert shown.count("|红<label ") == shown.count("|蓝<label ") == 1
    assert re.search(r"\| :\| <last \d+>$", shown)  # the labels share the space before them


def test_bytes_that_make_no_character_stay_as_they_are(hanzi: Path) -> None:
    known = outline(str(hanzi))
    assert known is not None
    rows = Rows("d", tuple(Row(text, "ab"[i > 9]) for i, text in enumerate(HANZI)))
    batch: PromptBatch = encode(known, sample_prompts(rows, 1, shots=1))
    marked = marked_tokens(known, batch, 0)
    partial = next(i for i, token in enumerate(marked) if token.text == "\ufffd")
    tokens = batch.tokens[0].tolist()
    assert with_whole_characters(known, tokens[partial : partial + 1], marked[partial : partial + 1]) == [
        marked[partial]
    ]
    joined = with_whole_characters(known, tokens, marked)
    assert "".join(token.text for token in joined) == batch.texts[0]


def test_an_outline_is_remembered_until_a_file_changes(
    folders: dict[str, Path], words: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, model = Store(tmp_path / "store"), tmp_path / "model"
    shutil.copytree(folders["llama"], model)
    read = []
    monkeypatch.setattr(outlines, "read_without_weights", lambda *args: read.append(1) or read_without_weights(*args))
    prompts = sample_prompts(words, 3, shots=2)
    first, second = (outline(str(model), store=store) for _ in range(2))
    assert len(read) == 1
    assert first is not None
    assert second is not None
    assert first.cfg == second.cfg
    assert first.icl_card == second.icl_card
    assert (encode(first, prompts).tokens == encode(second, prompts).tokens).all()
    changed = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(changed | {"max_position_embeddings": 99}))
    third = outline(str(model), store=store)
    assert third is not None
    assert (third.cfg.n_ctx, len(read)) == (99, 2)
    save_tokenizer(model, [" other words"])
    fourth = outline(str(model), store=store)
    assert fourth is not None
    assert len(read) == 3
    assert fourth.tokenizer(" foo").input_ids != third.tokenizer(" foo").input_ids
    outline(str(model))
    assert len(read) == 4  # without a store nothing is remembered


def test_smollm2_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    require_smollm2()
    import gguf

    parsed, reader = [], gguf.GGUFReader

    def read(path: str) -> Any:
        parsed.append(path)
        return reader(path)

    monkeypatch.setattr(gguf, "GGUFReader", read)
    known = outline("smollm2-135m")
    assert len(parsed) == 1
    assert known is not None
    assert (known.cfg.d_vocab, known.cfg.n_layers, known.cfg.n_heads) == (49152, 30, 9)
    with pytest.raises(InputError, match="no token tells"):
        encode(known, sample_prompts(load_rows("word-categories"), 2, labels=("foo", "foobar")))
