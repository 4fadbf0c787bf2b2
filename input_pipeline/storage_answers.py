"""What requests to storage fail by: what may pass, what it means in words, and how a wait is told. Imports nothing of
the house."""

import sys
import time
from typing import Any

REQUEST_SECONDS = 60  # without an answer, after which a request counts as lost
TELL_AGAIN = 60  # seconds between two lines that say that storage is slow
TRANSIENT = frozenset((408, 429, 500, 502, 503, 504))  # HTTP's codes for what may pass
# The exceptions for what may pass, by name: their libraries need not be installed.
TRANSIENT_NAMES = frozenset((
    'TimeoutError', 'ServerTimeoutError', 'ClientError', 'ClientOSError', 'ClientPayloadError', 'ConnectionError',
    'ClientConnectorError', 'ClientConnectorDNSError', 'ServerDisconnectedError', 'FSTimeoutError', 'ProxyError',
    'ChecksumError', 'ConnectionResetError', 'ChunkedEncodingError', 'ReadTimeout', 'TransportError', 'RefreshError',
    'EndpointConnectionError', 'ServiceRequestError'))
_told = {'last': float('-inf')}  # when a line last said that storage is slow


def tell(text: str) -> None:
  """One line on stderr, at most once in TELL_AGAIN seconds."""
  if time.monotonic() - _told['last'] > TELL_AGAIN:
    _told['last'] = time.monotonic()
    print(f'bert-jax: storage is slow: {text}', file=sys.stderr, flush=True)


def code_of(error: BaseException) -> int | None:
  """The HTTP code that an error stands for, where it tells."""
  code: Any = getattr(error, 'code', None) or getattr(error, 'status', None)
  if isinstance(error, PermissionError) or str(error).startswith('Forbidden'):
    return 403
  return int(code) if str(code).isdigit() else None


def may_pass(error: BaseException) -> bool:
  code = code_of(error)
  if code is not None:
    return code in TRANSIENT
  return any(kind.__name__ in TRANSIENT_NAMES for kind in type(error).__mro__)


def meaning(error: BaseException) -> str:
  """An error of a library as a part of a sentence."""
  code = code_of(error)
  if code == 401:
    return f'no credentials that the storage accepts ({said(error)}): log in, or run as an account that has access'
  if code == 403:
    return f'no right to do this ({said(error)}): grant it to the account'
  if code is not None:
    return f'the storage answers {code} ({said(error)})'
  if may_pass(error):
    return f'the storage cannot be reached ({said(error)})'
  return said(error)


def said(error: BaseException) -> str:
  """The last line of what an error says: with gcsfs the storage's own words."""
  lines = str(error).strip().splitlines()
  return lines[-1][:300] if lines else type(error).__name__
