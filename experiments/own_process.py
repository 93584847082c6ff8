"""Work in a process of its own: its memory is all given back, and its peak is its own.

The process ends with the one that started it, however that ends, so that it holds no folder.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from absl import logging

from experiments.errors import reported


def in_own_process(name: str, work: Callable[..., Any], *args: Any) -> Any:
    """`work(*args)`, both picklable, in a fresh process; its result.

    Args:
      name: what an error of it begins with.
      work: a function of a module.
      args: what it takes.

    Raises:
      SystemExit: it ended with an error, which it has said.
      ChildProcessError: it was ended from outside.
    """
    context = multiprocessing.get_context("spawn")  # JAX has threads: no fork
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, name, work, args), daemon=True)
    process.start()
    sender.close()  # or the pipe would not end with the process
    try:
        return receiver.recv()
    except EOFError as error:
        process.join()
        code = process.exitcode or 0
        if code > 0:
            raise SystemExit(code) from error
        raise ChildProcessError(
            f"a process was ended by signal {-code} (out of memory?); the same command goes on"
        ) from error


def _send(sender: Connection, name: str, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.set_verbosity(logging.WARNING)
    with reported(name):
        sender.send(work(*args))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # the other threads are at work
