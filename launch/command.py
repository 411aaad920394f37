"""What every command shares: one clear line for bad input, exit status 1, no traceback."""

import os
import sys
from collections.abc import Callable

from absl import app, flags

_DEBUG = flags.DEFINE_bool("debug", False, "Show the full traceback of an error.")

# Errors that bad input raises on purpose, with a message written for the user.
INPUT_ERRORS = (ValueError, OSError, LookupError)


def _reported(main: Callable[[], int | None]) -> Callable[[list[str]], int]:
    def wrapped(argv: list[str]) -> int:
        try:
            if len(argv) > 1:
                raise ValueError(
                    f"unknown argument {argv[1]!r}: every option is written --name=value"
                )
            return main() or 0
        except INPUT_ERRORS as error:
            if _DEBUG.value:
                raise
            # KeyError quotes its message; the text is what the user should read.
            message = error.args[0] if isinstance(error, KeyError) and error.args else error
            print(f"error: {message}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("stopped by the user", file=sys.stderr)
            return 130

    return wrapped


def command(main: Callable[[], int | None]) -> Callable[[], None]:
    """Turn `main`, a function that reads its flags and returns an exit status, into a command.

    Input errors (ValueError, OSError, LookupError) are printed as one line and exit with status 1;
    --debug shows their traceback.
    """

    def run() -> None:
        # TensorFlow-style C++ logs of XLA are noise for the users of a command.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        app.run(_reported(main))

    return run
