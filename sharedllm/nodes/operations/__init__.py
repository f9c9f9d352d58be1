"""What an operator needs of every role: settings, logs, metrics, and answers to probes.

What must not happen here: knowing what a role does, importing torch or a web framework, printing a secret.
"""

from sharedllm.nodes.operations import logs, metrics
from sharedllm.nodes.operations.errors import BadSetting, PortTaken
from sharedllm.nodes.operations.health import Health
from sharedllm.nodes.operations.quantities import format_bytes, format_duration, parse_bytes, parse_duration
from sharedllm.nodes.operations.redaction import redact
from sharedllm.nodes.operations.settings import default_settings_path, read_settings, settings_of

__all__ = [
    "BadSetting",
    "Health",
    "PortTaken",
    "default_settings_path",
    "format_bytes",
    "format_duration",
    "logs",
    "metrics",
    "parse_bytes",
    "parse_duration",
    "read_settings",
    "redact",
    "settings_of",
]
