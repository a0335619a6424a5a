import pytest

from footprint_pipeline.errors import RequestError, first_line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("the reason\nand much more"), "the reason"),
        (ValueError("\n  the reason\r\n"), "the reason"),
        (ValueError("this failed:\n\n  for a reason\nand more"), "this failed: for a reason"),
        (ValueError("this failed:\n##### File a.bin #####\n[Errno 5] the reason"), "this failed: [Errno 5] the reason"),
        (ValueError("this failed:\n"), "this failed:"),
        (RequestError("The problem.", fix="The way out."), "The problem."),
        (RuntimeError(), "RuntimeError"),
        (OSError(" \n"), "OSError"),
    ],
)
def test_the_first_line_of_an_error_says_something(error: Exception, said: str) -> None:
    assert first_line(error) == said
