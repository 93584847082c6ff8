"""Use the whole of a machine without an accelerator; nothing here changes one with."""

import ctypes
import os
import sys

import jax

# Of mallopt(3): never give memory back to the system, and take large blocks from the heap as well.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def use_every_core() -> None:
    """Make each core a device, so that batches split over devices keep all of them busy.

    Within one CPU device XLA runs much of a step (reductions, normalisations) on a single thread:
    a training step of the autoencoder takes 1.5 times as long on one device of two cores as on
    two. A step also allocates and frees its buffers; the C library returns blocks of that size to
    the system each time, and the page faults are a sixth of the time. Call it first in `main`.
    """
    if os.environ.get("XLA_FLAGS", "").find("host_platform_device_count") < 0:
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
