"""Keeps libtpu quiet where it is installed and there is no TPU: it would look for one at length, and then complain."""

import glob
import os

VARIABLES = {
    'TPU_SKIP_MDS_QUERY': '1',  # outside of Google Cloud nobody answers what machine this is
    'TPU_ACCELERATOR_TYPE': 'v5litepod-4',  # any will do: it complains on stderr without one
    'TPU_WORKER_HOSTNAMES': 'localhost',  # likewise
}
DEVICES = ('/dev/accel*', '/dev/vfio/[0-9]*')  # up to v4, and since


def keep_quiet() -> None:
  """Sets VARIABLES where there is no TPU; what is set already stays."""
  if not any(glob.glob(pattern) for pattern in DEVICES):
    for name, value in VARIABLES.items():
      os.environ.setdefault(name, value)
