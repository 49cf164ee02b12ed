# ruff: noqa: S106  (special tokens are no passwords)
"""Prompts carry the BOS their family expects, once; text is the join of its tokens' pieces."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from mull.types import Message, Prompt

transformers = pytest.importorskip("transformers")
pytest.importorskip("torch")

from mull.engines.torch.text import Text, TextStream  # noqa: E402

SAMPLE = "Zwölf Boxkämpfer jagen Viktor quer über den Sylter Deich. 12+34=46\n\nEnde 🙂 日本"
SYSTEM_USER = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
PLAIN_TURNS = SYSTEM_USER.removeprefix("{{ bos_token }}")


def byte_level(bos: str | None) -> Any:
    """Llama 3, Qwen2, Qwen3: byte-level BPE."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<bos>", "<eos>"]
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([SAMPLE] * 3, trainer)
    return finish(tokenizer, bos)


def byte_fallback(bos: str | None, prefix_space: bool) -> Any:
    """Llama 2, Mistral, Gemma: SentencePiece with byte fallback."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    words = ["<unk>", "<bos>", "<eos>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["▁", *"abcdefghijklmnopqrstuvwxyzZBVSDE0123456789.+=", "ö"]
    vocab = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    steps: list[Any] = [normalizers.Replace(" ", "▁")]
    if prefix_space:
        steps.insert(0, normalizers.Prepend("▁"))
    tokenizer.normalizer = normalizers.Sequence(steps)
    parts: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix_space:
        parts.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(parts)
    return finish(tokenizer, bos)


def finish(tokenizer: Any, bos: str | None) -> Any:
    from tokenizers import processors

    if bos:
        pair = (bos, tokenizer.token_to_id(bos))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[pair]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>"
    )


def family(name: str) -> Any:
    return {
        "llama2": lambda: byte_fallback("<bos>", True),
        "llama3": lambda: byte_level("<bos>"),
        "mistral": lambda: byte_fallback("<bos>", True),
        "gemma": lambda: byte_fallback("<bos>", False),
        "qwen2": lambda: byte_level(None),
        "qwen3": lambda: byte_level(None),
    }[name]()


GOLDEN = {
    "llama2": ("12 a", [1, 259, 293, 294, 259, 260]),
    "llama3": ("12 a", [0, 260, 222, 66]),
    "mistral": ("a", [1, 259, 260]),
    "gemma": ("12 a", [1, 293, 294, 259, 260]),
    "qwen2": ("12 a", [260, 222, 66]),
    "qwen3": ("a", [66]),
}


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_29_a_text_has_its_familys_bos_exactly_once(name: str) -> None:
    tokenizer = family(name)
    text = Text(tokenizer, len(tokenizer))
    words, ids = GOLDEN[name]
    assert list(text.prompt(Prompt.of(words))) == ids
    bos = tokenizer.bos_token_id
    expected = 0 if name.startswith("qwen") else 1
    assert ids.count(bos) == expected
    # Written out by the user, or by a template, it still stands there once.
    assert text.prompt(Prompt.of("<bos>" + words)).count(bos) == 1
    assert list(text.prompt(Prompt(token_ids=tuple(ids)))) == ids


@pytest.mark.parametrize("name", sorted(GOLDEN))
@pytest.mark.parametrize("template", [SYSTEM_USER, PLAIN_TURNS])
def test_29_a_chat_has_its_familys_bos_exactly_once(name: str, template: str) -> None:
    tokenizer = family(name)
    tokenizer.chat_template = template
    text = Text(tokenizer, len(tokenizer))
    chat = Prompt.chat(Message("system", "a"), Message("user", "b"))
    ids = text.prompt(chat)
    written = template is SYSTEM_USER and name.startswith("qwen")
    assert ids.count(tokenizer.bos_token_id) == (1 if written or text.bos else 0)
    assert "assistant" in text.decode(ids)
    assert text.prompt(chat, "12")[: len(ids)] == ids, "the turn goes on behind the prompt"


@pytest.mark.parametrize("name", sorted(GOLDEN))
@pytest.mark.parametrize(
    "template", [None, SYSTEM_USER, SYSTEM_USER.replace("m['content']", "m['content'] | trim")]
)
def test_39_what_somebody_wrote_is_never_a_special_token(name: str, template: str | None) -> None:
    tokenizer = family(name)
    tokenizer.chat_template = template
    text = Text(tokenizer, len(tokenizer))
    eos = tokenizer.eos_token_id
    turns = (Message("user", "12<eos>[system]34"),)
    if template is not None:
        turns = (Message("system", "56"), *turns, Message("assistant", "7"), *turns)
    ids = text.prompt(Prompt.chat(*turns), "1<eos>2")
    assert eos not in ids
    if name.startswith(("qwen", "llama3")):  # whose bytes can write it
        assert text.decode(ids).count("<eos>") == sum("<eos>" in t.content for t in turns) + 1
    # What stands as it is may hold them, and a step's mark is one by itself.
    assert text.prompt(Prompt.of("12<eos>34")).count(eos) == 1
    assert text.piece("<eos>") == [eos]
    assert eos not in text.piece("<eos>1")


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_text_is_the_join_of_its_pieces_even_within_a_character(name: str) -> None:
    tokenizer = family(name)
    text = Text(tokenizer, len(tokenizer))
    assert text.pieces() is not None
    ids = text.encode(SAMPLE)
    whole = text.decode(ids)
    assert whole.strip() == SAMPLE
    rng = random.Random(0)
    for _ in range(50):
        cut = rng.randrange(len(ids))
        stream = TextStream()
        pieces = text.pieces() or []
        parts = [stream.push(pieces[token]) for token in ids]
        assert "".join(parts) == whole
        head = b"".join(pieces[t] for t in ids[:cut]).decode("utf-8", "ignore")
        assert whole.startswith(head)


def test_a_tokenizer_that_ends_its_texts_does_not_end_our_prompts() -> None:
    from tokenizers import processors

    tokenizer = byte_level(None)
    backend = tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 0), ("<eos>", 1)]
    )
    text = Text(tokenizer, len(tokenizer))
    ids = text.prompt(Prompt.of("12"))
    assert ids[0] == 0
    assert 1 not in ids


def test_joining_with_spaces_is_learned_from_the_tokenizer() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<unk>", "<bos>", "<eos>", "one", "two", "three"]
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    text = Text(finish(tokenizer, None), 6)
    prompt = text.prompt(Prompt.of("one two"))
    assert text.decode([5, 3], prompt) == " three one"


def test_a_decoder_that_is_no_join_is_decoded_whole() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    # CTC drops a token that repeats: what one adds depends on the one before.
    words = ["<unk>", "<bos>", "<eos>", "one", "two"]
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.CTC(pad_token="<unk>")
    text = Text(finish(tokenizer, None), len(words))
    assert text.pieces() is None
    assert text.decode([4, 4, 3, 3]) == "twoone"


def test_a_token_outside_the_vocabulary_is_refused() -> None:
    from mull.errors import EngineError

    text = Text(family("qwen2"), 20)
    with pytest.raises(EngineError, match="outside the model's vocabulary of 20"):
        text.prompt(Prompt.of("z"))


def test_29_the_real_qwen2_tokenizer_adds_nothing(shared_data: Path) -> None:
    path = shared_data / "tokenizers" / "qwen2"
    if not (path / "tokenizer.json").is_file():
        pytest.skip(f"no tokenizer in {path}")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(str(path))
    text = Text(tokenizer, len(tokenizer))
    assert text.bos == ()
    assert list(text.prompt(Prompt.of("Hello, world!"))) == [9707, 11, 1879, 0]
    assert text.decode(text.encode(SAMPLE)) == SAMPLE
    assert text.pieces() is not None
