"""Every error convert raises on purpose; each message is one line that names the fix.

ConvertError
├── CheckpointError    the checkpoint is incomplete, altered, of another model or not safetensors
├── OutputError        the output exists, does not fit on the disk or cannot be written
├── OptionError        an option that cannot be used with this checkpoint
└── DownloadError      the hub did not give the checkpoint
"""


class ConvertError(Exception):
    """Root of the tree; `str(error)` is one line for the person at the terminal."""


class CheckpointError(ConvertError):
    """The checkpoint cannot be exported as it is."""


class OutputError(ConvertError):
    """The output directory cannot be written as asked."""


class OptionError(ConvertError):
    """An option has a value that does not fit."""


class DownloadError(ConvertError):
    """The hub id, revision or network is at fault."""
