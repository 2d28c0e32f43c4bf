"""One batch for every task: clean and corrupted prompts, on any TransformerLens model, ours or the user's own."""

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from conftest import require_backend
from ioi import greater_than, ioi
from torch import Tensor

import icl_circuits as icl
from icl_circuits.errors import InputError
from icl_circuits.heads import score_heads
from icl_circuits.models import LensModel, backend_of, is_parallel, load_model, require_live_scores
from icl_circuits.prompts import TokenBatch, pairs, token_batch

CLOSE: Any = {"atol": 2e-5, "rtol": 0}
SHARED = Path(__file__).parent.parent.parent / "shared" / "data" / "pairs"


def plain(model: LensModel, batch: TokenBatch, *hooks: Any) -> Tensor:
    """The answer-position logits by TransformerLens alone."""
    with torch.no_grad():
        logits = model.run_with_hooks(batch.tokens, fwd_hooks=list(hooks))
    return logits[torch.arange(len(batch)), batch.last]


def difference(logits: Tensor, batch: TokenBatch) -> Tensor:
    """Right answer less wrong one, by hand."""
    rows = torch.arange(len(batch))
    assert batch.foil is not None
    return logits[rows, batch.target] - logits[rows, batch.foil]


def put(model: LensModel, site: str, layer: int, head: int | None, at: Tensor, source: Tensor) -> tuple[str, Any]:
    """A hook that writes another run's activation at the positions `at`, by hand."""
    name = f"blocks.{layer}.attn.hook_{site}" if head is not None else f"blocks.{layer}.hook_{site}"
    with torch.no_grad():
        other = model.run_with_cache(source)[1][name]
    rows = torch.arange(len(at))[:, None]

    def write(x: Tensor, hook: object) -> Tensor:
        x = x.clone()
        if head is None:
            x[rows, at] = other[rows, at]
        else:
            x[rows, at, head] = other[rows, at, head]
        return x

    return name, write


def ids_of(model: LensModel, text: str) -> list[int]:
    ids: list[int] = model.tokenizer(text, add_special_tokens=False).input_ids
    return ids


# --- what a batch holds ----------------------------------------------------------------------------------------------


def test_strings_become_batches(gpt2: LensModel) -> None:
    given = ioi(5)
    clean, corrupted = pairs(gpt2, **given)
    space = ids_of(gpt2, " ")  # this tokenizer has no word that begins with a space: answers share it
    for batch, texts in ((clean, given["clean"]), (corrupted, given["corrupted"])):
        assert batch.texts == tuple(texts)
        for row, text in enumerate(texts):
            ids = ids_of(gpt2, text) + space
            assert batch.tokens[row, : batch.last[row] + 1].tolist() == ids
            assert (batch.tokens[row, batch.last[row] :] == ids[-1]).all()
    assert clean.foil is not None
    for row in range(5):
        for words, ids in ((given["answers"], clean.target), (given["foils"], clean.foil)):
            whole = ids_of(gpt2, given["clean"][row] + words[row])
            assert int(ids[row]) == whole[int(clean.last[row]) + 1]
    torch.testing.assert_close(corrupted.target, clean.target)
    some = clean.select([3, 1])
    assert (some.texts, len(some)) == ((clean.texts[3], clean.texts[1]), 2)
    assert some.foil is not None
    torch.testing.assert_close(some.foil, clean.foil[[3, 1]])
    with_bos = pairs(gpt2, **given, prepend_bos=True).clean
    assert (with_bos.tokens[:, 0] == gpt2.tokenizer.bos_token_id).all()
    assert int(with_bos.last[0]) == int(clean.last[0]) + 1


