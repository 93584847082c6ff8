"""Errors that are the user's to mend are one line on the screen; a bug keeps its traceback.

if __name__ == "__main__":
    with reported("distill"):
        define_flags()
        app.run(main)
"""

import dis
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

_OURS = ("geojax", "experiments", "configs", "__main__")


@contextmanager
def reported(name: str) -> Iterator[None]:
    """Print `name: message` on stderr and exit with 1 where an error is a message.

    A message is: an OSError (an absent file, a full disk, a folder in use); a ValueError or a
    FloatingPointError that a `raise` of this project names; a field that a recipe has not. A
    ValueError out of a library, or any other exception, is a bug and goes through as it is.
    """
    try:
        yield
    except (OSError, ValueError, FloatingPointError, AttributeError) as error:
        if not _is_message(error):
            raise
        print(f"{name}: {_text(error)}", file=sys.stderr, flush=True)
        raise SystemExit(1) from error


def _is_message(error: Exception) -> bool:
    if isinstance(error, OSError):
        return True
    frames = list(traceback.walk_tb(error.__traceback__))
    if isinstance(error, AttributeError):
        # ml_collections says with it "Did you mean ...?", while flags are parsed.
        return frames[-1][0].f_globals["__name__"].startswith("ml_collections.")
    # Where it was raised: not what called what failed, which is ours for every bug.
    innermost = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    if innermost is None:
        return False
    code, module = innermost.tb_frame.f_code, innermost.tb_frame.f_globals["__name__"]
    # By `raise`, and not by what the line calls: int("x") in our code is a bug of ours.
    raised = code.co_code[innermost.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raised and module.split(".")[0] in _OURS


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    if isinstance(error, AttributeError):
        # ml_collections hands a KeyError on: its text is quoted twice over.
        return str(error).encode().decode("unicode_escape").strip("'\"").replace("'\n", ": ")
    return str(error)
