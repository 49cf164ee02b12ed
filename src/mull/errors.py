"""The error tree. One type per boundary; a bad sample is data, an error is an exception.

MullError
├── UsageError                 the caller's words: exit code 2
│   ├── ConfigError            a field of a config file or API call
│   ├── SpecError              a spec string: unknown name, unknown or bad parameter
│   ├── BudgetError            zero, negative, NaN, or contradicting the strategy
│   ├── InputError             a problem or response file
│   └── MissingExtraError      an optional dependency is absent; names the pip command
├── ModelLoadError             a directory that is no model, a pickle checkpoint, a bad tensor
├── EngineError                a request did not give its completions
│   ├── UnsupportedError       a parameter that this engine cannot honour
│   ├── ContextError           prompt and tokens asked for exceed the model's context
│   ├── EndpointError          an endpoint's refusal: status and a redacted body
│   │   ├── AuthError          401, 403
│   │   ├── NotFoundError      404: no such model, or no such route
│   │   └── RateLimitError     429 past the deadline
│   ├── ProtocolError          an answer that breaks the protocol (cut stream, bad JSON …)
│   ├── EngineConnectionError  refused, reset, closed
│   └── DeadlineError          the one deadline of a request passed
├── StoreError                 a run's records
│   ├── RunLockedError         another process writes this run
│   ├── ConfigChangedError     a resume with another config; names the fields
│   ├── CorruptRecordError     a row whose hash does not match
│   └── ReplayMissError        replay was asked for a sample that was never recorded
├── SandboxError               a child could not be made, or isolation is not to be had
│   └── SandboxTimeoutError    the child was killed at its time limit
└── GradeError                 a grader broke on an answer

To add one: inherit the boundary's type, say in one line when it is raised, keep it picklable
(only positional string arguments), and add it to this tree; a test compares tree and classes.
"""

from __future__ import annotations


class MullError(Exception):
    """Root of everything Mull raises on purpose."""


class UsageError(MullError, ValueError):
    """The caller asked for something that cannot be: what, what was expected, what to do."""


class ConfigError(UsageError):
    """A field of a config is unknown, missing or out of range."""


class SpecError(UsageError):
    """A spec string names something unknown or malformed."""


class BudgetError(UsageError):
    """A budget is empty, not positive, or contradicts explicit parameters."""


class InputError(UsageError):
    """A file of problems or responses cannot be read as such."""


class MissingExtraError(UsageError, ImportError):
    """An optional dependency is not installed."""

    @classmethod
    def of(cls, feature: str, extra: str) -> MissingExtraError:
        """The error for a feature that needs ``pip install 'mull[extra]'``."""
        return cls(f"{feature} needs an optional dependency: pip install 'mull[{extra}]'")


class ModelLoadError(MullError, ValueError):
    """A path does not hold a model that can be loaded safely."""


class EngineError(MullError, RuntimeError):
    """A request did not give its completions."""


class UnsupportedError(EngineError):
    """The engine cannot honour a parameter of the request, and will not ignore it."""


class ContextError(EngineError):
    """The prompt does not fit the model's context."""


class EndpointError(EngineError):
    """The endpoint refused the request."""


class AuthError(EndpointError):
    """The endpoint refused the credentials."""


class NotFoundError(EndpointError):
    """The endpoint has no such model, or no such route."""


class RateLimitError(EndpointError):
    """The endpoint kept refusing by rate until the deadline."""


class ProtocolError(EngineError):
    """The endpoint's answer breaks its own protocol."""


class EngineConnectionError(EngineError, ConnectionError):
    """The connection was refused, reset or closed."""


class DeadlineError(EngineError, TimeoutError):
    """The deadline of a request passed."""


class StoreError(MullError, RuntimeError):
    """A run's records cannot be read or written."""


class RunLockedError(StoreError):
    """Another process holds this run."""


class ConfigChangedError(StoreError):
    """The run was started with another config."""


class CorruptRecordError(StoreError):
    """A stored row does not match its hash."""


class ReplayMissError(StoreError):
    """Replay was asked for a sample that was never recorded."""


class SandboxError(MullError, RuntimeError):
    """Isolated execution failed."""


class SandboxTimeoutError(SandboxError, TimeoutError):
    """The child was killed at its time limit."""


class GradeError(MullError, RuntimeError):
    """A grader broke on an answer."""