def test_tokens_words_ids_and_files_are_the_same(gpt2: LensModel, tmp_path: Path) -> None:
    given = ioi(4)
    given |= {name: [f"{text} " for text in given[name]] for name in ("clean", "corrupted")}
    given |= {name: [word.strip() for word in given[name]] for name in ("answers", "foils")}
    expected = pairs(gpt2, **given)
    assert expected.clean.foil is not None
    ids = {"answers": expected.clean.target, "foils": expected.clean.foil.tolist()}
    same = {
        "ids for answers": pairs(gpt2, clean=given["clean"], corrupted=given["corrupted"], **ids),
        "lists of tokens": pairs(
            gpt2,
            **{name: [ids_of(gpt2, text) for text in given[name]] for name in ("clean", "corrupted")},
            **ids,
        ),
    }
    frame = pd.DataFrame(given).rename(columns={"answers": "correct", "foils": "incorrect"})
    frame.to_csv(tmp_path / "pairs.csv", index=False)
    same["a file"] = pairs(gpt2, tmp_path / "pairs.csv")
    same["a data frame"] = pairs(gpt2, frame)
    same["other columns"] = pairs(gpt2, pd.DataFrame(given), answers="answers", foils="foils")
    indices = frame.assign(correct_idx=ids["answers"].tolist(), incorrect_idx=ids["foils"])
    indices.drop(columns=["correct", "incorrect"]).to_csv(tmp_path / "ids.csv", index=False)
    same["a file of ids"] = pairs(gpt2, str(tmp_path / "ids.csv"))
    for name, found in same.items():
        for batch, other in zip(found, expected, strict=True):
            for part in ("tokens", "last", "target", "foil"):
                torch.testing.assert_close(getattr(batch, part), getattr(other, part), msg=f"{name}: {part}")
    width = int(expected.clean.last.min()) + 1
    of_tensors = pairs(gpt2, clean=expected.clean.tokens[:, :width], corrupted=expected.clean.tokens[:, 1:width], **ids)
    assert of_tensors.clean.last.tolist() == [width - 1] * 4
    assert of_tensors.clean.texts[0] == gpt2.tokenizer.decode(expected.clean.tokens[0, :width])


