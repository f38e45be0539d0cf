"""Every error the service raises on purpose; knows no HTTP (api/error_handlers.py maps classes to statuses).

    ServiceError
    ├── StartupError             settings, artifacts or device: one line for the operator, then exit
    │   └── ArtifactError        manifest or files missing, altered or of another format
    └── RequestError             has `param`: the request field at fault, or None
        ├── InvalidValueError        a field has a bad value
        │   ├── UnsupportedFieldError    a known field this server does not implement (yet)
        │   ├── ImageDecodeError         an image that cannot be read
        │   ├── ImageFetchError          a remote image that is not, or cannot be, fetched
        │   └── ContextLengthError       prompt + answer do not fit the context or the KV cache
        ├── AuthenticationError
        ├── NotFoundError            unknown model or route
        ├── TooLargeError            body, image bytes or pixels over a limit
        ├── OverloadedError          queue full: try again
        ├── NotReadyError            loading, draining or dead
        └── EngineError              our fault; never carries a cause to the client

Messages are written for the client: no exception text, path or image bytes ever goes into one.
"""


class ServiceError(Exception):
    """Root of the tree; `message` is safe to show."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class StartupError(ServiceError):
    """The service cannot start; the message is one line that names the fix."""


class ArtifactError(StartupError):
    """The model directory is missing, incomplete, altered or of another format."""


class RequestError(ServiceError):
    """Gets an error reply; `param` is the field at fault in dotted form, e.g. `messages[0].content`."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidValueError(RequestError):
    """A field has a value outside what is allowed."""


class UnsupportedFieldError(InvalidValueError):
    """A field of OpenAI's wire that would change the answer and is not implemented here."""


class ImageDecodeError(InvalidValueError):
    """An image that is no image we can read; `param` names which."""


class ImageFetchError(InvalidValueError):
    """A remote image that is not fetched, or that its host does not give; `param` names which."""


class ContextLengthError(InvalidValueError):
    """Prompt plus answer do not fit into the model's context or the KV cache."""


class AuthenticationError(RequestError):
    """No API key, or a wrong one."""


class NotFoundError(RequestError):
    """Unknown model or route."""


class TooLargeError(RequestError):
    """Body, image file or image pixels exceed a limit."""


class OverloadedError(RequestError):
    """The queue is full; the client should try again in a few seconds."""


class NotReadyError(RequestError):
    """The service is loading, draining or has lost its engine."""


class EngineError(RequestError):
    """The engine failed while working on this request."""
