"""The embedded checkpoint answers in English, float32 and int8, and is judged on stories that it never saw."""

from __future__ import annotations

import importlib.util
import itertools
import re
import sys
import types
from importlib import resources
from pathlib import Path

import pytest

from flexserve_sw.errors import UserError
from flexserve_sw.llm.checkpoint import Checkpoint
from flexserve_sw.llm.load import default_checkpoint, held_out_text, read_checkpoint
from flexserve_sw.llm.reference import Arithmetic, complete, perplexity
from tests.sw.llm import tiny

PROMPT = "Once upon a time"
SIZE_LIMIT = 2_000_000
TRAINING_SEED = 2603


@pytest.fixture(scope="module")
def model() -> Checkpoint:
    return default_checkpoint()


@pytest.fixture(scope="module")
def stories() -> types.ModuleType:
    path = Path(__file__).parents[3] / "training" / "stories.py"
    spec = importlib.util.spec_from_file_location("training_stories", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_answers_in_sentences_made_of_words_of_its_stories(
    model: Checkpoint, stories: types.ModuleType, arithmetic: Arithmetic
) -> None:
    answer = complete(model, PROMPT, 100, arithmetic=arithmetic)
    assert len(answer.tokens) >= 60
    assert answer.text.startswith("Once upon a time, ")
    told = itertools.islice(stories.stories(seed=1, held_out=False), 400)
    words = set(re.findall(r"[A-Za-z]+", " ".join(told)))
    whole = answer.text[: answer.text.rindex(" ")]
    assert set(re.findall(r"[A-Za-z]+", whole)) <= words
    assert len(re.findall(r"[.!?]", whole)) >= 5


@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
@pytest.mark.parametrize(("name", "pronoun", "other"), [("Mia", "she", "he"), ("Hugo", "he", "she")])
def test_keeps_the_name_and_the_pronoun_of_the_prompt(
    model: Checkpoint, arithmetic: Arithmetic, name: str, pronoun: str, other: str
) -> None:
    kind = "girl" if pronoun == "she" else "boy"
    prompt = f"Once upon a time, there was a little {kind} named {name}."
    answer = complete(model, prompt, 100, arithmetic=arithmetic).text.removeprefix(prompt)
    words = re.findall(r"[a-z]+", answer.lower())
    assert name.lower() in words
    assert pronoun in words
    assert other not in words


def test_perplexity_on_held_out_stories_is_low_and_int8_costs_next_to_nothing(model: Checkpoint) -> None:
    texts = held_out_text()[:8]
    whole, quantised = perplexity(model, texts, arithmetic="float32"), perplexity(model, texts, arithmetic="int8")
    assert 1.0 < whole < 1.4
    assert quantised / whole < 1.02
    shuffled = [" ".join(sorted(text.split())) for text in texts[:4]]
    assert perplexity(model, shuffled) > 20 * whole


def test_held_out_stories_are_what_the_grammar_tells_and_training_never_told_their_casts(
    stories: types.ModuleType,
) -> None:
    texts = held_out_text()
    assert texts == list(itertools.islice(stories.stories(seed=TRAINING_SEED, held_out=True), len(texts)))
    told = set(itertools.islice(stories.stories(seed=TRAINING_SEED, held_out=False), 5000))
    assert not told & set(texts)
    sentences = {sentence for story in told for sentence in story.split(". ")}
    assert len(sentences) > 5000


def test_package_data_is_small() -> None:
    folder = resources.files("flexserve_sw.llm") / "data"
    names = {"config.json", "model.safetensors", "tokenizer.bin", "held_out.txt"}
    assert names <= {file.name for file in folder.iterdir()}
    assert sum(len((folder / name).read_bytes()) for name in names) < SIZE_LIMIT


def test_prompts_with_any_characters_are_answered(model: Checkpoint) -> None:
    answer = complete(model, "Zoë 猫 123!", 4)
    assert answer.text.startswith("Zoë 猫 123!")


def test_tokenizer_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"280 tokens but checkpoint \(embedded\) has 768"):
        read_checkpoint(tokenizer=tiny.write_tokenizer(tmp_path / "t.bin"))
