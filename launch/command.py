"""What every command shares: help that explains, one clear line for bad input, exit statuses."""

import inspect
import io
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags, logging

_DEBUG = flags.DEFINE_bool("debug", False, "Show the full traceback of an error.")

# Errors that bad input raises on purpose, with a message written for the user.
_INPUT_ERRORS = (ValueError, OSError, LookupError, FloatingPointError)


def _message(error: BaseException) -> str:
    # LookupErrors quote their message; the text is what the user should read.
    text = str(error.args[0]) if isinstance(error, LookupError) and error.args else str(error)
    return " ".join(text.split())


def _fail(error: BaseException, status: int = 1) -> NoReturn:
    print(f"error: {_message(error)}", file=sys.stderr)
    sys.exit(status)


def _tell_of_main_thread(kind: type, error: BaseException, trace: Any) -> None:
    # Threads of libraries die in numbers of what their caller raises anyway, on a full disk.
    if threading.current_thread() is threading.main_thread():
        sys.__excepthook__(kind, error, trace)


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)[1:]
        if rest:
            raise ValueError(f"unknown argument {rest[0]!r}: options are written --name=value")
    # ml_collections reports an unknown --config.key as an AttributeError.
    except (AttributeError, KeyError) as error:
        _fail(ValueError(f"a --config.KEY names no key of the configuration: {_message(error)}"), 2)
    except (flags.Error, TypeError, *_INPUT_ERRORS) as error:
        _fail(error, status=2)
    # The libraries log every file they touch, and tracebacks of what is then raised and told in one
    # line; --verbosity brings that back.
    if not (flags.FLAGS["verbosity"].present or _DEBUG.value):
        logging.set_verbosity(logging.FATAL)
        threading.excepthook = lambda _: None
        sys.unraisablehook = lambda _: None
        sys.excepthook = _tell_of_main_thread
    return argv[:1]


def command(main: Callable[[], int | None]) -> Callable[[], None]:
    """Turn `main`, a function that reads its flags and returns an exit status, into a command.

    `--help` prints the docstring and the flags of main's module. Errors of input (ValueError,
    OSError, LookupError, FloatingPointError) are one line and exit status 1, unusable options exit
    status 2; `--debug` shows tracebacks.
    """

    def show_help() -> NoReturn:
        module = inspect.getmodule(main)
        name = sys.argv[0] if main.__module__ == "__main__" else main.__module__
        print(inspect.getdoc(module) or "", flags.FLAGS.module_help(name), sep="\n\n")
        sys.exit(0)

    def reported(_: Any) -> int:
        try:
            return main() or 0
        except _INPUT_ERRORS as error:
            if _DEBUG.value:
                raise
            _fail(error)
        except MemoryError as error:
            if _DEBUG.value:
                raise
            _fail(MemoryError(f"the memory does not suffice ({error})"))
        except KeyboardInterrupt:
            print("stopped by the user", file=sys.stderr)
            return 130

    def run() -> None:
        if {"--help", "-help", "-h"} & set(sys.argv[1:]):
            show_help()
        # Names of files may be no text.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        # C++ logs of XLA are noise for the users of a command.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        app.run(reported, flags_parser=_parse)

    return run