def test_an_answer_is_what_its_prompt_goes_on_with(gpt2: LensModel) -> None:
    """Behind its prompt, its first token; where prompt and answer would run together, that of the answer alone."""
    found = token_batch(gpt2, ["a cat", "a ca"], [" dog", "t"])
    assert found.target.tolist() == [ids_of(gpt2, " dog")[0], ids_of(gpt2, "t")[0]]
    assert ids_of(gpt2, "a cat")[:2] != ids_of(gpt2, "a ca")[:2]  # they do run together
    assert found.foil is None
    with pytest.raises(InputError, match="give foils, or another metric"):
        icl.sweep(gpt2, found)
    assert icl.sweep(gpt2, found, metric="log_prob").values.shape == (12, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clean": []}, "one of each for every prompt"),
        ({"clean": [], "corrupted": [], "answers": [], "foils": []}, "0 clean, 0 corrupted"),
        ({"corrupted": ["a"]}, "3 clean, 1 corrupted, 3 answers, 3 foils"),
        ({"answers": None}, "pairs need answers"),
        ({"clean": ["x"] * 2 + [""]}, "prompt 2 is empty"),
        ({"corrupted": [""] + ["x"] * 2}, "corrupted prompt 0 is empty"),
        ({"answers": [" Mary", "", " Tom"]}, "answer 1 is empty"),
        (
            {"foils": [" cat"] * 3, "answers": [" dog", " cat", " dog"]},
            r"no token tells answer 1 \(' cat'\) from foil 1 \(' cat'\)",
        ),
        ({"answers": [1, 2, 10_000]}, "answer 2: id 10000 is not in the vocabulary"),
        ({"clean": ["x" * 300] * 3}, "reads at most 256"),
    ],
)
def test_bad_pairs_are_named(gpt2: LensModel, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pairs(gpt2, **(ioi(3) | change))


def test_bad_files_are_named(gpt2: LensModel, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfec\x00l")
    (tmp_path / "other.csv").write_text("clean,corrupted,label\na,b,c\n")
    (tmp_path / "ids.csv").write_text("clean,corrupted,correct_idx\na,b,c\n")
    for name, message in (
        ("none.csv", "does not exist"),
        ("empty.csv", "is empty: its first line must name the columns"),
        ("binary.csv", "line 1: byte 0x6c is not utf-16"),
        ("other.csv", "no column 'correct' for answers: theirs are clean, corrupted, label"),
        ("ids.csv", "row 0: 'c' is no vocabulary id"),
    ):
        with pytest.raises(InputError, match=message):
            pairs(gpt2, tmp_path / name)
    with pytest.raises(InputError, match="name its column"):
        pairs(gpt2, tmp_path / "other.csv", answers=["c"])


IDS = {"clean": [[5, 6], [7, 8, 9]], "corrupted": [[5], [6]], "answers": [1, 2], "foils": [3, 4]}


def as_frame(**change: Any) -> pd.DataFrame:
    columns = {"clean": ["a", "b"], "corrupted": ["c", "d"], "correct": [" dog", " cat"]}
    return pd.DataFrame({name: values for name, values in (columns | change).items() if values is not None})


@pytest.mark.parametrize(
    ("data", "change", "message"),
    [
        (None, IDS | {"clean": [[5], None]}, r"prompt 1 is missing \(None\): give it, or leave out the row"),
        (None, IDS | {"clean": ["a", float("nan")]}, r"prompt 1 is missing \(nan\)"),
        (None, IDS | {"clean": ["a", [5]]}, "prompt 1: one of text and tokens, prompt 0 the other"),
        (None, IDS | {"clean": [[5], [1.5]]}, "prompt 1: 1.5 is neither text nor a vocabulary id"),
        (None, IDS | {"clean": [[5], [True]]}, "prompt 1: True is neither text nor"),
        (None, IDS | {"clean": [[5], []]}, "prompt 1 is empty"),
        (None, IDS | {"clean": torch.tensor([5, 6])}, "prompt 0 is 5: give a text, or a list of the prompt's"),
        (None, IDS | {"clean": torch.tensor([[0.5], [1.5]])}, "prompt 0: 0.5 is neither text nor a vocabulary id"),
        (None, IDS | {"clean": [[1, -1], [2, 3]]}, "prompt 0: id -1 is not in the vocabulary"),
        (None, IDS | {"corrupted": [[1, 2], [2, 2**70]]}, "corrupted prompt 1: id 1180591620717411303424 is not in"),
        (None, IDS | {"clean": {"a": 1, "b": 2}}, "clean: {'a': 1, 'b': 2} is a dict: give a list"),
        (None, IDS | {"clean": {"a", "b"}}, "is a set: give a list"),
        (None, IDS | {"clean": 3}, "clean: 3 is an int"),
        (None, IDS | {"clean": ["a", "\ud83d"]}, "half of a character"),
        (None, IDS | {"answers": torch.tensor([[1], [2]])}, r"answer 0: \[1\] is neither text nor a vocabulary id"),
        (None, IDS | {"answers": [1, None]}, "answer 1 is missing"),
        (None, IDS | {"answers": [1, pd.NA]}, "answer 1 is missing"),
        (None, IDS | {"answers": [1, 2.0]}, "answer 1: 2.0 is neither text nor"),
        (None, IDS | {"foils": [True, 2]}, "foil 0: True is neither text nor"),
        (as_frame(correct=[" dog", None]), {}, "answer 1 is missing"),
        (as_frame(correct=[5.0, None]), {}, "answer 0: 5.0 is neither text nor"),
        (as_frame(correct=None, correct_idx=[5.0, None]), {}, "answer 1 is missing"),
        (as_frame(correct=None, correct_idx=[5.5, 6]), {}, "column 'correct_idx', row 0: 5.5 is no vocabulary id"),
        (as_frame(correct=None, correct_idx=[5, True]), {}, "row 1: True is no vocabulary id"),
        (as_frame(clean_idx=[5, 6]), {"clean": "clean_idx"}, "'clean_idx' holds vocabulary ids, one a row"),
        (as_frame(clean=None, clean_idx=[5, 6]), {}, "no column 'clean' for clean"),
        (pd.concat([as_frame(), as_frame()[["clean"]]], axis=1), {}, "column 'clean' stands in the pairs twice"),
        (as_frame()[:0], {}, "0 clean, 0 corrupted, 0 answers"),
        ([{"clean": "a"}], {}, "pairs data is a list: give a CSV file or a data frame"),
        ({"clean": ["a"]}, {}, "pairs data is a dict"),
        (3, {}, "pairs data is an int"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("unchecked")
def test_odd_rows_are_named(gpt2: LensModel, data: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pairs(gpt2, data, **change)


def test_a_frame_is_what_its_file_is(gpt2: LensModel, tmp_path: Path) -> None:
    """Numbers in a column of words are words, however pandas reads them, and whatever its index."""
    given = {"clean": ["17 cat", "18 dog"], "corrupted": ["1 cat", "1 dog"], "correct": ["52", "7"]}
    pd.DataFrame(given).to_csv(tmp_path / "pairs.csv", index=False)
    expected, frame = pairs(gpt2, tmp_path / "pairs.csv").clean, pd.read_csv(tmp_path / "pairs.csv")
    assert frame["correct"].dtype == "int64"
    assert expected.target.tolist() == [ids_of(gpt2, "17 cat52")[len(ids_of(gpt2, "17 cat"))], ids_of(gpt2, "7")[0]]
    extra = pd.concat([frame[:0], pd.DataFrame([["x", "x", 1]], columns=frame.columns), frame], ignore_index=True)
    some = extra[extra["clean"] != "x"]
    assert some.index[0] == 1
    columns = {"clean": some["clean"], "corrupted": some["corrupted"], "answers": some["correct"].astype(str)}
    for found in (pairs(gpt2, frame), pairs(gpt2, some), pairs(gpt2, **columns)):
        torch.testing.assert_close(found.clean.tokens, expected.tokens)
        torch.testing.assert_close(found.clean.target, expected.target)
    digits = pairs(gpt2, frame.assign(clean=[17, 18]), answers="correct").clean
    assert digits.texts == ("17", "18")
    torch.testing.assert_close(digits.tokens[0], torch.tensor(ids_of(gpt2, "17")))


def test_the_fields_files_as_frames(gpt2: LensModel) -> None:
    if not SHARED.is_dir():
        pytest.skip("the circuit benchmarks' files are not on this machine")
    for name, options in (("greater_than.csv", {"answers": "label"}), ("ioi.csv", {})):
        of_file, of_frame = (pairs(gpt2, data, **options) for data in (SHARED / name, pd.read_csv(SHARED / name)))
        for batch, other in zip(of_frame, of_file, strict=True):
            for part in ("tokens", "last", "target"):
                torch.testing.assert_close(getattr(batch, part), getattr(other, part))


def test_a_space_alone_is_no_answer(model: LensModel) -> None:
    """Of an answer without foil, the digit is predicted, not the space that this tokenizer writes before it."""
    batch = token_batch(model, ["a cat", "a cat"], [" 7", " dog"])
    space, digit, dog = (ids_of(model, text) for text in (" ", "7", " dog"))
    assert ids_of(model, "a cat 7") == ids_of(model, "a cat") + space + digit
    assert batch.tokens[0].tolist() == ids_of(model, "a cat") + space
    assert batch.target.tolist() == [digit[0], dog[0]]
    assert batch.texts == ("a cat", "a cat")
    found = icl.sweep(model, batch, metric="log_prob").base
    logits = plain(model, batch).log_softmax(-1)
    np.testing.assert_allclose(found, logits.gather(1, batch.target[:, None])[:, 0], atol=2e-5)


def test_what_joins_a_prompt_is_not_in_its_text(gpt2: LensModel) -> None:
    batch = token_batch(gpt2, ["a cat"], [" Mary"], [" John"], prepend_bos=True)
    assert batch.texts == ("a cat",)
    whole = [gpt2.tokenizer.bos_token_id, *ids_of(gpt2, "a cat"), *ids_of(gpt2, " ")]
    assert batch.tokens[0].tolist() == whole


@pytest.mark.usefixtures("unchecked")
def test_select_takes_numbers(gpt2: LensModel) -> None:
    batch = token_batch(gpt2, ["a", "b", "c"], ["x"] * 3)
    assert batch.select(torch.tensor([2, 0])).texts == ("c", "a")  # type: ignore[arg-type]
    assert batch.select(np.array([1])).texts == ("b",)  # type: ignore[arg-type]
    assert batch.select([-1]).texts == ("c",)
    for wrong in ([True, False, True], torch.tensor([True, False, True]), [3], [0.0], ["a"]):
        with pytest.raises(InputError, match="is no prompt's number: give whole numbers 0..2"):
            batch.select(wrong)  # type: ignore[arg-type]


@pytest.mark.usefixtures("unchecked")
def test_odd_positions_and_replacements_are_named(gpt2: LensModel) -> None:
    clean, corrupted = pairs(gpt2, **ioi(3))
    for positions, message in (
        (torch.zeros(3, 1), "positions are float32: give whole numbers"),
        (torch.ones(3, 1, dtype=torch.bool), "positions are bool"),
        (torch.zeros(3, 0, dtype=torch.long), "positions: there are none"),
        ([[1], [1], [1]], "positions are a list: name 'last'"),
        ("end", "positions 'end' is unknown"),
    ):
        with pytest.raises(InputError, match=message):
            icl.sweep(gpt2, clean, positions=positions)  # type: ignore[arg-type]
    narrow = icl.sweep(gpt2, clean, positions=clean.last[:, None].int())
    np.testing.assert_allclose(narrow.values, icl.sweep(gpt2, clean).values, atol=1e-6)
    for replacement, message in (
        ("mean", r"replacement is 'mean': write Mean\(batch\)"),
        ("zero", r"replacement is 'zero': write Zero\(\)"),
        ("zeros", r"replacement is 'zeros': write Zero\(\), Mean\(batch\), Interchange"),
        (corrupted, r"replacement is a TokenBatch: write Interchange\(batch\) for the same place"),
        (icl.Zero, r"replacement is the class Zero: write Zero\(\)"),
        (icl.Mean("a"), "Mean is of a str: give the prompts"),  # type: ignore[arg-type]
        (icl.Interchange(pairs(gpt2, **ioi(3))), "Interchange is of a Pairs"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=message):
            icl.sweep(gpt2, clean, replacement=replacement)  # type: ignore[arg-type]


@pytest.mark.usefixtures("unchecked")
def test_what_needs_demonstrations_refuses_other_prompts(gpt2: LensModel) -> None:
    batch, heads = pairs(gpt2, **ioi(3)).clean, [icl.Head(0, 0)]
    calls: Any = {
        "find_circuit": lambda: icl.find_circuit(gpt2, batch, heads),
        "score_edges": lambda: icl.score_edges(gpt2, batch, []),
        "label_features": lambda: icl.label_features(gpt2, batch, heads),
        "knock_out_flow": lambda: icl.knock_out_flow(gpt2, batch),
        "probe_flow": lambda: icl.probe_flow(gpt2, batch, batch),
        "reversal": lambda: icl.reversal(gpt2, batch, heads),
        "tower_reads": lambda: icl.tower_reads(gpt2, batch, heads),
        "tower_tokens": lambda: icl.tower_tokens(gpt2, batch, heads),
        "two_towers": lambda: icl.two_towers(gpt2, batch, heads),
        "add_minority_values": lambda: icl.add_minority_values(batch, heads),
        "score_heads": lambda: score_heads(gpt2, batch, n_heads=1),
        "group_intervention": lambda: icl.group_intervention(gpt2, batch, None),
    }  # fmt: skip
    for name, call in calls.items():
        with pytest.raises(InputError, match="a TokenBatch has no demonstrations and label words") as raised:
            call()
        assert type(raised.value) is InputError, name


def test_partners_of_other_lengths(gpt2: LensModel) -> None:
    """The last positions match; others do not, and the message says which rows differ."""
    given = ioi(5) | {"corrupted": ["x y z", "x", *ioi(5)["clean"][2:]]}
    clean, corrupted = pairs(gpt2, **given)
    found = icl.sweep(gpt2, clean, "z", replacement=icl.Interchange(corrupted))
    other = gpt2.run_with_cache(corrupted.tokens)[1]["blocks.1.attn.hook_z"]
    rows = torch.arange(5)

    def write(z: Tensor, hook: object) -> Tensor:
        z = z.clone()
        z[rows, clean.last, 2] = other[rows, corrupted.last, 2]
        return z

    by_hand = difference(plain(gpt2, clean, ("blocks.1.attn.hook_z", write)), clean)
    np.testing.assert_allclose(found.values[6], by_hand.numpy(), atol=2e-5)
    with pytest.raises(InputError, match=r"prompt 0 has \d+ tokens .*\(2 rows differ in length: 0, 1\)"):
        icl.sweep(gpt2, clean, "z", positions="all", replacement=icl.Interchange(corrupted))
    with pytest.raises(InputError, match="no label positions"):
        icl.sweep(gpt2, clean, "z", positions="labels")


# --- every analysis of the engine, on every architecture --------------------------------------------------------------


def test_ioi_against_hooks_by_hand(model: LensModel) -> None:
    clean, corrupted = pairs(model, **ioi(4))
    metric = difference(plain(model, clean), clean)
    everywhere = torch.arange(int(clean.last.max()) + 1).repeat(4, 1)
    for site, positions, at, cells in (
        ("z", "last", clean.last[:, None], {(0, 1): 1, (2, 3): 11}),
        ("z", "all", everywhere, {(1, 0): 4}),
        ("resid_pre", "all", everywhere, {(1, None): 1}),
        ("attn_out", "last", clean.last[:, None], {(2, None): 2}),
    ):
        swept = icl.sweep(model, clean, site, positions=positions, replacement=icl.Interchange(corrupted), verify=1)
        np.testing.assert_allclose(swept.base, metric.numpy(), atol=2e-5)
        for (layer, head), row in cells.items():
            hook = put(model, site, layer, head, at, corrupted.tokens)
            by_hand = difference(plain(model, clean, hook), clean)
            np.testing.assert_allclose(swept.values[row], by_hand.numpy(), atol=5e-5, err_msg=str(swept.cells[row]))
    paths = icl.path_patch(model, clean, senders=[icl.Head(0, 1), icl.Mlp(1)], receivers=[icl.Head(2, 1)], logits=True)
    guess = icl.attribute_paths(
        model, clean, senders=[icl.Head(0, 1), icl.Mlp(1)], receivers=[icl.Head(2, 1)], logits=True
    )
    assert paths.edges == guess.edges
    assert paths.score.shape == (4, 4, 0)  # no label positions
    direct = paths.edges.index(icl.Edge(icl.Head(0, 1), type(paths.edges[-1].receiver)()))
    np.testing.assert_allclose(paths.effect[direct], direct_effect(model, clean, 0, 1), atol=5e-5)
    assert np.isfinite(paths.to_frame()["effect"]).all()
    if not is_parallel(model):
        guessed = icl.attribute(model, clean, "z", replacement=icl.Interchange(corrupted))
        agrees = icl.agreement(guessed, icl.sweep(model, clean, "z", replacement=icl.Interchange(corrupted)))
        assert agrees.rank_correlation > 0.8
    increase = icl.log_prob_increase(model, clean)
    assert increase.heads.shape == (4, 3, 4)


def direct_effect(model: LensModel, batch: TokenBatch, layer: int, head: int) -> np.ndarray:
    """What zeroing a head's direct path to the logits changes, by hand: its output taken off the final state."""
    with torch.no_grad():
        logits, cache = model.run_with_cache(batch.tokens)
        rows, final = torch.arange(len(batch)), cache["blocks.2.hook_resid_post"].clone()
        written = cache[f"blocks.{layer}.attn.hook_z"][:, :, head] @ model.blocks[layer].attn.W_O[head]
        final[rows, batch.last] -= written[rows, batch.last]
        normed = model.ln_final(final) if hasattr(model, "ln_final") else final
        changed = model.unembed(normed)
    before, after = (difference(x[rows, batch.last], batch) for x in (logits, changed))
    return (after - before).numpy()


def test_greater_than_with_a_metric_of_ones_own(model: LensModel) -> None:
    """Probability of later years less that of earlier ones, at the first digit: a function of logits and a batch."""
    clean, corrupted = pairs(model, **greater_than(5))
    digits = torch.tensor([model.tokenizer(str(d), add_special_tokens=False).input_ids[0] for d in range(10)])

    def later(logits: Tensor, batch: TokenBatch) -> Tensor:
        first = torch.tensor([int(text.split()[6][2]) for text in batch.texts])
        probs = logits.softmax(-1)[:, digits]
        above = torch.arange(10) > first[:, None]
        return (probs * above).sum(1) - (probs * ~above).sum(1)

    found = icl.sweep(model, clean, "z", metric=later, replacement=icl.Interchange(corrupted), verify=2)
    hook = put(model, "z", 1, 2, clean.last[:, None], corrupted.tokens)
    np.testing.assert_allclose(found.base, later(plain(model, clean), clean).numpy(), atol=1e-6)
    np.testing.assert_allclose(found.values[6], later(plain(model, clean, hook), clean).numpy(), atol=1e-6)


# --- models that came another way -------------------------------------------------------------------------------------


def own_models(folder: Path) -> dict[str, Any]:
    """What users have: each class as TransformerLens builds it, nothing of ours touching it."""
    from transformer_lens.model_bridge import TransformerBridge

    hf_model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def bridge() -> Any:
        return TransformerBridge.boot_transformers(str(folder), hf_model=hf_model, tokenizer=tokenizer, device="cpu")

    def compatible() -> Any:
        model = bridge()
        model.enable_compatibility_mode(disable_warnings=True)  # folds and centres
        return model

    found: dict[str, Any] = {"bridge": bridge, "compatible bridge": compatible}
    try:
        from transformer_lens import HookedTransformer, HookedTransformerConfig
    except ImportError:
        return found

    def from_config() -> Any:
        config = HookedTransformerConfig(
            n_layers=3, d_model=32, n_ctx=64, d_head=8, n_heads=4, d_mlp=64, d_vocab=50, act_fn="gelu", seed=0,
            positional_embedding_type="rotary", normalization_type="RMS", gated_mlp=True, device="cpu",
        )  # fmt: skip
        return HookedTransformer(config)

    def processed() -> Any:  # what `HookedTransformer.from_pretrained` gives: norms folded, weights centred
        model = load_model(str(folder), backend="hooked", processing="default", device="cpu")
        del model.icl_card, model.icl_scores_are_live  # type: ignore[attr-defined]
        return model

    return found | {"a config": from_config, "processed": processed}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bridge", "compatible bridge", "a config", "processed"])
def test_a_model_the_user_has(folders: dict[str, Path], kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TransformerLens says that HookedTransformer will go, and more
        made = own_models(folders["gpt2"])
        if kind not in made:
            require_backend("hooked")
        model = made[kind]()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 50, (2, 3, 9), generator=generator)
    answers, foils = torch.randperm(50, generator=generator)[:6].view(2, 3)
    clean, corrupted = pairs(model, clean=tokens[0], corrupted=tokens[1], answers=answers, foils=foils)
    assert backend_of(model) == ("hooked" if kind in ("a config", "processed") else "bridge")
    found = icl.sweep(model, clean, "z", replacement=icl.Interchange(corrupted), verify=3)
    assert found.fallback is None
    hook = put(model, "z", 1, 2, clean.last[:, None], corrupted.tokens)
    np.testing.assert_allclose(found.values[6], difference(plain(model, clean, hook), clean).numpy(), atol=2e-5)
    states = icl.sweep(model, clean, "resid_pre", positions="all", each=True, replacement=icl.Interchange(corrupted))
    hook = put(model, "resid_pre", 2, None, torch.full((3, 1), 4), corrupted.tokens)
    by_hand = difference(plain(model, clean, hook), clean).numpy()
    np.testing.assert_allclose(states.values[2 * 9 + 4], by_hand, atol=2e-5)
    paths = icl.path_patch(model, clean, senders=[icl.Head(0, 1)], receivers=[], logits=True)
    np.testing.assert_allclose(paths.effect[0], direct_effect(model, clean, 0, 1), atol=5e-5)
    with icl.intervene(model, icl.ZeroHeads((icl.Head(1, 2),))):
        zeroed = plain(model, clean)
    assert (zeroed - plain(model, clean)).abs().max() > 1e-3
    increase = icl.log_prob_increase(model, clean)
    logits = icl.answer_logits(model, clean)
    assert np.isfinite(increase.heads).all()
    torch.testing.assert_close(logits, plain(model, clean), **CLOSE)
    require_live_scores(model)


# --- the real model, beside TransformerLens's own functions -----------------------------------------------------------


def test_ioi_on_smollm2_beside_transformer_lens(smollm2: LensModel) -> None:
    """The logit difference clean and corrupted, the heads that move it, and a path, beside TransformerLens's own."""
    from transformer_lens import patching

    clean, corrupted = pairs(smollm2, **ioi(12))
    same = (clean.last == corrupted.last).nonzero()[:, 0].tolist()
    clean, corrupted = clean.select(same), corrupted.select(same)
    width = int(clean.last.max()) + 1
    cut = slice(0, width)
    with torch.no_grad():
        clean_logits, clean_cache = smollm2.run_with_cache(
            clean.tokens[:, cut], names_filter=lambda n: n.endswith("hook_z")
        )
    rows = torch.arange(len(clean))
    before = difference(clean_logits[rows, clean.last], clean).mean()
    after = difference(plain(smollm2, corrupted), corrupted).mean()
    assert before > after + 1  # the model does the task, and the corrupted prompts leave it nothing to go by
    swept = icl.sweep(
        smollm2, corrupted, "z", positions="all", replacement=icl.Interchange(clean), layers=range(15, 30)
    )
    assert swept.base.mean() == pytest.approx(float(after), abs=1e-3)
    best = swept.to_frame().nlargest(4, "effect")
    assert best["effect_low"].min() > 0
    if not hasattr(patching, "generic_activation_patch"):
        pytest.skip("this TransformerLens has no patching functions")

    def setter(activation: Tensor, index: Any, cache: Tensor) -> Tensor:
        head = int(index[1])
        activation[:, :, head] = cache[:, :, head]
        return activation

    theirs = patching.generic_activation_patch(
        smollm2,
        corrupted.tokens[:, cut],
        clean_cache,
        lambda logits: difference(logits[rows, corrupted.last], corrupted).mean(),
        setter,
        "z",
        index_df=best[["layer", "head"]].astype(int),
    )
    np.testing.assert_allclose(best["value"], theirs.numpy(), atol=1e-4)
    their_path, norm = direct_path()
    folded = smollm2
    if norm == "frozen":  # it leaves out the norms' weights, so these go into the matrices first
        folded = copy.deepcopy(smollm2)
        folded.process_weights_(center_unembed=False, center_writing_weights=False)
    caches = [folded.run_with_cache(part.tokens[:, cut])[1] for part in (clean, corrupted)]
    sender = icl.Head(27, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that its norms are frozen
        theirs = their_path(
            folded,
            corrupted.tokens[:, cut],
            *caches,
            lambda logits: difference(logits[rows, corrupted.last], corrupted).mean(),
            src_layer=sender.layer,
            src_head=sender.head,
            component="q",
            verbose=False,
        )
    options: Any = {"positions": "all", "replacement": icl.Interchange(clean), "norm": norm}
    receivers = [icl.Head(layer, head) for layer in (28, 29) for head in range(9)]
    paths = icl.path_patch(folded, corrupted, senders=[sender], receivers=receivers, **options)
    for edge, value in zip(paths.edges, paths.values, strict=True):
        assert isinstance(edge.receiver, icl.Head)
        assert value.mean() == pytest.approx(float(theirs[edge.receiver]), abs=1e-4)
    assert np.abs(paths.effect.mean(axis=1)).max() > 1e-3


def direct_path() -> tuple[Any, Any]:
    """TransformerLens's own path patching, and what it does to norms: its 3.9 freezes them."""
    from transformer_lens import patching

    exact = getattr(patching, "get_act_patch_direct_path", None)
    if exact is not None:
        return exact, "exact"
    from transformer_lens.tools.analysis import direct_path_patching

    return direct_path_patching.get_act_patch_direct_path, "frozen"


def test_the_fields_files(smollm2: LensModel) -> None:
    if not SHARED.is_dir():
        pytest.skip("the circuit benchmarks' files are not on this machine")
    clean, corrupted = pairs(smollm2, SHARED / "ioi.csv")
    assert (len(clean), len(corrupted)) == (253, 253)
    some = [part.select(range(16)) for part in (clean, corrupted)]
    right, wrong = (difference(plain(smollm2, part), part).mean() for part in some)
    assert right > wrong + 2
    years = pairs(smollm2, SHARED / "greater_than.csv", answers="label").clean
    assert years.foil is None
    assert [smollm2.tokenizer.decode([t]) for t in years.target[:3].tolist()] == ["5", "4", "5"]  # a token a digit
