import zlib

import pytest

from llama_adapter.errors import UserError
from llama_adapter.file_formats.damage import decoding, first_line, reading


class PanicException(BaseException):
    """As a reader written in Rust raises it."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (zlib.error("Error -3. "), "(Error -3)"),
        (KeyError("width"), "(KeyError: 'width')"),
        (StopIteration(), "(StopIteration)"),
        (PanicException("unreachable"), "(unreachable)"),
        (ValueError("one\ntwo"), "(one)"),
    ],
)
def test_whatever_a_reader_raises_names_file_and_damage(error, said):
    with pytest.raises(UserError) as caught, reading("a.pth", "checkpoint"):
        raise error
    assert str(caught.value) == f"'a.pth' is damaged or no checkpoint {said}. Use a fresh copy."


def test_media_are_said_in_their_words():
    with pytest.raises(UserError) as caught, decoding("a.png", "an image"):
        raise OSError("cut short")
    assert str(caught.value) == "'a.png' cannot be read as an image: cut short. Replace the file."


def test_our_own_errors_and_the_users_stop_go_through():
    with pytest.raises(UserError, match="as it was"), reading("a", "file"):
        raise UserError("as it was")
    with pytest.raises(KeyboardInterrupt), reading("a", "file"):
        raise KeyboardInterrupt


def test_long_messages_are_cut():
    assert len(first_line(ValueError("x" * 1000))) == 200
